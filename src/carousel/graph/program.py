"""A step as a program: what it is given, what it carries from step to step, what it puts out, what it sums up.

The forward and the backward step are both programs, so one scheduler and one executor serve both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from carousel.graph.kinds import Role, TotalKind
from carousel.graph.node import Node, reachable
from carousel.graph.step import Step
from carousel.graph.symbol import Builder


class Level(IntEnum):
    """When a value can be known."""

    ONCE = 0  # constant over time: parameters and what is computed from them alone
    STEPS = 1  # one value for each step, known before the loop starts: inputs, values saved by another program
    LOOP = 2  # depends on what is carried from step to step
    TOTAL = 3  # depends on a sum over all steps


@dataclass(frozen=True)
class Carried:
    """A value handed from one step to the next.

    Attributes:
        before: its leaf: what the step is given.
        after: the node that the next step is given.
    """

    before: Node
    after: Node


@dataclass(frozen=True)
class Program:
    """One step of a loop over time.

    Attributes:
        given: the values known from outside, with the time they are known; nothing below them is computed.
        carried: what goes from step to step, by name.
        emitted: one value for each step, by name.
        totals: values summed over all steps and rows, by name.
        builder: where the nodes were made, for rewriting.
    """

    given: Mapping[Node, Level]
    carried: Mapping[str, Carried]
    emitted: Mapping[str, Node]
    totals: Mapping[str, Node]
    builder: Builder

    @property
    def results(self) -> list[Node]:
        """Everything the program is run for."""
        return [*(c.after for c in self.carried.values()), *self.emitted.values(), *self.totals.values()]

    @property
    def known(self) -> frozenset[Node]:
        """What is given or carried in: where computing starts."""
        return frozenset(self.given) | {c.before for c in self.carried.values()}

    @property
    def nodes(self) -> list[Node]:
        """All nodes, each after its arguments."""
        return reachable(self.results, stop=self.known)

    def levels(self) -> dict[Node, Level]:
        """The level of every node."""
        table: dict[Node, Level] = dict.fromkeys((c.before for c in self.carried.values()), Level.LOOP)
        table.update(self.given)
        for node in self.nodes:
            if node in table:
                continue
            if isinstance(node.kind, TotalKind):
                table[node] = Level.TOTAL
            else:
                table[node] = max((table[arg] for arg in node.args), default=Level.ONCE)
        return table


def leaves(step: Step) -> dict[Node, Level]:
    """What a traced step is given besides its states, with the time it is known."""
    given: dict[Node, Level] = {p.node: Level.ONCE for p in step.parameters.values()}
    given.update(dict.fromkeys(step.context.values(), Level.ONCE))
    given.update(dict.fromkeys(step.inputs.values(), Level.STEPS))
    given.update({node: Level.STEPS if role is Role.TIME else Level.ONCE for role, node in step.ambient.items()})
    return given


def depends_on(nodes: Iterable[Node], sources: Iterable[Node]) -> set[Node]:
    """Those of `nodes` (each after its arguments) that depend on any of `sources`, these included."""
    found = set(sources)
    for node in nodes:
        if any(arg in found for arg in node.args):
            found.add(node)
    return found
