"""Functions in LLVM's language: how one begins, addresses in bytes, loops and ways that part and meet again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from carousel.engines.cpu.blocks import Blocks
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import I8, I32, I64, POINTER, Value

VOID = ir.VoidType()


def function(
    module: ir.Module, target: Target, name: str, arguments: Sequence[tuple[str, ir.Type]], *, inside: bool
) -> ir.Function:
    """A function that returns nothing and throws nothing, not yet filled.

    Args:
        module: where it goes.
        target: the CPU; for AVX-512 the function asks for registers of 512 bits, which LLVM otherwise halves on some CPUs.
        name: of the function.
        arguments: names and types.
        inside: whether only this module can call it.
    """
    made = ir.Function(module, ir.FunctionType(VOID, [kind for _, kind in arguments]), name)
    for value, (text, _) in zip(made.args, arguments, strict=True):
        value.name = text
    made.linkage = "internal" if inside else ""
    made.attributes.add("nounwind")
    if target.avx512:
        for key in ("prefer-vector-width", "min-legal-vector-width"):
            set.add(made.attributes, f'"{key}"="512"')  # llvmlite's own `add` knows no attribute with a value
    return made


def whole(number: int) -> Value:
    """A whole number of 64 bits."""
    return ir.Constant(I64, number)


def at(builder: ir.IRBuilder, pointer: Value, distance: Value | int) -> Value:
    """The address so many bytes behind another."""
    return builder.gep(pointer, [whole(distance) if isinstance(distance, int) else distance], source_etype=I8)


def smaller(builder: ir.IRBuilder, a: Value, b: Value) -> Value:
    """The smaller of two whole numbers."""
    return Blocks(builder).smaller(a, b)


@contextmanager
def counted(builder: ir.IRBuilder, stop: Value, step: int = 1) -> Iterator[Value]:
    """A loop from 0 up to, without, `stop`: what is written inside runs for each number that is given."""
    with Blocks(builder).loop(whole(0), stop, step) as turn:
        yield turn.index


@contextmanager
def case(builder: ir.IRBuilder, switch: ir.SwitchInstr, number: int, after: ir.Block) -> Iterator[None]:
    """One way of a switch, that ends at `after`."""
    block = builder.append_basic_block("case")
    switch.add_case(whole(number), block)
    builder.position_at_end(block)
    yield
    builder.branch(after)


def flush_denormals(builder: ir.IRBuilder, target: Target) -> Callable[[], None]:
    """Have numbers too small for full precision (below 1.2e-38 in float32) count as zero; returns what writes the way back.

    Gradients that vanish pass through that range on their way to zero, and most CPUs take a hundred times as long for them: a
    loss on the last of 500 steps took eight times as long as one on all of them.
    """
    module = builder.module

    def declared(name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
        found = module.globals.get(name)
        return found if found is not None else ir.Function(module, ir.FunctionType(result, arguments), name)

    if target.x86:
        store, load = (declared(f"llvm.x86.sse.{name}", VOID, [POINTER]) for name in ("stmxcsr", "ldmxcsr"))
        old, new = builder.alloca(I32), builder.alloca(I32)
        builder.call(store, [old])
        flags = builder.or_(builder.load(old, typ=I32), ir.Constant(I32, 0x8040))  # flush results, take small operands as zero
        builder.store(flags, new)
        builder.call(load, [new])
        return lambda: builder.call(load, [old])
    get = declared("llvm.aarch64.get.fpcr", I64, [])
    put = declared("llvm.aarch64.set.fpcr", VOID, [I64])
    before = builder.call(get, [])
    builder.call(put, [builder.or_(before, whole(1 << 24))])
    return lambda: builder.call(put, [before])
