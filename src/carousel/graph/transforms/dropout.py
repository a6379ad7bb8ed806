"""Dropout in its recurrent forms: of inputs, states, candidates, whole steps and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from carousel.errors import ConfigError, unknown_name
from carousel.graph.kinds import Constant, Elementwise, Hoisting, Leaf
from carousel.graph.node import Node, reachable
from carousel.graph.step import Step
from carousel.graph.symbol import Symbol
from carousel.graph.transforms.rewriting import Rewriting, Transform, check_probability, matrices


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
        check_probability("InputDropout", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Multiply every input by its mask."""
        if not training or not self.p:
            return step
        work = Rewriting(step)
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
        check_probability("StateDropout", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mask the operands of products that depend on a state."""
        if not training or not self.p:
            return step
        work = Rewriting(step)
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
        check_probability("VariationalDropout", "input", self.input)
        check_probability("VariationalDropout", "state", self.state)

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
        check_probability("RecurrentDropout", "p", self.p)
        if self.per not in ("step", "sequence"):
            raise ConfigError("RecurrentDropout: " + unknown_name("choice of per", self.per, ("step", "sequence")))

    def apply(self, step: Step, training: bool) -> Step:
        """Mask the candidate."""
        wanted = self.value or step.cell.candidate
        targets = _find(step, wanted)
        if not training or not self.p:
            return step
        work = Rewriting(step)

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
            check_probability("Zoneout", name, p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mix each new state with the old."""
        table = dict(self.p) if isinstance(self.p, Mapping) else dict.fromkeys(step.states, self.p)
        for name in table:
            if name not in step.states:
                raise ConfigError("Zoneout: " + unknown_name(f"state of {type(step.cell).__name__}", name, step.states))
        work = Rewriting(step)

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
        check_probability("WeightDrop", "p", self.p)

    def apply(self, step: Step, training: bool) -> Step:
        """Mask the matrices."""
        names = matrices(step, self.matrices, "WeightDrop")
        if not training or not self.p:
            return step
        work = Rewriting(step)
        chosen = {step.parameters[name].node: name for name in names}

        def value(node: Node, symbol: Symbol) -> Symbol:
            return work.dropped(f"drop {chosen[node]}", symbol, self.p, "call") if node in chosen else symbol

        return work.run(value=value)
