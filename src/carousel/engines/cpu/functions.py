"""Element-wise functions as vector code: a table of emitters, one for each name in the graph's table of functions.

Each writes its instructions where the builder stands and gives back the value. What needs a branch (sin, cos, remainder, some
powers) is a private function of the module, so that no emitter ever leaves the caller's basic block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

from llvmlite import ir

from carousel.engines.cpu import exponentials, trigonometry
from carousel.engines.cpu.lanes import by_lane, library, subroutine
from carousel.engines.cpu.vectors import I1, Value, Vectors
from carousel.errors import ConfigError, KernelUnavailable, explain

Emitter = Callable[[Vectors, Sequence[Value], tuple[float, ...]], Value]

# Whole exponents between these are products: beyond, their roundings could exceed 4 ulp (an inverse is rounded too).
_PRODUCTS = (-3, 4)


def register(name: str, emitter: Emitter) -> None:
    """Say how a function of the graph's table is written as vector code.

    Args:
        name: the function, as in the graph's table.
        emitter: from (vectors, arguments, settings) to the value.

    Raises:
        ConfigError: the name has an emitter already.
    """
    if name in EMITTERS:
        raise ConfigError(f"the function '{name}' has vector code already: choose another name")
    EMITTERS[name] = emitter


def emit(vectors: Vectors, name: str, args: Sequence[Value], settings: tuple[float, ...] = ()) -> Value:
    """Write the function `name` of `args`, all of the vectors' type.

    Raises:
        KernelUnavailable: the function has no emitter.
    """
    if name not in EMITTERS:
        raise KernelUnavailable(
            explain(
                f"the function '{name}' has no vector code.",
                expected=f"one of {', '.join(sorted(EMITTERS))}",
                advice="carousel.engines.cpu.functions.register(name, emitter), or engine='eager'",
            )
        )
    return EMITTERS[name](vectors, args, settings)


def _one(function: Callable[[Vectors, Value], Value]) -> Emitter:
    """The emitter of a function of one argument without settings."""
    return lambda v, args, _: function(v, args[0])


def _two(function: Callable[[Vectors, Value, Value], Value]) -> Emitter:
    """The emitter of a function of two arguments without settings."""
    return lambda v, args, _: function(v, args[0], args[1])


def _holds(sign: str) -> Emitter:
    """1 where the comparison holds, else 0."""
    return lambda v, args, _: v.select(v.compare(sign, args[0], args[1]), v.const(1.0), v.const(0.0))


def _same(_: Vectors, x: Value) -> Value:
    return x


def _relu(v: Vectors, x: Value) -> Value:
    return v.at_least(x, v.const(0.0))


def _sign(v: Vectors, x: Value) -> Value:
    # Not-a-number has the sign 0, as in torch.
    positive = v.select(v.compare(">", x, v.const(0.0)), v.const(1.0), v.const(0.0))
    return v.select(v.compare("<", x, v.const(0.0)), v.const(-1.0), positive)


def _maximum(v: Vectors, a: Value, b: Value) -> Value:
    return v.select(v.is_nan(a), a, v.at_least(b, a))


def _minimum(v: Vectors, a: Value, b: Value) -> Value:
    return v.select(v.is_nan(a), a, v.at_most(b, a))


def _where(v: Vectors, condition: Value, yes: Value, no: Value) -> Value:
    return v.select(v.compare("!=", condition, v.const(0.0)), yes, no)


def _remainder(v: Vectors, a: Value, b: Value) -> Value:
    """The remainder of a / b with the sign of b, as torch's: fmod's, exact, and b added where the sign is the other."""
    return subroutine(v, "remainder", _remainder_body, a, b)


def _remainder_body(v: Vectors, a: Value, b: Value) -> Value:
    # float32 in doubles, float64 in fused operations: a - q b is exact then, for the right q and for its neighbour.
    d = v.doubles()
    wide_a, wide_b = v.widen(a), v.widen(b)
    ratio = d.div(wide_a, wide_b)
    q = d.intrinsic("trunc", ratio)
    r = d.fma(d.neg(q), wide_b, wide_a)
    # The rounded ratio may have reached the next whole number: then r has the other sign than a.
    beyond = v.builder.and_(d.compare("!=", r, d.const(0.0)), _signs_differ(d, r, wide_a))
    r = d.select(beyond, d.add(r, d.copysign(wide_b, wide_a)), r)
    near = d.compare("<", d.abs(ratio), d.const(2.0**28 if v.real.bits == 32 else 2.0**51))
    near = v.builder.and_(near, d.compare("<", d.abs(wide_b), d.const(math.inf)))
    if v.real.bits == 64 and not v.target.fma:
        near = ir.Constant(v.mask, [ir.Constant(I1, 0)] * v.lanes)
    r = v.copysign(by_lane(v, v.builder.not_(near), v.narrow(r), lambda builder, x, y: builder.frem(x, y), a, b), a)
    wrong = v.builder.and_(v.compare("!=", r, v.const(0.0)), _signs_differ(v, r, b))
    return v.select(wrong, v.add(r, b), r)


def _signs_differ(v: Vectors, a: Value, b: Value) -> Value:
    return v.builder.icmp_signed("<", v.builder.xor(v.bits(a), v.bits(b)), v.iconst(0))


def _power(v: Vectors, args: Sequence[Value], settings: tuple[float, ...]) -> Value:
    """x to a fixed exponent, with torch's special cases (its power 0.5 is the square root, also of -inf)."""
    x, exponent = args[0], float(settings[0])
    if exponent == 0:
        return v.const(1.0)
    if abs(exponent) == 0.5:
        root = v.sqrt(x)
        return root if exponent > 0 else v.div(v.const(1.0), root)
    if _PRODUCTS[0] <= exponent <= _PRODUCTS[1] and exponent.is_integer():
        # The inverse first: its powers overflow and underflow where the result does.
        base = x if exponent > 0 else v.div(v.const(1.0), x)
        return _product(v, base, int(abs(exponent)))
    if v.real.bits == 64 or not math.isfinite(exponent):
        return subroutine(v, f"power.{exponent!r}", lambda inside, y: _power_by_lane(inside, y, exponent), x)
    return _power_in_doubles(v, x, exponent)


