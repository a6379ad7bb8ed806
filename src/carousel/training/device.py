"""Which device a name means on this machine, and how many threads a model is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carousel.errors import ConfigError, explain, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from carousel.training.config import TrainingConfig

__all__ = ["choose_device", "choose_threads"]

# Weights beside embeddings below which a second thread brings less than waiting for it costs: a step of such a layer with a
# usual batch takes some 20 microseconds. A bidirectional LSTM of 64 units is below, one of 128 above.
FEW_WEIGHTS = 150_000


def choose_device(name: str) -> str:
    """Choose a device.

    Args:
        name: ``auto`` for the fastest that is here, or ``cpu``, ``cuda``, ``mps``.

    Raises:
        ConfigError: there is no such device, or not on this machine.
    """
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, usable in here.items() if usable)
    if name not in here:
        raise ConfigError(unknown_name("device", name, [*here, "auto"]))
    if not here[name]:
        usable = ", ".join(device for device, usable in here.items() if usable)
        what = f"device {name} is not usable on this machine."
        raise ConfigError(explain(what, got=f"device={name}", expected=f"one of auto, {usable}", advice="use device=auto"))
    return name


def choose_threads(config: TrainingConfig, model: nn.Module) -> int:
    """How many CPU threads each process of a run uses.

    A rule and not a measurement, so that the same run gets the same number each time.

    Args:
        config: its `threads`; the processes of the run share them.
        model: with ``threads="auto"``, one thread if it has few weights beside its embeddings.
    """
    import torch
    from torch import nn

    from carousel.training.distributed import process_count

    if config.threads == "auto":
        tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
        weights = sum(one.numel() for one in model.parameters() if id(one) not in tables)
        threads = 1 if weights < FEW_WEIGHTS else torch.get_num_threads()
    else:
        threads = torch.get_num_threads() if config.threads is None else config.threads
    return max(1, threads // process_count(config))
