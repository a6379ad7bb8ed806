"""The learning curve of a run as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carousel.files import write_file

__all__ = ["draw_learning_curve"]

TRAIN, VALID, INK, PALE = "#7a8ca3", "#d1495b", "#22303c", "#dfe4ea"


def draw_learning_curve(
    path: Path, rows: Sequence[Mapping[str, float]], *, metric: str = "loss", best_epoch: int = 0, title: str = ""
) -> None:
    """Draw loss (left) and the monitored metric (right) by epoch, and mark the best epoch.

    Args:
        path: the PNG to write, whole or not at all.
        rows: the rows of metrics.csv; at least one.
        metric: what stands on the right; with "loss" there is one panel only.
        best_epoch: the epoch to mark, 0 for none.
        title: a heading, if any.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = ["loss"] if metric == "loss" else ["loss", metric]
    width, height = 0.6 + 4.8 * len(panels), 3.9 + (0.3 if title else 0.0)
    figure = Figure(figsize=(width, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    # Fixed margins, in inches: the automatic layouts draw everything twice.
    figure.subplots_adjust(left=0.7 / width, right=1 - 0.25 / width, bottom=0.6 / height, wspace=0.22)
    figure.subplots_adjust(top=1 - (0.75 if title else 0.42) / height)
    for position, name in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), position)
        _draw(axes, rows, name, best_epoch, mark=name == metric)
    if title:
        figure.suptitle(title, color=INK, fontsize=11, fontweight="bold")
    image = io.BytesIO()
    figure.savefig(image, format="png")
    write_file(path, image.getvalue())


def _draw(axes: Any, rows: Sequence[Mapping[str, float]], name: str, best_epoch: int, *, mark: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    for part, colour, width in (("train", TRAIN, 1.6), ("valid", VALID, 2.2)):
        points = [(row["epoch"], row[f"{part}_{name}"]) for row in rows if _finite(row.get(f"{part}_{name}"))]
        if points:
            epochs, values = zip(*points, strict=True)
            dots = {"marker": "o", "markersize": 3.5} if len(points) <= 40 else {}
            label = "training" if part == "train" else "validation"
            axes.plot(epochs, values, color=colour, linewidth=width, label=label, solid_capstyle="round", **dots)
    best = next((row for row in rows if row["epoch"] == best_epoch), None)
    if best is not None:
        axes.axvline(best_epoch, color=INK, linewidth=0.9, linestyle=(0, (2, 3)), alpha=0.6, zorder=1)
        column = f"valid_{name}" if f"valid_{name}" in best else f"train_{name}"
        if mark and _finite(best.get(column)):
            _mark(axes, best_epoch, best[column])
    axes.set_title(name.replace("_", " "), loc="left", color=INK, fontsize=11, fontweight="bold")
    axes.set_xlabel("epoch", color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    first, last = rows[0]["epoch"], rows[-1]["epoch"]
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.margins(y=0.12)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)


def _mark(axes: Any, epoch: int, value: float) -> None:
    ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 1.4}
    axes.plot([epoch], [value], **ring)
    axes.set_title(f"best: epoch {epoch}, {value:.4g}", loc="right", color=INK, fontsize=9)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
