"""Charts as SVG for the page: no library to import, and colours that follow the page's light or dark style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from carousel.tasks.report.page import escaped

__all__ = ["Line", "Whisker", "histogram", "lines", "reliability", "scatter", "ticks", "whiskers"]

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 40
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: what it shows.
        kind: its class in the style sheet.
        points: (x, y), in the order of x.
    """

    name: str
    kind: str
    points: Points


@dataclass(frozen=True)
class Whisker:
    """A value with its interval.

    Args:
        name: what it belongs to.
        value: the value.
        low: the interval's lower end; None if it has none.
        high: its upper end; None if it has none.
        note: a few words shown when the pointer is on it.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    note: str


@dataclass(frozen=True)
class _Frame:
    """Where numbers lie in the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    width: int = WIDTH

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, about `count` of them.

    Example:
        >>> ticks(0.0, 1.0), ticks(3.2, 17.0)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [5.0, 10.0, 15.0])
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def lines(title: str, curves: Sequence[Line], *, x_title: str, mark: float | None = None) -> str:
    """Curves over one axis.

    Args:
        title: above the picture.
        curves: at least one point among them.
        x_title: below the axis.
        mark: an x to mark by a vertical line.
    """
    frame = _frame([point for curve in curves for point in curve.points], pad_x=0.03)
    body = [_axes(frame, x_title, whole=True)]
    if mark is not None:
        body.append(_line("mark", (frame.x(mark), TOP), (frame.x(mark), HEIGHT - BOTTOM)))
    for curve in curves:
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in curve.points)
        body.append(f'<polyline class="curve {curve.kind}" points="{path}"/>')
        if len(curve.points) <= 40:
            body += [_dot(f"dot {curve.kind}", frame.x(x), frame.y(y), 2.5, f"{curve.name}: {y:.5g}") for x, y in curve.points]
    return _picture(title, body, [(curve.name, curve.kind) for curve in curves])


def reliability(title: str, before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> str:
    """Accuracy over confidence, before (with intervals) and after scaling.

    Args:
        title: above the picture.
        before: bins with `confidence`, `accuracy`, `accuracy_low`, `accuracy_high`, `count`.
        after: the same after scaling.
    """
    frame = _Frame(0.0, 1.0, 0.0, 1.0)
    body = [_axes(frame, "confidence"), _line("mark", (frame.x(0), frame.y(0)), (frame.x(1), frame.y(1)))]
    for kind, bins in (("train", after), ("valid", before)):
        for item in bins:
            x, y = frame.x(item["confidence"]), frame.y(item["accuracy"])
            if bins is before:
                body.append(_line(f"whisker {kind}", (x, frame.y(item["accuracy_low"])), (x, frame.y(item["accuracy_high"]))))
            radius = 2.5 + 4.5 * math.sqrt(item["count"] / max(other["count"] for other in bins))
            said = f"{item['count']} claims, confidence {item['confidence']:.3f}, right {item['accuracy']:.3f}"
            body.append(_dot(f"dot {kind}", x, y, radius, said))
    return _picture(title, body, [("before", "valid"), ("after", "train")])


def whiskers(title: str, items: Sequence[Whisker], *, x_title: str, share: bool) -> str:
    """Values with intervals, side by side.

    Args:
        title: above the picture.
        items: at least one.
        x_title: below the axis.
        share: whether the values are shares of one, so that the axis ends there.
    """
    ends = [end for item in items for end in (item.low, item.high, item.value) if end is not None]
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 0.05
    low, high = (max(0.0, low - pad), min(1.0, high + pad)) if share else (max(0.0, low - pad), high + pad)
    frame = _Frame(0.5, len(items) + 0.5, low, high)
    body = [_axes(frame, x_title, x_ticks=[])]
    for at, item in enumerate(items, start=1):
        x = frame.x(at)
        if item.low is not None and item.high is not None:
            body.append(_line("whisker valid", (x, frame.y(item.low)), (x, frame.y(item.high))))
        body.append(_dot("dot valid", x, frame.y(item.value), 4, f"{item.name}: {item.value:.4g} ({item.note})"))
        body.append(_text(x, HEIGHT - BOTTOM + 15, item.name, "middle"))
    return _picture(title, body, [])


def scatter(title: str, points: Points, *, x_title: str) -> str:
    """Points, with the diagonal on which they should lie.

    Args:
        title: above the picture.
        points: at least one.
        x_title: below the axis.
    """
    both = [value for point in points for value in point]
    low, high = _padded(min(both), max(both), 0.05)
    frame = _Frame(low, high, low, high)
    body = [_axes(frame, x_title), _line("mark", (frame.x(low), frame.y(low)), (frame.x(high), frame.y(high)))]
    body += [_dot("dot valid faint", frame.x(x), frame.y(y), 2.5, f"{x:.5g}, {y:.5g}") for x, y in points]
    return _picture(title, body, [])


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], *, x_title: str) -> str:
    """Bars between edges.

    Args:
        title: above the picture.
        edges: n + 1 of them, increasing.
        counts: n heights.
        x_title: below the axis.
    """
    frame = _Frame(edges[0], edges[-1], 0.0, max(1.0, max(counts) * 1.05))
    body = [_axes(frame, x_title)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        x, y = frame.x(low), frame.y(count)
        width, height = max(0.5, frame.x(high) - x - 1), frame.y(0) - y
        body.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
    if edges[0] < 0 < edges[-1]:
        body.append(_line("mark", (frame.x(0), TOP), (frame.x(0), HEIGHT - BOTTOM)))
    return _picture(title, body, [])


def _frame(points: Points, *, pad_x: float) -> _Frame:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return _Frame(*_padded(min(xs), max(xs), pad_x), *_padded(min(ys), max(ys), 0.06))


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    pad = share * (high - low) or max(abs(low) * 0.1, 0.5)
    return low - pad, high + pad


def _axes(frame: _Frame, x_title: str, *, whole: bool = False, x_ticks: Sequence[float] | None = None) -> str:
    parts = []
    for value in ticks(frame.y_low, frame.y_high):
        parts.append(_line("grid", (LEFT, frame.y(value)), (frame.width - RIGHT, frame.y(value))))
        parts.append(_text(LEFT - 7, frame.y(value) + 4, f"{value:.6g}", "end"))
    wanted = ticks(frame.x_low, frame.x_high, 7) if x_ticks is None else x_ticks
    keep: Callable[[float], bool] = (lambda value: value == round(value)) if whole else (lambda _: True)
    parts += [_text(frame.x(value), HEIGHT - BOTTOM + 15, f"{value:.6g}", "middle") for value in wanted if keep(value)]
    parts.append(_text((LEFT + frame.width - RIGHT) / 2, HEIGHT - 8, x_title, "middle"))
    return "".join(parts)


def _picture(title: str, body: Sequence[str], legend: Sequence[tuple[str, str]]) -> str:
    shown, x = [], float(WIDTH - RIGHT)
    for name, kind in reversed(legend):
        shown.append(_text(x, 16, name, "end"))
        x -= 7 * len(name) + 14
        shown.append(_dot(f"dot {kind}", x + 7, 12, 4, name))
        x -= 8
    head = f'<text class="title" x="{LEFT - 40}" y="16">{escaped(title)}</text>'
    said = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escaped(title)}">'
    return said + head + "".join(shown) + "".join(body) + "</svg>"


def _line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _dot(kind: str, x: float, y: float, radius: float, said: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{escaped(said)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'
