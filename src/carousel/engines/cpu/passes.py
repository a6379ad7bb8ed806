"""How the values of a stage become passes over a row: what is computed together, what waits for a sum, what goes to memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from carousel.graph.kinds import CumulativeSum, Max, Noise, Sum
from carousel.graph.node import Node
from carousel.graph.shapes import Shape


class Piece(Enum):
    """What a pass over a row is."""

    SCALARS = "scalars"  # single numbers: no loop
    NEST = "nest"  # element-wise, with sums along the last axis
    ACROSS = "across"  # element-wise, with sums along another axis
    SCAN = "scan"  # a running sum
    NOISE = "noise"


def scalar(shape: Shape) -> bool:
    """Whether a value is a single number."""
    return all(axis == 1 for axis in shape)


def last_axis(shape: Shape) -> int:
    """The place of the last axis that is not 1, counted from the end."""
    return next((place for place in range(-1, -len(shape) - 1, -1) if shape[place] != 1), -1)


def reduces(node: Node) -> bool:
    """Whether a node sums (or takes the largest) along an axis; along an axis of size 1 it hands on its argument."""
    return isinstance(node.kind, Sum | Max) and node.args[0].shape[node.kind.place] != 1


@dataclass(frozen=True)
class Key:
    """What values of one pass share.

    Attributes:
        level: passes of a level need only passes of lower levels, and single numbers of their own.
        piece: its form.
        shape: what it runs over.
        across: the axis that is summed along, counted from the end, for `Piece.ACROSS`.
        node: for the forms that stand alone, the number of their node.
    """

    level: int
    piece: Piece
    shape: Shape
    across: int = 0
    node: int = 0


@dataclass
class Region:
    """The values of a stage, in passes.

    Attributes:
        key: the pass of each value.
        order: the passes, in the order in which they run.
        through_memory: values that another pass of this stage reads from memory.
    """

    key: dict[Node, Key] = field(default_factory=dict)
    order: list[Key] = field(default_factory=list)
    through_memory: set[Node] = field(default_factory=set)

    def nodes(self, key: Key) -> list[Node]:
        """The values of a pass, each after its arguments."""
        return sorted((node for node, where in self.key.items() if where == key), key=lambda node: node.number)

    def after(self, sources: set[Node], root: Callable[[Node], Node]) -> set[Key]:
        """The passes that need any of `sources`."""
        found: set[Key] = set()
        tainted = set(sources)
        for key in self.order:
            for node in self.nodes(key):
                if any(root(arg) in tainted for arg in node.args):
                    found.add(key)
                    tainted.add(node)
        return found


def arrange(nodes: Sequence[Node], root: Callable[[Node], Node], stored: Mapping[Node, object]) -> Region:
    """Arrange the values of a stage in passes.

    Args:
        nodes: what the stage computes, no views among them, each after its arguments.
        root: what a view is a view of.
        stored: values that must be written to memory in any case.
    """
    region = Region()
    inside = set(nodes)
    pulled = _pulled(nodes, root, stored)
    for node in nodes:
        piece, shape, across = _form(node, pulled)
        level = 0
        for arg in node.args:
            source = root(arg)
            if source in inside:
                level = max(level, _earliest(region.key[source], source, piece, shape, across, view=source is not arg))
        alone = node.number if piece in (Piece.SCAN, Piece.NOISE) else 0
        region.key[node] = Key(level, piece, () if piece is Piece.SCALARS else shape, across, alone)
    first: dict[Key, int] = {}
    for node in nodes:
        first.setdefault(region.key[node], node.number)
        for arg in node.args:
            source = root(arg)
            same = region.key.get(source) == region.key[node] and source is arg
            if source in inside and not same and not scalar(source.shape):
                region.through_memory.add(source)
    region.order = sorted(first, key=lambda key: (key.level, key.piece is not Piece.SCALARS, first[key]))
    return region


def _form(node: Node, pulled: Mapping[Node, int]) -> tuple[Piece, Shape, int]:
    if isinstance(node.kind, Noise):
        return Piece.NOISE, node.shape, 0
    if isinstance(node.kind, CumulativeSum):
        return Piece.SCAN, node.shape, 0
    if reduces(node):
        assert isinstance(node.kind, Sum | Max)  # noqa: S101 - that is what reduces says
        over = node.args[0].shape
        inner = node.kind.place == last_axis(over)
        return (Piece.NEST, over, 0) if inner else (Piece.ACROSS, over, node.kind.place)
    if node in pulled:
        return Piece.ACROSS, node.shape, pulled[node]
    if scalar(node.shape):
        return Piece.SCALARS, (), 0
    return Piece.NEST, node.shape, 0


def _pulled(nodes: Sequence[Node], root: Callable[[Node], Node], stored: Mapping[Node, object]) -> dict[Node, int]:
    """Values that only a sum along an axis other than the last reads: they are computed where they are summed."""
    readers: dict[Node, list[Node]] = {}
    for node in nodes:
        for arg in node.args:
            readers.setdefault(root(arg), []).append(node)
    found: dict[Node, int] = {}
    for node in nodes:
        if isinstance(node.kind, Noise | CumulativeSum) or reduces(node) or scalar(node.shape) or node in stored:
            continue
        users = readers.get(node, [])
        if len(users) == 1 and reduces(users[0]) and users[0].args[0] is node:
            kind = users[0].kind
            assert isinstance(kind, Sum | Max)  # noqa: S101 - that is what reduces says
            if kind.place != last_axis(node.shape):
                found[node] = kind.place
    return found


def _earliest(source: Key, node: Node, piece: Piece, shape: Shape, across: int, *, view: bool) -> int:
    """The first level at which a pass of this form can read `node`, which `source` computes."""
    if scalar(node.shape):
        return source.level if source.piece is Piece.SCALARS else source.level + 1
    same = source.piece is piece and source.shape == shape and source.across == across and not reduces(node) and not view
    return source.level if same and piece in (Piece.NEST, Piece.ACROSS) else source.level + 1
