"""The sum over all paths and its gradient, in the exp domain: a step is one product of a row with a matrix.

With A = exp(transition - its largest score), and for each step e = exp(score - the step's largest):

forwards    alpha = (alpha' A) * e * 2^-n,     where 2^n <= the largest alpha' < 2^(n+1)
backwards   gamma = e * beta * 2^-n,           beta' = A gamma

The largest scores and the n are counted beside, so that each row's numbers stay near 1 and no step needs a logarithm. A step
of K states costs K^2 multiply-adds in K^2 / lanes instructions, and K exponentials.

What leaves the range of the type on the small side is zero. `compiled.py` knows when that cannot matter; where it
could, the smallest alpha that is not zero by a constraint is compared with a bound, and a row that falls below is *lost*: the
caller computes it again with logarithms (`exact.py`).
"""

from __future__ import annotations

import functools
import math

from llvmlite import ir

from carousel.engines.cpu import functions
from carousel.engines.cpu.blocks import Loop
from carousel.engines.cpu.frames import whole
from carousel.engines.cpu.lanes import library
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import Real, Value
from carousel.structured.kernels.common import UNROLL, ChainKernel

__all__ = ["BACKWARD", "ENDS", "FORWARD", "OUT", "RANGE", "build"]

FORWARD = (
    "rows", "K", "padded", "*first", "*place", "*unary", "*start", "*between", "*end", "*matrix", "*scores", "*one", "*alpha",
    "*e", "*tags", "*highest", "*out",
)  # fmt: skip
BACKWARD = (
    "rows", "K", "padded", "*first", "*place", "*matrix", "*alpha", "*e", "*tags", "*gain", "*gradient", "*out", "*room",
)  # fmt: skip
ENDS = ("rows", "K", "*first", "*place", "*tags", "*gain", "*gradient", "*starts", "*ends", "*pairs")

#: What a row leaves: the log of the sum over its paths, the tags' score, and whether it is lost.
OUT = ("log_sum", "score", "lost")

#: The least alpha, gamma and number of A that are safe where they are not exactly 0: products of three stay in range.
RANGE = {32: 1e-18, 64: 1e-100}

_INFINITY = float("inf")


def build(target: Target, real: Real) -> ir.Module:
    """The module with `forward`, `backward` and `ends`; a pure function of its arguments."""
    module = ir.Module(f"chain.{real.name}")
    module.triple = target.triple
    _Forward(module, target, real).write()
    _Backward(module, target, real).write()
    _Ends(module, target, real).write()
    return module


