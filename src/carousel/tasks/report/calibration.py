"""Whether probabilities mean what they say, and the one number that mends most of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel.tasks.evaluation import Evaluation, Floats
from carousel.tasks.intervals import wilson

__all__ = ["Bin", "Calibration", "calibrate", "fit_temperature", "reliability"]

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0
FITTED_ON = 50_000  # items are enough for one number


@dataclass(frozen=True)
class Bin:
    """The claims whose confidence lies in one part of 0 to 1.

    Args:
        low: where the part begins (excluded, but for 0).
        high: where it ends (included).
        count: how many claims.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
        accuracy_low: the lower end of Wilson's 95 % interval of that share.
        accuracy_high: its upper end.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True)
class Calibration:
    """Probabilities before and after temperature scaling.

    Args:
        temperature: T; the scores before the softmax, or the sigmoid, are divided by it.
        source: where T comes from: `these data` (then "after" is cross-fitted: either half with the other's T), or
            what the caller named.
        at_limit: whether T lies at a limit of the search, as when every answer is right.
        ece_before: expected calibration error, 0 to 1.
        ece_after: the same with T.
        loss_before: nats.
        loss_after: the same with T.
        bins_before: the reliability diagram; empty parts are left out.
        bins_after: the same with T.
    """

    temperature: float
    source: str
    at_limit: bool
    ece_before: float
    ece_after: float
    loss_before: float
    loss_after: float
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]


def calibrate(evaluation: Evaluation, *, known: tuple[float, str] | None = None, seed: int = 0) -> Calibration:
    """Measure calibration before and after temperature scaling [1].

    A temperature that was found on the data it is judged on looks better than it is. So the numbers "after" are
    cross-fitted: the items are split into two random halves, and each half is scaled with the temperature of the other.
    The `temperature` of the result is that of all items.

    Args:
        evaluation: of a kind with labels; at least two items.
        known: a temperature from other data and the name of these; then nothing is fitted.
        seed: chooses the halves.

    References:
        [1] Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599.
    """
    N = len(evaluation)
    if known is None:
        order = np.random.default_rng([seed, 3]).permutation(N)
        halves = np.sort(order[: N // 2]), np.sort(order[N // 2 :])
        each = np.empty((N, 1))
        for mine, other in (halves, halves[::-1]):
            each[mine] = fit_temperature(evaluation.take(other))
        temperature, source = fit_temperature(evaluation), "these data"
    else:
        temperature, source = known
        each = np.full((N, 1), temperature)
    after = replace(evaluation, logits=evaluation.logits / each)
    bins_before, bins_after = reliability(evaluation), reliability(after)
    return Calibration(
        temperature=temperature,
        source=source,
        at_limit=not COLDEST * 1.001 < temperature < HOTTEST / 1.001,
        ece_before=_error(bins_before),
        ece_after=_error(bins_after),
        loss_before=float(evaluation.losses.mean()),
        loss_after=float(after.losses.mean()),
        bins_before=bins_before,
        bins_after=bins_after,
    )


def fit_temperature(evaluation: Evaluation) -> float:
    """The temperature with the least loss, between 0.05 and 20.

    The loss is convex in ``1/T``, so its slope has one root at most; it is found by bisection on ``log T``.
    Of more than 50,000 items every second, third, ... is looked at.
    """
    step = -(-len(evaluation) // FITTED_ON)
    logits, truth = evaluation.logits[::step], evaluation.truth[::step]
    if evaluation.kind == "one":
        wanted = np.take_along_axis(logits, truth[:, None].astype(np.int64), axis=1)
        logits = logits - wanted  # so that the loss is log sum exp
    else:
        logits = np.where(truth, -logits, logits)  # so that the loss is log(1 + exp)
    low, high = np.log(COLDEST), np.log(HOTTEST)
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(logits, float(np.exp(-middle)), evaluation.kind) > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _slope(margins: Floats, inverse: float, kind: str) -> float:
    """The derivative of the mean loss by ``1/T``."""
    scaled = margins * inverse
    if kind == "one":
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
    else:
        weights = np.exp(-np.logaddexp(0.0, -scaled))
    return float((weights * _finite(margins)).sum(axis=1).mean())


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, 0.0)  # a label that cannot be: its weight is zero


def reliability(evaluation: Evaluation, bins: int = BINS) -> tuple[Bin, ...]:
    """Group claims by confidence, in equal parts of 0 to 1.

    A claim is an item's answer, whose confidence is its probability (`one`), or each label of each item (`several`), whose
    confidence is the probability of what is claimed, that the label is there or that it is not.

    Args:
        evaluation: of a kind with labels.
        bins: how many parts.
    """
    probabilities = evaluation.probabilities
    if evaluation.kind == "one":
        confidence, right = probabilities.max(axis=1), evaluation.right
    else:
        confidence = np.maximum(probabilities, 1 - probabilities).ravel()
        right = (evaluation.answers == evaluation.truth).ravel()
    part = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for at in np.unique(part).tolist():
        mine = part == at
        found.append(_bin(at / bins, (at + 1) / bins, confidence[mine], right[mine]))
    return tuple(found)


def _bin(low: float, high: float, confidence: Floats, right: NDArray[Any]) -> Bin:
    share = wilson(int(right.sum()), len(right))
    return Bin(low, high, len(right), float(confidence.mean()), share.value, share.low, share.high)


def _error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, over claims."""
    return sum(item.count * abs(item.accuracy - item.confidence) for item in bins) / sum(item.count for item in bins)
