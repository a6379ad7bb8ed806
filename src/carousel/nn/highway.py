"""A learned gate between what goes through a layer and what goes around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from carousel.errors import ConfigError
from carousel.nn.linear import Linear


class Highway(nn.Module):
    """A learned gate between a layer's output and its input: ``g * new + (1 - g) * old``, g a function of the input.

    Args:
        size: features of both.
        device: where the parameters are made.
        dtype: their type.

    References:
        Srivastava, Greff, Schmidhuber (2015), "Highway Networks", arXiv:1505.00387.
    """

    def __init__(self, size: Any, *, device: Any, dtype: Any) -> None:
        super().__init__()
        if not isinstance(size, int):
            raise ConfigError(f"Recurrent: skip='highway' needs outputs with one axis; these have {size}")
        self.gate = Linear(size, size, device=device, dtype=dtype)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """Mix (rows, O) and (rows, O)."""
        gate = torch.sigmoid(self.gate(old))
        return gate * new + (1 - gate) * old
