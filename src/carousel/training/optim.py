"""Optimizers by name, and clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from carousel.training.config import TrainingConfig

__all__ = ["build_optimizer", "clip_gradients", "descends_plainly", "shrinking", "sparse_gradients"]

CLASSES: dict[str, type[Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
# Numbers of an embedding above which the rows of a batch alone are worth their sorting.
MANY = 1 << 19
# One pass over memory instead of about ten: on a CPU an embedding of 20,000 words costs a fifth of the time.
FUSED = {"cpu": ("adagrad", "adam", "adamw", "sgd"), "cuda": ("adam", "adamw", "sgd")}


def build_optimizer(
    config: TrainingConfig, parameters: Iterable[Tensor], *, scaled: bool = False, sparse: Iterable[Tensor] = ()
) -> Optimizer:
    """Make the optimizer that a configuration names, for the parameters that want a gradient.

    Args:
        config: its `optimizer`, `lr`, `weight_decay` and `momentum`.
        parameters: the model's, on the device of the run.
        scaled: whether gradients come scaled (16-bit floats); a fused step would unscale them after the clipping.
        sparse: those of them whose gradients are sparse; they are a group of their own.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.momentum:
        options["momentum"] = config.momentum
    floating = all(parameter.is_floating_point() for parameter in wanted)
    devices = {parameter.device.type for parameter in wanted}
    if not scaled and floating and len(devices) == 1 and config.optimizer in FUSED.get(devices.pop(), ()):
        options["fused"] = True
    apart = {id(parameter) for parameter in sparse}
    groups: list[dict[str, Any]] = [{"params": [parameter for parameter in wanted if id(parameter) not in apart]}]
    if apart:
        groups.append(
            {"params": [parameter for parameter in wanted if id(parameter) in apart], "fused": False, "foreach": False}
        )
    return CLASSES[config.optimizer](groups, **options)


def descends_plainly(config: TrainingConfig) -> bool:
    """Whether a step is ``w -= lr * gradient`` and no more: then clipping is a smaller rate, and saves a pass over memory."""
    return config.optimizer == "sgd" and not config.momentum and not config.weight_decay and config.clip_value is None


def shrinking(norm: Tensor, bound: float | None) -> float:
    """What a gradient of that 2-norm is multiplied by, so that it keeps within the bound."""
    return 1.0 if bound is None else min(1.0, bound / (norm.item() + 1e-6))


@contextmanager
def sparse_gradients(model: nn.Module, config: TrainingConfig, device: str) -> Iterator[None]:
    """Large embeddings give the gradients of a batch's rows alone, where the optimizer leaves the others as they are.

    For 10,000 words of 200 features a step else reads and writes 50 MB of zeros.

    Args:
        model: names them, if it has a method ``lone_embeddings()``: embeddings whose weights nothing else uses.
        config: of the run.
        device: of the run.
    """
    method = getattr(model, "lone_embeddings", None)
    found: list[nn.Embedding] = []
    if method is not None and device == "cpu" and descends_plainly(config) and config.batches_per_step == 1:
        found = [embedding for embedding in method() if embedding.weight.numel() >= MANY and not embedding.sparse]
    for embedding in found:
        embedding.sparse = True
    try:
        yield
    finally:
        for embedding in found:
            embedding.sparse = False
            embedding.weight.grad = None


def clip_gradients(parameters: list[Tensor], *, value: float | None, norm: float | None) -> Tensor:
    """Cut every component to `value`, then scale the whole to 2-norm `norm`. Both bounds hold afterwards.

    Args:
        parameters: their ``.grad`` is changed in place; those without one are left out.
        value: bound of each component; None for none.
        norm: bound of the 2-norm over all parameters together; None for none.

    Returns:
        Scalar, the 2-norm over all parameters before: not finite if a component is not. On the CPU nothing is cut then.

    Example:
        >>> weight = torch.zeros(2, requires_grad=True)
        >>> weight.grad = torch.tensor([3.0, 0.4])
        >>> round(clip_gradients([weight], value=0.3, norm=None).item(), 3)
        3.027
        >>> weight.grad
        tensor([0.3000, 0.3000])
    """
    before = total = _norm(parameters)
    if before.device.type == "cpu" and not math.isfinite(before.item()):
        return before  # scaling by it would spread what is bad over all gradients
    if value is not None:
        torch.nn.utils.clip_grad_value_(parameters, value)
        total = _norm(parameters) if norm is not None else total
    if norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, norm, total)
    return before


def _norm(parameters: list[Tensor]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dense = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    norm = torch.nn.utils.get_total_norm(dense)
    if norm.device.type == "cpu" and not math.isfinite(norm.item()):
        norm = torch.nn.utils.get_total_norm([gradient.double() for gradient in dense])  # the squares may have overflowed
    return norm
