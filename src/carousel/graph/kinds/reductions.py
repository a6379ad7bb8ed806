"""Reductions over a named axis. The axis stays, with size 1, so that the result combines with what it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from carousel.graph.kinds.base import Eager, Kind
from carousel.graph.shapes import Axis, ShapeProblem, axis_index, broadcast, concrete, show

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol


@dataclass(frozen=True)
class _AlongAxis(Kind):
    """What the kinds along an axis share.

    Args:
        axis: the axis by name; None is the last.
        place: where it stands, counted from the end. Set by `at`, since an engine sees sizes, not names.
    """

    axis: Axis | None = None
    place: int = -1
    word: ClassVar[str] = ""
    command: ClassVar[str] = ""

    @classmethod
    def at(cls, axis: Axis | None, shape: Shape) -> _AlongAxis:
        """The kind along `axis` of a value with `shape`.

        Raises:
            ShapeProblem: there is no such axis.
        """
        place = axis_index(shape, axis)
        return cls(shape[place], place)

    @property
    def _along(self) -> Axis:
        assert self.axis is not None, "made by at(), which names the axis"  # noqa: S101
        return self.axis

    def text(self, *args: str) -> str:
        """``sum(a)``."""
        return f"{self.word}({args[0]})"

    def latex(self, *args: str) -> str:
        r"""``\sum(a)``."""
        return rf"{self.command}\left({args[0]}\right)"


class _Reduction(_AlongAxis):
    def shape(self, *args: Node) -> Shape:
        """The axis becomes 1."""
        axis_index(args[0].shape, self.axis)  # there is such an axis
        axes = list(args[0].shape)
        axes[self.place] = 1  # where two axes have one letter, this one
        return tuple(axes)


@dataclass(frozen=True)
class Sum(_Reduction):
    """The sum over an axis."""

    word: ClassVar[str] = "sum"
    command: ClassVar[str] = r"\operatorname{sum}"

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Everywhere the same; the caller stretches it."""
        return (gradient,)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.sum`."""
        return values[0].sum(self.place, keepdim=True)


@dataclass(frozen=True)
class Mean(_Reduction):
    """The mean over an axis."""

    word: ClassVar[str] = "mean"
    command: ClassVar[str] = r"\operatorname{mean}"

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The gradient, shared equally."""
        return (gradient / gradient.builder.apply(Count(self._along)),)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.mean`."""
        return values[0].mean(self.place, keepdim=True)


@dataclass(frozen=True)
class Max(_Reduction):
    """The largest over an axis; equal largest ones share the gradient, as in torch."""

    word: ClassVar[str] = "max"
    command: ClassVar[str] = r"\max"

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """To where the value equals the largest."""
        from carousel.graph.functions import equal

        here = equal(args[0], value)
        return (gradient * here / here.builder.apply(Sum(self.axis, self.place), here),)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.amax`."""
        return values[0].amax(self.place, keepdim=True)


@dataclass(frozen=True)
class LogSumExp(_Reduction):
    r"""The smooth maximum :math:`\log \sum e^{x}` over an axis."""

    word: ClassVar[str] = "logsumexp"
    command: ClassVar[str] = r"\operatorname{logsumexp}"

    @property
    def cost(self) -> float:
        """An exponential for each element."""
        return 15.0

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Its gradient is the softmax."""
        return (gradient * gradient.builder.apply(Softmax(self.axis, self.place), args[0]),)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.logsumexp`."""
        return values[0].logsumexp(self.place, keepdim=True)


@dataclass(frozen=True)
class Softmax(_AlongAxis):
    r"""Positive numbers that sum to 1 along an axis: :math:`e^{x} / \sum e^{x}`."""

    word: ClassVar[str] = "softmax"
    command: ClassVar[str] = r"\operatorname{softmax}"

    @property
    def cost(self) -> float:
        """An exponential, a maximum, a sum and a division."""
        return 20.0

    def shape(self, *args: Node) -> Shape:
        """The argument's."""
        axis_index(args[0].shape, self.axis)
        return args[0].shape

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """``y * (g - sum(g * y))``."""
        inner = value.builder.apply(Sum(self.axis, self.place), gradient * value)
        return (value * (gradient - inner),)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.softmax`."""
        return values[0].softmax(self.place)


@dataclass(frozen=True)
class CumulativeSum(_AlongAxis):
    """The running sum along an axis, from the first or, reversed, from the last."""

    word: ClassVar[str] = "cumsum"
    command: ClassVar[str] = r"\operatorname{cumsum}"
    reverse: bool = False

    def shape(self, *args: Node) -> Shape:
        """The argument's."""
        axis_index(args[0].shape, self.axis)
        return args[0].shape

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The running sum from the other end."""
        return (gradient.builder.apply(CumulativeSum(self.axis, self.place, not self.reverse), gradient),)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.cumsum`, flipped for the reverse."""
        if not self.reverse:
            return values[0].cumsum(self.place)
        return values[0].flip(self.place).cumsum(self.place).flip(self.place)


@dataclass(frozen=True)
class Count(Kind):
    """The size of an axis, which only a layer with sizes knows."""

    axis: Axis

    def shape(self, *args: Node) -> Shape:
        """A scalar."""
        return ()

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """Nothing stands below a size."""
        return ()

    def eager(self, on: Eager, *values: Any) -> Any:
        """A Python number."""
        return float(concrete((self.axis,), on.sizes)[0])

    def text(self, *args: str) -> str:
        """The axis's letter."""
        return str(self.axis)


@dataclass(frozen=True)
class Stretch(Kind):
    """A value repeated along the axes where it has size 1."""

    axes: Shape

    @property
    def silent(self) -> bool:
        """Equations show values, not layout."""
        return True

    def shape(self, *args: Node) -> Shape:
        """The axes it is stretched to."""
        if broadcast(args[0].shape, self.axes) != self.axes:
            raise ShapeProblem(f"{show(args[0].shape)} cannot be stretched to {show(self.axes)}")
        return self.axes

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Sequence[Symbol | None]:
        """The gradient, which the caller sums back."""
        return (gradient,)

    def eager(self, on: Eager, *values: Any) -> Any:
        """`torch.expand`; no copy."""
        value, shape = values[0], concrete(self.axes, on.sizes)
        if not isinstance(value, on.torch.Tensor):
            return value
        return value.expand(*value.shape[: max(value.dim() - len(shape), 0)], *shape)

    def text(self, *args: str) -> str:
        """As it stands: stretching is silent in equations."""
        return args[0]
