"""What the rows of `kernels.py` say, and how they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from timing import Gemm, Spread, table

#: T, B and H.
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Bench:
    """What is measured, and against what.

    Attributes:
        gemm: the large product.
        kernels: the packed product, with ways to call it; of `products`.
        repeats: rounds.
        cells: whose loops.
        shapes: of the loops.
        quick: whether only results are checked.
    """

    gemm: Gemm
    kernels: Any
    repeats: int
    cells: Sequence[str]
    shapes: Sequence[Shape]
    quick: bool


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        what: was measured.
        seconds: of one call; None where the value itself is seconds, or no time.
        value: the number that counts, if any.
        unit: of the value: `%` prints a share as per cent of the large product's rate.
        required: what the value must reach.
        at_most: whether the value must stay below `required`, not above.
        limits: by what bounds the time, the share of the time that this alone would take.
        more: other numbers, for the file of numbers alone.
    """

    what: str
    seconds: Spread | None = None
    value: Spread | None = None
    unit: str = "%"
    required: float | None = None
    at_most: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the median is what is required; None where nothing is."""
        if self.required is None or self.value is None:
            return None
        return self.value.median <= self.required if self.at_most else self.value.median >= self.required

    def as_dict(self) -> dict[str, Any]:
        """For the file of numbers."""
        return {**asdict(self), "reached": self.reached}

    def cells(self) -> list[str]:
        """The texts of the table's columns."""
        time = "" if self.seconds is None else duration(self.seconds)
        value = "" if self.value is None else measured(self.value, self.unit)
        required = ""
        if self.required is not None:
            number = f"{self.required * 100:.0f} %" if self.unit == "%" else f"{self.required:g} {self.unit}"
            required = f"{'<= ' if self.at_most else '>= '}{number}"
        limits = ", ".join(f"{name} {share * 100:.0f} %" for name, share in self.limits.items())
        return [self.what, time, value, required, {None: "", True: "yes", False: "no"}[self.reached], limits]


HEAD = ("", "time", "measured [quartiles]", "required", "reached", "what alone would take so much of the time")


def duration(spread: Spread) -> str:
    """A time in fitting units."""
    factor, unit = (1e6, "us") if spread.median < 1e-3 else (1e3, "ms") if spread.median < 1 else (1.0, "s")
    return f"{spread.median * factor:.{1 if spread.median * factor < 100 else 0}f} {unit}"


def measured(value: Spread, unit: str) -> str:
    """A number with its quartiles."""
    if unit == "%":
        return f"{value.median * 100:.0f} % [{value.low * 100:.0f}, {value.high * 100:.0f}]"
    return f"{value.text(2)} {unit}"


def text_table(rows: Sequence[Row]) -> str:
    """For people at a terminal."""
    return table(HEAD, [row.cells() for row in rows])


def markdown_table(rows: Sequence[Row]) -> str:
    """For `docs/performance.md`."""
    lines = [list(HEAD), ["---"] * len(HEAD), *([cell.strip() for cell in row.cells()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)


def best_of_each(gemm: Gemm) -> str:
    """The best rate of each way to compute a large product."""
    best: dict[str, tuple[float, str]] = {}
    for name, rate in gemm.rates.items():
        kind, _, shape = name.partition(" (")
        best[kind] = max(best.get(kind, (0.0, "")), (rate, shape))
    parts = [f"{kind} {rate / 1e9:.0f} ({shape}" for kind, (rate, shape) in sorted(best.items(), key=lambda item: -item[1][0])]
    return f"large products, GFLOP/s: {'; '.join(parts)}"
