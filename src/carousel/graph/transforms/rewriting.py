"""What transforms are made of: rebuilding a step while values, operands or states change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase

from carousel.errors import ConfigError, explain, unknown_name
from carousel.graph.functions import greater
from carousel.graph.initialisers import Initialiser
from carousel.graph.kinds import Hoisting, Leaf, Noise, Role, RowProduct
from carousel.graph.node import Node, reachable
from carousel.graph.shapes import Shape
from carousel.graph.step import Parameter, Step
from carousel.graph.symbol import Symbol
from carousel.graph.tracing import AMBIENT, make_noise, stream_of


class Transform(ABC):
    """Rewrites a traced step. Subclasses are frozen dataclasses."""

    @abstractmethod
    def apply(self, step: Step, training: bool) -> Step:
        """Return the rewritten step, for training or for evaluation."""


def apply_transforms(step: Step, transforms: tuple[Transform, ...], training: bool) -> Step:
    """Apply transforms, the first first."""
    for transform in transforms:
        step = transform.apply(step, training)
    return step


class Rewriting:
    """Rebuilds a step while values or operands change; adds parameters and noise."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.builder = step.builder
        self.parameters = dict(step.parameters)
        self.ambient = dict(step.ambient)
        self.taken = {node.kind.stream for node in step.nodes if isinstance(node.kind, Noise)}

    def run(
        self,
        value: Callable[[Node, Symbol], Symbol] | None = None,
        operand: Callable[[Node, int, Symbol], Symbol] | None = None,
        state: Callable[[str, Symbol], Symbol] | None = None,
    ) -> Step:
        """Rebuild the step.

        Args:
            value: from a node and its rebuilt self to what all its readers see.
            operand: from a node, the place of an argument and the rebuilt argument to what this node sees.
            state: from a state's name and its rebuilt new value to what the next step and the output see.
        """
        new: dict[Node, Symbol] = {}
        for node in self.step.nodes:
            args = [new[arg] for arg in node.args]
            if operand:
                args = [operand(node, place, arg) for place, arg in enumerate(args)]
            made = self.builder.wrap(node) if not node.args else self.builder.apply(node.kind, *args)
            if made.node.name is None:
                made.node.name = node.name
            new[node] = value(node, made) if value else made
        finished = {name: new[node] for name, node in self.step.new_states.items()}
        if state:
            finished = {name: state(name, symbol) for name, symbol in finished.items()}
        shown = {node: finished[name] for name, node in reversed(list(self.step.new_states.items()))}
        output = shown.get(self.step.output, new[self.step.output])
        new_states = {name: symbol.node for name, symbol in finished.items()}
        used = set(reachable([output.node, *new_states.values()]))
        return replace(
            self.step,
            output=output.node,
            new_states=new_states,
            parameters={name: p for name, p in self.parameters.items() if p.node in used},
            ambient={role: node for role, node in self.ambient.items() if node in used},
        )

    def supplied(self, role: Role) -> Symbol:
        """A leaf that the layer fills by itself."""
        if role not in self.ambient:
            node = self.builder.node(Leaf(role, role.value, AMBIENT[role]))
            node.name = role.value
            self.ambient[role] = node
        return self.builder.wrap(self.ambient[role])

    def parameter(self, name: str, shape: Shape, init: Initialiser) -> Symbol:
        """A parameter that the transform adds."""
        node = self.builder.node(Leaf(Role.PARAMETER, name, shape))
        node.name = name
        self.parameters[name] = Parameter(name, shape, init, node)
        return self.builder.wrap(node)

    def dropped(self, name: str, symbol: Symbol, p: float, per: str) -> Symbol:
        """A value with a share `p` of its numbers set to 0, and the others made larger by as much."""
        return symbol * (self.keep(name, symbol.shape, p, per) / (1 - p))

    def keep(self, name: str, shape: Shape, p: float, per: str) -> Symbol:
        """1 with probability 1 - p, else 0."""
        while stream_of(name) in self.taken:  # an earlier transform of the same kind has this noise
            name += "'"
        return greater(make_noise(self.supplied, name, shape, per), p)


def check_probability(who: str, name: str, p: float) -> None:
    """Check that a number is a probability of dropping.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < 1:
        raise ConfigError(explain(f"{who}: {name} is a probability.", got=repr(p), expected="0 up to, not including, 1"))


def factors(node: Node) -> set[Node]:
    """The parameters that a product multiplies with: its first operand, or what that is computed from (a dropped matrix)."""
    product = node.kind.hoisting is Hoisting.PRODUCT or isinstance(node.kind, RowProduct)
    if not product or not node.args or node.args[0].rows:
        return set()
    return {n for n in reachable([node.args[0]]) if isinstance(n.kind, Leaf) and n.kind.role is Role.PARAMETER}


def matrices(step: Step, pattern: str, who: str) -> set[str]:
    """The learned parameters that a pattern names and a product multiplies with."""
    multiplied = {leaf for node in step.nodes for leaf in factors(node)}
    names = [p.name for p in step.parameters.values() if p.learned and p.node in multiplied]
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        raise ConfigError(f"{who}: no matrix is called '{pattern}'. " + unknown_name("matrix", pattern, names))
    return found
