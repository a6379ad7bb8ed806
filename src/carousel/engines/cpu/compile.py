"""From an LLVM module to code that runs: passes, machine code, and loading it into the process."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from carousel.engines.cpu import cache
from carousel.engines.cpu.target import Target
from carousel.errors import KernelUnavailable, explain

# Generated code comes in SSA form, with its loops as they shall be. These passes tidy it; LLVM's own -O2 takes ten times
# as long and would unroll the register tiles once more. Common subexpressions and loop invariants are found again during
# code generation. No pass here or there reassociates or fuses floating-point operations: that would need flags on the
# instructions, and we write none.
_PASSES = ("sroa", "instruction_combine", "simplify_cfg", "aggressive_dce")


# --- writing code -----------------------------------------------------------------------------------------------------


def optimise(module: ir.Module | str, target: Target) -> Any:
    """The module, checked and tidied, for a target.

    Args:
        module: llvmlite's module or LLVM's text. It is not changed.
        target: the CPU.

    Returns:
        llvmlite's ``ModuleRef``.

    Raises:
        RuntimeError: the module is not valid LLVM: a mistake in what wrote it.
    """
    machine = target.machine()
    parsed = llvm.parse_assembly(str(module))
    parsed.triple = target.triple
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_module_pass_manager()
    for name in _PASSES:
        getattr(passes, f"add_{name}_pass")()
    passes.run(parsed, builder)
    return parsed


def llvm_text(module: ir.Module | str, target: Target) -> str:
    """The tidied module in LLVM's language, for reading."""
    return str(optimise(module, target))


def assembly(module: ir.Module | str, target: Target) -> str:
    """The target's assembly code, for reading."""
    return str(target.machine().emit_assembly(optimise(module, target)))


def object_code(module: ir.Module | str, target: Target) -> bytes:
    """The target's machine code, as the contents of an object file."""
    return bytes(target.machine().emit_object(optimise(module, target)))


# --- loading code -----------------------------------------------------------------------------------------------------


class Code:
    """Machine code in this process's memory, where it stays as long as this object lives.

    Args:
        library: its name inside LLVM's loader.
        memory: what keeps the code alive.
    """

    def __init__(self, library: str, memory: Any) -> None:
        self._library = library
        self._memory = memory
        self._found: dict[str, Any] = {}

    def address(self, name: str) -> int:
        """Where the function or the constant called `name` stands.

        Raises:
            KernelUnavailable: there is none of that name, or the code needs a symbol that this process does not have.
        """
        found = self._found.get(name)
        if found is None:
            try:
                found = self._found[name] = _loader().lookup(self._library, name)
            except RuntimeError as error:
                raise KernelUnavailable(explain(f"Compiled code: '{name}' cannot be loaded.", got=str(error))) from error
        return int(found[name])


_numbers = itertools.count()


def load(object_code: bytes, target: Target) -> Code:
    """Put machine code into memory, without parsing or compiling anything (0.3 ms).

    Symbols that the code does not define, like ``memcpy``, are those of this process.

    Raises:
        KernelUnavailable: the code is for another CPU, or is no object code.
    """
    _check_native(target)
    library = f"carousel{next(_numbers)}"
    try:
        memory = llvm.JITLibraryBuilder().add_object_img(object_code).add_current_process().link(_loader(), library)
    except RuntimeError as error:
        raise KernelUnavailable(explain("Compiled code cannot be loaded.", got=str(error))) from error
    return Code(library, memory)


@functools.cache
def _loader() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # LLVM's newer linker puts no limit on how far code may stand from what it calls; for Windows's objects it is incomplete.
    return llvm.create_lljit_compiler(use_jit_link=os.name != "nt", suppress_errors=True)


def _check_native(target: Target) -> None:
    if not target.native:
        raise KernelUnavailable(
            explain(
                f"Code for the CPU '{target.cpu}' cannot run on this machine.",
                got=f"target {target.triple}, {target}",
                expected=f"code for {llvm.get_host_cpu_name()} ({llvm.get_process_triple()})",
                advice="unset CAROUSEL_CPU to write code for this machine; code for another can only be printed",
            )
        )


# --- both -------------------------------------------------------------------------------------------------------------

_codes: dict[tuple[tuple[str, ...], Target], Code] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A fork waits until a compilation in another thread is over: a child could never finish it.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def compiled(module_builder: Callable[[], ir.Module | str], key: Sequence[str], target: Target) -> Code:
    """The code of a module: from this process's memory, else from the disk cache, else built and compiled now.

    Safe to call from several threads and processes at once.

    Args:
        module_builder: makes the module; called only where it must be compiled.
        key: what the module depends on besides the target and our sources: the graph, the type of numbers, the variant.
        target: the CPU.

    Raises:
        KernelUnavailable: the target is not this machine.
    """
    name = (tuple(key), target)
    code = _codes.get(name)
    if code is None:
        _check_native(target)
        with _lock:
            code = _codes.get(name)
            if code is None:
                code = _codes[name] = _from_disk_or_new(module_builder, key, target)
    return code


def _from_disk_or_new(module_builder: Callable[[], ir.Module | str], key: Sequence[str], target: Target) -> Code:
    digest = cache.digest(key, target)
    stored = cache.read(digest)
    if stored is not None:
        try:
            return load(stored, target)
        except KernelUnavailable:
            cache.discard(digest)
    fresh = object_code(module_builder(), target)
    cache.write(digest, fresh)
    return load(fresh, target)
