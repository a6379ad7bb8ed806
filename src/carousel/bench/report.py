"""Comparisons as a table, as numbers and as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from carousel.bench.compare import Comparison, Entry
from carousel.bench.peers import OURS
from carousel.errors import ConfigError, explain

HEAD = ("work", "threads", "contestant", "time", "times ours [quartiles]", "of the GEMM rate", "error")
#: Names of pictures that matplotlib draws without a screen.
PICTURES = (".pdf", ".png", ".svg")


def duration(seconds: float) -> str:
    """A time in fitting units."""
    factor, unit = (1e6, "us") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1.0, "s")
    return f"{seconds * factor:.{1 if seconds * factor < 100 else 0}f} {unit}"


def each_time(comparison: Comparison, entry: Entry) -> str:
    """What one run takes or, where every step is a call, one step."""
    if comparison.work.mode == "step":
        return f"{duration(entry.seconds.median / comparison.work.T)} a step"
    return duration(entry.seconds.median)


def table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the table; the first row of each piece of work names it."""
    rows = []
    for comparison in comparisons:
        name = [comparison.work.text, str(comparison.threads)]
        for peer, cells in _cells(comparison):
            rows.append([*name, peer, *cells])
            name = ["", ""]
    return list(HEAD), rows


def _cells(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    for peer, entry in comparison.entries.items():
        share = "" if entry.share is None else f"{entry.share.median * 100:.0f} %"
        ratio = "1" if peer == OURS else entry.ratio.text(2)
        yield peer, [each_time(comparison, entry), ratio, share, "" if entry.error is None else f"{entry.error:.0e}"]
    for peer, how in comparison.wrong.items():
        yield peer, ["wrong", "", "", how]


def missing(comparisons: Sequence[Comparison]) -> list[str]:
    """Who was asked for and is not there, and why, each once, with the cells it concerns."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for comparison in comparisons:
        for peer, reason in comparison.missing.items():
            found.setdefault((peer, reason), {})[comparison.work.cell] = None
    return [f"without {peer}: {reason} ({', '.join(cells)})" for (peer, reason), cells in found.items()]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table for a page of documentation."""
    lines = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def numbers(comparisons: Sequence[Comparison], about: Mapping[str, Any]) -> dict[str, Any]:
    """All of it for a file of numbers; seconds, ratios and shares each with their quartiles."""
    made = []
    for comparison in comparisons:
        plain = asdict(comparison)
        for entry in plain["entries"].values():
            entry["times"] = list(entry["times"])
        made.append(plain)
    return {"machine": dict(about), "comparisons": made}


def chart(comparisons: Sequence[Comparison], path: Path, title: str = "") -> None:
    """Draw how many times our compiled engine's time each contestant needs, with quartiles.

    Args:
        comparisons: what was measured.
        path: the picture to write.
        title: above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [one for one in comparisons if one.entries]
    peers = list(dict.fromkeys(peer for one in shown for peer in one.entries if peer != OURS))
    thick = 0.8 / max(1, len(peers))
    figure = Figure(figsize=(9, 1.5 + 0.22 * max(1, len(shown)) * (len(peers) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for at, peer in enumerate(peers):
        places = [i for i, one in enumerate(shown) if peer in one.entries]
        ratios = [shown[i].entries[peer].ratio for i in places]
        medians = [ratio.median for ratio in ratios]
        around = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
        heights = [i + (at - (len(peers) - 1) / 2) * thick for i in places]
        axes.barh(heights, medians, thick, xerr=around, label=peer, error_kw={"linewidth": 0.8})
    axes.axvline(1.0, color="black", linewidth=1)
    names = [f"{one.work.text}\n{one.threads} thread{'s' if one.threads > 1 else ''}" for one in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel(
        f"times the time of carousel's compiled engine (the line at 1); longer bars are slower{title and chr(10)}{title}"
    )
    if peers:
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def check_files(json: Path | None, plot: Path | None) -> None:
    """Refuse names that could not be written in the end, before anything is measured.

    Raises:
        ConfigError: there is no such folder, or no such kind of picture.
    """
    for option, path in (("--json", json), ("--plot", plot)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(explain(f"{option}: there is no folder {path.absolute().parent}.", got=str(path)))
    if plot is not None and plot.suffix not in PICTURES:
        raise ConfigError(explain("--plot: this kind of picture cannot be drawn.", got=str(plot), expected=", ".join(PICTURES)))
