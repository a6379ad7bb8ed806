"""The limited-memory BFGS method for a smooth function of many numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Minimum", "minimise"]

# Armijo's and Wolfe's conditions.
_ENOUGH, _CURVED = 1e-4, 0.9
_TRIALS = 20


@dataclass(frozen=True)
class Minimum:
    """Where a search ended.

    Attributes:
        x: the numbers.
        value: the function's.
        history: its values before each iteration, and at the end.
        converged: whether it stopped because little was gained.
    """

    x: Tensor
    value: float
    history: list[float]
    converged: bool


def minimise(
    function: Callable[[Tensor], tuple[float, Tensor]],
    x: Tensor,
    *,
    max_iter: int = 200,
    memory: int = 6,
    tol: float = 1e-5,
    period: int = 10,
    stop: Callable[[], bool] | None = None,
) -> Minimum:
    """Go down a smooth function.

    Args:
        function: its value and gradient, a new tensor.
        x: where to start. Not changed.
        max_iter: steps, at most.
        memory: of how many steps the curvature is kept.
        tol: it stops when the last `period` steps gained less than this, relative to the value.
        period: see `tol`.
        stop: asked after each step whether to end there.

    References:
        Liu, Nocedal (1989), "On the Limited Memory BFGS Method for Large Scale Optimization".
    """
    value, gradient = function(x)
    history, pairs = [value], deque[tuple[Tensor, Tensor, float]](maxlen=memory)
    for _ in range(max_iter):
        direction = _direction(gradient, pairs)
        slope = _dot(gradient, direction)
        if not slope < 0:  # what is remembered misleads: start anew
            pairs.clear()
            direction, slope = -gradient, -_dot(gradient, gradient)
        if slope == 0:
            return Minimum(x, value, history, True)
        first = 1.0 if pairs else min(1.0, 1.0 / float(gradient.norm()))
        found = _search(function, x, value, slope, direction, first)
        if found is None:
            if not pairs:
                return Minimum(x, value, history, True)  # no step of any length goes down: rounding is all there is
            pairs.clear()
            continue
        size, new_value, new_gradient = found
        step, change = direction.mul_(size), new_gradient - gradient
        curvature = _dot(step, change)
        if curvature > 1e-10 * _dot(change, change):
            pairs.append((step, change, 1.0 / curvature))
        x, value, gradient = x + step, new_value, new_gradient
        history.append(value)
        if len(history) > period and history[-1 - period] - value < tol * abs(value):
            return Minimum(x, value, history, True)
        if stop is not None and stop():
            break
    return Minimum(x, value, history, False)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b))


def _direction(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Minus the gradient times what is known of the inverse Hessian: the two loops."""
    found, factors = gradient.neg(), []
    for step, change, inverse in reversed(pairs):
        factor = inverse * _dot(step, found)
        found.add_(change, alpha=-factor)
        factors.append(factor)
    if pairs:
        _, change, inverse = pairs[-1]
        found.mul_(1.0 / (inverse * _dot(change, change)))
    for (step, change, inverse), factor in zip(pairs, reversed(factors), strict=True):
        found.add_(step, alpha=factor - inverse * _dot(change, found))
    return found


def _search(
    function: Callable[[Tensor], tuple[float, Tensor]], x: Tensor, value: float, slope: float, direction: Tensor, size: float
) -> tuple[float, float, Tensor] | None:
    """A step's length by bisection that meets both conditions; the last that goes down if none does; None if none goes down."""
    low, high, down = 0.0, float("inf"), None
    for _ in range(_TRIALS):
        new_value, gradient = function(x + size * direction)
        if not new_value <= value + _ENOUGH * size * slope:
            high = size
        else:
            down = (size, new_value, gradient)
            if _dot(gradient, direction) >= _CURVED * slope:
                return down
            low = size
        size = 2 * size if high == float("inf") else 0.5 * (low + high)
    return down
