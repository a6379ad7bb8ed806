"""Penalties that a layer adds up: on its matrices and on its activations."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError, explain, unknown_name

__all__ = ["ActivationPenalty", "Penalty", "TemporalActivationPenalty", "WeightPenalty"]


class Penalty(Protocol):
    """What a layer can be given as a penalty."""

    def __call__(self, layer: nn.Module, output: Tensor | None, lengths: Tensor | None) -> Tensor:
        """The penalty, a scalar; `output` is (T, B, ...), `lengths` (B,)."""
        ...


def _nonnegative(who: str, name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(explain(f"{who}: {name} must be 0 or more.", got=repr(value)))


@dataclass(frozen=True)
class WeightPenalty:
    r"""Keeps chosen parameters small: :math:`\lambda_1 \sum |w| + \lambda_2 \sum w^2`.

    Args:
        matrices: parameters by name or pattern, as in the equations (``U_*``).
        l1: λ1.
        l2: λ2.
    """

    matrices: str = "*"
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _nonnegative("WeightPenalty", "l1", self.l1)
        _nonnegative("WeightPenalty", "l2", self.l2)

    def __call__(self, layer: nn.Module, output: Tensor | None, lengths: Tensor | None) -> Tensor:  # noqa: ARG002
        """Add up over all layers and directions."""
        named = [(name.rsplit(".", 1)[-1], p) for name, p in layer.named_parameters()]
        chosen = [p for name, p in named if fnmatchcase(name, self.matrices)]
        if not chosen:
            raise ConfigError("WeightPenalty: " + unknown_name("parameter", self.matrices, {name for name, _ in named}))
        return torch.stack([self.l1 * p.abs().sum() + self.l2 * p.square().sum() for p in chosen]).sum()


@dataclass(frozen=True)
class ActivationPenalty:
    r"""Keeps the output small: :math:`\alpha` times the mean of its squares over the real steps (AR).

    Args:
        alpha: α.

    References:
        Merity, McCann, Socher (2017), "Revisiting Activation Regularization for Language RNNs", arXiv:1708.01009.
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        _nonnegative("ActivationPenalty", "alpha", self.alpha)

    def __call__(self, layer: nn.Module, output: Tensor | None, lengths: Tensor | None) -> Tensor:  # noqa: ARG002
        """Mean over all numbers of real steps; 0 where there are none."""
        return self.alpha * _mean_square(_needed(self, output), lengths, 0)


@dataclass(frozen=True)
class TemporalActivationPenalty:
    r"""Keeps the output slow: :math:`\beta` times the mean square of its change from step to step (TAR).

    Args:
        beta: β.

    References:
        Merity, McCann, Socher (2017), arXiv:1708.01009.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        _nonnegative("TemporalActivationPenalty", "beta", self.beta)

    def __call__(self, layer: nn.Module, output: Tensor | None, lengths: Tensor | None) -> Tensor:  # noqa: ARG002
        """Mean over all changes between two real steps; 0 where there are none."""
        output = _needed(self, output)
        return self.beta * _mean_square(output[1:] - output[:-1], lengths, 1)


def _needed(penalty: object, output: Tensor | None) -> Tensor:
    if output is None:
        raise ConfigError(f"{type(penalty).__name__} is about activations: call layer.penalty(output, lengths)")
    return output


def _mean_square(values: Tensor, lengths: Tensor | None, fewer: int) -> Tensor:
    """The mean of squares over real steps; `fewer` is how many steps less than its length each sequence has here."""
    if lengths is None:
        return values.square().mean() if values.numel() else values.new_zeros(())
    counts = (torch.as_tensor(lengths, device=values.device) - fewer).clamp(min=0)
    mask = torch.arange(values.shape[0], device=values.device)[:, None] < counts  # (T, B)
    kept = values.masked_fill(~mask.reshape(*mask.shape, *[1] * (values.dim() - 2)), 0.0)
    features = values[0, 0].numel() if values.shape[0] and values.shape[1] else 1
    return kept.square().sum() / (counts.sum() * features).clamp(min=1)
