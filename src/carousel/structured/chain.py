"""Linear chains: what all paths of a batch of sequences add up to, and which are best."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from carousel.engines.here import compiled_here
from carousel.errors import ConfigError, DTypeError, ShapeError, explain
from carousel.structured.partition import best_path, log_partition, mask_of, tag_scores
from carousel.structured.semirings import Expectation, Folded, KBest, LogSum, Semiring, fold, trace
from carousel.structured.steps import Steps, dense, pack

__all__ = ["LinearChain"]

_Four = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class LinearChain:
    r"""A batch of sequences of states, each path with a score, and a probability in proportion to its exponential.

    .. math:: s(y) = a_{y_1} + \sum_t u_{t, y_t} + \sum_{t > 1} w_{y_{t-1}, y_t} + b_{y_T}, \qquad p(y) = e^{s(y)} / Z

    Masked steps are left out, wherever they stand: the step before one is followed by the step after it. A row without
    steps has one path, of score 0. A score of minus infinity forbids. Where a row has no path left, log Z is minus infinity,
    and gradients and marginals are 0.

    In float32 and float64 on a CPU, sums, marginals and best paths are compiled loops; anything else runs in torch operations.

    Args:
        unary: (B, T, K), u. What stands in masked steps is not read.
        transition: (K, K), w, from the row's state to the column's.
        start: (K,), a; 0 by default.
        end: (K,), b; 0 by default.
        mask: (B, T), bool, True where data is real; everywhere by default.

    Raises:
        ShapeError: an axis disagrees.
        DTypeError: the mask is not of booleans, or the scores are of different types.

    Gradients:
        Of everything but paths and samples, exact, to any order; from the second on they are computed by torch's operations.

    Example:
        >>> chain = LinearChain(torch.zeros(1, 3, 2), torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))
        >>> chain.log_partition().exp()  # 0 is never followed by 1: 000, 100, 110, 111
        tensor([4.])
        >>> chain.marginals()[0, :, 1]
        tensor([0.7500, 0.5000, 0.2500])
    """

    unary: Float[Tensor, "B T K"]
    transition: Float[Tensor, "K K"]
    start: Float[Tensor, " K"] | None = None
    end: Float[Tensor, " K"] | None = None
    mask: Bool[Tensor, "B T"] | None = None

    def __post_init__(self) -> None:
        if self.unary.dim() != 3 or not self.unary.shape[-1]:
            expected = "unary (B, T, K) with K at least 1"
            raise ShapeError(explain("LinearChain: scores of steps.", got=f"{tuple(self.unary.shape)}", expected=expected))
        B, T, K = self.unary.shape
        for name, value, shape in (
            ("transition", self.transition, (K, K)), ("start", self.start, (K,)), ("end", self.end, (K,)),
            ("mask", self.mask, (B, T)),
        ):  # fmt: skip
            if value is not None and value.shape != shape:
                raise ShapeError(
                    explain(f"LinearChain: {name} does not fit.", got=f"{tuple(value.shape)}", expected=f"{shape}")
                )
            if value is not None and name != "mask" and value.dtype is not self.unary.dtype:
                raise DTypeError(explain(f"LinearChain: {name}.", got=str(value.dtype), expected=str(self.unary.dtype)))
        if self.mask is not None and self.mask.dtype is not torch.bool:
            raise DTypeError(
                explain("LinearChain: the mask.", got=str(self.mask.dtype), expected="torch.bool", advice="mask.bool()")
            )

    # --- sums ---------------------------------------------------------------------------------------------------------

    def log_partition(self) -> Float[Tensor, " B"]:
        """log Z, in nats."""
        return log_partition(*self._scores, self.steps, None)

    def score(self, tags: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """The score of a path.

        Args:
            tags: (B, T), int64; what stands in masked steps is not read.

        Raises:
            ShapeError: the axes disagree, or a tag is not a state.
        """
        return tag_scores(*self._scores, self.steps, self.real_tags(tags))

    def log_likelihood(self, tags: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """The log of a path's probability, in nats.

        Args:
            tags: (B, T), int64; what stands in masked steps is not read.

        Raises:
            ShapeError: the axes disagree, or a tag is not a state.
        """
        return -log_partition(*self._scores, self.steps, self.real_tags(tags))

    def marginals(self) -> Float[Tensor, "B T K"]:
        """The probability of each state at each step; 0 in masked steps."""
        graph = self._graph
        with torch.enable_grad():
            unary, transition, start, end = self._scores if graph else self._detached
            source = unary if unary.requires_grad else unary.detach().requires_grad_()
            total = log_partition(source, transition, start, end, self.steps, None).sum()
            return torch.autograd.grad(total, source, create_graph=graph)[0]

    def expectation(
        self, unary: Tensor, transition: Tensor | None = None, start: Tensor | None = None, end: Tensor | None = None
    ) -> Float[Tensor, " B"]:
        """The mean, over paths by their probability, of a quantity that adds up along a path: an expected loss, say.

        Args:
            unary: (B, T, K), what each state adds at each step.
            transition: (K, K), what each transition adds; 0 by default.
            start: (K,), what starting adds; 0 by default.
            end: (K,), what ending adds; 0 by default.

        Gradients:
            Exact for the scores and for the quantity.
        """
        others = (unary, transition, start, end)
        both = [torch.stack([s, self._full(other, i)], -1) for i, (s, other) in enumerate(zip(self._all, others, strict=True))]
        return fold(Expectation(), both[0], both[1], both[2], both[3], self._mask).value[:, 1]

    def entropy(self) -> Float[Tensor, " B"]:
        """The entropy of the paths' distribution, in nats; 0 where there is no path."""
        total = self.log_partition()
        none = total == -torch.inf
        return (total.masked_fill(none, 0.0) - self._mean_score().masked_fill(none, 0.0)).clamp(min=0)

    def _mean_score(self) -> Tensor:
        # What is forbidden adds nothing: its probability is 0.
        unary, transition, start, end = (s.masked_fill(s == -torch.inf, 0.0) for s in self._all)
        if not self._graph and compiled_here(*self._scores):
            from carousel.structured.compiled import Scores, mean_scores

            found = mean_scores(Scores(*self._scores, self.steps), unary, transition, start, end)
            if found is not None:
                return found
        return self.expectation(unary, transition, start, end)

    def pair_marginals(self) -> Float[Tensor, "B T K K"]:
        """The probability of each step's state (last axis) together with the one before it; 0 where there is none before.

        It takes the memory of B·T·K² numbers, several times.
        """
        B, T, K = self.unary.shape
        if T < 2:
            return self.unary.new_zeros(B, T, K, K)
        with torch.enable_grad():
            each = self.transition.expand(B, T, K, K)
            each = each if self._graph else each.detach().clone().requires_grad_()
            unary, _, start, end = (s if self._graph else s.detach() for s in self._all)
            found = fold(LogSum(), unary[..., None], each[..., None], start[:, None], end[:, None], self._mask)
            return torch.autograd.grad(found.value.sum(), each, create_graph=self._graph)[0]

    # --- paths --------------------------------------------------------------------------------------------------------

    def best(self) -> tuple[Int[Tensor, "B T"], Float[Tensor, " B"]]:
        """The path of the highest score, by Viterbi's algorithm, and its score.

        Of equal paths, the one through lower states wins, from the end backwards, where the loop is compiled. -1 stands in
        masked steps, and wherever a row has no path. There is no gradient; :meth:`score` of the path has one.
        """
        path, score = best_path(*self._scores, self.steps)
        paths = self._unpacked(path)
        none = score == -torch.inf
        return (paths.masked_fill(none[:, None], -1) if bool(none.any()) else paths), score

    @torch.no_grad()
    def nbest(self, k: int) -> tuple[Int[Tensor, "B k T"], Float[Tensor, "B k"]]:
        """The k paths of the highest scores, the best first, and their scores: -1 and minus infinity where a row has fewer.

        Args:
            k: how many.

        Raises:
            ConfigError: k is not positive.
        """
        if k < 1:
            raise ConfigError(explain("nbest: there must be a path.", got=f"k={k}", expected="at least 1"))
        found = self._fold(KBest(k))
        paths = trace(found, self._mask)
        return paths.masked_fill((found.value == -torch.inf)[..., None], -1), found.value

    @torch.no_grad()
    def sample(self, count: int = 1, generator: torch.Generator | None = None) -> Int[Tensor, "N B T"]:
        """Paths drawn by their probability: the forward pass, then backwards from the end.

        Args:
            count: N, how many for each row.
            generator: torch's; its own by default.

        Returns:
            (N, B, T); -1 in masked steps, and where a row has no path.

        Raises:
            ConfigError: `count` is not positive.
        """
        if count < 1:
            raise ConfigError(explain("sample: there must be a path.", got=f"count={count}", expected="at least 1"))
        steps, alphas = self.steps, self._log_alphas()
        paths = torch.full((count, steps.count), -1, device=self.unary.device)
        _, transition, _, end = (s.to(alphas.dtype) for s in self._all)
        into = transition.mT  # (K to, K from)
        last = steps.first[1:] - 1
        for back in range(int(steps.counts.max()) if steps.batch else 0):
            place = (last - back)[steps.counts > back].to(paths.device)
            after = end if not back else into[paths[:, place + 1].clamp(min=0)]
            logits = alphas[place] + after
            # The largest of scores with Gumbel noise is a draw in proportion to their exponentials.
            noise = torch.empty(count, *logits.shape[-2:], dtype=logits.dtype, device=logits.device)
            noisy = logits - noise.exponential_(generator=generator).log()
            paths[:, place] = torch.where(noisy.amax(-1) == -torch.inf, -1, noisy.argmax(-1))
        return self._unpacked(paths)

    def _log_alphas(self) -> Tensor:
        """(P, K): up to a constant for each step, the log of the sum of the paths to each state."""
        if compiled_here(*self._scores):
            from carousel.structured.compiled import Scores, exact_sums

            # Without the ending's scores, which the loops would have added to a row's last step.
            chains = Scores(self._stored[0], self.transition, self.start, None, self.steps)
            return exact_sums(chains, torch.arange(self.steps.batch)).alpha[:, : self.unary.shape[-1]]
        found = self._fold(LogSum())
        if not found.alphas:
            return self.unary.new_zeros(0, self.unary.shape[-1])
        return torch.stack(found.alphas, 1)[..., 0].flatten(0, 1)[self.steps.flat]

    # --- what is worked out once --------------------------------------------------------------------------------------

    @functools.cached_property
    def _stored(self) -> tuple[Tensor, bool]:
        return dense(self.unary)

    @functools.cached_property
    def steps(self) -> Steps:
        """The real steps."""
        B, T, _ = self.unary.shape
        found = pack(self.mask, B, T, self._stored[1])
        return found if self.mask is not None else found.to(self.unary.device)

    @property
    def _scores(self) -> _Four:
        return self._stored[0], self.transition, self.start, self.end

    @property
    def _graph(self) -> bool:
        return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in self._scores)

    @functools.cached_property
    def _mask(self) -> Tensor:
        return self.mask if self.mask is not None else mask_of(self.steps, self.unary.device)

    @property
    def _detached(self) -> _Four:
        unary, transition, start, end = self._scores
        ends = [None if s is None else s.detach() for s in (start, end)]
        return unary.detach(), transition.detach(), ends[0], ends[1]

    @property
    def _all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        unary, transition, start, end = self._scores
        return unary, transition, self._full(start, 2), self._full(end, 3)

    def _full(self, scores: Tensor | None, index: int) -> Tensor:
        """The scores, or zeros: 1 for those of transitions, 2 and 3 of starting and ending."""
        K = self.unary.shape[-1]
        return self.unary.new_zeros((K, K) if index == 1 else (K,)) if scores is None else scores

    def _fold(self, semiring: Semiring) -> Folded:
        unary, transition, start, end = (s[..., None] for s in self._all)
        return fold(semiring, unary, transition, start, end, self._mask)

    def _unpacked(self, tags: Tensor) -> Tensor:
        """(..., P) to (..., B, T), -1 in masked steps."""
        steps = self.steps
        everywhere = steps.count == steps.batch * steps.length
        if not everywhere:
            found = tags.new_full((*tags.shape[:-1], steps.batch * steps.length), -1)
            found[..., steps.flat] = tags
            tags = found
        return tags.view(*tags.shape[:-1], steps.batch, steps.length)

    def real_tags(self, tags: Int[Tensor, "B T"]) -> Int[Tensor, " P"]:
        """The tags of the real steps, one after another.

        Args:
            tags: (B, T), int64.

        Raises:
            ShapeError: the axes disagree, or a tag is not a state.
            DTypeError: tags are not int64.
        """
        B, T, K = self.unary.shape
        if tags.shape != (B, T):
            raise ShapeError(explain("LinearChain: each step has one tag.", got=f"{tuple(tags.shape)}", expected=f"({B}, {T})"))
        if tags.dtype is not torch.int64:
            raise DTypeError(explain("LinearChain: tags are numbers.", got=str(tags.dtype), expected="torch.int64"))
        flat = tags.reshape(-1)
        real = flat.contiguous() if self.steps.count == B * T else flat[self.steps.flat]
        if real.numel():
            least, most = (int(bound) for bound in real.aminmax())
            if least < 0 or most >= K:
                got = f"{least if least < 0 else most}"
                raise ShapeError(
                    explain("LinearChain: a tag is not a state.", got=got, expected=f"0 to {K - 1} where not masked")
                )
        return real