class _Forward(ChainKernel):
    name, arguments = "forward", FORWARD

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        b, blocks, args, vec = self.b, self.blocks, self.args, self.vec
        zero, one = ir.Constant(ir.DoubleType(), 0.0), self._scalar(1.0)
        tagged = self._there(args["*tags"])
        start = [zero, zero, zero, one, zero, ir.Constant(ir.IntType(1), 0)]
        with blocks.loop(begin, end, carried=start) as loop:
            total, shift, pending, scale, score, lost = loop.carried
            step = loop.index
            alpha, e = self._padded("*alpha", step), self._padded("*e", step)
            largest = self._finite(self._largest(self._scores(step, begin, end, e)))
            with blocks.only_if(tagged, [score]) as told:
                told.next = [b.fadd(score, self._of_tags(step, begin, e))]
            # The first step follows a row with a single 1, and a matrix whose first row is ones.
            starts = b.icmp_signed("==", step, begin)
            before = b.select(starts, args["*one"], self._padded("*alpha", blocks.plus(step, -1)))
            matrix = b.select(starts, blocks.at(args["*one"], self.line), args["*matrix"])
            rows = b.select(starts, whole(UNROLL), args["padded"])
            top, spread = vec.splat(largest), vec.splat(scale)

            def columns(v: Value, width: int, carried: list[Value]) -> list[Value]:
                most, least = carried
                sums = self._product(before, rows, matrix, v, width)
                for c, found in enumerate(sums):
                    at = blocks.plus(v, c)
                    u = self._vector(e, at)
                    factor = functions.emit(vec, "exp", [vec.sub(u, top)])
                    self._put(factor, e, at)
                    value = vec.mul(found, vec.mul(factor, spread))
                    self._put(value, alpha, at)
                    most = vec.at_least(value, most)
                    none = b.or_(vec.compare("==", found, vec.const(0.0)), vec.compare("==", u, vec.const(-_INFINITY)))
                    least = vec.at_most(vec.select(none, vec.const(_INFINITY), value), least)
                return [most, least]

            most, least = self._columns([vec.const(0.0), vec.const(_INFINITY)], columns)
            most, least = self._largest(most), self._least(least)
            lost = b.or_(lost, self._falls(most, least))
            n, scale = self._power_of_two(most)
            loop.next = [
                b.fadd(total, self._double(largest)), b.fadd(shift, pending), n, scale, told.carried[0], lost
            ]  # fmt: skip
        total, shift, _, _, score, lost = loop.carried
        # A row without steps has one path, of score 0.
        some = b.icmp_signed("<", begin, end)
        with blocks.only_if(some, [zero]) as last:
            alpha = self._padded("*alpha", blocks.plus(end, -1))

            def add(turn: Loop) -> None:
                turn.next = [vec.add(turn.carried[0], self._vector(alpha, turn.index))]

            left = library(vec.doubles(), "log")(b, self._double(self._sum(self._over([vec.const(0.0)], add)[0])))
            highest = b.load(args["*highest"], align=8, typ=ir.DoubleType())
            moves = b.sitofp(blocks.plus(blocks.minus(end, begin), -1), ir.DoubleType())
            parts = (b.fmul(shift, ir.Constant(ir.DoubleType(), math.log(2.0))), left, b.fmul(moves, highest))
            last.next = [functools.reduce(b.fadd, parts, total)]
        for column, value in enumerate((last.carried[0], score, b.uitofp(lost, ir.DoubleType()))):
            self._result(row, column, len(OUT), value)

    def _falls(self, most: Value, least: Value) -> Value:
        """Whether a number that is no structural zero is too small beside the largest, or all are."""
        b, bound = self.b, self._scalar(RANGE[self.real.bits])
        small = b.fcmp_ordered("<=", least, b.fmul(most, bound))
        return b.or_(small, b.and_(b.fcmp_ordered("<", most, bound), b.fcmp_ordered(">", most, self._scalar(0.0))))

    def _of_tags(self, step: Value, begin: Value, scores: Value) -> Value:
        """The score of a step's tag and of the transition to it."""
        b, blocks, args = self.b, self.blocks, self.args
        tag = self._word("*tags", step)
        own = self._double(self._number(scores, tag))
        with blocks.only_if(b.icmp_signed(">", step, begin), [own]) as follows:
            before = self._word("*tags", blocks.plus(step, -1))
            place = blocks.plus(blocks.times(before, args["K"]), tag)
            follows.next = [b.fadd(own, self._double(self._number(args["*scores"], place)))]
        return follows.carried[0]


