"""Every stage of compiling a cell, as text: the loop program, LLVM's language, the machine's."""

from __future__ import annotations

from carousel.engines.cpu import compile as compiling
from carousel.engines.cpu import kernel
from carousel.engines.cpu.layout import build_loop
from carousel.engines.cpu.loop import Loop
from carousel.engines.cpu.printing import loop_text
from carousel.engines.cpu.programs import Wanted, programs, why_not
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import REALS
from carousel.errors import ConfigError, KernelUnavailable, explain, unknown_name
from carousel.graph.step import Step

__all__ = ["STAGES", "emit", "loop_program"]

STAGES = ("loop", "llvm", "asm")


def loop_program(step: Step, *, backward: bool = False, fuse: bool = False) -> Loop:
    """The loop of a step as it runs in training: forwards with what is saved, or backwards to every gradient.

    Args:
        step: the traced cell.
        backward: the derived backward step.
        fuse: products and what follows them block by block where that can be, as where the weights fit no near cache.

    Raises:
        KernelUnavailable: the step cannot be compiled; the message says why.
    """
    reason = why_not(step)
    if reason:
        raise KernelUnavailable(
            explain(
                f"{type(step.cell).__name__} cannot be compiled.",
                got=reason,
                advice="--emit graph, schedule and backward print what every engine is given",
            )
        )
    found = programs(step)
    wanted = Wanted(frozenset(step.inputs), frozenset(step.parameters), frozenset(step.context))
    executor = found.backward(wanted) if backward else found.saving
    return build_loop(executor.schedule, trajectory=True, fuse=fuse, owned=executor.owned)


def emit(
    step: Step, stage: str, *, backward: bool = False, fuse: bool = False, cpu: str | None = None, dtype: str = "float32"
) -> str:
    """A stage of a step's loop as text.

    Args:
        step: the traced cell.
        stage: ``loop`` (the loop program), ``llvm`` or ``asm`` (the kernel in LLVM's language, or as assembly code).
        backward: the derived backward step.
        fuse: as for :func:`loop_program`.
        cpu: LLVM's name of the CPU; default: this machine's, or what ``CAROUSEL_CPU`` says.
        dtype: ``float32`` or ``float64``.

    Raises:
        ConfigError: there is no such stage, CPU or type.
        KernelUnavailable: the step cannot be compiled.
    """
    if stage not in STAGES:
        raise ConfigError(unknown_name("stage", stage, STAGES))
    if dtype not in REALS:
        raise ConfigError(unknown_name("type of numbers", dtype, REALS))
    chosen = target(cpu)
    loop = loop_program(step, backward=backward, fuse=fuse)
    if stage == "loop":
        return loop_text(loop, named=True)
    module = kernel.build(loop, chosen, REALS[dtype])
    return {"llvm": compiling.llvm_text, "asm": compiling.assembly}[stage](module, chosen)
