"""Which engine runs a layer, and why. A table, so that no layer asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carousel.errors import ConfigError, KernelUnavailable, explain, unknown_name

if TYPE_CHECKING:
    from carousel.engines.eager import EagerEngine
    from carousel.graph.step import Step


@dataclass(frozen=True)
class EngineInfo:
    """What an engine is here.

    Attributes:
        name: what ``engine=`` takes.
        usable: whether it can run anything on this machine.
        reason: why, or why not.
    """

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """The engine of a layer, and why it is that one."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


ENGINES = ("auto", "eager", "cpu", "triton")


def engines() -> list[EngineInfo]:
    """List the engines and whether they can be used here."""
    return [
        EngineInfo("eager", True, "torch operations; every cell, device and dtype, any order of derivative"),
        EngineInfo("cpu", False, "compiled kernels for CPUs are not part of this version"),
        EngineInfo("triton", False, "compiled kernels for GPUs are not part of this version"),
    ]


def runnable(step: Step) -> list[str]:
    """The engines that can run a cell on this machine, the slowest first."""
    names = []
    for info in engines():
        try:
            names.append(choose(info.name, step).name)
        except KernelUnavailable:
            continue
    return names


def choose(request: str, step: Step) -> Choice:
    """Choose the engine for a cell.

    Args:
        request: ``auto``, or the name of an engine.
        step: the traced cell.

    Raises:
        ConfigError: there is no engine of that name.
        KernelUnavailable: that engine cannot run this cell here; the message says why.
    """
    if request not in ENGINES:
        raise ConfigError(unknown_name("engine", request, ENGINES))
    table = {info.name: info for info in engines()}
    if request == "auto":
        return Choice("eager", f"asked for auto; cpu: {table['cpu'].reason}")
    info = table[request]
    if not info.usable:
        raise KernelUnavailable(
            explain(
                f"the engine '{request}' cannot run {type(step.cell).__name__} here.",
                got=info.reason,
                advice="engine='eager' runs every cell; engine='auto' takes the fastest that can",
            )
        )
    return Choice(request, "asked for")


def load(choice: Choice) -> EagerEngine:
    """Return the engine itself, imported at the first use."""
    from carousel.engines.eager import EagerEngine

    return {"eager": EagerEngine}[choice.name]()
