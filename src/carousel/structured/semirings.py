r"""What can be computed over all paths of a chain at once: sums, best paths, expectations, each a semiring.

A path's score is a sum of the scores of its steps and transitions. Whatever is wanted of all :math:`K^T` paths is found in T
steps if two operations suffice: one that goes along a path (*extend*) and one that joins paths that meet (*join*).

| semiring | a value is | along a path | where paths meet |
| --- | --- | --- | --- |
| :class:`LogSum` | a logarithm | + | log of the sum of exp |
| :class:`KBest` | the k best scores, in order | + | the k best of all |
| :class:`Expectation` | a logarithm, and the mean of some quantity | +, + | log of the sum of exp, the weighted mean |

All of it runs in torch operations, on any device, with any order of derivative: the compiled loops are checked against it, and
it takes their place where they do not go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from carousel.errors import ConfigError, explain

__all__ = ["Expectation", "Folded", "KBest", "LogSum", "Semiring", "fold", "log_sum_exp", "trace"]


def log_sum_exp(values: Tensor, dim: int) -> Tensor:
    """As torch's, but where all are minus infinity the gradient is 0, to any order, and not not-a-number."""
    largest = values.detach().amax(dim, keepdim=True)
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    total = (values - largest).exp().sum(dim)
    none = total == 0
    return total.masked_fill(none, 1.0).log().masked_fill(none, -torch.inf) + largest.squeeze(dim)


class Semiring(Protocol):
    """Values have a last axis of the semiring's own; scores have one too, of as many numbers as a score needs."""

    def lift(self, scores: Tensor) -> Tensor:
        """The value of a path with these scores: (..., F) to (..., S)."""
        ...

    def extend(self, values: Tensor, scores: Tensor) -> Tensor:
        """Along a path: (..., S) and (..., F) to (..., S)."""
        ...

    def join(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where paths meet: (B, I, ..., S) to (B, ..., S); and of which i and s each comes, ``i * S + s``, if it comes of
        one."""
        ...


class LogSum:
    """The log of the sum of all paths' exponentials."""

    def lift(self, scores: Tensor) -> Tensor:
        """The score itself."""
        return scores

    def extend(self, values: Tensor, scores: Tensor) -> Tensor:
        """Logarithms of factors add."""
        return values + scores

    def join(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """The sum, without a loss of range."""
        return log_sum_exp(values, 1), None


class KBest:
    """The scores of the k best paths, the best first; minus infinity where there are fewer.

    Args:
        k: how many; 1 is Viterbi's algorithm.
    """

    def __init__(self, k: int = 1) -> None:
        self.k = k

    def lift(self, scores: Tensor) -> Tensor:
        """One path."""
        return torch.nn.functional.pad(scores, (0, self.k - 1), value=-torch.inf)

    def extend(self, values: Tensor, scores: Tensor) -> Tensor:
        """All k go on alike."""
        return values + scores

    def join(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """The k best of I times k."""
        merged = values.movedim(1, -2).flatten(-2)
        return merged.topk(self.k, dim=-1)


class Expectation:
    """The log of the sum, and the mean of a quantity that adds up along a path: the quantity comes as a second score."""

    def lift(self, scores: Tensor) -> Tensor:
        """A score and its quantity."""
        return scores

    def extend(self, values: Tensor, scores: Tensor) -> Tensor:
        """Both add."""
        return values + scores

    def join(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Means are weighted by their paths' shares."""
        logs, means = values.unbind(-1)
        total = log_sum_exp(logs, 1)
        shares = (logs - total.masked_fill(total == -torch.inf, 0.0).unsqueeze(1)).exp()
        return torch.stack([total, (shares * means).sum(1)], -1), None


@dataclass(frozen=True)
class Folded:
    """What a fold gives.

    Attributes:
        value: (B, S).
        alphas: for each step (B, K, S), by the state of the last real step so far; in a row before its first step, nothing of
        use. choices: for each step (B, K, S), of which state and rank each value comes; empty for a semiring that does not
        choose. ending: (B, S), the same for the last.
    """

    value: Tensor
    alphas: list[Tensor]
    choices: list[Tensor]
    ending: Tensor | None


def fold(semiring: Semiring, unary: Tensor, transition: Tensor, start: Tensor, end: Tensor, mask: Tensor) -> Folded:
    """Over all paths of each row.

    Args:
        semiring: what is computed.
        unary: (B, T, K, F).
        transition: (K, K, F), from the row's state to the column's; or (B, T, K, K, F), those to each step.
        start: (K, F).
        end: (K, F).
        mask: (B, T), bool; any step may be masked. A row without steps has one path, whose scores are 0.
    """
    B, T, K, F = unary.shape
    unary = unary.masked_fill(~mask[:, :, None, None], 0.0)
    alpha = semiring.lift(unary.new_zeros(B, K, F))
    S = alpha.shape[-1]
    same = torch.arange(K * S, device=unary.device).view(K, S)
    started = torch.zeros(B, dtype=torch.bool, device=unary.device)
    choices, alphas = [], []
    for t in range(T):
        step = transition if transition.dim() == 3 else transition[:, t]
        joined, choice = semiring.join(semiring.extend(alpha[:, :, None], step))
        follows = semiring.extend(joined, unary[:, t])
        fresh = semiring.lift(start + unary[:, t])
        real = mask[:, t, None, None]
        alpha = torch.where(real, torch.where(started[:, None, None], follows, fresh), alpha)
        if choice is not None:
            choices.append(torch.where(real & started[:, None, None], choice, same))
        started = started | mask[:, t]
        alphas.append(alpha)
    value, ending = semiring.join(semiring.extend(alpha, end))
    nothing = semiring.lift(unary.new_zeros(B, F))
    return Folded(torch.where(started[:, None], value, nothing), alphas, choices, ending)


def trace(found: Folded, mask: Tensor) -> Tensor:
    """The paths of a semiring that chooses.

    Args:
        found: what :func:`fold` gave.
        mask: (B, T), as given there.

    Returns:
        (B, S, T), int64; -1 in masked steps.
    """
    if found.ending is None:
        raise ConfigError(explain("trace: this semiring keeps no paths.", advice="fold with KBest"))
    B, S = found.ending.shape
    at = found.ending
    paths = at.new_full((B, S, mask.shape[1]), -1)
    for t in reversed(range(mask.shape[1])):
        paths[:, :, t] = torch.where(mask[:, t, None], at // S, -1)
        at = found.choices[t].flatten(1).gather(1, at)
    return paths
