"""exp, log and what is made of them, as vector code: within 4 ulp over the whole range of the type.

Quotients are divisions: in a fused LSTM the divider works beside the multipliers, and an estimate refined by Newton's steps was
not faster on AVX-512 and slower on AVX2; the rounding of a division is also the same on every CPU.

Not-a-number in is not-a-number out: bounds are set with ``at_least`` and ``at_most``, which keep it.
"""

from __future__ import annotations

from carousel.engines.cpu import approximations as ap
from carousel.engines.cpu.vectors import Value, Vectors

# erf(x) / x for |x| <= 1, a polynomial in x^2.
_ERF_NEAR = {
    32: (1.12837912249, -0.37612326179, 0.112801800761, -0.0267113105892, 0.00491755076351, -0.000563141993396),  # 4.0e-8
    64: (  # 7.3e-18
        1.1283791670955125657,
        -0.37612638903183519527,
        0.11283791670944184619,
        -0.026866170643111468492,
        0.00522397760611851513,
        -0.00085483259293162678334,
        0.00012055293576931886246,
        -0.000014924712302121733162,
        1.6447131566709643079e-6,
        -1.6206313680716808241e-7,
        1.3710979890740641624e-8,
        -7.7794672490800674513e-10,
    ),
}
# float32: log(1 - erf(x)) for 1 <= x <= 4, an error of 1.6e-8 in erf.
_ERF_FAR_32 = (-0.00261917084308, -1.11762126356, -0.654240082828, -0.0887996906807, 0.014831829593, -0.00115721819771)
# float64: exp(x^2) (1 - erf(x)) as a polynomial in (x - 2) / (x + 2) for 1 <= x <= 6: 5.5e-19.
_ERF_FAR_64 = (
    0.25539567631050575942,
    -0.42718584741395683049,
    0.24165819424246880094,
    -0.07897858101641566095,
    0.0037328923985388405622,
    0.0069974617856620258624,
    -0.0008471425904807540741,
    -0.00098197647932661580412,
    0.000043536160185293200514,
    0.00017428847018921504745,
    0.000027623183261519436686,
    -0.000026611487884363523679,
    -0.000012644101465796269455,
)


def exp(v: Vectors, x: Value) -> Value:
    """exp(x)."""
    x = v.at_least(v.at_most(x, v.const(ap.HIGHEST[v.real.bits])), v.const(ap.LOWEST[v.real.bits]))
    if v.fills_512:
        n, _, r = ap.reduce(v, x, 0)
        return ap.avx512(v, "scalef", ap.exp_near_0(v, r, short=False), n)
    # Denormal and nearly infinite results need 2^n in two factors, each of which has an exponent.
    bias = v.real.bias
    _, biased, r = ap.reduce(v, x, 2 * bias)
    _, half, _ = ap.reduce(v, v.mul(x, v.const(0.5)), bias)
    return v.mul(
        v.mul(ap.exp_near_0(v, r, short=False), ap.exponent(v, half)),
        ap.exponent(v, v.builder.sub(biased, half)),
    )


def expm1(v: Vectors, x: Value) -> Value:
    """exp(x) - 1, with all its digits near 0."""
    low, high = (-18.0, 89.0) if v.real.bits == 32 else (-38.0, 710.0)
    bounded = v.at_least(v.at_most(x, v.const(high)), v.const(low))
    # Half of the result, as 2^n itself is infinite for the largest arguments: 2^(n-1) (exp(r) - 1) + (2^(n-1) - 1/2).
    _, biased, r = ap.reduce(v, bounded, v.real.bias - 1)
    scale = ap.exponent(v, biased)
    half = v.fma(scale, ap.exp_minus_1(v, r), v.sub(scale, v.const(0.5)))
    # Where x^2 does not count the result is x: halves of denormals would lose a bit, and -0 its sign.
    tiny = v.compare("<", v.abs(x), v.const(2.0 ** -(v.real.mantissa + 2)))
    return v.select(tiny, x, v.add(half, half))


def sigmoid(v: Vectors, x: Value) -> Value:
    """1 / (1 + exp(-x)): from exp(-|x|), so that neither tail loses digits; the denominator is within [1, 2]."""
    e = ap.exp_negative(v, v.neg(v.abs(x)))
    below = v.compare("<", x, v.const(0.0))
    return v.div(v.select(below, e, v.const(1.0)), v.add(e, v.const(1.0)))


