"""Transforms: regularisers and norms that rewrite any cell's graph, so that none is written per cell.

A transform takes a traced step and returns another. In training its graph draws noise; in evaluation it computes the
expectation. Values are found by their names in the equations; a pattern such as ``U_*`` names several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from carousel.errors import ConfigError, explain, unknown_name
from carousel.graph.cell import AMBIENT, Cell, Parameter, Step, make_noise
from carousel.graph.initialisers import Initialiser, ones
from carousel.graph.kinds import Constant, Elementwise, Hoisting, Leaf, Role
from carousel.graph.node import Node, reachable
from carousel.graph.shapes import Shape
from carousel.graph.symbol import Symbol, clamp, greater, mean, sqrt

__all__ = [
    "ClipState",
    "InputDropout",
    "Normalise",
    "Projected",
    "RecurrentDropout",
    "StateDropout",
    "Transform",
    "VariationalDropout",
    "WeightDrop",
    "Zoneout",
    "apply_transforms",
]


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


# --- rewriting --------------------------------------------------------------------------------------------------------


class _Rewriting:
    """Rebuilds a step while values or operands change; adds parameters and noise."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.builder = step.builder
        self.parameters = dict(step.parameters)
        self.ambient = dict(step.ambient)

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
        return greater(make_noise(self.supplied, name, shape, per), p)


def _probability(who: str, name: str, p: float) -> None:
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p < 1:
        raise ConfigError(explain(f"{who}: {name} is a probability.", got=repr(p), expected="0 up to, not including, 1"))


def _matrices(step: Step, pattern: str, who: str) -> set[str]:
    """The parameters with more than one axis that a pattern names."""
    names = [p.name for p in step.parameters.values() if len(p.shape) > 1 and p.learned]
    found = {name for name in names if fnmatchcase(name, pattern)}
    if not found:
        raise ConfigError(f"{who}: no matrix is called '{pattern}'. " + unknown_name("matrix", pattern, names))
    return found


def _is_product_with(node: Node, names: set[str]) -> bool:
    product = node.kind.hoisting is Hoisting.PRODUCT and bool(node.args)
    return product and isinstance(node.args[0].kind, Leaf) and node.args[0].kind.name in names


