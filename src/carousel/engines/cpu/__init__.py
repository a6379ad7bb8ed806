"""The CPU engine: a cell's loop over time as machine code, forwards and backwards, derived from its equations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.engines.cpu.engine import CpuEngine

__all__ = ["CpuEngine"]


def __getattr__(name: str) -> Any:
    """The engine, imported at its first use: whoever asks for the CPU or the cache needs no tensor library."""
    if name != "CpuEngine":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from carousel.engines.cpu.engine import CpuEngine

    return CpuEngine
