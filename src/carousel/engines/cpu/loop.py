"""The loop program: what happens at each step, in which order, and where every value lies in memory.

It stands between the schedule, which knows no memory, and LLVM, which knows nothing else. A step is a list of phases. A phase
is products, then passes over each row. Where what follows the products is one pass without sums, the phase can be *fused*: it
runs over blocks of units, and each block's pass follows its products while their results are in the first cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from carousel.engines.cpu.passes import Piece
from carousel.graph.node import Node
from carousel.graph.shapes import Shape


class Where(Enum):
    """Where the row b of a value lies at a step."""

    STEP = "step"  # with the rows of all steps: row (first row of the step + b)
    ROW = "row"  # one for each row of the batch: row b
    ONCE = "once"  # one for all
    BEFORE = "before"  # a state as the step finds it
    AFTER = "after"  # a state as the step leaves it
    SCRATCH = "scratch"  # row b, between phases of one step
    LOCAL = "local"  # between the passes over one row; one for each thread


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory of one value.

    Attributes:
        where: how its rows are found.
        shape: of a row.
        node: what it holds; for outputs, what is written there.
        whole: whether it holds whole numbers of 64 bits (a step's number, a row's, a seed) instead of floats.
        state: the name of the state, for `Where.BEFORE` and `Where.AFTER`.
        product: the number of the product whose result this is, unless it is fused; the gates lie one behind the other.
        gate: which of them it is.
        given: whether the loop only reads it, and who runs the loop hands it in.
    """

    where: Where
    shape: Shape
    node: Node
    whole: bool = False
    state: str | None = None
    product: int | None = None
    gate: int = 0
    given: bool = False


@dataclass(frozen=True, eq=False)
class Product:
    """Matrices times operands, summed; several results where several matrices share an operand.

    Attributes:
        number: its place among the products of the loop.
        outputs: the results, one for each gate.
        matrices: for each pair, a matrix for each gate, as nodes of the schedule.
        operands: for each pair, the vector.
        transposed: whether the matrices are transposed.
        blocks: whether each head has a matrix of its own.
    """

    number: int
    outputs: tuple[Node, ...]
    matrices: tuple[tuple[Node, ...], ...]
    operands: tuple[Node, ...]
    transposed: bool
    blocks: bool

    @property
    def shape(self) -> Shape:
        """Of each result."""
        return self.outputs[0].shape


@dataclass(frozen=True, eq=False)
class Pass:
    """A pass over one row.

    Attributes:
        piece: its form.
        shape: what it runs over.
        nodes: what it computes, each after its arguments.
        stores: what it writes, and where.
        across: the axis that is summed along, counted from the end, for `Piece.ACROSS`.
    """

    piece: Piece
    shape: Shape
    nodes: tuple[Node, ...]
    stores: tuple[tuple[Node, Buffer], ...] = ()
    across: int = 0


@dataclass(frozen=True, eq=False)
class Phase:
    """Products that can start together, then passes over each row.

    Attributes:
        products: the products.
        prelude: passes over whole rows that come before the products, where the phase is fused.
        passes: the others; where the phase is fused, single numbers and one pass.
        tiles: where products and passes run block by block (the phase is fused): for each result, the product and the gate.
    """

    products: tuple[Product, ...]
    prelude: tuple[Pass, ...]
    passes: tuple[Pass, ...]
    tiles: Mapping[Node, tuple[Product, int]] = field(default_factory=dict)

    @property
    def fused(self) -> bool:
        """Whether products and passes run block by block."""
        return bool(self.tiles)


@dataclass(frozen=True, eq=False)
class Loop:
    """A schedule's loop.

    Attributes:
        phases: what each step does.
        buffers: all memory, in the order of the arguments.
        memory: from each value that is read from memory to its buffer.
        aliases: from each view to what it is a view of.
        states: by name, the buffers before and after.
        axes: the letters of all sizes.
        kept: by node of the schedule, the buffer in which all its steps are kept; a state's own where it is in `trajectory`.
        instead: kept values that may take the place of a value computed before the loop, read for the last time where they are
            written: the same cache lines, and less memory.
        trajectory: the states all of whose steps are kept where they are written.
        fuse: whether phases that can be are fused: done where the weights do not fit a near cache.
    """

    phases: tuple[Phase, ...]
    buffers: tuple[Buffer, ...]
    memory: Mapping[Node, Buffer]
    aliases: Mapping[Node, Node]
    states: Mapping[str, tuple[Buffer, Buffer]]
    axes: tuple[str, ...]
    kept: Mapping[Node, Buffer]
    instead: Mapping[Buffer, Buffer]
    trajectory: frozenset[str]
    fuse: bool

    def root(self, node: Node) -> Node:
        """What a view is a view of."""
        while node in self.aliases:
            node = self.aliases[node]
        return node

    @property
    def products(self) -> list[Product]:
        """All products, in order."""
        return [product for phase in self.phases for product in phase.products]
