"""What the transcendental functions are made of: polynomials, and the splitting of an exponent from the rest.

The coefficients are minimax fits of our own (Remez exchange); each is followed by the greatest relative error of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from carousel.engines.cpu.vectors import I32, Value, Vectors

# log2 e, and ln 2 in two parts. Without a fused multiply-add the first part is short, so that n times it is exact.
_LOG2E = 1.4426950408889634
_LN2 = {
    (32, True): (float.fromhex("0x1.62e43p-1"), float.fromhex("-0x1.05c61p-29")),
    (32, False): (0.693359375, -2.12194440054690583e-4),
    (64, True): (float.fromhex("0x1.62e42fefa39efp-1"), float.fromhex("0x1.abc9e3b39803fp-56")),
    (64, False): (float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")),
}
# (exp(r) - 1 - r) / r^2 on |r| <= ln(2)/2, as an error of exp(r).
_EXP = {
    32: (0.499999933738, 0.166665195238, 0.0416684010106, 0.00836885111367, 0.00138143221786),  # 3.1e-9
    64: (  # 3.7e-18
        0.50000000000000108261,
        0.1666666666666640768,
        0.041666666666528103433,
        0.008333333333496920406,
        0.0013888888944249292043,
        0.00019841269502743376455,
        0.000024801492388191171236,
        2.7557588422151570302e-6,
        2.7630523500124280803e-7,
        2.4999857250719650413e-8,
    ),
}
# The same in float32 with a term less, for exp inside another function: 1.1e-7.
_EXP_SHORT = (0.499992259557, 0.166671184756, 0.0418909795464, 0.00831240583957)
# The number that, added to a float, leaves its nearest whole number in the last bits.
_MAGIC = {32: 1.5 * 2.0**23, 64: 1.5 * 2.0**52}
# float32, log(1+f) = f - f^2/2 + f^3 R(f) on -1/4 <= f <= 1/2: 4.9e-9
_LOG_32 = (
    0.3333344911,
    -0.2500009585,
    0.1999086117,
    -0.1664731191,
    0.1447839531,
    -0.1316119647,
    0.1046302672,
    -0.04507482209,
)
# float64, log(1+f) = 2s + s z R(z) with s = f/(2+f), z = s^2, on the same range: 1.5e-17
_LOG_64 = (
    0.66666666666672722528,
    0.39999999996153221192,
    0.28571429397089668203,
    0.22222138336008543419,
    0.1818636347868297385,
    0.15250029693029444973,
    0.15369497782335595722,
)


def polynomial(v: Vectors, x: Value, coefficients: Sequence[float]) -> Value:
    """The sum of ``coefficients[i] * x**i``, by Horner's rule: the fewest instructions; neighbours hide its latency."""
    total = v.const(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = v.fma(total, x, v.const(coefficient))
    return total


def avx512(v: Vectors, name: str, *args: Value) -> Value:
    """An instruction of AVX-512 on one whole register: "scalef" (``a * 2**floor(b)``), "getexp" (the exponent as a float) or
    "getmant" (the mantissa, in [0.75, 1.5); not-a-number if negative).
    """
    kind = f"{'ps' if v.real.bits == 32 else 'pd'}.512"
    every = ir.Constant(ir.IntType(v.lanes), -1)
    # [0.75, 1.5); that of 0 is 1; a negative number has none
    choice = [ir.Constant(I32, 0b1111)] if name == "getmant" else []
    as_the_thread_rounds = ir.Constant(I32, 4)
    return v.call(f"llvm.x86.avx512.mask.{name}.{kind}", v.type, [*args, *choice, v.const(0.0), every, as_the_thread_rounds])


def reduce(v: Vectors, x: Value, bias: int, twice: bool = False) -> tuple[Value, Value, Value]:
    """Write x as ``n ln 2 + r``, |r| <= ln(2)/2, for x whose n + bias is an exponent.

    Args:
        v: the vectors.
        x: the argument.
        bias: what is added to n in the whole numbers given back.
        twice: write 2x so instead, give r/2, and take ln 2 in one part where the CPU fuses: an error of ``n * 2e-9`` (float64:
            ``n * 3e-17``) in r must not matter.

    Returns:
        n as a float; whole numbers whose lowest bits are n + bias; r.
    """
    factor = 2.0 if twice else 1.0
    magic = v.const(_MAGIC[v.real.bits] + bias)
    shifted = v.fma(x, v.const(factor * _LOG2E), magic)
    n = v.sub(shifted, magic)
    high, low = _LN2[v.real.bits, v.target.fma]
    r = v.fma(n, v.const(-high / factor), x)
    if not (twice and v.target.fma):
        r = v.fma(n, v.const(-low / factor), r)
    return n, v.bits(shifted), r


def exponent(v: Vectors, biased: Value) -> Value:
    """``2**n`` of whole numbers whose lowest bits are n plus the type's bias."""
    return v.from_bits(v.builder.shl(biased, v.iconst(v.real.mantissa)))


def exp_minus_1(v: Vectors, r: Value) -> Value:
    """``exp(r) - 1`` for |r| <= ln(2)/2, with all its digits near 0."""
    return v.fma(v.mul(r, r), polynomial(v, r, _EXP[v.real.bits]), r)


def half_exp_minus_1(v: Vectors, h: Value) -> Value:
    """``(exp(2h) - 1) / 2`` for |h| <= ln(2)/4."""
    coefficients = [number * 2.0 ** (i + 1) for i, number in enumerate(_EXP[v.real.bits])]
    return v.fma(v.mul(h, h), polynomial(v, h, coefficients), h)


def exp_near_0(v: Vectors, r: Value, short: bool) -> Value:
    """``exp(r)`` for |r| <= ln(2)/2; `short` saves a term (float32) where 1.5 ulp more do no harm."""
    coefficients = _EXP_SHORT if short and v.real.bits == 32 else _EXP[v.real.bits]
    return polynomial(v, r, (1.0, 1.0, *coefficients))


def exp_negative(v: Vectors, x: Value) -> Value:
    """``exp(x)`` for x <= 0, denormal results included: a part of sigmoid and softplus, so a little less exact than exp."""
    x = v.at_least(x, v.const(LOWEST[v.real.bits]))
    if v.fills_512:
        n, _, r = reduce(v, x, 0)
        return avx512(v, "scalef", exp_near_0(v, r, short=True), n)
    # n is within [-1.2 bias, 0]: with half the bias added it is an exponent, and a constant takes the half away again.
    half = (v.real.bias + 1) // 2
    _, biased, r = reduce(v, x, v.real.bias + half)
    return v.mul(v.mul(exp_near_0(v, r, short=True), exponent(v, biased)), v.const(2.0**-half))


# Where exp is 0 (half of the smallest denormal), and where it is infinite.
LOWEST = {32: -104.0, 64: -746.0}
HIGHEST = {32: 89.0, 64: 710.0}


def log_1_plus(v: Vectors, f: Value) -> tuple[Value, Value]:
    """``log(1 + f)`` for -1/4 <= f <= 1/2 as f and what is to be added to it, so that the sum can take other terms first."""
    half_square = v.mul(v.mul(f, v.const(0.5)), f)
    if v.real.bits == 32:
        cube = v.mul(v.mul(f, f), f)
        return f, v.sub(v.mul(cube, polynomial(v, f, _LOG_32)), half_square)
    s = v.div(f, v.add(f, v.const(2.0)))
    z = v.mul(s, s)
    # 2s = f - s f and s f = f^2/2 - s f^2/2 turn the sum into f and a small rest.
    rest = v.mul(s, v.fma(z, polynomial(v, z, _LOG_64), half_square))
    return f, v.sub(rest, half_square)


def split_ln2(v: Vectors) -> tuple[Value, Value]:
    """ln 2 in two parts; n times the first is exact or, where the CPU fuses, rounded only after the addition."""
    # With fused operations both parts are positive, so that an infinite n makes no inf - inf.
    positive = (float.fromhex("0x1.62e42ep-1"), float.fromhex("0x1.efa39ep-25"))
    high, low = positive if v.target.fma and v.real.bits == 32 else _LN2[v.real.bits, v.target.fma]
    return v.const(high), v.const(low)
