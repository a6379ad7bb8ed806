"""Running kernels on several threads: torch's own, so that no second pool fights the first one for the cores.

A kernel is ``void kernel(ptr args, i64 member, i64 members, ptr barrier)``. Its team's members call it with the same
`args`, numbers from 0, and the same 128 zeroed bytes, through which :func:`emit_barrier` makes them meet.

Measured on a quiet machine with two cores: one thread costs 0.6 us a dispatch, two of libgomp's 2.6 us, two of our own
20 us; a barrier of two members 0.3 us, and of three, on those two cores, 20 us.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from llvmlite import ir

from carousel.engines.cpu import launcher
from carousel.engines.cpu.compile import Code, compiled
from carousel.engines.cpu.target import Target, target
from carousel.engines.cpu.vectors import I32, I64, POINTER, Value
from carousel.errors import ConfigError, explain

OWN = "own threads"

# --- the barrier ------------------------------------------------------------------------------------------------------

# A member that waits looks this often before it first gives its core away, and this often again before each next time.
_SPINS_FIRST, _SPINS_NEXT = 512, 32
_ARRIVED, _GENERATION = 0, 64  # two cache lines: who arrives does not disturb those who watch


def emit_barrier(builder: ir.IRBuilder, barrier: Value, members: Value, cpu: Target | None = None) -> None:
    """Write a point that no member of a team passes before all have reached it; what they wrote before is seen after it.

    It may stand in loops and be passed any number of times; all members must pass the same barriers. A team of one walks
    through.

    Args:
        builder: where it is written.
        barrier: the kernel's fourth argument.
        members: the kernel's third argument.
        cpu: what the code is for; default: this machine, or what the environment says.
    """
    meet = _barrier_function(builder.module, cpu or target())
    with builder.if_then(builder.icmp_signed(">", members, ir.Constant(I64, 1)), likely=False):
        builder.call(meet, [barrier, members])


def _barrier_function(module: ir.Module, cpu: Target) -> ir.Function:
    """A function of the module's own: the wait is long beside a call, and kernels stay small."""
    name = "carousel.barrier"
    found = module.globals.get(name)
    if found is not None:
        return found
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, I64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    pause, rest = _pause(module, cpu)
    begin, last, wait, again, give, done = (
        function.append_basic_block(block) for block in ("begin", "last", "wait", "again", "give", "done")
    )
    barrier, members = function.args

    builder = ir.IRBuilder(begin)
    generation = builder.gep(barrier, [ir.Constant(I64, _GENERATION)], source_etype=ir.IntType(8))
    # Read before arriving: the last to arrive raises it.
    before = builder.load_atomic(generation, "monotonic", 8, typ=I64)
    arrived = builder.atomic_rmw("add", barrier, ir.Constant(I64, 1), "acq_rel")
    builder.cbranch(builder.icmp_signed("==", builder.add(arrived, ir.Constant(I64, 1)), members), last, wait)

    builder.position_at_end(last)
    builder.store(ir.Constant(I64, 0), barrier)  # nobody else looks at it until the generation is raised
    builder.atomic_rmw("add", generation, ir.Constant(I64, 1), "release")
    builder.branch(done)

    builder.position_at_end(wait)
    left = builder.phi(I32)
    now = builder.load_atomic(generation, "acquire", 8, typ=I64)
    builder.cbranch(builder.icmp_signed("==", now, before), again, done)

    builder.position_at_end(again)
    pause(builder)
    fewer = builder.sub(left, ir.Constant(I32, 1))
    builder.cbranch(builder.icmp_signed("==", fewer, ir.Constant(I32, 0)), give, wait)

    builder.position_at_end(give)
    builder.call(rest, [])
    builder.branch(wait)
    left.add_incoming(ir.Constant(I32, _SPINS_FIRST), begin)
    left.add_incoming(fewer, again)
    left.add_incoming(ir.Constant(I32, _SPINS_NEXT), give)

    builder.position_at_end(done)
    builder.ret_void()
    return function


def _pause(module: ir.Module, cpu: Target) -> tuple[Callable[[ir.IRBuilder], Any], ir.Function]:
    """What writes the CPU's hint that a loop is waiting, and the system's call that gives the core to another thread."""

    def declared(name: str, result: ir.Type, *args: ir.Type) -> ir.Function:
        return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, args), name)

    rest = declared("SwitchToThread" if "windows" in cpu.triple else "sched_yield", I32)
    if cpu.x86:
        pause = declared("llvm.x86.sse2.pause", ir.VoidType())
        return (lambda builder: builder.call(pause, [])), rest
    hint = declared("llvm.aarch64.hint", ir.VoidType(), I32)
    return (lambda builder: builder.call(hint, [ir.Constant(I32, 1)])), rest


# --- which runtime ----------------------------------------------------------------------------------------------------


def _code() -> Code:
    cpu = target()
    return compiled(lambda: launcher.source(cpu), ("threads",), cpu)


_ONE = ctypes.CFUNCTYPE(None, ctypes.c_size_t)
_TWO = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t)
_forked = False


@dataclass(frozen=True)
class _Launcher:
    """A way to start a team: its name for people, the entry of our code, and the runtime's functions it needs."""

    name: str
    launch: Callable[[int], None]
    functions: list[int]


@functools.cache
def _own_threads() -> _Launcher:
    return _Launcher(OWN, _ONE(_code().address("own")), [0] * 5)


@functools.cache
def _launcher() -> _Launcher:
    """What launches teams in this process."""
    return (None if _forked else _openmp()) or _own_threads()