def tanh(v: Vectors, x: Value) -> Value:
    """tanh(x) as -h / (1 + h), h = (exp(-2|x|) - 1) / 2, the sign put back: near 0 (n is 0 there) h has all its digits.

    A ratio of polynomials takes 3 instructions of 20 less, but is 5 ulp off near 1, and on both sides of it.
    """
    y = v.at_least(v.neg(v.abs(x)), v.const(-20.0))
    _, biased, r = ap.reduce(v, y, v.real.bias, twice=True)
    scale = ap.exponent(v, biased)
    h = v.fma(scale, ap.half_exp_minus_1(v, r), v.fma(scale, v.const(0.5), v.const(-0.5)))
    return v.copysign(v.div(h, v.add(h, v.const(1.0))), x)


def erf(v: Vectors, x: Value) -> Value:
    """The error function: a polynomial within 1, and 1 - (1 - erf(|x|)) with the sign put back beyond."""
    size = v.at_most(v.abs(x), v.const(4.0 if v.real.bits == 32 else 6.0))
    square = v.mul(size, size)
    near = v.mul(x, ap.polynomial(v, v.at_most(square, v.const(1.0)), _ERF_NEAR[v.real.bits]))
    if v.real.bits == 32:
        rest = ap.exp_negative(v, ap.polynomial(v, v.at_least(size, v.const(1.0)), _ERF_FAR_32))
    else:
        t = v.div(v.sub(size, v.const(2.0)), v.add(size, v.const(2.0)))
        rest = v.mul(ap.exp_negative(v, v.neg(square)), ap.polynomial(v, t, _ERF_FAR_64))
    far = v.copysign(v.sub(v.const(1.0), rest), x)
    return v.select(v.compare("<=", size, v.const(1.0)), near, far)


def log(v: Vectors, x: Value) -> Value:
    """The natural logarithm."""
    if v.fills_512:
        # The two instructions know denormals, 0, infinity and negative numbers.
        m, n = ap.avx512(v, "getmant", x), ap.avx512(v, "getexp", x)
        n = v.select(v.compare("<", m, v.const(1.0)), v.add(n, v.const(1.0)), n)
        return _join(v, n, v.sub(m, v.const(1.0)))
    shift = v.real.mantissa + 1
    denormal = v.compare("<", x, v.const(2.0 ** (1 - v.real.bias)))
    bits = v.bits(v.select(denormal, v.mul(x, v.const(2.0**shift)), x))
    n = v.builder.ashr(v.builder.sub(bits, _three_quarters(v)), v.iconst(v.real.mantissa))
    m = v.from_bits(v.builder.sub(bits, v.builder.shl(n, v.iconst(v.real.mantissa))))
    real = v.sub(v.to_real(n), v.select(denormal, v.const(shift), v.const(0.0)))
    y = _join(v, real, v.sub(m, v.const(1.0)))
    y = v.select(v.compare("<", x, v.const(float("inf"))), y, x)  # infinity and not-a-number are their own logarithms
    y = v.select(v.compare("==", x, v.const(0.0)), v.const(float("-inf")), y)
    return v.select(v.compare("<", x, v.const(0.0)), v.const(float("nan")), y)


def _three_quarters(v: Vectors) -> Value:
    return v.iconst((v.real.bias - 1 << v.real.mantissa) + (1 << v.real.mantissa - 1))


def _join(v: Vectors, n: Value, f: Value) -> Value:
    """n ln 2 + log(1 + f), the small terms first."""
    high, low = ap.split_ln2(v)
    large, small = ap.log_1_plus(v, f)
    return v.fma(n, high, v.add(large, v.fma(n, low, small)))


def softplus(v: Vectors, x: Value) -> Value:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|))."""
    e = ap.exp_negative(v, v.neg(v.abs(x)))
    # 1 + e is within [1, 2]: halved where it exceeds 3/2, for which e - 1 is exact.
    halved = v.compare(">", e, v.const(0.5))
    f = v.select(halved, v.fma(e, v.const(0.5), v.const(-0.5)), e)
    large, small = ap.log_1_plus(v, f)
    ln2 = v.select(halved, v.const(0.6931471805599453), v.const(0.0))
    return v.add(v.at_least(x, v.const(0.0)), v.add(ln2, v.add(large, small)))
