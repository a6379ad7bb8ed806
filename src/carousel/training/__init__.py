"""Training: one call, :func:`train`, that brings a model to its best weights and a run directory that tells how.

The training library behind it is Lightning; it is imported by the first call of :func:`train`, not by this package, and
its names appear in no signature here. Writing a model for it takes one method, ``measure(batch) -> Measured``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carousel.training.config import TrainingConfig
from carousel.training.device import choose_device
from carousel.training.result import Measured, TrainableModel, TrainingResult

if TYPE_CHECKING:
    from carousel.training.batch_size import find_batch_size
    from carousel.training.checkpoint import load_checkpoint, save_checkpoint
    from carousel.training.curves import draw_learning_curve
    from carousel.training.distributed import process_count
    from carousel.training.learning_rate import RateTest, find_lr
    from carousel.training.loop import train

__all__ = [
    "Measured",
    "RateTest",
    "TrainableModel",
    "TrainingConfig",
    "TrainingResult",
    "choose_device",
    "draw_learning_curve",
    "find_batch_size",
    "find_lr",
    "load_checkpoint",
    "process_count",
    "save_checkpoint",
    "train",
]

_HOMES = {
    "RateTest": "learning_rate",
    "draw_learning_curve": "curves",
    "find_batch_size": "batch_size",
    "find_lr": "learning_rate",
    "load_checkpoint": "checkpoint",
    "process_count": "distributed",
    "save_checkpoint": "checkpoint",
    "train": "loop",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
