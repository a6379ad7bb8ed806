"""The sum over all paths and its gradient with logarithms, in float64: for rows whose numbers leave every range.

a[j] = score[j] + log sum over i of exp(a'[i] + transition[i, j]), with the largest taken away at each step and counted beside.

A step costs K^2 exponentials in place of K^2 multiply-adds: 5 to 30 times `scaled.py`. Few rows need it, so one thread
does them all, which also keeps the order in which expected transitions are added.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from carousel.engines.cpu import functions
from carousel.engines.cpu.blocks import Loop
from carousel.engines.cpu.frames import whole
from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import Real, Value
from carousel.structured.kernels.common import ChainKernel

__all__ = ["BACKWARD", "FORWARD", "build"]

FORWARD = (
    "rows", "K", "*first", "*place", "*unary", "*start", "*between", "*end", "*matrix", "*alpha", "*u", "*out", "*room",
)  # fmt: skip
BACKWARD = (
    "rows", "K", "*first", "*place", "*matrix", "*turned", "*alpha", "*u", "*gain", "*gradient", "*pairs", "*room",
)  # fmt: skip

_NONE = float("-inf")


def build(target: Target, real: Real) -> ir.Module:
    """The module with `exact_forward` and `exact_backward`; a pure function of its arguments."""
    module = ir.Module(f"exact.{real.name}")
    module.triple = target.triple
    _Forward(module, target, real).write()
    _Backward(module, target, real).write()
    return module


class _Logarithms(ChainKernel):
    def _exp(self, x: Value) -> Value:
        return functions.emit(self.vec, "exp", [x])

    def _clamped(self, x: Value) -> Value:
        return self.vec.at_least(x, self.vec.const(float.fromhex("-0x1.fffffffffffffp+1023")))

    def _sums(self, x: Value, matrix: Value, v: Value) -> Value:
        """log of the sum over i of exp(x[i] + matrix[i, column]), for a vector of columns."""
        blocks, vec = self.blocks, self.vec
        columns = blocks.at(matrix, blocks.times(v, self.bytes))

        def over(start: Value, turn: Callable[[Value, Value], Value]) -> Value:
            with blocks.loop(whole(0), self.args["K"], carried=[start]) as loop:
                line = vec.load(blocks.at(columns, blocks.times(loop.index, self.line)))
                way = vec.add(vec.splat(self._number(x, loop.index)), line)
                loop.next = [turn(way, loop.carried[0])]
            return loop.carried[0]

        most = self._clamped(over(vec.const(_NONE), vec.at_least))
        total = over(vec.const(0.0), lambda way, before: vec.add(before, self._exp(vec.sub(way, most))))
        return vec.add(most, functions.emit(vec, "log", [total]))

    def _log_sum(self, row: Callable[[Value], Value]) -> Value:
        """log of the sum of exp over a padded row, a double."""
        vec, b = self.vec, self.b

        def largest(turn: Loop) -> None:
            turn.next = [vec.at_least(row(turn.index), turn.carried[0])]

        most = self._finite(self._largest(self._over([vec.const(_NONE)], largest)[0]))
        top = vec.splat(most)

        def add(turn: Loop) -> None:
            turn.next = [vec.add(turn.carried[0], self._exp(vec.sub(row(turn.index), top)))]

        total = vec.splat(self._sum(self._over([vec.const(0.0)], add)[0]))
        log = functions.emit(vec, "log", [total])
        return b.fadd(most, b.extract_element(log, ir.Constant(ir.IntType(32), 0)))


class _Forward(_Logarithms):
    name, arguments = "exact_forward", FORWARD

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        b, blocks, vec = self.b, self.blocks, self.vec
        zero = ir.Constant(ir.DoubleType(), 0.0)
        with blocks.loop(begin, end, carried=[zero]) as loop:
            step = loop.index
            alpha, u = self._padded("*alpha", step), self._padded("*u", step)
            most = self._scores(step, begin, end, u)
            starts = b.icmp_signed("==", step, begin)
            with blocks.only_if(starts):
                self._over([], lambda turn: self._put(self._vector(u, turn.index), alpha, turn.index))
            with blocks.only_if(b.not_(starts), [most]) as follows:
                before = self._padded("*alpha", blocks.plus(step, -1))

                def columns(turn: Loop) -> None:
                    value = vec.add(self._sums(before, self.args["*matrix"], turn.index), self._vector(u, turn.index))
                    self._put(value, alpha, turn.index)
                    turn.next = [vec.at_least(value, turn.carried[0])]

                follows.next = self._over([vec.const(_NONE)], columns)
            largest = self._finite(self._largest(follows.carried[0]))
            top = vec.splat(largest)
            self._over([], lambda turn: self._put(vec.sub(self._vector(alpha, turn.index), top), alpha, turn.index))
            loop.next = [b.fadd(loop.carried[0], largest)]
        with blocks.only_if(b.icmp_signed("<", begin, end), [zero]) as some:
            alpha = self._padded("*alpha", blocks.plus(end, -1))
            some.next = [b.fadd(loop.carried[0], self._log_sum(lambda v: self._vector(alpha, v)))]
        self._result(row, 0, 1, some.carried[0])


class _Backward(_Logarithms):
    """Marginals times the gain; expected transitions, added to `pairs`; and in `u`, for each step but a row's first, the log of
    what alpha' and the transition are multiplied by to be the probability of a pair."""

    name, arguments = "exact_backward", BACKWARD

    def _row(self, row: Value, begin: Value, end: Value) -> None:
        b, blocks, args, vec = self.b, self.blocks, self.args, self.vec
        beta, gamma, _ = (self._room(i) for i in range(3))
        self._over([], lambda turn: self._put(vec.const(0.0), beta, turn.index))
        gain = self._number(args["*gain"], row)
        with blocks.loop(whole(0), blocks.minus(end, begin)) as loop:
            step = blocks.minus(blocks.plus(end, -1), loop.index)
            alpha, u = self._padded("*alpha", step), self._padded("*u", step)

            def mask(turn: Loop, alpha: Value = alpha) -> None:
                a, found = self._vector(alpha, turn.index), self._vector(beta, turn.index)
                none = vec.compare("==", a, vec.const(_NONE))
                self._put(vec.select(none, vec.const(_NONE), found), beta, turn.index)

            self._over([], mask)
            norm = self._finite(self._log_sum(lambda v: vec.add(self._vector(alpha, v), self._vector(beta, v))))
            self._marginals(step, alpha, beta, vec.splat(norm), vec.splat(gain))
            with blocks.only_if(b.icmp_signed(">", loop.index, whole(0))):
                after = self._padded("*u", blocks.plus(step, 1))
                self._over(
                    [], lambda turn: self._put(vec.sub(self._vector(after, turn.index), vec.splat(norm)), after, turn.index)
                )
                self._pairs(alpha, after, vec.splat(gain))

            def multiply(turn: Loop, u: Value = u) -> None:
                value = vec.add(self._vector(u, turn.index), self._vector(beta, turn.index))
                self._put(value, gamma, turn.index)
                turn.next = [vec.at_least(value, turn.carried[0])]

            largest = self._finite(self._largest(self._over([vec.const(_NONE)], multiply)[0]))
            top = vec.splat(largest)
            self._over([], lambda turn: self._put(vec.sub(self._vector(gamma, turn.index), top), u, turn.index))
            with blocks.only_if(b.icmp_signed(">", step, begin)):
                self._over([], lambda turn: self._put(self._sums(u, args["*turned"], turn.index), beta, turn.index))

    def _marginals(self, step: Value, alpha: Value, beta: Value, norm: Value, gain: Value) -> None:
        blocks, vec = self.blocks, self.vec
        to = blocks.at(self.args["*gradient"], self._word("*place", step))

        def turn(v: Value, mask: Value | None) -> None:
            value = self._exp(vec.sub(vec.add(self._vector(alpha, v), self._vector(beta, v)), norm))
            vec.store(vec.mul(gain, value), blocks.at(to, blocks.times(v, self.bytes)), mask)

        with blocks.loop(whole(0), self.full) as loop:
            turn(loop.index, None)
        turn(self.full, self.mask)

    def _pairs(self, alpha: Value, after: Value, gain: Value) -> None:
        blocks, vec = self.blocks, self.vec
        with blocks.loop(whole(0), self.args["K"]) as loop:
            number = vec.splat(self._number(alpha, loop.index))
            scores, pairs = (blocks.at(self.args[name], blocks.times(loop.index, self.line)) for name in ("*matrix", "*pairs"))

            def turn(inner: Loop) -> None:
                way = vec.add(vec.add(number, self._vector(scores, inner.index)), self._vector(after, inner.index))
                self._put(vec.fma(gain, self._exp(way), self._vector(pairs, inner.index)), pairs, inner.index)

            self._over([], turn)
