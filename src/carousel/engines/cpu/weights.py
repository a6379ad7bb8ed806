"""How packed weights are stored: as the numbers they are, or rounded to bfloat16.

A panel of float32 or float64 is [K][V][lanes]. In bfloat16 two steps of k lie side by side: [K / 2][V][lanes][2] of 16 bits,
with a zero behind the last step where K is odd. So a vector as wide as a register holds one vector of weights for step k in the
lower halves of its lanes and one for step k + 1 in the upper halves. A shift makes the one a float32, a mask the other: one
instruction each, where a vector of 16 bits for every step would take two (widen, shift), and x86 has two places for such
instructions, which multiply as well. Both are exact, so a product has the bits that it has with the rounded weights in float32.

CPUs with AVX512-BF16 multiply pairs of bfloat16 in one instruction (``vdpbf16ps``). It is not used: it takes the other factor
in bfloat16 too, so states and inputs would be rounded at every step, and it sums two products in an order and with a rounding
of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llvmlite import ir

from carousel.engines.cpu.frames import at, whole
from carousel.engines.cpu.vectors import I32, Real, Value, Vectors
from carousel.errors import ConfigError, explain, unknown_name


@dataclass(frozen=True)
class Weights:
    """How weights are stored.

    Attributes:
        name: as torch calls the type.
        size: bytes of a number.
        together: steps of k that lie side by side in a lane.
        multiple: a panel has a multiple of so many steps, filled up with zeros.
    """

    name: str
    size: int
    together: int
    multiple: int = 1

    def rows(self, K: int) -> int:
        """Vectors of a panel that hold K steps."""
        return -(-K // max(self.together, self.multiple)) * max(1, self.multiple // self.together)

    def count(self, b: ir.IRBuilder, K: Value) -> Value:
        """Vectors that hold K steps, in LLVM's language."""
        return K if self.together == 1 else b.lshr(b.add(K, whole(self.together - 1)), whole(1))

    def padded(self, b: ir.IRBuilder, K: Value) -> Value:
        """`rows`, in LLVM's language."""
        if self.multiple == 1:
            return self.count(b, K)
        full = b.and_(b.add(K, whole(self.multiple - 1)), whole(-self.multiple))
        return b.udiv(full, whole(self.together))


STORED = {name: Weights(name, size, 1) for name, size in (("float32", 4), ("float64", 8))}
STORED["bfloat16"] = Weights("bfloat16", 2, 2)
#: As bfloat16, for products in tiles, which round the other factor as well: see `carousel.engines.cpu.tiles`.
TILES = Weights("tiles", 2, 2, 32)


def stored(real: Real, name: str | None = None) -> Weights:
    """How weights are stored for a type of numbers.

    Args:
        real: the type that is computed with.
        name: of the type that is stored; None for the same.

    Raises:
        ConfigError: there is no such type, or it is not stored for these numbers.
    """
    if name is not None and name not in STORED and name != TILES.name:
        raise ConfigError(unknown_name("type of weights", name, STORED))
    found = TILES if name == TILES.name else STORED[name or real.name]
    if found.size * found.together != real.size:
        raise ConfigError(
            explain(
                f"Weights cannot be kept in {found.name} here.",
                got=f"a layer in {real.name}",
                expected="a layer in float32" if found.together == 2 else f"{real.name}",
            )
        )
    return found


class Reader:
    """Reads a tile's weights, step by step.

    Args:
        vectors: the lanes.
        weights: how they are stored.
        panels: vectors of each panel.
        first: where the first panel begins.
        K: steps of each panel.
    """

    def __init__(self, vectors: Vectors, weights: Weights, panels: Sequence[int], first: Value, K: Value) -> None:
        self.vec, self.weights, self.panels = vectors, weights, panels
        self.bytes, self.pairs = vectors.lanes * vectors.real.size, weights.together == 2
        self.starts = [first]
        b = vectors.builder
        rows = weights.count(b, K)
        for width in panels[:-1]:
            self.starts.append(at(b, self.starts[-1], b.mul(rows, whole(width * self.bytes))))
        self._held: list[Value] = []

    def step(self, k: Value, step: int, *, any_step: bool) -> list[Value]:
        """The weights of step ``k + step``, panel by panel.

        Args:
            k: where a turn of a loop begins; a multiple of `Weights.together` unless it is any step.
            step: of the turn.
            any_step: whether k may be any step; `step` is then 0.
        """
        b, vec = self.vec.builder, self.vec
        if not self.pairs:
            return list(self._loaded(k, step, vec.type, self.bytes))
        if any_step:
            first = b.xor(b.and_(k, whole(1)), whole(1))
            shift = vec.splat(b.trunc(b.shl(first, whole(4)), I32))
            return [self._upper(b.shl(raw, shift)) for raw in self._loaded(b.lshr(k, whole(1)), 0, vec.whole, self.bytes)]
        if step % 2 == 0:
            self._held = list(self._pairs(k, step))
            return [self._lower(raw) for raw in self._held]
        return [self._upper(raw) for raw in self._held]

    def both_steps(self, k: Value, step: int) -> Iterator[tuple[Value, Value]]:
        """Where steps lie in pairs: for each vector its weights of an even step and of the next, written as they are taken."""
        for raw in self._pairs(k, step):
            yield self._lower(raw), self._upper(raw)

    def _pairs(self, k: Value, step: int) -> Iterator[Value]:
        return self._loaded(k, step // 2, self.vec.whole, self.bytes // 2)

    def _lower(self, raw: Value) -> Value:
        return self.vec.from_bits(self.vec.builder.shl(raw, self.vec.iconst(16)))

    def _upper(self, raw: Value) -> Value:
        return self.vec.from_bits(self.vec.builder.and_(raw, self.vec.iconst(0xFFFF0000)))

    def _loaded(self, row: Value, further: int, kind: ir.Type, size: int) -> Iterator[Value]:
        """The vectors of a row of every panel: so many rows behind that at `row` times a vector's `size`."""
        b = self.vec.builder
        for start, width in zip(self.starts, self.panels, strict=True):
            line = at(b, start, b.mul(row, whole(width * size)))
            for v in range(width):
                yield b.load(at(b, line, (further * width + v) * self.bytes), align=self.bytes, typ=kind)


def rounded(b: ir.IRBuilder, value: Value) -> Value:
    """Floats, one or a vector, to the nearest bfloat16, ties to even: its bits in the lower half of 32; NaN stays NaN."""
    kind = value.type
    lanes = kind.count if isinstance(kind, ir.VectorType) else 0

    def number(bits: int) -> Value:
        one = ir.Constant(I32, bits)
        return ir.Constant(ir.VectorType(I32, lanes), [one] * lanes) if lanes else one

    bits = b.bitcast(value, ir.VectorType(I32, lanes) if lanes else I32)
    odd = b.and_(b.lshr(bits, number(16)), number(1))
    near = b.lshr(b.add(bits, b.add(odd, number(0x7FFF))), number(16))
    return b.select(b.fcmp_unordered("uno", value, value), number(0x7FC0), near)


def side_by_side(vectors: Vectors, low: Value, high: Value) -> Value:
    """Two vectors of floats, rounded, in the halves of one."""
    b = vectors.builder
    return b.or_(rounded(b, low), b.shl(rounded(b, high), vectors.iconst(16)))
