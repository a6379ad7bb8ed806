"""Which engine runs a layer, and why. A table, so that no layer asks."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carousel.errors import ConfigError, KernelUnavailable, explain, unknown_name

if TYPE_CHECKING:
    from carousel.engines.call import Engine
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
    forced: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


ENGINES = ("auto", "eager", "cpu", "triton")


def engines() -> list[EngineInfo]:
    """List the engines and whether they can be used here."""
    return [
        EngineInfo("eager", True, "torch operations; every cell, device and dtype, any order of derivative"),
        _cpu(),
        EngineInfo("triton", False, "compiled kernels for GPUs are not part of this version"),
    ]


@functools.cache
def _cpu() -> EngineInfo:
    """Whether loops can be compiled here."""
    try:
        from llvmlite import __version__
        from llvmlite.binding import llvm_version_info

        from carousel.engines.cpu.target import target
    except (ImportError, OSError) as error:  # no wheel for this platform, or a library that does not load
        return EngineInfo("cpu", False, f"llvmlite cannot be loaded ({error}); pip install llvmlite")
    cpu, version = target(), ".".join(map(str, llvm_version_info))
    if not cpu.native:
        return EngineInfo("cpu", False, f"CAROUSEL_CPU asks for code for {cpu}, which this machine cannot run")
    how = f"loops compiled for {cpu} by llvmlite {__version__} (LLVM {version})"
    return EngineInfo("cpu", True, f"{how}; float32 and float64")


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
        request: ``auto``, or the name of an engine. The environment's ``CAROUSEL_ENGINE`` stands in for ``auto``.
        step: the traced cell.

    Raises:
        ConfigError: there is no engine of that name.
        KernelUnavailable: that engine cannot run this cell here; the message says why.
    """
    source = "asked for"
    if request == "auto" and os.environ.get("CAROUSEL_ENGINE"):
        request, source = os.environ["CAROUSEL_ENGINE"], "CAROUSEL_ENGINE asks for it"
    if request not in ENGINES:
        raise ConfigError(unknown_name("engine", request, ENGINES))
    if request == "auto":
        problem = _problem("cpu", step)
        if problem:
            return Choice("eager", f"chosen for this cell, since cpu cannot run it: {problem}")
        return Choice("cpu", f"chosen as the fastest; {_COMPILED}")
    problem = _problem(request, step)
    if problem:
        raise KernelUnavailable(
            explain(
                f"the engine '{request}' cannot run {type(step.cell).__name__} here.",
                got=problem,
                advice="engine='eager' runs every cell; engine='auto' takes the fastest that can",
            )
        )
    return Choice(request, f"{source}; {_COMPILED}" if request == "cpu" else source, forced=True)


_COMPILED = "what torch asks for beyond values and gradients in float32 or float64 on a CPU runs eager"


def _problem(name: str, step: Step) -> str | None:
    """Why an engine cannot run a cell here."""
    info = next(info for info in engines() if info.name == name)
    if not info.usable:
        return info.reason
    if name != "cpu":
        return None
    from carousel.engines.cpu.programs import why_not

    return why_not(step)


def load(choice: Choice) -> Engine:
    """Return the engine itself, imported at the first use."""
    if choice.name == "cpu":
        from carousel.engines.cpu import CpuEngine

        return CpuEngine(forced=choice.forced)
    from carousel.engines.eager import EagerEngine

    return EagerEngine()
