"""From matrices as torch holds them to the panels that `product` reads.

``pack(gates, units, K, matrices, row, column, block, out)``
    Packs `gates` matrices of (units, K). All whole numbers have 64 bits, strides are in bytes.

    - `matrices`: the addresses of the matrices. Element (unit o, k) lies at address + o * row + k * column. A matrix (out, in)
      has column = size; its transpose has row = size.
    - The units are cut into vectors; the last is filled with zeros. `block` vectors of units stand together: for each block
      (the last may be shorter), for each gate, for each vector of units in the block comes one vector. So `block` 1 takes the
      gates in turn, vector by vector, and a `block` of all vectors keeps each gate's units together.
    - `out`: the vectors in that order, cut into panels as `product` reads them: gates * ceil(units / lanes) vectors of K steps.
      Weights in bfloat16 are rounded to the nearest, ties to even.
"""

from __future__ import annotations

from itertools import product as pairs
from typing import Any

from llvmlite import ir

from carousel.engines.cpu.frames import at, counted, function, smaller, whole
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import I32, I64, POINTER, Real, Value, Vectors
from carousel.engines.cpu.weights import Weights, rounded, side_by_side

_ARGUMENTS = (
    ("gates", I64),
    ("units", I64),
    ("K", I64),
    ("matrices", POINTER),
    ("row", I64),
    ("column", I64),
    ("block", I64),
    ("out", POINTER),
)
I16 = ir.IntType(16)

_PART = (("source", POINTER), ("row", I64), ("column", I64), ("units", I64), ("K", I64), ("out", POINTER), ("out_step", I64))


def write_pack(module: ir.Module, target: Target, real: Real, weights: Weights, width: int) -> ir.Function:
    """The function `pack`, for panels of `width` vectors of matrices in `real`.

    Every number is read and written once: 1 MB of weights is 2 MB of traffic, and a matrix that has to be turned costs
    log2(lanes) shuffles for each vector, one in a cycle: 64 cycles for 1 KB at 16 floats. That promises 25 us for a megabyte in
    L2, and the speed of reading and writing where the weights are further away.
    """
    made = function(module, target, "pack", _ARGUMENTS, inside=False)
    _Pack(made, target, real, weights, width).write()
    return made


