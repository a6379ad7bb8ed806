"""`Linear`: torch's, with the fastest product that is there."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from carousel.engines.here import compiled_here


class Linear(nn.Linear):
    r"""``y = x W^T + b``, a drop-in for :class:`torch.nn.Linear`: the same arguments, parameters, start and results.

    Large products in float32 and float64 on a CPU, forwards and backwards, are done by whatever is measured to be fastest
    there: our kernels, torch's or oneDNN's. The measurement is kept in the cache folder; results differ by rounding only, and
    in training, where the kernels are ours, not at all.
    Everything else is torch's: other devices and types, autocast, ``torch.compile``, ``torch.func``, and the second derivative.

    Args:
        in_features: of the last axis of the input.
        out_features: of the last axis of the output.
        bias: whether there is a bias.
        device: where the parameters are made.
        dtype: their type.

    Example:
        >>> layer = Linear(3, 2)
        >>> tuple(layer(torch.randn(5, 4, 3)).shape)
        (5, 4, 2)
    """

    def forward(self, input: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:  # noqa: A002 - torch's name
        """Apply the layer.

        Args:
            input: (..., in_features).

        Returns:
            (..., out_features).
        """
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As :func:`torch.nn.functional.linear`, by the fastest product that is there; see :class:`Linear`."""
    rows = math.prod(x.shape[:-1])
    fits = x.dim() > 0 and weight.dim() == 2 and x.shape[-1] == weight.shape[1]
    if not fits or not compiled_here(x, weight, bias):
        return nn.functional.linear(x, weight, bias)
    from carousel.engines.cpu import outside

    if 2.0 * rows * weight.numel() <= outside.LARGE:
        return nn.functional.linear(x, weight, bias)
    result: Tensor = _Linear.apply(x.reshape(rows, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
    return result.view(*x.shape[:-1], weight.shape[0])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        from carousel.engines.cpu import outside

        ctx.save_for_backward(x, weight)
        return outside.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from carousel.engines.cpu import outside

        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        if torch.is_grad_enabled():
            return (
                gradient @ weight if wants_x else None,
                gradient.mT @ x if wants_weight else None,
                gradient.sum(0) if wants_bias else None,
            )
        of_bias = gradient.new_empty(gradient.shape[1]) if wants_bias and wants_weight else None
        of_x = outside.linear(gradient, weight.mT) if wants_x else None
        of_weight = outside.outer(gradient, x, total=of_bias) if wants_weight else None
        if wants_bias and of_bias is None:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias
