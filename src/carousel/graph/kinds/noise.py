"""Noise that does not depend on who computes it: a number is a function of seed, stream, row, step and unit.

Philox4x32-10 turns the counter (unit / 4, step, row, stream) and the key (seed) into four words of 32 bits, one for each of
four units. So every engine, any number of threads, any order of rows and any cut in time gives the same noise.

References:
    Salmon et al. (2011), "Parallel Random Numbers: As Easy as 1, 2, 3", SC11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carousel.graph.kinds.base import Eager, Kind
from carousel.graph.kinds.products import NEVER_AGAIN
from carousel.graph.shapes import concrete

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
NONE = 0xFFFFFFFF  # the row, or the step, of noise that has none

Multiply = Callable[[int, Any], tuple[Any, Any]]


def philox(counter: Sequence[Any], key: Sequence[Any], multiply: Multiply | None = None) -> list[Any]:
    """Philox4x32-10 on tensors of int64 that hold 32-bit words, or on Python integers.

    Args:
        counter: four words; they broadcast.
        key: two words.
        multiply: gives the high and the low word of a product, if there is a quicker way than by halves.

    Returns:
        Four words.

    Example:
        >>> [f"{word:08x}" for word in philox((0, 0, 0, 0), (0, 0))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    multiply = multiply or _multiply
    for _ in range(10):
        high0, low0 = multiply(MULTIPLIERS[0], c0)
        high1, low1 = multiply(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & _WORD, (k1 + WEYL[1]) & _WORD
    return [c0, c1, c2, c3]


def _multiply(a: int, b: Any) -> tuple[Any, Any]:
    """The high and the low word of a product; by halves, since int64 has no room for 64 unsigned bits."""
    low = a * (b & 0xFFFF)
    middle = a * (b >> 16) + (low >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


@dataclass(frozen=True)
class Noise(Kind):
    """Uniform noise in [0, 1), for a seed and, where it has them, a row and a step.

    Args:
        stream: tells noises of one cell apart; derived from the noise's name.
        axes: its shape.
        by_row: whether rows have noise of their own; the second argument is then the row.
        by_step: whether steps have; the last argument is then the step.
    """

    stream: int
    axes: Shape
    by_row: bool = True
    by_step: bool = False

    @property
    def cost(self) -> float:
        """A hundred integer operations for each number: saved where a step needs it again."""
        return NEVER_AGAIN

    def shape(self, *args: Node) -> Shape:
        """Its axes."""
        return self.axes

    def rows(self, *args: Node) -> bool:
        """By row or by step there is one for each row."""
        return self.by_row or self.by_step

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Noise has no gradient."""
        return [None] * len(args)

    def eager(self, on: Eager, *values: Any) -> Any:
        """Philox, then the upper 24 bits of each word."""
        torch, sizes = on.torch, concrete(self.axes, on.sizes)
        seed = values[0]
        units = 1
        for size in sizes:
            units *= size
        quads = torch.arange((units + 3) // 4, device=seed.device)
        row = values[1].long() if self.by_row else NONE
        step = values[-1].long() if self.by_step else NONE
        words = philox((quads, step, row, self.stream), (seed[0], seed[1]))
        if self.by_row or self.by_step:
            words = [word.expand(values[-1].shape[0], -1) for word in words]
        numbers = torch.stack(words, -1)
        # 24 bits are exact in float32; half precision cannot hold the whole numbers.
        uniform = ((numbers.flatten(-2)[..., :units] >> 8).float() * 2.0**-24).to(on.dtype or torch.get_default_dtype())
        return uniform.reshape((*uniform.shape[:-1], *sizes))

    def text(self, *args: str) -> str:
        """``noise``."""
        return "noise"

    def latex(self, *args: str) -> str:
        r"""``\epsilon``."""
        return r"\epsilon"