class _Pack:
    """What is written into `pack`: panels outside, then blocks of K, then a panel's vectors: `out` is written in order."""

    def __init__(self, made: ir.Function, target: Target, real: Real, weights: Weights, width: int) -> None:
        self.made, self.target, self.real, self.weights, self.width = made, target, real, weights, width
        self.lanes, self.bytes = target.bits // real.bits, target.bits // 8

    def write(self) -> None:
        part = [self._part(name) for name in ("turned", "copied", "plain")]
        b = ir.IRBuilder(self.made.append_basic_block("entry"))
        gates, units, K, _, row, column, _, out = self.made.args
        sources, counts = (b.alloca(kind, whole(self.width)) for kind in (POINTER, I64))
        vectors = b.udiv(b.add(units, whole(self.lanes - 1)), whole(self.lanes))
        total = b.mul(gates, vectors)
        size = whole(self.real.size)
        filled, rows = self.weights.count(b, K), self.weights.padded(b, K)
        # What is left of an odd K, where two steps lie side by side, is written one by one.
        even = b.and_(K, whole(-self.weights.together))
        long = b.icmp_signed(">=", even, whole(self.lanes))
        turned = b.and_(long, b.icmp_signed("==", column, size))
        straight = b.icmp_signed("==", row, size)
        with counted(b, total, self.width) as first:
            wide = smaller(b, b.sub(total, first), whole(self.width))
            step = b.mul(wide, whole(self.bytes))
            panel = at(b, out, b.mul(b.mul(first, rows), whole(self.bytes)))
            with counted(b, wide) as place:
                source, count = self._source(b, b.add(first, place), vectors)
                b.store(source, b.gep(sources, [place], source_etype=POINTER))
                b.store(count, b.gep(counts, [place], source_etype=I64))
            with counted(b, even, self.lanes) as k:
                # The last block reaches back over the one before and writes the same numbers again: nothing remains.
                here = b.select(long, smaller(b, k, b.sub(even, whole(self.lanes))), whole(0))
                target, ahead = at(b, panel, b.mul(self.weights.count(b, here), step)), b.mul(here, column)
                with counted(b, wide) as place:
                    source = b.load(b.gep(sources, [place], source_etype=POINTER), typ=POINTER)
                    count = b.load(b.gep(counts, [place], source_etype=I64), typ=I64)
                    arguments = [at(b, source, ahead), row, column, count, smaller(b, even, whole(self.lanes))]
                    arguments += [at(b, target, b.mul(place, whole(self.bytes))), step]
                    whole_vector = b.icmp_signed("==", count, whole(self.lanes))
                    other = b.select(b.and_(straight, whole_vector), whole(1), whole(2))
                    after = b.append_basic_block("after")
                    way = b.switch(b.select(turned, whole(0), other), after)
                    for number, callee in enumerate(part):
                        block = b.append_basic_block(callee.name)
                        way.add_case(whole(number), block)
                        b.position_at_end(block)
                        b.call(callee, arguments)
                        b.branch(after)
                    b.position_at_end(after)
            if self.weights.together > 1:
                target, ahead = at(b, panel, b.mul(self.weights.count(b, even), step)), b.mul(even, column)
                with counted(b, b.sub(K, even)), counted(b, wide) as place:
                    source = b.load(b.gep(sources, [place], source_etype=POINTER), typ=POINTER)
                    count = b.load(b.gep(counts, [place], source_etype=I64), typ=I64)
                    arguments = [at(b, source, ahead), row, column, count, whole(1)]
                    b.call(part[2], [*arguments, at(b, target, b.mul(place, whole(self.bytes))), step])
            if self.weights.multiple > 1:
                target = at(b, panel, b.mul(filled, step))
                zero = Vectors(b, self.target, self.real).const(0.0)
                with counted(b, b.mul(b.sub(rows, filled), wide)) as line:
                    b.store(zero, at(b, target, b.mul(line, whole(self.bytes))), align=self.bytes)
        b.ret_void()

    def _source(self, b: ir.IRBuilder, number: Value, vectors: Value) -> tuple[Value, Value]:
        """Where the units of a vector lie, and how many there are."""
        gates, units, _, matrices, row, _, block, _ = self.made.args
        block = smaller(b, block, vectors)
        each = b.mul(gates, block)
        index, within = b.udiv(number, each), b.urem(number, each)
        first = b.mul(index, block)
        here = smaller(b, block, b.sub(vectors, first))
        gate, unit = b.udiv(within, here), b.mul(b.add(first, b.urem(within, here)), whole(self.lanes))
        base = b.load(at(b, matrices, b.mul(gate, whole(8))), typ=POINTER)
        return at(b, base, b.mul(unit, row)), smaller(b, b.sub(units, unit), whole(self.lanes))

    def _part(self, name: str) -> Any:
        """A function for a block of K of one vector: `units` real ones, and zeros."""
        made = function(self.made.module, self.target, name, _PART, inside=True)
        b = ir.IRBuilder(made.append_basic_block("entry"))
        {"turned": self._turned, "copied": self._copied, "plain": self._plain}[name](b, *made.args)
        b.ret_void()
        return made

    def _plain(
        self, b: ir.IRBuilder, source: Value, row: Value, column: Value, units: Value, K: Value, out: Value, step: Value
    ) -> None:
        """Any strides, one number at a time."""
        size, kind, together = self.real.size, self.real.type, self.weights.together
        vec = Vectors(b, self.target, self.real)
        with counted(b, self.weights.count(b, K)) as line:
            b.store(vec.const(0.0), at(b, out, b.mul(line, step)), align=self.bytes)
        with counted(b, K) as k:
            place_in, place = at(b, source, b.mul(k, column)), at(b, out, b.mul(b.udiv(k, whole(together)), step))
            place = at(b, place, b.mul(b.urem(k, whole(together)), whole(self.weights.size)))
            with counted(b, units) as unit:
                number = b.load(at(b, place_in, b.mul(unit, row)), align=size, typ=kind)
                kept = b.trunc(rounded(b, number), I16) if together > 1 else number
                b.store(kept, at(b, place, b.mul(unit, whole(size))), align=self.weights.size)

    def _copied(
        self, b: ir.IRBuilder, source: Value, _row: Value, column: Value, _units: Value, K: Value, out: Value, step: Value
    ) -> None:
        """The units lie one after another."""
        vec, together = Vectors(b, self.target, self.real), self.weights.together
        with counted(b, self.weights.count(b, K)) as line:
            places = [at(b, source, b.mul(b.add(b.mul(line, whole(together)), whole(i)), column)) for i in range(together)]
            held = [b.load(place, align=self.real.size, typ=vec.type) for place in places]
            b.store(self._kept(vec, held), at(b, out, b.mul(line, step)), align=self.bytes)

    def _turned(
        self, b: ir.IRBuilder, source: Value, row: Value, _column: Value, units: Value, _K: Value, out: Value, step: Value
    ) -> None:
        """The numbers of a unit lie one after another: a square is turned in registers.

        Units that are not there are read as the last one, and left out.
        """
        vec, L = Vectors(b, self.target, self.real), self.lanes
        last = b.sub(units, whole(1))
        rows = [
            b.load(at(b, source, b.mul(smaller(b, whole(i), last), row)), align=self.real.size, typ=vec.type) for i in range(L)
        ]
        there = b.icmp_signed("<", vec.iota(), vec.splat(units if self.real.bits == 64 else b.trunc(units, I32)))
        columns = [vec.select(there, column, vec.const(0.0)) for column in turn(b, rows, 128 // self.real.bits)]
        together = self.weights.together
        for i in range(0, L, together):
            place = at(b, out, b.mul(step, whole(i // together)))
            b.store(self._kept(vec, columns[i : i + together]), place, align=self.bytes)

    @staticmethod
    def _kept(vec: Vectors, steps: list[Value]) -> Value:
        """What a line holds of one vector: one step, or two rounded ones."""
        return steps[0] if len(steps) == 1 else side_by_side(vec, steps[0], steps[1])


def turn(b: ir.IRBuilder, rows: list[Value], part: int) -> list[Value]:
    """Transpose a square of vectors: first within parts of 128 bits, then the parts; each shuffle is one instruction on x86.

    Args:
        b: where the instructions go.
        rows: as many vectors as a vector has lanes.
        part: lanes in 128 bits.
    """
    lanes = len(rows)
    starts = range(0, lanes, part)

    def mix(x: Value, y: Value, inside: list[int]) -> Value:
        """In each part the given lanes; those from `part` on are of the other vector."""
        return _shuffle(b, x, y, [start + (i if i < part else lanes + i - part) for start in starts for i in inside])

    columns: dict[tuple[int, int], Value] = {}  # by group of rows, and by lane of a part
    for group, start in enumerate(starts):
        if part == 2:
            x, y = rows[start : start + 2]
            squares = [mix(x, y, [0, 2]), mix(x, y, [1, 3])]
        else:
            low, high = (
                [mix(rows[start + i], rows[start + i + 1], order) for i in (0, 2)] for order in ([0, 4, 1, 5], [2, 6, 3, 7])
            )
            squares = [mix(x, y, order) for x, y in (low, high) for order in ([0, 1, 4, 5], [2, 3, 6, 7])]
        columns.update({(group, i): square for i, square in enumerate(squares)})
    groups, distance = lanes // part, 1
    while distance < groups:
        for group, i in pairs(range(groups), range(part)):
            if not group & distance:
                x, y = columns[group, i], columns[group + distance, i]
                even, odd = [], []
                for p in range(groups):
                    other = bool(p & distance)
                    even += _lanes(p - distance if other else p, part, lanes if other else 0)
                    odd += _lanes(p if other else p + distance, part, lanes if other else 0)
                columns[group, i], columns[group + distance, i] = _shuffle(b, x, y, even), _shuffle(b, x, y, odd)
        distance *= 2
    return [columns[group, i] for group in range(groups) for i in range(part)]


def _lanes(part: int, size: int, offset: int) -> list[int]:
    return [offset + part * size + i for i in range(size)]


def _shuffle(b: ir.IRBuilder, x: Value, y: Value, order: list[int]) -> Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), [ir.Constant(I32, i) for i in order]))
