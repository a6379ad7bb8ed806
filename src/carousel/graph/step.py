"""A traced step: a cell's equations as a graph, with what it is given and what it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from carousel.graph.initialisers import Initialiser
from carousel.graph.kinds import Role
from carousel.graph.node import Node, Place, here, reachable
from carousel.graph.shapes import Shape
from carousel.graph.symbol import Builder, Symbol

if TYPE_CHECKING:
    from carousel.graph.cell import Cell


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a cell learns: a matrix or a vector, named as in its equations.

    Attributes:
        name: for example ``U_f``.
        shape: named axes; a matrix is (out, in).
        init: how it starts.
        node: its leaf in the graph.
        place: the line of the cell that declares it.
        learned: whether training changes it.
    """

    name: str
    shape: Shape
    init: Initialiser
    node: Node
    place: Place | None = None
    learned: bool = True


@dataclasses.dataclass(frozen=True)
class Output:
    """Marks what `step` puts out, where that is not its first state: ``return Output(y), h, c``."""

    value: Symbol

    def __post_init__(self) -> None:
        if isinstance(self.value, Symbol):
            self.value.builder.learn_names(here()[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A traced step: a cell's equations as a graph.

    Attributes:
        cell: whose equations they are.
        inputs: the leaf of each input.
        states: the leaf of each state, as the step before left it.
        parameters: what the cell learns, in the order of the equations.
        output: what the step puts out.
        new_states: each state, as this step leaves it.
        builder: where the nodes are made.
        context: the leaf of each value that is constant over time.
        ambient: the leaves that a layer supplies by itself: the number of the step, the row, the seed of the noise.
    """

    cell: Cell
    inputs: Mapping[str, Node]
    states: Mapping[str, Node]
    parameters: Mapping[str, Parameter]
    output: Node
    new_states: Mapping[str, Node]
    builder: Builder
    context: Mapping[str, Node] = dataclasses.field(default_factory=dict)
    ambient: Mapping[Role, Node] = dataclasses.field(default_factory=dict)

    def __deepcopy__(self, memo: object) -> Step:
        return self  # immutable, and too deep for a recursive copy where a step is long

    @property
    def results(self) -> list[Node]:
        """The output and the new states."""
        return [self.output, *self.new_states.values()]

    @property
    def nodes(self) -> list[Node]:
        """All nodes the results need, each after its arguments."""
        return reachable(self.results)
