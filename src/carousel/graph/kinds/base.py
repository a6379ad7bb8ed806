"""What a node kind is: a shape rule, an adjoint, an eager form and a hoisting rule, in one class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol


class Hoisting(Enum):
    """What the schedule may do with a node whose operands are known before (or not needed until after) the time loop."""

    PRODUCT = "product"  # moving it out of the loop pays by itself: one large product for all steps
    FREE = "free"  # it may move with whatever needs it, since each row is computed alone
    NEVER = "never"  # it must run at its own step (it counts steps, or reads what another step left)


@dataclass(frozen=True)
class Eager:
    """What an eager form may use besides its values. Handed in, since this package imports no tensor library.

    Attributes:
        torch: the module.
        sizes: the size of each axis letter.
        dtype: of what has no operand to take it from (noise); torch's default if None.
        batch: B.
        row_of: for each of the rows of all steps, its row in the batch.
    """

    torch: Any
    sizes: Mapping[str, int]
    dtype: Any = None
    batch: int = 0
    row_of: Any = None


class Kind(ABC):
    """A kind of node. Subclasses are frozen dataclasses; their fields are the kind's settings.

    A new kind (a convolution, a product batched by row, noise) is one subclass: nothing else in the package lists kinds.

    Values in eager form are tensors shaped ``(rows, *shape)`` where the node has rows and ``shape`` where it has none.
    Rows may be those of one step or of all steps at once, which is what makes hoisting possible.
    """

    hoisting: ClassVar[Hoisting] = Hoisting.FREE

    @property
    def features(self) -> tuple[int, ...]:
        """The axes over which a norm of this value is taken, counted from the end."""
        return (-1,)

    @property
    def silent(self) -> bool:
        """Whether equations show the argument in place of the node (a change of layout)."""
        return False

    @property
    def stacking(self) -> tuple[int, int] | None:
        """How nodes of this kind that share their second operand become one; None where they stay alone.

        The first operands are joined along the first axis named here, and the result is cut along the second.
        """
        return None

    @property
    def cost(self) -> float:
        """Rough operations for each element, to weigh computing a value again against saving it."""
        return 1.0

    @abstractmethod
    def shape(self, *args: Node) -> Shape:
        """Infer the shape from the arguments, or raise `ShapeProblem`."""

    def rows(self, *args: Node) -> bool:
        """Whether the value has rows: as a rule, when any argument has."""
        return any(arg.rows for arg in args)

    @abstractmethod
    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """For each argument, its share of the gradient, written in symbols; None where there is none.

        A share may be larger than its argument where the argument was stretched: the caller sums it back.
        """

    @abstractmethod
    def eager(self, on: Eager, *values: Any) -> Any:
        """Compute the value with torch operations."""

    @abstractmethod
    def text(self, *args: str) -> str:
        """Write the value as text; the arguments come with brackets where they are sums or products."""

    def latex(self, *args: str) -> str:
        """Write the value as LaTeX; by default as text."""
        return self.text(*args)

    @property
    def binding(self) -> int:
        """How tightly the written form binds: 0 a sum, 1 a product, 2 a function or a name."""
        return 2