def _product(v: Vectors, x: Value, n: int) -> Value:
    if n == 1:
        return x
    half = _product(v, x, n // 2)
    square = v.mul(half, half)
    return v.mul(square, x) if n % 2 else square


def _power_by_lane(v: Vectors, x: Value, exponent: float) -> Value:
    every = ir.Constant(v.mask, [ir.Constant(I1, 1)] * v.lanes)
    to = ir.Constant(v.real.type, exponent)
    return by_lane(v, every, x, lambda builder, y: library(v, "pow")(builder, y, to), x)


def _power_in_doubles(v: Vectors, x: Value, exponent: float) -> Value:
    """float32: exp(exponent log |x|), which in doubles has digits to spare."""
    d = v.doubles()
    size = v.abs(x)
    result = v.narrow(exponentials.exp(d, d.mul(d.const(exponent), exponentials.log(d, v.widen(size)))))
    if exponent.is_integer():
        return v.copysign(result, x) if exponent % 2 else result
    negative = v.builder.and_(v.compare("<", x, v.const(0.0)), v.compare("<", size, v.const(math.inf)))
    return v.select(negative, v.const(math.nan), result)


EMITTERS: dict[str, Emitter] = {
    "add": lambda v, args, _: reduce(v.add, args),
    "sub": _two(Vectors.sub),
    "mul": _two(Vectors.mul),
    "div": _two(Vectors.div),
    "neg": _one(Vectors.neg),
    "sigmoid": _one(exponentials.sigmoid),
    "tanh": _one(exponentials.tanh),
    "relu": _one(_relu),
    "exp": _one(exponentials.exp),
    "expm1": _one(exponentials.expm1),
    "log": _one(exponentials.log),
    "sqrt": _one(Vectors.sqrt),
    "sin": _one(trigonometry.sin),
    "cos": _one(trigonometry.cos),
    "erf": _one(exponentials.erf),
    "softplus": _one(exponentials.softplus),
    "abs": _one(Vectors.abs),
    "sign": _one(_sign),
    "stop_gradient": _one(_same),
    "greater": _holds(">"),
    "equal": _holds("=="),
    "maximum": _two(_maximum),
    "minimum": _two(_minimum),
    "remainder": _two(_remainder),
    "where": lambda v, args, _: _where(v, *args),
    "power": _power,
}
