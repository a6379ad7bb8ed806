"""How a product is cut into tiles that stay in a CPU's registers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from carousel.engines.cpu.target import Target
from carousel.engines.cpu.vectors import Real
from carousel.engines.cpu.weights import TILES, Weights


@dataclass(frozen=True)
class Tiling:
    """How a product is cut.

    Attributes:
        rows: of the largest tile.
        vectors: of a panel, and of the largest tile.
        together: panels that are taken at once where there is one row only.
        unroll: steps of k between two jumps; a power of two.
    """

    rows: int
    vectors: int
    together: int
    unroll: int


# Accumulators, the weights of a step and a broadcast number must fit the registers. With 32 of 512 bits: 8 x 3 = 24, 3 weights,
# the rest for broadcasts. 6 x 4 reads a third more weights for the same rows, and 8 rows take two tiles of it: measured a tenth
# slower with weights in L2 and 8 rows, a third slower with weights in L3; 7 x 4 is slower still. With 16 registers and FMA:
# 6 x 2 = 12, 2 weights, 1 broadcast. Without FMA a register more holds what is to be added; SSE, whose instructions overwrite
# an operand, takes another. NEON has 32 registers, two for each vector, and LLVM's order of loads for some CPUs needs the rest.
# One row: 8 chains would hide a multiply-add of 4 cycles, two in each cycle. 3 panels of 3 at once were quicker than 2 with
# weights in the first cache (227 and 209 GB/s; one panel 187), and slower with weights in L2 (154 to 165 and 169 GB/s, which is
# the speed of reading): more places are read at once.
_AVX512 = Tiling(rows=8, vectors=3, together=2, unroll=4)
_AVX2 = Tiling(rows=6, vectors=2, together=4, unroll=4)
_NEON = Tiling(rows=6, vectors=2, together=4, unroll=1)
_AVX = Tiling(rows=5, vectors=2, together=4, unroll=2)
_SSE = Tiling(rows=4, vectors=2, together=3, unroll=1)


def tiling(target: Target, together: int = 1) -> Tiling:
    """How products are cut for a CPU.

    Args:
        target: the CPU.
        together: steps of k that lie side by side in its weights; a turn of a loop takes as many, or a multiple.
    """
    if not target.x86:
        cut = _NEON
    elif target.avx512:
        cut = _AVX512
    elif target.fma:
        cut = _AVX2
    else:
        cut = _AVX if target.bits == 256 else _SSE
    if together == 1:
        return cut
    # Weights as they are stored need registers beside those they are turned into. AVX-512 has some left; there, panels of half
    # the bytes are read from so many places more (4 panels for one row: 3 to 9 percent quicker than 2).
    if target.avx512:
        return replace(cut, together=2 * cut.together)
    return replace(cut, rows=cut.rows - 1, together=cut.together - 1, unroll=max(cut.unroll, together))


def vectors_per_panel(target: Target, real: Real) -> int:
    """Vectors that stand side by side in a panel of packed weights, except in the last one."""
    del real  # a tile is counted in vectors: it is the same for both types
    return tiling(target).vectors


def rows_of_a_tile(target: Target, weights: Weights) -> int:
    """Rows that fill the largest tile of a product with such weights."""
    return 32 if weights is TILES else tiling(target, weights.together).rows