class _Backward(ChainKernel):
    """Gradients of ``gain * log Z`` (less the tags' score) for the scores; and in the place of e, what the transitions need.

    The expected number of transitions i -> j at a step is alpha'[i] A[i, j] gamma[j] c with c = gain / sum over i, j; gamma *
    c is left in `e`, so that all steps together are one product of two matrices. Each row's first step is left zero.
    """

    name, arguments = "backward", BACKWARD

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        b, blocks, args, vec = self.b, self.blocks, self.args, self.vec
        beta, held, nothing = (self._room(i) for i in range(3))
        self._over([], lambda turn: self._put(vec.const(1.0), beta, turn.index))
        gain = self._number(args["*gain"], row)
        tagged = self._there(args["*tags"])
        length = blocks.minus(end, begin)
        never = ir.Constant(ir.IntType(1), 0)
        with blocks.loop(whole(0), length, carried=[self._scalar(1.0), never]) as loop:
            scale, lost = loop.carried
            step = blocks.minus(blocks.plus(end, -1), loop.index)
            alpha, e = self._padded("*alpha", step), self._padded("*e", step)
            norm, most, least = self._multiply(alpha, e, beta, held, scale)
            positive = b.fcmp_ordered("!=", norm, self._scalar(0.0))
            share = b.select(positive, b.fdiv(gain, norm), self._scalar(0.0))
            last = b.icmp_signed("==", loop.index, whole(0))
            after = b.select(last, nothing, self._padded("*e", blocks.plus(step, 1)))
            self._write(step, alpha, held, after, share)
            with blocks.only_if(tagged):
                place = blocks.at(args["*gradient"], self._word("*place", step))
                place = blocks.at(place, blocks.times(self._word("*tags", step), self.real.size))
                number = b.load(place, align=self.real.size, typ=self.real.type)
                b.store(b.fsub(number, gain), place, align=self.real.size)
            rows = b.select(b.icmp_signed("==", step, begin), whole(0), args["padded"])

            def columns(v: Value, width: int, _: list[Value]) -> list[Value]:
                for c, found in enumerate(self._product(e, rows, args["*matrix"], v, width)):
                    self._put(found, beta, blocks.plus(v, c))
                return []

            self._columns([], columns)
            bound = self._scalar(RANGE[self.real.bits])
            small = b.fcmp_ordered("<=", least, b.fmul(most, bound))
            lost = b.or_(lost, b.or_(small, b.fcmp_ordered("<", norm, bound)))
            loop.next = [self._power_of_two(most)[1], lost]
        with blocks.only_if(b.icmp_signed("<", begin, end)):
            e = self._padded("*e", begin)
            self._over([], lambda turn: self._put(vec.const(0.0), e, turn.index))
        place = blocks.at(args["*out"], blocks.times(blocks.plus(blocks.times(row, len(OUT)), len(OUT) - 1), 8))
        before = b.load(place, align=8, typ=ir.DoubleType())
        with blocks.only_if(loop.carried[1], [before]) as fell:
            fell.next = [ir.Constant(ir.DoubleType(), 1.0)]
        b.store(fell.carried[0], place, align=8)

    def _multiply(self, alpha: Value, e: Value, beta: Value, held: Value, scale: Value) -> tuple[Value, Value, Value]:
        """gamma in the place of e; the sum of alpha * beta, the largest gamma and the least that is no structural zero."""
        vec, spread, zero = self.vec, self.vec.splat(scale), self.vec.const(0.0)

        def turn(loop: Loop) -> None:
            norm, most, least = loop.carried
            a, found = self._vector(alpha, loop.index), self._vector(beta, loop.index)
            # What no path reaches from the left may be large on the right, and would hide the rest.
            found = vec.select(vec.compare("==", a, zero), zero, found)
            self._put(found, held, loop.index)
            gamma = vec.mul(vec.mul(self._vector(e, loop.index), spread), found)
            self._put(gamma, e, loop.index)
            none = vec.compare("==", found, zero)
            least = vec.at_most(vec.select(none, vec.const(_INFINITY), gamma), least)
            loop.next = [vec.fma(a, found, norm), vec.at_least(gamma, most), least]

        norm, most, least = self._over([zero, zero, vec.const(_INFINITY)], turn)
        return self._sum(norm), self._largest(most), self._least(least)

    def _write(self, step: Value, alpha: Value, held: Value, after: Value, share: Value) -> None:
        """The marginals of a step; and what was left for the transitions after it, divided by the same sum."""
        blocks, vec, spread = self.blocks, self.vec, self.vec.splat(share)
        to = blocks.at(self.args["*gradient"], self._word("*place", step))

        def turn(v: Value, mask: Value | None) -> None:
            value = vec.mul(vec.mul(self._vector(alpha, v), self._vector(held, v)), spread)
            vec.store(value, blocks.at(to, blocks.times(v, self.bytes)), mask)
            self._put(vec.mul(self._vector(after, v), spread), after, v)

        with blocks.loop(whole(0), self.full) as loop:
            turn(loop.index, None)
        turn(self.full, self.mask)


class _Ends(ChainKernel):
    """What is summed over rows, by one member, in their order: gradients of starting and of ending; and the tags' transitions,
    taken away from the expected ones."""

    name, arguments = "ends", ENDS

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        b, blocks, args = self.b, self.blocks, self.args
        with blocks.only_if(b.icmp_signed("<", begin, end)):
            for name, step in (("*starts", begin), ("*ends", blocks.plus(end, -1))):
                source = blocks.at(args["*gradient"], self._word("*place", step))
                with blocks.loop(whole(0), self.full) as loop:
                    self._gather(source, args[name], loop.index, None)
                self._gather(source, args[name], self.full, self.mask)
        with blocks.only_if(self._there(args["*tags"])):
            gain = self._number(args["*gain"], row)
            with blocks.loop(blocks.plus(begin, 1), end) as loop:
                before, tag = self._word("*tags", blocks.plus(loop.index, -1)), self._word("*tags", loop.index)
                at = blocks.plus(blocks.times(before, args["K"]), tag)
                place = blocks.at(args["*pairs"], blocks.times(at, self.real.size))
                number = b.load(place, align=self.real.size, typ=self.real.type)
                b.store(b.fsub(number, gain), place, align=self.real.size)

    def _gather(self, source: Value, total: Value, v: Value, mask: Value | None) -> None:
        here = self.blocks.times(v, self.bytes)
        value = self.vec.load(self.blocks.at(source, here), mask)
        to = self.blocks.at(total, here)
        self.vec.store(self.vec.add(self.vec.load(to, mask), value), to, mask)
