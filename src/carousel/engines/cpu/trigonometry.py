"""sin and cos as vector code: within 4 ulp for every argument; beyond 2**20 by the C library, lane by lane.

An argument x is written as ``n pi/2 + r``, |r| <= pi/4. float32 computes in doubles, so that r has digits enough near the zeros
of the function; float64 takes pi/2 in several parts.
"""

from __future__ import annotations

import math
from functools import partial

from carousel.engines.cpu.approximations import polynomial
from carousel.engines.cpu.lanes import by_lane, library, subroutine
from carousel.engines.cpu.vectors import Value, Vectors

_END = 2.0**20  # n is small enough for the parts of pi/2
# The parts of pi/2, all positive so that -0 stays. Without a fused multiply-add all but the last are short (33 bits): n times
# such a part is exact.
_HALF_PI = {
    (32, True): (math.pi / 2, 6.123233995736766e-17),
    (32, False): (float.fromhex("0x1.921fb544p+0"), 6.07710050650619224932e-11),
    (64, True): tuple(map(float.fromhex, ("0x1.921fb54442d18p+0", "0x1.1a62633145c06p-54", "0x1.c1cd129024e09p-107"))),
    (64, False): tuple(
        map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2ep-69", "0x1.b839a252049c1p-104")),
    ),
}
# (sin(r) / r - 1) / r^2 and (cos(r) - 1 + r^2/2) / r^4, polynomials in r^2.
_SIN = {
    32: (-0.16666666640588378802, 0.0083333292805093123137, -0.00019839304407808092664, 2.7180463928056717081e-6),  # 5.2e-12
    64: (  # 3.7e-18
        -0.16666666666666630295,
        0.0083333333333220056972,
        -0.00019841269829495642486,
        2.7557313587670556911e-6,
        -2.5050742315924550299e-8,
        1.5895905202079327673e-10,
    ),
}
_COS = {
    32: (0.041666645554521166843, -0.0013887309868569271332, 0.000024432413159994269356),  # 1.2e-10
    64: (  # 5.7e-20
        0.041666666666666592018,
        -0.0013888888888872895217,
        0.000024801587288748231158,
        -2.7557314148632449854e-7,
        2.0875696573389e-9,
        -1.1358310514707e-11,
    ),
}
_MAGIC = 1.5 * 2.0**52  # leaves the nearest whole number in the last bits of a double


def sin(v: Vectors, x: Value) -> Value:
    """The sine of x in radians."""
    return subroutine(v, "sin", partial(_wave, name="sin", quarter=0), x)


def cos(v: Vectors, x: Value) -> Value:
    """The cosine of x in radians."""
    return subroutine(v, "cos", partial(_wave, name="cos", quarter=1), x)


def _wave(v: Vectors, x: Value, name: str, quarter: int) -> Value:
    d, bits = v.doubles(), v.real.bits
    angle = v.widen(x)
    shifted = d.fma(angle, d.const(2 / math.pi), d.const(_MAGIC))
    n = d.sub(shifted, d.const(_MAGIC))
    r = angle
    for part in _HALF_PI[bits, v.target.fma]:
        r = d.fma(n, d.const(-part), r)
    z = d.mul(r, r)
    # As a product, not as r plus a rest, so that -0 keeps its sign.
    sine = d.mul(r, d.fma(z, polynomial(d, z, _SIN[bits]), d.const(1.0)))
    cosine = d.fma(d.mul(z, z), polynomial(d, z, _COS[bits]), d.fma(z, d.const(-0.5), d.const(1.0)))
    turns = d.builder.add(d.bits(shifted), d.iconst(quarter))
    odd = d.builder.icmp_signed("!=", d.builder.and_(turns, d.iconst(1)), d.iconst(0))
    sign = d.builder.shl(d.builder.and_(turns, d.iconst(2)), d.iconst(62))
    near = v.narrow(d.from_bits(d.builder.xor(d.bits(d.select(odd, cosine, sine)), sign)))
    far = v.compare(">=", v.abs(x), v.const(_END))
    return by_lane(v, far, near, library(v, name), x)
