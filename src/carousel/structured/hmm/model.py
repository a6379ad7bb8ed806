"""Hidden Markov models with scikit-learn's verbs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from carousel.errors import CheckpointError, ConfigError, NotFittedError, ShapeError, explain, unknown_name
from carousel.structured.hmm import checks
from carousel.structured.hmm.counts import counted
from carousel.structured.hmm.emissions import Categorical, Emissions, Multinomial, Parameters, normalised
from carousel.structured.hmm.gaussian import Gaussian, GaussianMixture
from carousel.structured.hmm.sequences import Joined, Lengths, join
from carousel.structured.partition import best_path, log_partition
from carousel.structured.saved import StrPath, read_model, write_model
from carousel.structured.steps import Steps, follow_on

__all__ = ["HMM"]

Algorithm = Literal["viterbi", "posterior"]
_ALGORITHMS = ("viterbi", "posterior")
_KINDS = {"categorical": Categorical, "gaussian": Gaussian, "mixture": GaussianMixture, "multinomial": Multinomial}
_OPTIONS = ("num_states", "restarts", "max_iter", "tol", "smoothing", "warm_start", "seed")


class HMM:
    r"""A hidden Markov model: a chain of states that nobody sees, each of which gives off what is seen.

    .. math:: p(x, y) = \pi_{y_1} \prod_{t > 1} A_{y_{t-1}, y_t} \prod_t b_{y_t}(x_t)

    Sequences come as a list of arrays, or as one array with `lengths`, as hmmlearn takes them; results come back the same way.
    Learning without states is Baum and Welch's EM: the likelihood never falls.

    Args:
        num_states: K.
        emissions: ``categorical``, ``gaussian``, ``mixture``, ``multinomial``, or an object of one of those classes with its
            options.
        restarts: EM starts so often from other numbers; the best end is kept.
        max_iter: EM's iterations, at most.
        tol: EM stops when an iteration gains less than this, in nats a step.
        smoothing: counts added to each start, transition and symbol. With EM, what never falls is then the posterior.
        warm_start: EM starts from the parameters there are, once.
        seed: of all that is drawn.

    Attributes:
        start_: (K,), π.
        transition_: (K, K), A, from the row's state to the column's.
        emission_: the emissions' parameters, by name.
        history_: the log-likelihood (with smoothing, the posterior) before each of EM's iterations, and at the end; in nats.

    Raises:
        ConfigError: an option is not possible.

    Example:
        >>> model = HMM(2).fit([[0, 0, 1, 1], [0, 1, 1]], states=[[0, 0, 1, 1], [0, 1, 1]])
        >>> model.predict([0, 0, 0, 1])
        array([0, 0, 0, 1])
        >>> model.transition_.round(2)
        array([[0.33, 0.67],
               [0.  , 1.  ]])

    References:
        Rabiner (1989), "A Tutorial on Hidden Markov Models".
    """

    def __init__(
        self,
        num_states: int,
        emissions: str | Emissions = "categorical",
        *,
        restarts: int = 1,
        max_iter: int = 100,
        tol: float = 1e-6,
        smoothing: float = 0.0,
        warm_start: bool = False,
        seed: int = 0,
    ) -> None:
        if num_states < 1 or restarts < 1:
            got = f"num_states={num_states}, restarts={restarts}"
            raise ConfigError(explain("HMM: num_states and restarts must be positive.", got=got))
        if max_iter < 0 or not tol >= 0 or not smoothing >= 0:
            got = f"max_iter={max_iter}, tol={tol}, smoothing={smoothing}"
            raise ConfigError(explain("HMM: max_iter, tol and smoothing must not be negative.", got=got))
        if isinstance(emissions, str):
            if emissions not in _KINDS:
                raise ConfigError("HMM: " + unknown_name("kind of emissions", emissions, _KINDS))
            self.emissions: Emissions = _KINDS[emissions]()
        else:
            self.emissions = emissions
        self.num_states = num_states
        self.restarts, self.max_iter, self.tol = restarts, max_iter, tol
        self.smoothing, self.warm_start, self.seed = smoothing, warm_start, seed
        self.history_: list[float] = []
        self._start: Tensor | None = None
        self._transition: Tensor | None = None
        self._emission: Parameters | None = None

    # --- learning -----------------------------------------------------------------------------------------------------

    def fit(self, X: Any, states: Any = None, lengths: Lengths = None) -> HMM:
        """Learn from sequences: by counts where every state is told, by EM where some or none are.

        Args:
            X: sequences.
            states: the states of every step, in the shape of the sequences; -1 where it is not known. None: none is.
            lengths: of the sequences, where X is one array.

        Raises:
            DataError: observations are of another kind, or a state is not one.
            ShapeError: lengths or states do not fit.
        """
        data = join(X, lengths)
        told = None if states is None else checks.told_states(states, data, lengths, self.num_states)
        if told is not None and bool((told >= 0).all()) and len(told):
            options = (self.emissions, self.num_states, self.smoothing, max(self.max_iter, 1), self.seed)
            observations = self.emissions.check(data.values, None)
            self._start, self._transition, self._emission = counted(data, observations, told, *options)
            self.history_ = []
            return self
        if self.warm_start and self._emission is not None:
            self._run(data, self.emissions.check(data.values, self._emission), told)
            return self
        observations = self.emissions.check(data.values, None)
        best: tuple[float, Tensor, Tensor, Parameters, list[float]] | None = None
        for turn in range(self.restarts):
            self._begin(observations, np.random.default_rng((self.seed, turn)), told)
            self._run(data, observations, told)
            if best is None or self.history_[-1] > best[0]:
                start, transition, emission = self._parameters()
                best = (self.history_[-1], start, transition, emission, self.history_)
        if best is not None:
            _, self._start, self._transition, self._emission, self.history_ = best
        return self

    def set_parameters(self, start: Any, transition: Any, **emission: Any) -> HMM:
        """Take parameters as they are.

        Args:
            start: (K,), probabilities.
            transition: (K, K), probabilities, from the row's state to the column's.
            emission: the emissions' parameters by name: ``symbols``; or ``means``, ``covariances``; and ``weights``.

        Raises:
            ShapeError: an axis disagrees, or a name is missing or unknown.
            ConfigError: probabilities are negative or do not sum to 1.
        """
        given = {name: torch.tensor(np.asarray(value, dtype=np.float64)) for name, value in emission.items()}
        first, following = (torch.tensor(np.asarray(value, dtype=np.float64)) for value in (start, transition))
        everything = {"start": first, "transition": following, **given}
        wanted = {"start": ("K",), "transition": ("K", "K"), **self.emissions.shapes(given)}
        sizes: dict[int | str, int] = {"K": self.num_states}
        if isinstance(self.emissions, GaussianMixture):
            sizes["M"] = self.emissions.components
        checks.shapes(everything, wanted, sizes)
        checks.chances(everything)
        self._start, self._transition, self._emission = first, following, given
        return self

    def _begin(self, observations: Tensor, generator: np.random.Generator, told: Tensor | None) -> None:
        K = self.num_states
        # Not even: with even transitions and states alike, EM would never leave.
        self._start = torch.full((K,), 1.0 / K, dtype=torch.float64)
        noise = torch.from_numpy(generator.dirichlet(np.full(K, 1.0), K))
        self._transition = 0.5 / K + 0.5 * noise
        self._emission = self.emissions.begin(observations, K, generator)
        if told is not None and bool((told >= 0).any()):
            known = told >= 0
            shares = torch.nn.functional.one_hot(told[known], K).double()
            # A little of everywhere: what is told may be little, and not all of what a state gives off.
            everything = torch.full((len(told), K), 0.1 / K, dtype=torch.float64)
            everything[known] += shares
            self._emission = self.emissions.update(self._emission, observations, everything, self.smoothing)

    def _run(self, data: Joined, observations: Tensor, told: Tensor | None) -> None:
        """EM."""
        self.history_ = []
        steps = max(len(data.values), 1)
        for turn in range(self.max_iter + 1):
            start, transition, emission = self._parameters()
            total, posteriors, firsts, pairs = self._expect(data, observations, told)
            self.history_.append(total + self._log_prior())
            if not np.isfinite(total) or turn == self.max_iter:
                break
            if turn and self.history_[-1] - self.history_[-2] < self.tol * steps:
                break
            self._start = normalised(firsts + self.smoothing, start)
            self._transition = normalised(pairs + self.smoothing, transition)
            self._emission = self.emissions.update(emission, observations, posteriors, self.smoothing)

    def _log_prior(self) -> float:
        if not self.smoothing:
            return 0.0
        start, transition, emission = self._parameters()
        own = float(self.smoothing * (start.log().sum() + transition.log().sum()))
        return own + self.emissions.log_prior(emission, self.smoothing)

    # --- what is asked of it ------------------------------------------------------------------------------------------

    def predict(self, X: Any, lengths: Lengths = None, algorithm: Algorithm = "viterbi") -> Any:
        """The states: of the best path, or at each step the most probable one.

        Args:
            X: sequences.
            lengths: of the sequences, where X is one array.
            algorithm: ``viterbi`` or ``posterior``.

        Raises:
            ConfigError: an unknown algorithm.
            DataError: observations are of another kind than those learned from.
            NotFittedError: nothing was learned.
        """
        return self.decode(X, lengths, algorithm)[1]

    def decode(self, X: Any, lengths: Lengths = None, algorithm: Algorithm = "viterbi") -> tuple[float, Any]:
        """The states, and a logarithm in nats: of the best paths' probability with the observations, or of the latter alone.

        Args:
            X: sequences.
            lengths: of the sequences, where X is one array.
            algorithm: ``viterbi`` or ``posterior``.

        Raises:
            ConfigError: an unknown algorithm.
            DataError: observations are of another kind than those learned from.
            NotFittedError: nothing was learned.
        """
        if algorithm not in _ALGORITHMS:
            raise ConfigError("HMM: " + unknown_name("algorithm", algorithm, _ALGORITHMS))
        data, observations = self._asked(X, lengths)
        if algorithm == "posterior":
            total, posteriors, _, _ = self._expect(data, observations, None)
            return total, data.split(posteriors.argmax(1).numpy())
        logs = self.emissions.log_prob(self._parameters()[2], observations)
        path, scores = best_path(*self._scores(logs), self._steps(data))
        return float(scores.sum()), data.split(path.numpy())

    def predict_proba(self, X: Any, lengths: Lengths = None) -> Any:
        """The probability of each state at each step, given the whole sequence: (N, K), or a list of such.

        Args:
            X: sequences.
            lengths: of the sequences, where X is one array.

        Raises:
            NotFittedError: nothing was learned.
        """
        return self.score_samples(X, lengths)[1]

    def score_samples(self, X: Any, lengths: Lengths = None) -> tuple[float, Any]:
        """The log-likelihood, in nats, and what :meth:`predict_proba` gives.

        Args:
            X: sequences.
            lengths: of the sequences, where X is one array.

        Raises:
            NotFittedError: nothing was learned.
        """
        data, observations = self._asked(X, lengths)
        total, posteriors, _, _ = self._expect(data, observations, None)
        return total, data.split(posteriors.numpy())

    def score(self, X: Any, lengths: Lengths = None) -> float:
        """The log-likelihood of all sequences together, in nats.

        Args:
            X: sequences.
            lengths: of the sequences, where X is one array.

        Raises:
            NotFittedError: nothing was learned.
        """
        data, observations = self._asked(X, lengths)
        logs = self.emissions.log_prob(self._parameters()[2], observations)
        with torch.no_grad():
            return float(log_partition(*self._scores(logs), self._steps(data), None).sum())

    def sample(self, length: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """A sequence drawn from the model: observations and states.

        Args:
            length: in steps.
            seed: of what is drawn.

        Raises:
            NotFittedError: nothing was learned.
        """
        start, transition, emission = self._parameters()
        generator = np.random.default_rng(seed)
        running = np.vstack([start.numpy(), transition.numpy()]).cumsum(1)
        chances, states, state = generator.random(length), np.zeros(length, dtype=np.int64), -1
        for t in range(length):
            line = running[state + 1]
            states[t] = state = int(np.searchsorted(line, chances[t] * line[-1], side="right"))
        return self.emissions.draw(emission, states, generator), states

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return self.num_states**2 - 1 + self.emissions.free(self._parameters()[2])

    def aic(self, X: Any, lengths: Lengths = None) -> float:
        """Akaike's criterion: less is better. Sequences as for :meth:`score`."""
        return 2 * self.num_parameters - 2 * self.score(X, lengths)

    def bic(self, X: Any, lengths: Lengths = None) -> float:
        """Schwarz's criterion, with steps as observations: less is better. Sequences as for :meth:`score`."""
        steps = len(join(X, lengths).values)
        return self.num_parameters * float(np.log(max(steps, 1))) - 2 * self.score(X, lengths)

    # --- on disk ------------------------------------------------------------------------------------------------------

    def save(self, directory: StrPath) -> None:
        """Write the model to a directory: `model.json` and `model.safetensors`.

        Args:
            directory: where; a model that stands there is replaced.

        Raises:
            NotFittedError: nothing was learned.
            OutputError: it cannot be written.
        """
        start, transition, emission = self._parameters()
        options = {name: getattr(self, name) for name in _OPTIONS}
        options["emissions"] = {"kind": self.emissions.kind, **vars(self.emissions)}
        write_model(directory, "hmm", options, {"start": start, "transition": transition, **emission})

    @classmethod
    def load(cls, directory: StrPath) -> HMM:
        """Read what :meth:`save` wrote. Runs no code.

        Args:
            directory: of the model.

        Raises:
            CheckpointError: it is not a saved HMM, or damaged.
            OSError: it is not there.
        """
        options, tensors = read_model(directory, "hmm")
        try:
            emissions = dict(options.pop("emissions"))
            model = cls(emissions=_KINDS[emissions.pop("kind")](**emissions), **options)
            start, transition = tensors.pop("start"), tensors.pop("transition")
            return model.set_parameters(start, transition, **tensors)
        except (ConfigError, ShapeError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise CheckpointError(explain(f"{directory}: this is not a saved HMM.", got=f"{error}"[:300])) from error

    # --- inside -------------------------------------------------------------------------------------------------------

    def _parameters(self) -> tuple[Tensor, Tensor, Parameters]:
        if self._start is None or self._transition is None or self._emission is None:
            raise NotFittedError(explain("This HMM has not learned anything yet.", advice="call fit, or load a saved one"))
        return self._start, self._transition, self._emission

    @property
    def start_(self) -> np.ndarray:
        """(K,)."""
        return self._parameters()[0].numpy()

    @property
    def transition_(self) -> np.ndarray:
        """(K, K)."""
        return self._parameters()[1].numpy()

    @property
    def emission_(self) -> dict[str, np.ndarray]:
        """By name."""
        return {name: value.numpy() for name, value in self._parameters()[2].items()}

    def _asked(self, X: Any, lengths: Lengths) -> tuple[Joined, Tensor]:
        emission = self._parameters()[2]
        data = join(X, lengths)
        return data, self.emissions.check(data.values, emission)

    def _scores(self, logs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        start, transition, _ = self._parameters()
        return logs[None], transition.log(), start.log(), None

    def _steps(self, data: Joined) -> Steps:
        return follow_on(torch.from_numpy(data.lengths))

    def _expect(self, data: Joined, observations: Tensor, told: Tensor | None) -> tuple[float, Tensor, Tensor, Tensor]:
        """The log-likelihood; expected states (N, K), starts (K,) and transitions (K, K)."""
        logs = self.emissions.log_prob(self._parameters()[2], observations)
        if told is not None:
            states = torch.arange(self.num_states)
            logs = logs.masked_fill((told[:, None] >= 0) & (told[:, None] != states), -torch.inf)
        leaves = [scores.requires_grad_() for scores in self._scores(logs)[:3]]
        found = log_partition(leaves[0], leaves[1], leaves[2], None, self._steps(data), None).sum()
        posteriors, pairs, starts = torch.autograd.grad(found, leaves)
        return float(found.detach()), posteriors[0], starts, pairs
