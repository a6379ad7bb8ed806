"""A node of the graph, and the places in a cell's source that nodes remember."""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from carousel.graph.shapes import Shape

if TYPE_CHECKING:
    from carousel.graph.kinds.base import Kind

_HERE = str(Path(__file__).parent)
_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A line of a cell's source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def source(self) -> str:
        """The text of the line, or an empty string where there is no file (a prompt, say)."""
        return linecache.getline(self.file, self.line).strip()


def here() -> tuple[Place | None, dict[str, object]]:
    """Return the innermost line that is not in this package, and the local variables of the `step` that led there."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_ours(frame):
        frame = frame.f_back
    if frame is None:
        return None, {}
    place = Place(frame.f_code.co_filename, frame.f_lineno)
    while frame is not None and frame.f_code.co_name != "step":
        frame = frame.f_back
    return place, frame.f_locals if frame is not None else {}


def is_ours(frame: FrameType) -> bool:
    """Whether a frame belongs to this package, to code that a dataclass generated, or to a library called on a symbol."""
    library = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return library in ("torch", "numpy") or frame.f_code.co_filename.startswith((_HERE, "<string>"))


@dataclass(eq=False)
class Node:
    """One value of a step: a kind applied to other values.

    Attributes:
        kind: what is computed.
        args: the values it is computed from.
        shape: named axes, without the rows of the batch.
        rows: whether there is one value for each row of the batch (a parameter has none).
        name: the name it has in the equations, if it has one.
        place: the line of the cell that made it.
        number: nodes made later have larger numbers, so numbers are a topological order.
    """

    kind: Kind
    args: tuple[Node, ...]
    shape: Shape
    rows: bool
    name: str | None = None
    place: Place | None = None
    number: int = field(default_factory=lambda: next(_numbers))

    def __repr__(self) -> str:
        return f"<{self.name or self.kind} #{self.number}>"


def reachable(results: Iterable[Node], stop: frozenset[Node] = frozenset()) -> list[Node]:
    """List what `results` need, in an order in which each node comes after its arguments.

    Args:
        results: the nodes wanted.
        stop: nodes that are known: they are listed, but what they were computed from is not.
    """
    seen: set[Node] = set()
    stack = list(results)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node not in stop:
            stack.extend(node.args)
    return sorted(seen, key=lambda node: node.number)


def users(nodes: Iterable[Node], stop: frozenset[Node] = frozenset()) -> dict[Node, list[Node]]:
    """For each node, those of `nodes` that read it."""
    table: dict[Node, list[Node]] = {}
    for node in nodes:
        table.setdefault(node, [])
        if node in stop:
            continue
        for arg in node.args:
            table.setdefault(arg, []).append(node)
    return table
