"""What a comparison of taggers came to: the table, as text, JSON and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from carousel.files import write_file, write_json

__all__ = ["PARTS", "RESULT_FILE", "Row", "TaggerComparison", "write_comparison"]

RESULT_FILE, TEXT_FILE, PICTURE_FILE = "comparison.json", "comparison.txt", "comparison.png"
PARTS = ("train", "valid", "test")
"""The names of the parts of the data."""


@dataclass(frozen=True)
class Row:
    """What one method came to.

    Args:
        name: of the method.
        scores: on the test data, each with its 95 % interval: `value`, `low`, `high`.
        train_seconds: of learning, validation and all, as a clock tells them.
        cpu_seconds: of the same, those that processors worked: what to go by on a busy machine.
        tokens_per_second: of answering the test data.
        parameters: how many numbers were learned.
        model_bytes: of the files that answering needs.
        note: what else there is to say.
        error: why there is no result; None if there is one.
    """

    name: str
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    train_seconds: float | None = None
    cpu_seconds: float | None = None
    tokens_per_second: float | None = None
    parameters: int | None = None
    model_bytes: int | None = None
    note: str = ""
    error: str | None = None


@dataclass(frozen=True)
class TaggerComparison:
    """All methods, beside facts of the data.

    Args:
        measure: the score that counts: `f1` where tags mark spans, else `accuracy`.
        data: `train`, `valid` and `test`: how many sentences and tokens; `tags` and `scheme`; `threads` that each had.
        rows: in the order they were run.
        interrupted: whether Ctrl-C came before the last method.
    """

    measure: str
    data: Mapping[str, Any]
    rows: tuple[Row, ...]
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "measure": self.measure,
            "data": dict(self.data),
            "rows": [asdict(row) for row in self.rows],
            "interrupted": self.interrupted,
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of the table; a method that failed says why in place of its numbers."""
        others = [name for name in ("accuracy", "unknown_accuracy", "oov_recall") if name != self.measure]
        shown = [name for name in others if any(name in row.scores for row in self.rows)]
        header = ["method", f"{self.measure} [95 %]", *shown, "training, s", "CPU, s", "tokens/s", "parameters", "MB"]
        return header, [self._line(row, shown, len(header)) for row in self.rows]

    def _line(self, row: Row, shown: Sequence[str], width: int) -> list[str]:
        if row.error is not None:
            return [row.name, "failed: " + row.error.splitlines()[0], *[""] * (width - 2)]
        best = row.scores[self.measure]
        return [
            row.name,
            f"{best['value']:.4f} [{best['low']:.4f}, {best['high']:.4f}]",
            *(f"{row.scores[name]['value']:.4f}" if name in row.scores else "-" for name in shown),
            _form(row.train_seconds, ",.1f"),
            _form(row.cpu_seconds, ",.1f"),
            _form(row.tokens_per_second, ",.0f"),
            _form(row.parameters, ",d"),
            _form(None if row.model_bytes is None else row.model_bytes / 1e6, ".2f"),
        ]

    def text(self) -> str:
        """The table as aligned text, with the facts of the data."""
        header, rows = self.table()
        whole = [header, *(line for line, row in zip(rows, self.rows, strict=True) if row.error is None)]
        widths = [max(len(line[at]) for line in whole) for at in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in (header, *rows)
        ]
        sizes = {name: self.data[name] for name in PARTS}
        parts = [f"{name}: {size['sentences']:,} sentences, {size['tokens']:,} tokens" for name, size in sizes.items()]
        notes = [f"{row.name}: {row.note}" for row in self.rows if row.note]
        return "\n".join([*lines, "", *parts, *notes]) + "\n"


def write_comparison(found: TaggerComparison, path: Path, *, picture: bool = True) -> None:
    """Write the table as JSON, as text and as a picture into a directory.

    Args:
        found: the table.
        path: the directory.
        picture: whether the picture is drawn, too.

    Raises:
        OutputError: a file cannot be written.
    """
    write_json(path / RESULT_FILE, found.to_dict())
    write_file(path / TEXT_FILE, found.text().encode())
    if picture and any(row.error is None for row in found.rows):
        write_file(path / PICTURE_FILE, _picture(found))


def _picture(found: TaggerComparison) -> bytes:
    """Quality with its interval against the time of training."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for row in found.rows:
        if row.error is not None or not row.train_seconds:
            continue
        score = row.scores[found.measure]
        bars = [[max(0.0, score["value"] - score["low"])], [max(0.0, score["high"] - score["value"])]]
        axes.errorbar([row.train_seconds], [score["value"]], yerr=bars, fmt="o", capsize=3, label=row.name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.1)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlabel("training, seconds")
    axes.set_ylabel(f"{found.measure}, with 95 % interval")
    axes.set_title(
        f"{found.data['train']['sentences']:,} sentences to learn from, {found.data['test']['sentences']:,} to measure"
    )
    axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def _form(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
