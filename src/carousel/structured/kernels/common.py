"""What the kernels over chains share: rows of padded vectors, products of one row with a matrix, and a row's place.

A *step* is a real (unmasked) step of some row; the steps of all rows are numbered one after another, and `first` says where
each row's begin. The scores of a step stand where its caller keeps them, `place` bytes from the start; everything that a kernel
writes for itself has rows padded to whole vectors, so that only reading scores and writing gradients is masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from carousel.engines.cpu.blocks import Loop
from carousel.engines.cpu.frames import flush_denormals, whole
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import I64, Real, Value
from carousel.engines.cpu.wide import Kernel

__all__ = ["UNROLL", "ChainKernel"]

# Rows of a matrix that a product takes at a time: matrices are padded with rows of zeros to a multiple.
UNROLL = 4

# Columns that a product takes at a time, in vectors.
_BLOCK = 4

_DOUBLE = ir.DoubleType()


class ChainKernel(Kernel):
    """A kernel whose members share rows; each row goes through its steps by itself, and what it needs stays near."""

    def __init__(self, module: ir.Module, target: Target, real: Real) -> None:
        super().__init__(module, target, real)
        lanes = whole(self.vec.lanes)
        self.vectors = self.blocks.share(self.args["K"], lanes)
        self.full = self.blocks.plus(self.vectors, -1)
        self.line = self.blocks.times(self.vectors, self.bytes)
        self.mask = self._first(self.blocks.minus(self.args["K"], self.blocks.times(self.full, self.vec.lanes)))

    def write(self) -> None:
        """All rows of this member. What is below the type's full precision counts as 0: a CPU takes a hundred times as long
        for it, and the exponential of minus infinity, behind the last state, passes through it."""
        back = flush_denormals(self.b, self.target)
        begin, stop = self._part(self.args["rows"])
        with self.blocks.loop(begin, stop) as turn:
            self._row(turn.index, self._word("*first", turn.index), self._word("*first", self.blocks.plus(turn.index, 1)))
        back()
        self.b.ret_void()

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        raise NotImplementedError

    # --- memory -------------------------------------------------------------------------------------------------------

    def _word(self, name: str, index: Value) -> Value:
        return self.b.load(self.blocks.at(self.args[name], self.blocks.times(index, 8)), align=8, typ=I64)

    def _number(self, pointer: Value, index: Value) -> Value:
        place = self.blocks.at(pointer, self.blocks.times(index, self.real.size))
        return self.b.load(place, align=self.real.size, typ=self.real.type)

    def _padded(self, name: str, step: Value) -> Value:
        """Where a step's row of a padded buffer begins."""
        return self.blocks.at(self.args[name], self.blocks.times(step, self.line))

    def _vector(self, pointer: Value, v: Value) -> Value:
        return self.vec.load(self.blocks.at(pointer, self.blocks.times(v, self.bytes)))

    def _put(self, value: Value, pointer: Value, v: Value) -> None:
        self.vec.store(value, self.blocks.at(pointer, self.blocks.times(v, self.bytes)))

    def _result(self, row: Value, column: int, columns: int, value: Value) -> None:
        place = self.blocks.plus(self.blocks.times(row, columns), column)
        self.b.store(value, self.blocks.at(self.args["*out"], self.blocks.times(place, 8)), align=8)

    def _room(self, index: int) -> Value:
        """A padded row of this member's own."""
        start = self.blocks.times(self.blocks.plus(self.blocks.times(self.member, whole(_ROOM_ROWS)), index), self.line)
        return self.blocks.at(self.args["*room"], start)

    # --- passes over a row --------------------------------------------------------------------------------------------

    def _scores(self, step: Value, begin: Value, end: Value, to: Value) -> Value:
        """Copy a step's scores to a padded row, with those of starting and ending; the largest of each lane.

        What is added is minus infinity behind the last score.
        """
        b, blocks, vec, args = self.b, self.blocks, self.vec, self.args
        source = blocks.at(args["*unary"], self._word("*place", step))
        starts = b.icmp_signed("==", step, begin)
        ends = b.icmp_signed("==", blocks.plus(step, 1), end)
        head = b.select(starts, args["*start"], args["*between"])
        tail = b.select(ends, args["*end"], args["*between"])

        def turn(v: Value, largest: Value, mask: Value | None) -> Value:
            here = blocks.times(v, self.bytes)
            score = vec.load(blocks.at(source, here), mask)
            score = vec.add(vec.add(score, vec.load(blocks.at(head, here))), vec.load(blocks.at(tail, here)))
            vec.store(score, blocks.at(to, here))
            return vec.at_least(score, largest)

        with blocks.loop(whole(0), self.full, carried=[vec.const(float("-inf"))]) as loop:
            loop.next = [turn(loop.index, loop.carried[0], None)]
        return turn(self.full, loop.carried[0], self.mask)

    def _over(self, start: Sequence[Value], turn: Callable[[Loop], None]) -> list[Value]:
        """Over the vectors of a padded row."""
        with self.blocks.loop(whole(0), self.vectors, carried=start) as loop:
            turn(loop)
        return loop.carried

    def _columns(self, start: Sequence[Value], each: Callable[[Value, int, list[Value]], list[Value]]) -> list[Value]:
        """Over blocks of columns: `each` is told the first vector, how many there are, and what is carried."""
        b, blocks = self.b, self.blocks
        rest = b.urem(self.vectors, whole(_BLOCK))
        many = blocks.minus(self.vectors, rest)
        with blocks.loop(whole(0), many, _BLOCK, carried=start) as loop:
            loop.next = each(loop.index, _BLOCK, loop.carried)
        carried = loop.carried
        for width in range(1, _BLOCK):
            with blocks.only_if(b.icmp_signed("==", rest, whole(width)), carried) as last:
                last.next = each(many, width, last.carried)
            carried = last.carried
        return carried

    def _product(self, x: Value, rows: Value, matrix: Value, v: Value, width: int) -> list[Value]:
        """``sum over i of x[i] * matrix[i, columns]``: several sums each, since one would wait for its own last addition."""
        blocks, vec = self.blocks, self.vec
        chains = UNROLL if width <= 2 else 2
        columns = blocks.at(matrix, blocks.times(v, self.bytes))
        with blocks.loop(whole(0), rows, UNROLL, carried=[vec.const(0.0)] * (chains * width)) as loop:
            sums = list(loop.carried)
            line = blocks.at(columns, blocks.times(loop.index, self.line))
            for along in range(UNROLL):
                number = vec.splat(self._number(x, blocks.plus(loop.index, along)))
                for c in range(width):
                    at = (along % chains) * width + c
                    sums[at] = vec.fma(number, vec.load(blocks.at(line, whole(c * self.bytes))), sums[at])
                line = blocks.at(line, self.line)
            loop.next = sums
        sums = loop.carried
        while len(sums) > width:
            half = len(sums) // 2
            sums = [vec.add(a, c) for a, c in zip(sums[:half], sums[half:], strict=True)]
        return sums

    # --- single numbers -----------------------------------------------------------------------------------------------

    def _largest(self, value: Value) -> Value:
        """The largest of all lanes."""
        return self._halves(value, lambda a, b: self.vec.at_least(a, b))

    def _least(self, value: Value) -> Value:
        """The least of all lanes."""
        return self._halves(value, lambda a, b: self.vec.at_most(a, b))

    def _sum(self, value: Value) -> Value:
        """The sum of all lanes."""
        return self._halves(value, self.b.fadd)

    def _halves(self, value: Value, join: Callable[[Value, Value], Value]) -> Value:
        """By halves: LLVM's own sum waits for every addition, and its own largest asks whether each is a number."""
        b, lanes = self.b, self.vec.lanes
        i32 = ir.IntType(32)
        while lanes > 1:
            half = lanes // 2
            parts = []
            for start in (0, half):
                order = ir.Constant(ir.VectorType(i32, half), [ir.Constant(i32, start + i) for i in range(half)])
                parts.append(b.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), order))
            value, lanes = join(parts[0], parts[1]), half
        return b.extract_element(value, ir.Constant(i32, 0))

    def _scalar(self, number: float) -> Value:
        return ir.Constant(self.real.type, number)

    def _double(self, value: Value) -> Value:
        return value if self.real.bits == 64 else self.b.fpext(value, _DOUBLE)

    def _finite(self, value: Value) -> Value:
        """Not less than the least number: minus infinity taken from itself would not be a number."""
        lowest = self._scalar(_LOWEST[self.real.bits])
        return self.b.select(self.b.fcmp_ordered("<", value, lowest), lowest, value)

    def _power_of_two(self, largest: Value) -> tuple[Value, Value]:
        """n, a double, and ``2**-n`` for the n with ``2**n <= largest < 2**(n+1)``; 0 and 1 for 0, infinity and
        not-a-number."""
        b, real = self.b, self.real
        kind = real.whole
        biased = b.lshr(b.bitcast(largest, kind), ir.Constant(kind, real.mantissa))
        zero, top = ir.Constant(kind, 0), ir.Constant(kind, 2 * real.bias + 1)
        # A sign, which no sum of products has, would make it larger than all exponents.
        usual = b.and_(b.icmp_unsigned(">", biased, zero), b.icmp_unsigned("<", biased, top))
        biased = b.select(usual, biased, ir.Constant(kind, real.bias))
        scale = b.shl(b.sub(ir.Constant(kind, 2 * real.bias), biased), ir.Constant(kind, real.mantissa))
        return b.sitofp(b.sub(biased, ir.Constant(kind, real.bias)), _DOUBLE), b.bitcast(scale, real.type)


_ROOM_ROWS = 3
_LOWEST = {32: float.fromhex("-0x1.fffffep+127"), 64: float.fromhex("-0x1.fffffffffffffp+1023")}