# --- dropout ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InputDropout(Transform):
    """Drops features of the inputs, the same ones at every step of a sequence (variational dropout).

    Args:
        p: the probability of dropping.

    References:
        Gal & Ghahramani (2016), "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
        arXiv:1512.05287.
    """

    p: float

    def __post_init__(self) -> None:
        _probability("InputDropout", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Multiply every input by its mask."""
        if not training or not self.p:
            return step
        work = _Rewriting(step)
        inputs = {node: name for name, node in step.inputs.items()}

        def value(node: Node, symbol: Symbol) -> Symbol:
            return work.dropped(f"drop {inputs[node]}", symbol, self.p, "sequence") if node in inputs else symbol

        return work.run(value=value)


@dataclass(frozen=True)
class StateDropout(Transform):
    """Drops what products see of the states, the same units at every step of a sequence (variational dropout).

    The memory itself (a state that is multiplied by a gate only) is left alone.

    Args:
        p: the probability of dropping.

    References:
        Gal & Ghahramani (2016), arXiv:1512.05287.
    """

    p: float

    def __post_init__(self) -> None:
        _probability("StateDropout", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mask the operands of products that depend on a state."""
        if not training or not self.p:
            return step
        work = _Rewriting(step)
        moving = {node for node in step.nodes if set(reachable([node])) & set(step.states.values())}

        def operand(node: Node, place: int, symbol: Symbol) -> Symbol:
            source = node.args[place]
            if node.kind.hoisting is Hoisting.PRODUCT and source in moving:
                return work.dropped(f"drop state {'x'.join(map(str, source.shape))}", symbol, self.p, "sequence")
            return symbol

        return work.run(operand=operand)


@dataclass(frozen=True)
class VariationalDropout(Transform):
    """Dropout of inputs and states with masks that stay for a whole sequence.

    Args:
        input: the probability for inputs.
        state: the probability for what products see of the states.

    References:
        Gal & Ghahramani (2016), arXiv:1512.05287.
    """

    input: float = 0.0
    state: float = 0.0

    def __post_init__(self) -> None:
        _probability("VariationalDropout", "input", self.input)
        _probability("VariationalDropout", "state", self.state)

    def apply(self, step: Step, training: bool) -> Step:
        """Both dropouts."""
        return StateDropout(self.state).apply(InputDropout(self.input).apply(step, training), training)


@dataclass(frozen=True)
class RecurrentDropout(Transform):
    """Drops the candidate that is added to the memory, never the memory itself.

    Args:
        p: the probability of dropping.
        value: the name of the candidate in the equations; by default what the cell declares.
        per: masks drawn anew at every ``step``, or once for each ``sequence``.

    References:
        Semeniuta, Severyn, Barth (2016), "Recurrent Dropout without Memory Loss", arXiv:1603.05118.
    """

    p: float
    value: str | None = None
    per: Literal["step", "sequence"] = "step"

    def __post_init__(self) -> None:
        _probability("RecurrentDropout", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mask the candidate."""
        wanted = self.value or step.cell.candidate
        targets = _find(step, wanted)
        if not training or not self.p:
            return step
        work = _Rewriting(step)

        def value(node: Node, symbol: Symbol) -> Symbol:
            if node not in targets:
                return symbol
            return work.dropped(f"drop {wanted} {targets.index(node)}", symbol, self.p, self.per)

        return work.run(value=value)


def _find(step: Step, name: str) -> list[Node]:
    """The values called `name`, or else the function of the affine map called so."""
    named = [n for n in step.nodes if n.name == name and not isinstance(n.kind, Leaf | Constant)]
    if named:
        return named
    parameters = {f"{letter}_{name}" for letter in "WUb"}
    sums = [n for n in step.nodes if any(arg.name in parameters for arg in n.args)]
    if name and sums:
        node = max(sums, key=lambda n: n.number)
        readers = [n for n in step.nodes if node in n.args]
        while len(readers) == 1 and readers[0].kind == Elementwise("add"):
            node = readers[0]
            readers = [n for n in step.nodes if node in n.args]
        return readers if len(readers) == 1 and len(readers[0].args) == 1 else [node]
    known = sorted({n.name for n in step.nodes if n.name and not isinstance(n.kind, Leaf)})
    if not name:
        raise ConfigError(
            f"RecurrentDropout: {type(step.cell).__name__} does not declare its candidate; "
            f"name it with value=, one of {', '.join(known)}"
        )
    raise ConfigError("RecurrentDropout: " + unknown_name(f"value of {type(step.cell).__name__}", name, known))


@dataclass(frozen=True)
class Zoneout(Transform):
    """Units that, now and then, keep their old state; in evaluation, the expectation of that.

    Args:
        p: the probability of keeping, for all states or by name (``{"h": 0.05, "c": 0.5}``).

    References:
        Krueger et al. (2017), "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", arXiv:1606.01305.
    """

    p: float | Mapping[str, float] = field(default=0.1, hash=False)

    def __post_init__(self) -> None:
        for name, p in self.p.items() if isinstance(self.p, Mapping) else [("p", self.p)]:
            _probability("Zoneout", name, p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mix each new state with the old."""
        table = dict(self.p) if isinstance(self.p, Mapping) else dict.fromkeys(step.states, self.p)
        for name in table:
            if name not in step.states:
                raise ConfigError("Zoneout: " + unknown_name(f"state of {type(step.cell).__name__}", name, step.states))
        work = _Rewriting(step)

        def state(name: str, new: Symbol) -> Symbol:
            p = table.get(name, 0.0)
            if not p:
                return new
            old = work.builder.wrap(step.states[name])
            if training:
                keep = work.keep(f"zoneout {name}", new.shape, p, "step")  # 1: take the new
                return keep * new + (1 - keep) * old
            return (1 - p) * new + p * old

        return work.run(state=state)


@dataclass(frozen=True)
class WeightDrop(Transform):
    """Drops weights of matrices, the same ones for all rows and steps of a call (DropConnect).

    Args:
        p: the probability of dropping.
        matrices: which ones, by name or pattern.

    References:
        Merity, Keskar, Socher (2018), "Regularizing and Optimizing LSTM Language Models", arXiv:1708.02182.
    """

    p: float
    matrices: str = "U_*"

    def __post_init__(self) -> None:
        _probability("WeightDrop", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mask the matrices."""
        names = _matrices(step, self.matrices, "WeightDrop")
        if not training or not self.p:
            return step
        work = _Rewriting(step)
        chosen = {step.parameters[name].node: name for name in names}

        def value(node: Node, symbol: Symbol) -> Symbol:
            return work.dropped(f"drop {chosen[node]}", symbol, self.p, "call") if node in chosen else symbol

        return work.run(value=value)


# --- norms and limits -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalise(Transform):
    """Normalises products over their features, with a learned gain for each unit.

    Args:
        kind: ``layer`` takes the mean away and divides by the standard deviation; ``rms`` divides by the root mean square.
        matrices: the products with these matrices, by name or pattern.
        eps: added to the variance.

    References:
        Ba, Kiros, Hinton (2016), "Layer Normalization", arXiv:1607.06450.
        Zhang & Sennrich (2019), "Root Mean Square Layer Normalization", arXiv:1910.07467.
    """

    kind: Literal["layer", "rms"] = "layer"
    matrices: str = "*"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.kind not in ("layer", "rms"):
            raise ConfigError("Normalise: " + unknown_name("kind", self.kind, ("layer", "rms")))

    def apply(self, step: Step, training: bool) -> Step:  # noqa: ARG002 - a norm is the same in both
        """Normalise each product and scale it."""
        names = _matrices(step, self.matrices, "Normalise")
        work = _Rewriting(step)

        def value(node: Node, symbol: Symbol) -> Symbol:
            if not _is_product_with(node, names):
                return symbol
            # One gain for each unit: for what the matrix makes, not for the slots or places it is applied at.
            matrix = node.args[0]
            gain = work.parameter(f"gain_{matrix.name}", tuple(a if a in matrix.shape else 1 for a in node.shape), ones())
            centred = symbol - _mean(symbol, node.kind.features) if self.kind == "layer" else symbol
            return gain * (centred / sqrt(_mean(centred**2, node.kind.features) + self.eps))

        return work.run(value=value)


def _mean(symbol: Symbol, places: tuple[int, ...]) -> Symbol:
    for place in places:
        symbol = mean(symbol, symbol.shape[place])
    return symbol


@dataclass(frozen=True)
class ClipState(Transform):
    """Holds states between -limit and limit.

    Args:
        limit: the largest size of a number.
        states: which ones; all by default.
    """

    limit: float
    states: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ConfigError(explain("ClipState: limit must be positive.", got=repr(self.limit)))

    def apply(self, step: Step, training: bool) -> Step:  # noqa: ARG002 - the limit is the same in both
        """Clamp the new states."""
        for name in self.states or ():
            if name not in step.states:
                raise ConfigError("ClipState: " + unknown_name(f"state of {type(step.cell).__name__}", name, step.states))
        chosen = self.states or tuple(step.states)

        def state(name: str, new: Symbol) -> Symbol:
            return clamp(new, -self.limit, self.limit) if name in chosen else new

        return _Rewriting(step).run(state=state)


class Projected(Cell):
    r"""Any cell with one of its states projected to fewer units before it is fed back: :math:`h_t = W_p h'_t`.

    The state must be seen by products only, since what is multiplied unit by unit cannot change its size.

    Args:
        cell: the cell.
        proj_size: P.
        projected: the state's name; the first by default.

    References:
        Sak, Senior, Beaufays (2014), arXiv:1402.1128.
    """

    cell: Cell
    proj_size: int
    projected: str | None = None

    def __post_init__(self) -> None:
        name = self.projected or self.cell.state[0]
        if name not in self.cell.state:
            raise ConfigError("Projected: " + unknown_name(f"state of {type(self.cell).__name__}", name, self.cell.state))
        for attribute in ("state", "inputs", "context", "candidate", "reference"):
            object.__setattr__(self, attribute, getattr(self.cell, attribute))
        object.__setattr__(self, "shapes", {**self.cell.shapes, name: ("P",)})

    def sizes(self, input_size: Any, hidden_size: int) -> Mapping[str, int]:
        """P beside the cell's own."""
        return {**self.cell.sizes(input_size, hidden_size), "P": self.proj_size}

    def step(self, *values: Symbol) -> Any:
        """The cell's step, then the projection."""
        returned = self.cell.step(*values)
        results = list(returned) if isinstance(returned, tuple) else [returned]
        place = self.cell.state.index(self.projected or self.cell.state[0]) + len(results) - len(self.cell.state)
        results[place] = self.dense("W_p", results[place], size="P")
        return tuple(results)
