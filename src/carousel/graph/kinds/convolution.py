"""Convolution of a picture with a learned kernel, in the cross-correlation form of the field, with zero padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carousel.graph.kinds.base import Eager
from carousel.graph.kinds.products import MatrixProduct, TotalKind
from carousel.graph.shapes import ShapeProblem, concrete, show

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol


@dataclass(frozen=True)
class Convolution(MatrixProduct):
    r"""A kernel (out, in, K, K), K odd, over a picture (in, Y, X), padded with zeros so that Y and X stay.

    .. math:: y_{oyx} = \sum_{ciy'x'} k_{o c i j}\, v_{c,\,y+i-p,\,x+j-p}, \qquad p = (K - 1) / 2
    """

    sign: ClassVar[tuple[str, str]] = (" (*) ", r" \ast ")

    @property
    def features(self) -> tuple[int, ...]:
        """Channels and places."""
        return (-3, -2, -1)

    @property
    def stacking(self) -> tuple[int, int]:
        """The gates' kernels one above another, or, transposed, side by side."""
        return (1, -3) if self.transposed else (0, -3)

    def shape(self, *args: Node) -> Shape:
        """(the kernel's other axis, Y, X)."""
        kernel, picture = args
        if len(kernel.shape) != 4 or kernel.rows or len(picture.shape) != 3:
            raise ShapeProblem(f"a kernel {show(kernel.shape)} does not fit a picture {show(picture.shape)}")
        out, inside = kernel.shape[:2] if not self.transposed else kernel.shape[1::-1]
        if picture.shape[0] != inside:
            raise ShapeProblem(f"a kernel {show(kernel.shape)} does not fit a picture {show(picture.shape)}")
        return (out, *picture.shape[1:])

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The correlation of picture and gradient, summed over rows and steps; the transposed convolution."""
        apply = gradient.builder.apply
        picture, above = (gradient, args[1]) if self.transposed else (args[1], gradient)
        return apply(TotalCorrelation(args[0].shape), above, picture), apply(
            Convolution(not self.transposed), args[0], gradient
        )

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.nn.functional.conv2d`, or its transpose."""
        kernel, picture = values
        conv = on.torch.nn.functional.conv_transpose2d if self.transposed else on.torch.nn.functional.conv2d
        return conv(picture, kernel, padding=(kernel.shape[-2] // 2, kernel.shape[-1] // 2))


@dataclass(frozen=True)
class TotalCorrelation(TotalKind):
    """The gradient of a kernel: gradient and picture correlated, summed over rows and steps."""

    axes: Shape

    def shape(self, *args: Node) -> Shape:
        """The kernel's."""
        return self.axes

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.nn.grad.conv2d_weight`."""
        above, picture = values
        sizes = concrete(self.axes, on.sizes)
        padding = (sizes[-2] // 2, sizes[-1] // 2)
        return on.torch.nn.grad.conv2d_weight(picture, sizes, above, padding=padding)

    def text(self, *args: str) -> str:
        """``sum_t(g (*) x)``."""
        return f"sum_t({args[0]} (*) {args[1]})"
