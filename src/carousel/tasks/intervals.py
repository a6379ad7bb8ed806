"""How far a score may be from the one of other data of the same kind: bootstrap, Wilson, Student, McNemar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carousel.errors import ShapeError
from carousel.tasks.evaluation import Evaluation, Floats

__all__ = ["Interval", "Scored", "bootstrap", "mcnemar", "paired_bootstrap", "student", "wilson"]

LEVEL = 0.95
RESAMPLES = 1000
GROUPS = 10_000
DRAWN_AT_ONCE = 50  # resamples


@dataclass(frozen=True)
class Interval:
    """A number and the 95 % interval around it.

    Args:
        value: the number.
        low: the interval's lower end.
        high: its upper end.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """`value`, `low` and `high`."""
        return {"value": self.value, "low": self.low, "high": self.high}


class Scored(Protocol):
    """What can be resampled: N items, whose scores are functions of sums over them."""

    def __len__(self) -> int:
        """N."""

    def scores(self) -> dict[str, float]:
        """All scores by name; `count`, where it is there, has no interval."""

    def statistics(self, rows: slice | NDArray[np.int64]) -> Floats:
        """(n, K): what the scores need of some items.

        Args:
            rows: which.
        """

    def scores_of(self, sums: Floats) -> dict[str, Floats]:
        """Score to values (...), those that have intervals.

        Args:
            sums: (..., K), sums of statistics.
        """


def bootstrap(evaluation: Scored, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """Percentile intervals of all scores [1]: items are drawn again, with replacement, as many as there are.

    More than 10,000 items are put into 10,000 groups at random, and the groups are drawn.

    Args:
        evaluation: N items.
        resamples: how often.
        seed: chooses the draws.

    Returns:
        Score to interval, without `count`.

    References:
        [1] Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
    """
    sums = _grouped(evaluation, seed)
    drawn = evaluation.scores_of(np.concatenate([weights @ sums for weights in _draws(len(sums), resamples, seed)]))
    values = evaluation.scores()
    return {name: _interval(values[name], found) for name, found in drawn.items()}


def paired_bootstrap(
    first: Evaluation, second: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of ``second - first`` for all scores; both are measured on the same draws of the same items.

    Args:
        first: N items.
        second: the same items, answered by another model.
        resamples: how often.
        seed: chooses the draws.

    Returns:
        Score to interval of the difference.

    Raises:
        ShapeError: the two are not about the same items.
    """
    _check_same_items(first, second)
    sums = _grouped(first, seed), _grouped(second, seed)
    found: dict[str, list[Floats]] = {}
    for weights in _draws(len(sums[0]), resamples, seed):
        scores = first.scores_of(weights @ sums[0]), second.scores_of(weights @ sums[1])
        for name in scores[0]:
            found.setdefault(name, []).append(scores[1][name] - scores[0][name])
    values = first.scores(), second.scores()
    return {name: _interval(values[1][name] - values[0][name], np.concatenate(parts)) for name, parts in found.items()}


def mcnemar(first: Evaluation, second: Evaluation) -> tuple[int, int, float]:
    """The exact test of McNemar [1]: are the items that only one of two models gets right shared out by a fair coin?

    Args:
        first: N items, of a kind with labels.
        second: the same items, answered by another model.

    Returns:
        How many items only the first gets right, how many only the second, and the two-sided p-value.

    References:
        [1] McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    _check_same_items(first, second)
    only_first, only_second = int((first.right & ~second.right).sum()), int((second.right & ~first.right).sum())
    n, fewer = only_first + only_second, min(only_first, only_second)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(fewer + 1)]
    return only_first, only_second, min(1.0, 2 * math.fsum(map(math.exp, logs)))


def wilson(right: int, count: int) -> Interval:
    """Wilson's interval of a share, which holds for few items and for shares near 0 and 1 too.

    Args:
        right: how many.
        count: of how many; at least 1.

    Example:
        >>> interval = wilson(10, 10)
        >>> round(interval.low, 3), interval.high
        (0.722, 1.0)
    """
    z = 1.959963984540054
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(share, 0.0 if right == 0 else low, 1.0 if right == count else high)


def student(values: Sequence[float]) -> Interval:
    """Student's interval of a mean.

    Args:
        values: at least one; a single one has an interval without ends.
    """
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = _student_quantile(n - 1) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def _student_quantile(freedom: int) -> float:
    """The t with 95 % of Student's distribution between -t and t, by bisection."""
    low, high = 0.0, 13.0  # 12.71 for one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, freedom) < LEVEL else (low, middle)
    return low


def _student_within(t: float, freedom: int) -> float:
    """The share of Student's distribution between -t and t; Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(odd + 2, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _check_same_items(first: Evaluation, second: Evaluation) -> None:
    same = first.kind == second.kind and first.labels == second.labels and np.array_equal(first.truth, second.truth)
    if not same:
        raise ShapeError("two evaluations of different items or labels cannot be compared item by item.")


def _grouped(evaluation: Scored, seed: int) -> Floats:
    """(G, K): the statistics of the items, or of random groups of them where there are many."""
    N = len(evaluation)
    if N <= GROUPS:
        return evaluation.statistics(slice(None))
    groups = np.random.default_rng([seed, 1]).permutation(N) % GROUPS
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(GROUPS + 1))
    parts = []
    for at in range(0, GROUPS, 1000):
        here = starts[at : at + 1001]
        statistics = evaluation.statistics(order[here[0] : here[-1]])
        parts.append(np.add.reduceat(statistics, here[:-1] - here[0], axis=0))
    return np.concatenate(parts)


def _draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Yield (R, count): how often each is drawn in each of R resamples."""
    random = np.random.default_rng([seed, 2])
    for at in range(0, resamples, DRAWN_AT_ONCE):
        R = min(DRAWN_AT_ONCE, resamples - at)
        drawn = random.integers(0, count, size=(R, count)) + np.arange(R)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=R * count).reshape(R, count).astype(np.float64)


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
