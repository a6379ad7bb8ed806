"""Which device a name means on this machine."""

from __future__ import annotations

from carousel.errors import ConfigError, explain, unknown_name

__all__ = ["choose_device"]


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
