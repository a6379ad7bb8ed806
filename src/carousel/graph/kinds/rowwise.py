"""Products of values that differ from row to row (outer, batched by row), products by head, and reshaping between axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carousel.graph.kinds.base import Eager, Hoisting, Kind
from carousel.graph.kinds.products import MatrixProduct, TotalKind
from carousel.graph.shapes import ShapeProblem, concrete, show

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol


@dataclass(frozen=True)
class Outer(Kind):
    r"""The outer product of two vectors of the same row: :math:`M_{ij} = a_i b_j`. Axes before the last are shared."""

    @property
    def binding(self) -> int:
        """A product."""
        return 1

    def shape(self, *args: Node) -> Shape:
        """(..., last of a, last of b)."""
        a, b = args
        if not a.shape or not b.shape or a.shape[:-1] != b.shape[:-1]:
            raise ShapeProblem(f"no outer product of {show(a.shape)} and {show(b.shape)}")
        return (*a.shape, b.shape[-1])

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The gradient times the other vector."""
        apply = gradient.builder.apply
        return apply(RowProduct(), gradient, args[1]), apply(RowProduct(transposed=True), gradient, args[0])

    def eager(self, on: Eager, *values: Any) -> Any:
        """A product with a stretched axis."""
        return values[0].unsqueeze(-1) * values[1].unsqueeze(-2)

    def text(self, *args: str) -> str:
        """``a b^T``."""
        return f"{args[0]} {args[1]}^T"

    def latex(self, *args: str) -> str:
        r"""``a b^\top``."""
        return rf"{args[0]} {{{args[1]}}}^{{\top}}"


@dataclass(frozen=True)
class RowProduct(MatrixProduct):
    r"""A matrix that differs from row to row, times a vector of the same row: a memory read, :math:`y_i = \sum_j M_{ij} v_j`.

    Axes before the last two are shared.
    """

    hoisting: ClassVar[Hoisting] = Hoisting.FREE  # its matrix changes with the row, so no step shares it with another

    def shape(self, *args: Node) -> Shape:
        """(..., the matrix's other axis)."""
        matrix, vector = args
        if len(matrix.shape) < 2:
            raise ShapeProblem(f"a product needs a matrix, not {show(matrix.shape)}")
        *shared, out, inside = matrix.shape
        if self.transposed:
            out, inside = inside, out
        if vector.shape != (*shared, inside):
            raise ShapeProblem(f"a matrix {show(matrix.shape)} does not fit a vector {show(vector.shape)}")
        return (*shared, out)

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The outer product for the matrix, the transposed product for the vector."""
        apply = gradient.builder.apply
        left, right = (args[1], gradient) if self.transposed else (gradient, args[1])
        return apply(Outer(), left, right), apply(RowProduct(not self.transposed), args[0], gradient)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.matmul`."""
        matrix = values[0].mT if self.transposed else values[0]
        return on.torch.matmul(matrix, values[1].unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Block(MatrixProduct):
    r"""A block-diagonal matrix times a vector: each head has a matrix of its own, :math:`y_{no} = \sum_i R_{noi} v_{ni}`."""

    @property
    def stacking(self) -> tuple[int, int]:
        """The gates' blocks one above another, or, transposed, side by side."""
        return (2, -1) if self.transposed else (1, -1)

    def shape(self, *args: Node) -> Shape:
        """(heads, the blocks' other axis)."""
        blocks, vector = args
        if len(blocks.shape) != 3 or blocks.rows or len(vector.shape) != 2:
            raise ShapeProblem(f"blocks {show(blocks.shape)} and heads {show(vector.shape)} do not fit")
        heads, out, inside = blocks.shape
        if self.transposed:
            out, inside = inside, out
        if vector.shape != (heads, inside):
            raise ShapeProblem(f"blocks {show(blocks.shape)} do not fit heads {show(vector.shape)}")
        return (heads, out)

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The outer product by head, summed over rows and steps; the transposed product."""
        apply = gradient.builder.apply
        left, right = (args[1], gradient) if self.transposed else (gradient, args[1])
        return apply(TotalBlockOuter(), left, right), apply(Block(not self.transposed), args[0], gradient)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.einsum`."""
        return on.torch.einsum("noi,...no->...ni" if self.transposed else "noi,...ni->...no", *values)


@dataclass(frozen=True)
class TotalBlockOuter(TotalKind):
    """The outer product of two vectors by head, summed over rows and steps."""

    def shape(self, *args: Node) -> Shape:
        """(heads, last of a, last of b)."""
        return (*args[0].shape, args[1].shape[-1])

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.einsum`."""
        return on.torch.einsum("bno,bni->noi", *values)

    def text(self, *args: str) -> str:
        """``sum_t(g v^T)``."""
        return f"sum_t({args[0]} {args[1]}^T)"


@dataclass(frozen=True)
class Reshape(Kind):
    """The same numbers under other axes: ``(H)`` as ``(N, E)``, say."""

    before: Shape
    after: Shape

    @property
    def cost(self) -> float:
        """Nothing."""
        return 0.0

    @property
    def silent(self) -> bool:
        """Equations show values, not layout."""
        return True

    def shape(self, *args: Node) -> Shape:
        """The axes asked for; whether the sizes fit is known when there are sizes."""
        if args[0].shape != self.before:
            raise ShapeProblem(f"{show(args[0].shape)} is not {show(self.before)}")
        return self.after

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Back again."""
        return (gradient.builder.apply(Reshape(self.after, self.before), gradient),)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.reshape`."""
        value = values[0]
        return value.reshape(*value.shape[: value.dim() - len(self.before)], *concrete(self.after, on.sizes))

    def text(self, *args: str) -> str:
        """As it stands: the equations show axes, not layout."""
        return args[0]
