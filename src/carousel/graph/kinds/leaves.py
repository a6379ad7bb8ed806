"""Kinds without arguments: what a step is given, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from carousel.graph.kinds.base import Eager, Kind

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol


class Role(Enum):
    """What a leaf stands for."""

    INPUT = "input"
    STATE = "state"
    PARAMETER = "parameter"
    CONTEXT = "context"  # what a row sees at every step
    SEED = "seed"  # two words, drawn once for a call
    ROW = "row"  # the row's number in the batch, before any sorting
    TIME = "time"  # the number of the step, from 0, in the direction of running
    GRADIENT = "gradient"  # of the output or of a new state, in the backward step


@dataclass(frozen=True)
class Leaf(Kind):
    """A value that the step is given."""

    role: Role
    name: str
    axes: Shape

    def shape(self, *args: Node) -> Shape:
        """Its own axes."""
        return self.axes

    def rows(self, *args: Node) -> bool:
        """Everything but parameters and the seed differs from row to row."""
        return self.role not in (Role.PARAMETER, Role.SEED)

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Nothing stands below a leaf."""
        return ()

    def eager(self, on: Eager, *values: Any) -> Any:
        """Never called: an engine is given the values of its leaves."""
        raise AssertionError(f"the engine was not given a value for {self.role.value} {self.name}")

    def text(self, *args: str) -> str:
        """Its name."""
        return self.name


@dataclass(frozen=True)
class Number(Kind):
    """A whole number (of a step) as one to compute with: exact to 2^24 even in a layer of half precision."""

    @property
    def silent(self) -> bool:
        """Equations show the number itself."""
        return True

    def shape(self, *args: Node) -> Shape:
        """The argument's."""
        return args[0].shape

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """A count has no gradient."""
        return (None,)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`Tensor.to` the layer's dtype, but never below float32."""
        torch = on.torch
        return values[0].to(torch.promote_types(on.dtype or torch.get_default_dtype(), torch.float32))

    def text(self, *args: str) -> str:
        """As it stands."""
        return args[0]


@dataclass(frozen=True)
class Constant(Kind):
    """A plain number."""

    value: float

    @property
    def cost(self) -> float:
        """Nothing."""
        return 0.0

    def shape(self, *args: Node) -> Shape:
        """A scalar."""
        return ()

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Nothing stands below a constant."""
        return ()

    def eager(self, on: Eager, *values: Any) -> Any:
        """A Python number: it takes the dtype and device of what it meets."""
        return self.value

    def text(self, *args: str) -> str:
        """Without a trailing ``.0``."""
        return f"{self.value:g}"