@functools.cache
def _alone() -> Callable[[int, int], None]:
    return _TWO(_code().address("alone"))


def _openmp() -> _Launcher | None:
    """The OpenMP runtime that torch's own calls reach. Nothing is loaded: a second runtime would bring a second pool."""
    if os.name == "nt" or not torch._C.has_openmp:
        return None
    for scope in _scopes():
        fork = _address(scope, "GOMP_parallel")
        entry, names = "gomp", ["omp_get_thread_num", "omp_get_num_threads"]
        if not fork:
            fork = _address(scope, "__kmpc_fork_call")
            entry, names = "kmp", [*names, "__kmpc_global_thread_num", "__kmpc_push_num_threads"]
        found = [_address(scope, name) for name in names]
        if fork and all(found):
            name = "libgomp" if "gomp" in _file_of(fork) else "libomp"
            return _Launcher(name, _ONE(_code().address(entry)), [fork, *found, *[0] * (4 - len(found))])
    return None


def _scopes() -> list[Any]:
    """Where the system's loader looks for what torch calls: on Linux in the whole process, then in torch and what it needs."""
    scopes = [ctypes.CDLL(None)] if sys.platform != "darwin" else []
    try:
        return [*scopes, ctypes.CDLL(torch._C.__file__, mode=os.RTLD_NOLOAD)]
    except OSError:
        return scopes


def _address(scope: Any, name: str) -> int:
    function = getattr(scope, name, None)
    return 0 if function is None else ctypes.cast(function, ctypes.c_void_p).value or 0


def _file_of(address: int) -> str:
    """The name of the library that an address lies in."""

    class Found(ctypes.Structure):
        _fields_ = (("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("symbol", ctypes.c_char_p), ("at", ctypes.c_void_p))

    found = Found()
    if not ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(found)) or not found.file:
        return ""
    return os.path.basename(os.path.realpath(os.fsdecode(found.file)))


def _after_fork() -> None:
    """In a child made by a fork, libgomp would wait for ever for threads that only the parent has."""
    global _forked
    _forked = True
    _launcher.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- for callers ------------------------------------------------------------------------------------------------------


def available() -> str:
    """What launches teams here: ``libgomp``, ``libomp``, or ``own threads`` where torch has no OpenMP or after a fork."""
    return _launcher().name


def default_threads() -> int:
    """As many threads as torch uses, or as it used where :func:`apart_from_torch` began."""
    return _kept or torch.get_num_threads()


@contextmanager
def apart_from_torch() -> Iterator[None]:
    """Leave torch one thread inside; our kernels keep as many as it had."""
    global _kept
    outer, had = _kept, torch.get_num_threads()
    _kept = outer or had
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(had)
        _kept = outer


_kept = 0


class _Table:
    """The launcher's words, and the barriers: a pair of cache lines for each job."""

    def __init__(self, jobs: int) -> None:
        size = launcher.LIST + 2 * jobs
        self.memory = ctypes.create_string_buffer(8 * size + 128 * (jobs + 1))
        self.address = ctypes.addressof(self.memory)
        self.words = (ctypes.c_size_t * size).from_buffer(self.memory)
        self.words[launcher.BARRIERS] = (self.address + 8 * size + 127) // 128 * 128


_FEW = 8
_tables: list[_Table] = []  # those not in use; a caller takes one out, so that callers never share one


def run(jobs: Sequence[tuple[int, int]], threads: int) -> None:
    """Run kernels and wait until all are done. The GIL is free meanwhile.

    With as many threads as jobs or more, each job has a team; with fewer, a thread does several jobs one after another.
    A team may be smaller than asked for, but never empty.

    Args:
        jobs: for each the addresses of a kernel and of its args.
        threads: how many members in all, at least 1. With 1, all happens in the calling thread.

    Raises:
        ConfigError: `threads` is not positive.
    """
    if threads > 1:
        _run_together(jobs, threads, _launcher())
    elif threads == 1:
        alone = _alone()
        for kernel, args in jobs:
            alone(kernel, args)
    else:
        raise ConfigError(explain("run: there must be a thread.", got=f"threads={threads}", expected="at least 1"))


def prepared(job: tuple[int, int], threads: int) -> Callable[[], None]:
    """`run` for one kernel that is run again and again: all that can be done once is done now.

    What is returned must not be called by two threads at once.

    Args:
        job: the addresses of the kernel and of its args.
        threads: how many members, at least 1.
    """
    if threads == 1:
        return functools.partial(_alone(), *job)
    table, filled = _Table(1), _launcher()
    _fill(table, [job], threads, filled)

    def start() -> None:
        nonlocal filled
        how = _launcher()
        if how is not filled:  # after a fork
            filled = how
            _fill(table, [job], threads, how)
        how.launch(table.address)

    return start


def _fill(table: _Table, jobs: Sequence[tuple[int, int]], threads: int, how: _Launcher) -> None:
    words: Any = table.words
    words[launcher.FORK : launcher.THREADS] = how.functions
    words[launcher.THREADS] = threads
    words[launcher.JOBS] = len(jobs)
    listed = [word for job in jobs for word in job]
    words[launcher.LIST : launcher.LIST + len(listed)] = listed


def _run_together(jobs: Sequence[tuple[int, int]], threads: int, how: _Launcher) -> None:
    if not jobs:
        return
    few = len(jobs) <= _FEW
    try:
        table = _tables.pop() if few else _Table(len(jobs))
    except IndexError:
        table = _Table(_FEW)
    _fill(table, jobs, threads, how)
    how.launch(table.address)
    if few:
        _tables.append(table)
