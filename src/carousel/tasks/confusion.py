"""Which labels are taken for which: counts, the scores that follow from them, and their picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carousel.files import replacing

__all__ = ["Confusion", "plot_confusion"]

LABELLED_UP_TO = 60
NUMBERED_UP_TO = 20


@dataclass(frozen=True)
class Confusion:
    """Counts of true against predicted labels.

    Args:
        labels: V labels.
        counts: (V, V), row: the true label, column: the predicted one.
        loss: mean cross-entropy, nats.
    """

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    loss: float

    @property
    def count(self) -> int:
        """How many records were counted."""
        return sum(map(sum, self.counts))

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1."""
        right: int = sum(row[place] for place, row in enumerate(self.counts))
        return right / self.count

    @property
    def macro_f1(self) -> float:
        """Mean of the labels' F1, 0 to 1, over the labels that occur as truth or as answer."""
        true = [sum(row) for row in self.counts]
        answered = [sum(column) for column in zip(*self.counts, strict=True)]
        both = [true[k] + answered[k] for k in range(len(self.labels))]
        scores: list[float] = [2 * self.counts[k][k] / both[k] for k in range(len(self.labels)) if both[k]]
        return sum(scores) / len(scores)

    def scores(self) -> dict[str, float]:
        """`accuracy`, `macro_f1`, `loss` and `count`."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "loss": self.loss, "count": self.count}


def plot_confusion(confusion: Confusion, path: str | os.PathLike[str]) -> Path:
    """Draw the share of each true label that got each answer, as a PNG written atomically.

    Args:
        confusion: the counts.
        path: the picture.

    Returns:
        `path`.

    Raises:
        OutputError: the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    V = len(confusion.labels)
    shares = [[count / max(1, sum(row)) for count in row] for row in confusion.counts]
    side = min(20.0, 3.0 + 0.36 * V)
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="Blues", aspect="equal")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true label")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"accuracy {confusion.accuracy:.1%}, macro F1 {confusion.macro_f1:.3f}, {confusion.count} records")
    if V <= LABELLED_UP_TO:
        names = [name if len(name) <= 20 else name[:19] + "…" for name in confusion.labels]
        axes.set_xticks(range(V), names, rotation=90 if V > 6 else 0)
        axes.set_yticks(range(V), [f"{name} ({sum(row)})" for name, row in zip(names, confusion.counts, strict=True)])
    if V <= NUMBERED_UP_TO:
        for row, line in enumerate(shares):
            for column, share in enumerate(line):
                if confusion.counts[row][column]:
                    colour = "white" if share > 0.5 else "black"
                    axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
