"""The softmax of long rows, its cross-entropy and the gradient of that, in one kernel for `threads.run`.

A row z of V numbers is read from far once: it fits a near cache, where the second and the third pass find it.

1. add the bias; the largest number, and the sum of all.
2. e = exp(z - largest), and the sum of e.
3. where the gradient is asked for, z becomes scale (e / sum - hot [v = target] - even).

Three passes over V numbers, one exponential each: about 30 cycles for 16 numbers, a fiftieth of the products around it where
there are 200 features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from torch import Tensor

from carousel.engines.cpu import functions, threads
from carousel.engines.cpu.blocks import Loop
from carousel.engines.cpu.compile import Code, compiled
from carousel.engines.cpu.frames import whole
from carousel.engines.cpu.target import Target, target
from carousel.engines.cpu.team import WORTH_A_THREAD
from carousel.engines.cpu.vectors import I64, REALS, Real, Value
from carousel.engines.cpu.wide import Kernel

_ARGUMENTS = ("rows", "V", "*z", "z row", "*bias", "*target", "*scale", "*share", "*stats", "gradient")

# Operations for a number of a row, to deal rows to threads.
_OPERATIONS = 40


class Stats(NamedTuple):
    """What a softmax leaves of each row, (rows,).

    Attributes:
        log_sum: the logarithm of the sum of exponentials.
        total: the sum of the row.
        hit: the target's number; 0 without one.
    """

    log_sum: Tensor
    total: Tensor
    hit: Tensor


def softmax(
    z: Tensor, bias: Tensor | None, targets: Tensor, *, scale: Tensor | None = None, hot: float = 1.0, even: float = 0.0
) -> Stats:
    """The softmax of ``z + bias`` in each row, and its gradient.

    Args:
        z: (rows, V), changed: where `scale` is given it becomes the gradient, else it is of no use any more.
        bias: (V,), or None.
        targets: (rows,), int64; a negative one leaves its row out: its gradient is 0.
        scale: (rows,), what each row's gradient is multiplied by; no gradient if None.
        hot: what is taken from the target's probability.
        even: what is taken from each.

    Returns:
        What a loss needs.
    """
    real, (rows, V) = REALS[str(z.dtype).removeprefix("torch.")], z.shape
    stats = z.new_empty((4, rows))
    bias = z.new_zeros(V) if bias is None else bias.contiguous()
    share = z.new_tensor([hot, even])
    held = (bias, targets.contiguous(), share, scale if scale is None else scale.contiguous())
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in held]
    bias_at, targets_at, share_at, scale_at = pointers
    numbers = (rows, V, z.data_ptr(), z.stride(0) * real.size, bias_at, targets_at, scale_at, share_at)
    words = np.array([*numbers, stats.data_ptr(), int(scale is not None)], dtype=np.int64)
    members = max(1, min(threads.default_threads(), rows, int(_OPERATIONS * rows * V / WORTH_A_THREAD)))
    threads.run([(_code(real).address("softmax"), words.ctypes.data)], members)
    largest, total, exponentials, hit = stats
    return Stats(largest + exponentials.log(), total, hit)


@functools.cache
def _code(real: Real) -> Code:
    cpu = target()
    return compiled(lambda: build(cpu, real), ("softmax", real.name), cpu)


def build(target: Target, real: Real) -> ir.Module:
    """The module with `softmax`; a pure function of its arguments."""
    module = ir.Module(f"softmax.{real.name}")
    module.triple = target.triple
    _Softmax(module, target, real).write()
    return module


class _Softmax(Kernel):
    name, arguments = "softmax", _ARGUMENTS

    def write(self) -> None:
        b, blocks, args, vec = self.b, self.blocks, self.args, self.vec
        size, lanes = whole(self.real.size), vec.lanes
        self.vectors, self.left = b.udiv(args["V"], whole(lanes)), b.urem(args["V"], whole(lanes))
        wanted = b.icmp_signed("!=", args["gradient"], whole(0))
        hot, even = (self._number(args["*share"], whole(i)) for i in range(2))
        begin, stop = self._part(args["rows"])
        with blocks.loop(begin, stop) as turn:
            row = turn.index
            z = blocks.at(args["*z"], blocks.times(row, args["z row"]))
            at = b.load(blocks.at(args["*target"], blocks.times(row, 8)), typ=I64)
            there = b.icmp_signed(">=", at, whole(0))
            with blocks.only_if(there):
                largest, total = self._first_pass(z)
                one = blocks.at(z, blocks.times(at, size))
                hit = b.load(one, align=self.real.size, typ=self.real.type)
                exponentials = self._second_pass(z, vec.splat(largest))
                for i, number in enumerate((largest, total, exponentials, hit)):
                    place = blocks.plus(blocks.times(args["rows"], i), row)
                    b.store(number, blocks.at(args["*stats"], blocks.times(place, size)))
                with blocks.only_if(wanted):
                    scale = self._number(args["*scale"], row)
                    factor, less = b.fdiv(scale, exponentials), b.fmul(scale, even)
                    self._third_pass(z, vec.splat(factor), vec.splat(less))
                    number = b.load(one, align=self.real.size, typ=self.real.type)
                    b.store(b.fsub(number, b.fmul(scale, hot)), one, align=self.real.size)
            with blocks.only_if(b.not_(there)):
                self._nothing(z, row, wanted)
        b.ret_void()

    def _number(self, pointer: Value, index: Value) -> Value:
        place = self.blocks.at(pointer, self.blocks.times(index, self.real.size))
        return self.b.load(place, align=self.real.size, typ=self.real.type)

    def _over(self, start: list[Value], turn: Callable[[Loop, Value, Value | None], None]) -> list[Value]:
        """Over the vectors of a row, and what is left: `turn` is told where, and the mask."""
        blocks = self.blocks
        with blocks.loop(whole(0), self.vectors, carried=start) as loop:
            turn(loop, blocks.times(loop.index, self.bytes), None)
        with blocks.only_if(self.b.icmp_signed("!=", self.left, whole(0)), loop.carried) as last:
            turn(last, blocks.times(self.vectors, self.bytes), self._first(self.left))
        return last.carried

    def _first_pass(self, z: Value) -> tuple[Value, Value]:
        vec, blocks = self.vec, self.blocks
        least = vec.const(float("-inf"))

        def turn(loop: Loop, here: Value, mask: Value | None) -> None:
            place = blocks.at(z, here)
            value = vec.add(vec.load(place, mask), vec.load(blocks.at(self.args["*bias"], here), mask))
            vec.store(value, place, mask)
            largest, total = loop.carried if loop.index is not None else loop.next
            total = vec.add(total, value)
            value = value if mask is None else vec.select(mask, value, least)
            loop.next = [vec.at_least(value, largest), total]

        largest, total = self._over([least, vec.const(0.0)], turn)
        return self._join("fmax", largest), self._join("fadd", total)

    def _second_pass(self, z: Value, largest: Value) -> Value:
        vec, blocks = self.vec, self.blocks

        def turn(loop: Loop, here: Value, mask: Value | None) -> None:
            place = blocks.at(z, here)
            value = functions.emit(vec, "exp", [vec.sub(vec.load(place, mask), largest)])
            vec.store(value, place, mask)
            (total,) = loop.carried if loop.index is not None else loop.next
            value = value if mask is None else vec.select(mask, value, vec.const(0.0))
            loop.next = [vec.add(total, value)]

        return self._join("fadd", self._over([vec.const(0.0)], turn)[0])

    def _third_pass(self, z: Value, factor: Value, less: Value) -> None:
        vec, blocks = self.vec, self.blocks

        def turn(_: Loop, here: Value, mask: Value | None) -> None:
            place = blocks.at(z, here)
            vec.store(vec.sub(vec.mul(vec.load(place, mask), factor), less), place, mask)

        self._over([], turn)

    def _nothing(self, z: Value, row: Value, wanted: Value) -> None:
        """A row that is left out: no loss, and 0 where its gradient would be."""
        b, blocks, vec = self.b, self.blocks, self.vec
        for i in range(4):
            place = blocks.plus(blocks.times(self.args["rows"], i), row)
            one = ir.Constant(self.real.type, 1.0 if i == 2 else 0.0)  # whose logarithm is 0
            b.store(one, blocks.at(self.args["*stats"], blocks.times(place, self.real.size)))
        with blocks.only_if(wanted):
            self._over([], lambda _, here, mask: vec.store(vec.const(0.0), blocks.at(z, here), mask))

    def _join(self, name: str, value: Value) -> Value:
        """One number of all lanes; sums in the order of the lanes."""
        vec = self.vec
        start = [ir.Constant(self.real.type, -0.0)] if name == "fadd" else []
        return vec.call(f"llvm.vector.reduce.{name}.v{vec.lanes}f{self.real.bits}", self.real.type, [*start, value])
