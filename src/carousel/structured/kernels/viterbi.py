"""The best path of each row: products and sums become sums and the larger of two, and the way back is kept.

best[j] = score[j] + max over i of (best'[i] - largest best') + transition[i, j]

The largest is taken away at each step and counted in a double beside, so that a long row keeps the digits in which paths
differ. Of equal paths the one through the lower state wins, from the end backwards.
"""

from __future__ import annotations

from llvmlite import ir

from carousel.engines.cpu.frames import whole
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import Real, Value
from carousel.structured.kernels.common import ChainKernel

__all__ = ["VITERBI", "build"]

VITERBI = (
    "rows", "K", "*first", "*place", "*unary", "*start", "*between", "*end", "*matrix", "*back", "*path", "*out", "*room",
)  # fmt: skip


def build(target: Target, real: Real) -> ir.Module:
    """The module with `viterbi`; a pure function of its arguments."""
    module = ir.Module(f"viterbi.{real.name}")
    module.triple = target.triple
    _Viterbi(module, target, real).write()
    return module


class _Viterbi(ChainKernel):
    name, arguments = "viterbi", VITERBI

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        b, blocks, vec = self.b, self.blocks, self.vec
        scores, best, other = (self._room(i) for i in range(3))
        zero = ir.Constant(ir.DoubleType(), 0.0)
        with blocks.loop(begin, end, carried=[zero, best, other]) as loop:
            total, before, now = loop.carried
            step = loop.index
            most = self._scores(step, begin, end, scores)
            starts = b.icmp_signed("==", step, begin)
            with blocks.only_if(starts):
                self._over([], lambda turn: self._put(self._vector(scores, turn.index), now, turn.index))
            with blocks.only_if(b.not_(starts), [most]) as follows:
                follows.next = [self._step(step, before, scores, now)]
            largest = self._finite(self._largest(follows.carried[0]))
            top = vec.splat(largest)
            self._over([], lambda turn: self._put(vec.sub(self._vector(now, turn.index), top), now, turn.index))
            loop.next = [b.fadd(total, self._double(largest)), now, before]
        total, last, _ = loop.carried
        tag, score = self._first_of_largest(last)
        self._result(row, 0, 1, b.fadd(total, score))
        with blocks.loop(begin, end, carried=[tag]) as walk:
            step = blocks.plus(blocks.minus(blocks.plus(end, -1), walk.index), begin)
            (tag,) = walk.carried
            b.store(tag, blocks.at(self.args["*path"], blocks.times(step, 8)), align=8)
            with blocks.only_if(b.icmp_signed(">", step, begin), [tag]) as back:
                place = blocks.at(self._padded("*back", step), blocks.times(tag, self.real.size))
                came = b.load(place, align=self.real.size, typ=self.real.whole)
                back.next = [came if self.real.bits == 64 else b.sext(came, ir.IntType(64))]
            walk.next = back.carried

    def _step(self, step: Value, before: Value, scores: Value, now: Value) -> Value:
        """The best way to each state, and where it comes from; the largest of each lane."""
        blocks, vec, b = self.blocks, self.vec, self.b
        back = self._padded("*back", step)

        def columns(v: Value, width: int, carried: list[Value]) -> list[Value]:
            at = blocks.at(self.args["*matrix"], blocks.times(v, self.bytes))
            start = [vec.const(float("-inf"))] * width + [vec.iconst(0)] * width
            with blocks.loop(whole(0), self.args["K"], carried=start) as loop:
                values, sources = loop.carried[:width], loop.carried[width:]
                number = vec.splat(self._number(before, loop.index))
                index = loop.index if self.real.bits == 64 else b.trunc(loop.index, self.real.whole)
                here, line = vec.splat(index), blocks.at(at, blocks.times(loop.index, self.line))
                for c in range(width):
                    way = vec.add(number, vec.load(blocks.at(line, whole(c * self.bytes))))
                    better = vec.compare(">", way, values[c])
                    values[c], sources[c] = vec.select(better, way, values[c]), vec.select(better, here, sources[c])
                loop.next = values + sources
            (most,) = carried
            for c in range(width):
                place = blocks.plus(v, c)
                value = vec.add(loop.carried[c], self._vector(scores, place))
                self._put(value, now, place)
                self._put(loop.carried[width + c], back, place)
                most = vec.at_least(value, most)
            return [most]

        return self._columns([vec.const(float("-inf"))], columns)[0]

    def _first_of_largest(self, row: Value) -> tuple[Value, Value]:
        """The first of the largest numbers of a padded row, and that number; 0 and 0 where there is no step."""
        b, blocks = self.b, self.blocks
        start = [whole(0), self._scalar(float("-inf"))]
        with blocks.loop(whole(0), self.args["K"], carried=start) as loop:
            index, most = loop.carried
            number = self._number(row, loop.index)
            better = b.fcmp_ordered(">", number, most)
            loop.next = [b.select(better, loop.index, index), b.select(better, number, most)]
        return loop.carried[0], self._double(loop.carried[1])
