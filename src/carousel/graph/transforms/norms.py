"""Norms on products, limits on states, and a projection of a state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from carousel.errors import ConfigError, explain, unknown_name
from carousel.graph.cell import Cell
from carousel.graph.functions import clamp, mean, sqrt
from carousel.graph.initialisers import ones
from carousel.graph.node import Node
from carousel.graph.step import Step
from carousel.graph.symbol import Symbol
from carousel.graph.transforms.rewriting import Rewriting, Transform, factors, matrices


def _matrix_of(node: Node, names: set[str]) -> Node | None:
    """The matrix among `names` that a product multiplies with."""
    return next((leaf for leaf in factors(node) if leaf.name in names), None)


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
        names = matrices(step, self.matrices, "Normalise")
        work = Rewriting(step)

        def value(node: Node, symbol: Symbol) -> Symbol:
            matrix = _matrix_of(node, names)
            if matrix is None:
                return symbol
            # One gain for each unit: for what the matrix makes, not for the slots or places it is applied at.
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

        return Rewriting(step).run(state=state)


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
