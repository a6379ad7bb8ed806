"""Products with a matrix, and the sums over rows and steps that are their gradients.

These are the nodes worth moving out of the time loop: one large product for all steps instead of one small one at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carousel.graph.kinds.base import Eager, Hoisting, Kind
from carousel.graph.shapes import ShapeProblem, show

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol

NEVER_AGAIN = 1e9  # never computed again instead of being saved


@dataclass(frozen=True)
class MatrixProduct(Kind):
    """A matrix, or its transpose, times a vector: what the kinds of product with a matrix share.

    Args:
        transposed: whether the matrix is transposed.
    """

    transposed: bool = False

    hoisting: ClassVar[Hoisting] = Hoisting.PRODUCT
    #: What stands between the two in text, and in LaTeX.
    sign: ClassVar[tuple[str, str]] = (" ", " ")

    @property
    def cost(self) -> float:
        """Beyond what computing again may cost."""
        return NEVER_AGAIN

    @property
    def binding(self) -> int:
        """A product."""
        return 1

    def text(self, *args: str) -> str:
        """``W_i x``; the sum, where there are several pairs."""
        mark = "^T" if self.transposed else ""
        return " + ".join(f"{w}{mark}{self.sign[0]}{v}" for w, v in zip(args[::2], args[1::2], strict=True))

    def latex(self, *args: str) -> str:
        r"""``W_i x_t``; the sum, where there are several pairs."""
        mark = r"^{\top}" if self.transposed else ""
        return " + ".join(f"{{{w}}}{mark}{self.sign[1]}{v}" for w, v in zip(args[::2], args[1::2], strict=True))


@dataclass(frozen=True)
class Dense(MatrixProduct):
    r"""A matrix times a vector: ``W v``, or its transpose ``W^T v``.

    .. math:: y_o = \sum_i W_{oi} v_i

    Several pairs ``(W_1, v_1, W_2, v_2, ...)`` are summed: that is one product with a longer sum, which is how the
    schedule writes the backward step's ``U_i^T dz_i + U_f^T dz_f + ...``.
    """

    @property
    def stacking(self) -> tuple[int, int]:
        """The gates' matrices one above another, or, transposed, side by side."""
        return (1, -1) if self.transposed else (0, -1)

    def shape(self, *args: Node) -> Shape:
        """The last axis of the vector becomes the matrix's other axis."""
        shapes = set()
        for matrix, vector in zip(args[::2], args[1::2], strict=True):
            if len(matrix.shape) != 2 or matrix.rows:
                raise ShapeProblem(f"a product needs a matrix with two axes, not {show(matrix.shape)}")
            out, inside = matrix.shape if not self.transposed else matrix.shape[::-1]
            if not vector.shape or vector.shape[-1] != inside:
                raise ShapeProblem(f"a matrix {show(matrix.shape)} does not fit a vector {show(vector.shape)}")
            shapes.add((*vector.shape[:-1], out))
        if len(shapes) != 1:
            raise ShapeProblem(f"products of different shapes cannot be one sum: {', '.join(map(show, sorted(shapes)))}")
        return shapes.pop()

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The transposed product for the vector; the outer product, summed over rows and steps, for the matrix."""
        shares: list[Symbol | None] = []
        for matrix, vector in zip(args[::2], args[1::2], strict=True):
            left, right = (vector, gradient) if self.transposed else (gradient, vector)
            shares.append(gradient.builder.apply(TotalOuter(), left, right))
            shares.append(gradient.builder.apply(Dense(not self.transposed), matrix, gradient))
        return shares

    def eager(self, on: Eager, *values: Any) -> Any:
        """One `linear` for each pair."""
        total = None
        for matrix, vector in zip(values[::2], values[1::2], strict=True):
            product = on.torch.nn.functional.linear(vector, matrix.mT if self.transposed else matrix)
            total = product if total is None else total + product
        return total


class TotalKind(Kind):
    """A sum over the rows of every step: the gradient of something that is constant over time.

    Called with the rows of one step it gives that step's part; the engine adds the parts, or calls it once with the rows
    of all steps.
    """

    hoisting: ClassVar[Hoisting] = Hoisting.PRODUCT

    def rows(self, *args: Node) -> bool:
        """The rows are summed away."""
        return False

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Not defined: the backward step is differentiated by the eager engine, through torch."""
        raise NotImplementedError("a sum over steps has no adjoint within one step; use the eager engine's own gradient")


@dataclass(frozen=True)
class TotalOuter(TotalKind):
    r"""The outer product of two vectors, summed over rows and steps: :math:`\sum_{t,b} g\, v^{\top}`."""

    @property
    def stacking(self) -> tuple[int, int]:
        """The gates' gradients side by side."""
        return (-1, 0)

    def shape(self, *args: Node) -> Shape:
        """The last axes of both."""
        left, right = args
        if not left.shape or not right.shape or left.shape[:-1] != right.shape[:-1]:
            raise ShapeProblem(f"no outer product of {show(left.shape)} and {show(right.shape)}")
        return (left.shape[-1], right.shape[-1])

    def eager(self, on: Eager, *values: Any) -> Any:
        """One product, the rows as its inner axis."""
        left, right = (value.reshape(-1, value.shape[-1]) for value in values)
        return left.mT @ right

    def text(self, *args: str) -> str:
        """``sum(g v^T)``."""
        return f"sum_t({args[0]} {args[1]}^T)"

    def latex(self, *args: str) -> str:
        r"""``\sum g v^\top``."""
        return rf"\sum_t {{{args[0]}}} {{{args[1]}}}^{{\top}}"


@dataclass(frozen=True)
class Total(TotalKind):
    r"""A value summed over rows and steps: :math:`\sum_{t,b} g`."""

    def shape(self, *args: Node) -> Shape:
        """The argument's."""
        return args[0].shape

    def eager(self, on: Eager, *values: Any) -> Any:
        """A sum over the first axis."""
        return values[0].sum(0)

    def text(self, *args: str) -> str:
        """``sum_t(g)``."""
        return f"sum_t({args[0]})"

    def latex(self, *args: str) -> str:
        r"""``\sum_t g``."""
        return rf"\sum_t \left({args[0]}\right)"


@dataclass(frozen=True)
class TotalByRow(TotalKind):
    r"""A value summed over the steps of each row: :math:`\sum_t g_{tb}`, the gradient of what a row sees at every step."""

    def rows(self, *args: Node) -> bool:
        """Each row keeps its own sum."""
        return True

    def shape(self, *args: Node) -> Shape:
        """The argument's."""
        return args[0].shape

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.index_add` of the rows of all steps to those of the batch."""
        value = values[0]
        return value.new_zeros((on.batch, *value.shape[1:])).index_add(0, on.row_of, value)

    def text(self, *args: str) -> str:
        """``sum_t(g)``."""
        return f"sum_t({args[0]})"
