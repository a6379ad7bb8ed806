"""A conditional random field over the tags of a sequence: the output layer of a tagger."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from carousel.errors import ConfigError, DataError, ShapeError, explain, unknown_name
from carousel.structured.chain import LinearChain
from carousel.structured.constraints import Constraints

__all__ = ["CRF"]

Reduction = Literal["none", "sum", "mean", "token_mean"]
_REDUCTIONS = ("none", "sum", "mean", "token_mean")


class CRF(nn.Module):
    r"""A linear-chain conditional random field: scores of starting, of transitions and of ending, beside those of each step.

    .. math:: p(y \mid u) = \exp\Big(a_{y_1} + \sum_t u_{t, y_t} + \sum_{t > 1} w_{y_{t-1}, y_t} + b_{y_T}\Big) / Z

    Parameters, arguments and results are those of pytorch-crf's layer of this name, whose weights load as they are. Here the
    first step, too, may be masked, and what is masked in the middle of a row is left out; constraints are scores of minus
    infinity.

    Args:
        num_tags: K.
        batch_first: whether emissions are (B, T, K), tags and mask (B, T); else (T, B, K) and (T, B).
        constraints: which tags may follow which; anything by default.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        `transitions` (K, K), from the row's tag to the column's; `start_transitions` (K,); `end_transitions` (K,).

    Raises:
        ConfigError: `num_tags` is not positive.
        ShapeError: the constraints are for another number of tags.

    Example:
        >>> from carousel.structured import bio_constraints
        >>> crf = CRF(3, constraints=bio_constraints(["O", "B-NP", "I-NP"]))
        >>> crf.decode(torch.tensor([[[0.0, 0.1, 9.0], [0.0, 0.0, 9.0]]]))  # I-NP never comes first
        [[1, 2]]

    References:
        Lafferty, McCallum, Pereira (2001), "Conditional Random Fields".
    """

    transition_mask: Tensor | None
    start_mask: Tensor | None
    end_mask: Tensor | None

    def __init__(
        self,
        num_tags: int,
        batch_first: bool = True,
        constraints: Constraints | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_tags < 1:
            raise ConfigError(explain("CRF: there must be a tag.", got=f"num_tags={num_tags}", expected="at least 1"))
        if constraints is not None and constraints.num_tags != num_tags:
            got, expected = f"constraints of {constraints.num_tags} tags", f"{num_tags}"
            raise ShapeError(explain("CRF: the constraints do not fit.", got=got, expected=expected))
        self.num_tags, self.batch_first, self.constraints = num_tags, batch_first, constraints
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags, device=device, dtype=dtype))
        self.start_transitions = nn.Parameter(torch.empty(num_tags, device=device, dtype=dtype))
        self.end_transitions = nn.Parameter(torch.empty(num_tags, device=device, dtype=dtype))
        for name in ("transition", "start", "end"):
            allowed = None if constraints is None else getattr(constraints, name)
            forbidden = None if allowed is None else ~allowed.to(device)
            # Not saved: weights stay those of other libraries, and whoever builds the layer says its constraints.
            self.register_buffer(f"{name}_mask", forbidden, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All scores between -0.1 and 0.1, evenly."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def chain(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> LinearChain:
        """The distribution over tags, for all that can be asked of it. Batch-first, whatever the layer is.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.

        Raises:
            ShapeError: the axes disagree.
            DTypeError: the mask is not of booleans.
        """
        if emissions.dim() != 3 or emissions.shape[-1] != self.num_tags:
            shape = "(B, T, K)" if self.batch_first else "(T, B, K)"
            expected = f"{shape} with K={self.num_tags}"
            raise ShapeError(explain("CRF: the emissions do not fit.", got=f"{tuple(emissions.shape)}", expected=expected))
        scores = []
        for parameter, forbidden in (
            (self.transitions, self.transition_mask), (self.start_transitions, self.start_mask),
            (self.end_transitions, self.end_mask),
        ):  # fmt: skip
            same = parameter.to(emissions.dtype)
            scores.append(same if forbidden is None else same.masked_fill(forbidden, -torch.inf))
        transition, start, end = scores
        return LinearChain(self._turned(emissions), transition, start, end, None if mask is None else self._turned(mask))

    def forward(
        self,
        emissions: Float[Tensor, "B T K"],
        tags: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"] | None = None,
        reduction: Reduction = "sum",
    ) -> Tensor:
        """The log-likelihood of tags, in nats: what training makes large.

        Args:
            emissions: (B, T, K), or (T, B, K).
            tags: (B, T), or (T, B), int64; what stands in masked steps is not read.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
            reduction: ``sum``, ``mean`` over rows, ``token_mean`` over real steps, or ``none``: (B,).

        Raises:
            ConfigError: an unknown reduction.
            ShapeError: the axes disagree, or a tag is not a number of one.
            DataError: tags break a constraint: their likelihood would be 0.
        """
        if reduction not in _REDUCTIONS:
            raise ConfigError("CRF: " + unknown_name("reduction", reduction, _REDUCTIONS))
        chain = self.chain(emissions, mask)
        found = chain.log_likelihood(self._turned(tags))
        if self.constraints is not None and bool((found.detach() == -torch.inf).any()):
            _check_tags(self.constraints, _lists(chain, self._turned(tags)))
        if reduction == "none":
            return found
        total = found.sum()
        if reduction == "sum":
            return total
        return total / max(found.shape[0] if reduction == "mean" else chain.steps.count, 1)

    def loss(
        self,
        emissions: Float[Tensor, "B T K"],
        tags: Int[Tensor, "B T"],
        mask: Bool[Tensor, "B T"] | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The negative log-likelihood of tags, in nats.

        Args:
            emissions: (B, T, K), or (T, B, K).
            tags: (B, T), or (T, B), int64.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
            reduction: as for `forward`.

        Raises:
            ConfigError: an unknown reduction.
            ShapeError: the axes disagree, or a tag is not a number of one.
            DataError: tags break a constraint.
        """
        found: Tensor = self(emissions, tags, mask, reduction)
        return -found

    def partial_log_likelihood(
        self, emissions: Float[Tensor, "B T K"], allowed: Bool[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, " B"]:
        """The log of the probability that every step's tag is among those allowed: the likelihood of partial labels.

        Args:
            emissions: (B, T, K), or (T, B, K).
            allowed: the same shape, bool: one True where the tag is known, all where nothing is.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.

        Raises:
            ShapeError: the axes disagree.
            DataError: no path is allowed.
        """
        if allowed.shape != emissions.shape or allowed.dtype is not torch.bool:
            got = f"{tuple(allowed.shape)}, {allowed.dtype}"
            raise ShapeError(explain("CRF: allowed tags.", got=got, expected=f"{tuple(emissions.shape)}, torch.bool"))
        some = self.chain(emissions.masked_fill(~allowed, -torch.inf), mask).log_partition()
        if bool((some.detach() == -torch.inf).any()):
            row = int((some.detach() == -torch.inf).nonzero()[0])
            raise DataError(
                explain(f"CRF: row {row}: no path has only allowed tags.", advice="look at its labels and constraints")
            )
        return some - self.chain(emissions, mask).log_partition()

    @torch.no_grad()
    def decode(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> list[list[int]]:
        """The best tags of each row's real steps, by Viterbi's algorithm.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
        """
        chain = self.chain(emissions, mask)
        return _lists(chain, chain.best()[0])

    @torch.no_grad()
    def nbest(
        self, emissions: Float[Tensor, "B T K"], k: int, mask: Bool[Tensor, "B T"] | None = None
    ) -> list[list[tuple[list[int], float]]]:
        """The k best paths of each row, or as many as there are, the best first, each with its probability.

        Args:
            emissions: (B, T, K), or (T, B, K).
            k: how many.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.

        Raises:
            ConfigError: k is not positive.
        """
        chain = self.chain(emissions, mask)
        paths, scores = chain.nbest(k)
        probabilities = (scores - chain.log_partition()[:, None]).exp().tolist()
        ranked = [_lists(chain, paths[:, rank]) for rank in range(k)]
        alive = (scores > -torch.inf).tolist()
        return [
            [(ranked[rank][row], probabilities[row][rank]) for rank in range(k) if alive[row][rank]]
            for row in range(len(alive))
        ]

    def marginals(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> Tensor:
        """The probability of each tag at each step, shaped as the emissions; 0 in masked steps.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
        """
        return self._turned(self.chain(emissions, mask).marginals())

    def entropy(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, " B"]:
        """The entropy of each row's paths, in nats.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
        """
        return self.chain(emissions, mask).entropy()

    def sample(
        self,
        emissions: Float[Tensor, "B T K"],
        count: int = 1,
        mask: Bool[Tensor, "B T"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "N B T"]:
        """Tags drawn by their probability: (N, B, T), or (N, T, B); -1 in masked steps.

        Args:
            emissions: (B, T, K), or (T, B, K).
            count: N, how many for each row.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
            generator: torch's; its own by default.

        Raises:
            ConfigError: `count` is not positive.
        """
        drawn = self.chain(emissions, mask).sample(count, generator)
        return drawn if self.batch_first else drawn.transpose(1, 2)

    def extra_repr(self) -> str:
        """The sizes."""
        limits = "" if self.constraints is None else ", constrained"
        return f"{self.num_tags}, batch_first={self.batch_first}{limits}"

    def _turned(self, values: Tensor) -> Tensor:
        return values if self.batch_first else values.transpose(0, 1)


def _check_tags(constraints: Constraints, paths: list[list[int]]) -> None:
    """Say which tags break which rule."""
    for row, path in enumerate(paths):
        for step in constraints.violations(path):
            what = f"tag {path[0]} may not come first" if step == 0 else f"tag {path[-1]} may not come last"
            if 0 < step < len(path):
                what = f"tag {path[step]} may not follow tag {path[step - 1]}"
            message = f"CRF: row {row}, real step {step}: {what}."
            raise DataError(explain(message, advice="correct the labels, or train without constraints"))


def _lists(chain: LinearChain, paths: Tensor) -> list[list[int]]:
    """The real steps of (B, T) as lists."""
    steps = chain.steps
    flat = paths.reshape(-1)[steps.flat].tolist()
    first = steps.first.tolist()
    return [flat[begin:end] for begin, end in itertools.pairwise(first)]
