"""What cannot be written as straight vector code: private functions with branches, and calls for single lanes."""

from __future__ import annotations

import copy
from collections.abc import Callable

from llvmlite import ir

from carousel.engines.cpu.vectors import I1, I32, Value, Vectors


def subroutine(v: Vectors, name: str, body: Callable[..., Value], *args: Value) -> Value:
    """Call a private function of the module, written at its first use by ``body(vectors, *args)``.

    Its blocks are its own: the caller's code stays one basic block. `name` must say all that `body` depends on but the vectors.
    """
    module, full = v.builder.module, f"carousel.{name}.{v.real.name}x{v.lanes}"
    function = module.globals.get(full)
    if function is None:
        function = ir.Function(module, ir.FunctionType(v.type, [arg.type for arg in args]), full)
        function.linkage = "internal"
        inside = copy.copy(v)
        inside.builder = ir.IRBuilder(function.append_basic_block())
        inside.builder.ret(body(inside, *function.args))
    return v.builder.call(function, list(args))


def by_lane(v: Vectors, mask: Value, fast: Value, scalar: Callable[..., Value], *args: Value) -> Value:
    """`fast`, but in the lanes of `mask` what ``scalar(builder, *lane_args)`` gives. Only inside a subroutine.

    A lane's value never depends on its neighbours: the slow way is taken by the lanes that need it alone.
    """
    b = v.builder
    needed = v.call(f"llvm.vector.reduce.or.v{v.lanes}i1", I1, [mask])
    before = b.block
    slow, after = b.append_basic_block("slow"), b.append_basic_block("after")
    b.cbranch(needed, slow, after)
    b.position_at_end(slow)
    found = fast
    for lane in range(v.lanes):
        at = ir.Constant(I32, lane)
        found = b.insert_element(found, scalar(b, *(b.extract_element(arg, at) for arg in args)), at)
    found = v.select(mask, found, fast)
    b.branch(after)
    b.position_at_end(after)
    result = b.phi(v.type)
    result.add_incoming(fast, before)
    result.add_incoming(found, slow)
    return result


def library(v: Vectors, name: str) -> Callable[..., Value]:
    """The C library's function of one lane, for :func:`by_lane`; LLVM knows what it is called there."""

    def call(builder: ir.IRBuilder, *args: Value) -> Value:
        full = f"llvm.{name}.f{v.real.bits}"
        function = builder.module.globals.get(full)
        if function is None:
            function = ir.Function(builder.module, ir.FunctionType(v.real.type, [v.real.type] * len(args)), full)
        return builder.call(function, args)

    return call
