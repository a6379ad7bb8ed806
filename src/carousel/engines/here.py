"""Whether compiled code may compute with tensors where autograd, tracing and transforms do not come by themselves."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from carousel.engines.plan import engines

_TYPES = (torch.float32, torch.float64)


def compiled_here(*tensors: Tensor | None) -> bool:
    """Whether our own kernels may compute with these: plain tensors of one floating type on the CPU, and nothing that torch
    must see: no tracing, autocast, functional transform or forward-mode differentiation. ``CAROUSEL_ENGINE=eager`` says no."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or os.environ.get("CAROUSEL_ENGINE") == "eager":
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    there = [tensor for tensor in tensors if tensor is not None]
    dtype = there[0].dtype
    plain = all(
        tensor.dtype is dtype and tensor.device.type == "cpu" and type(tensor) in (Tensor, nn.Parameter) for tensor in there
    )
    return plain and dtype in _TYPES and any(info.name == "cpu" and info.usable for info in engines())
