"""Symbols: what a cell's `step` computes with. Every operation on them adds a node to the graph being traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from carousel.errors import CellError, ConfigError, explain, unknown_name
from carousel.graph.kinds import (
    Constant,
    Count,
    CumulativeSum,
    Dense,
    Elementwise,
    Kind,
    LogSumExp,
    Max,
    Mean,
    Outer,
    Reshape,
    RowProduct,
    Softmax,
    Sum,
)
from carousel.graph.kinds.elementwise import FUNCTIONS
from carousel.graph.kinds.reductions import _AlongAxis
from carousel.graph.node import Node, Place, here
from carousel.graph.shapes import Axis, Shape, ShapeProblem, show


def cell_error(message: str, place: Place | None, advice: str | None = None) -> CellError:
    """An error about a cell's equations, with the line that made it."""
    where = f"{place}: " if place else ""
    line = place.source if place else ""
    return CellError(explain(where + message, got=line or None, advice=advice))


class Builder:
    """Collects the nodes of one graph. The same kind on the same arguments is the same node."""

    def __init__(self) -> None:
        self._known: dict[tuple[Kind, tuple[Node, ...]], Node] = {}

    def apply(self, kind: Kind, *args: Symbol | float) -> Symbol:
        """Add `kind` applied to `args`, and name what the cell's local variables name.

        Raises:
            CellError: the shapes do not fit; the message has the cell's line.
        """
        place, variables = here()
        self.learn_names(variables)
        nodes = tuple(self._node(arg, place) for arg in args)
        try:
            return Symbol(self, self.node(kind, *nodes, place=place))
        except ShapeProblem as problem:
            raise cell_error(f"{problem}.", place, self._shapes_advice(nodes)) from None

    def node(self, kind: Kind, *args: Node, place: Place | None = None) -> Node:
        """The node for `kind` on `args`, made if it is new.

        Raises:
            ShapeProblem: the shapes do not fit.
        """
        key = (kind, args)
        if key not in self._known:
            self._known[key] = Node(kind, args, kind.shape(*args), kind.rows(*args), place=place)
        return self._known[key]

    def learn_names(self, variables: dict[str, object]) -> None:
        """Remember that a value is called as the local variable that holds it, for printing."""
        for name, value in variables.items():
            if isinstance(value, Symbol) and value.builder is self and value.node.name is None:
                value.node.name = name

    def wrap(self, node: Node) -> Symbol:
        """The symbol of a node of this graph."""
        return Symbol(self, node)

    def constant(self, value: float) -> Symbol:
        """A plain number as a symbol."""
        return Symbol(self, self.node(Constant(float(value))))

    def _node(self, value: Symbol | float, place: Place | None) -> Node:
        if isinstance(value, Symbol):
            if value.builder is not self:
                raise cell_error(
                    "this value was made by another tracing of the cell.",
                    place,
                    "do not keep symbols between calls of step; use the arguments of step only",
                )
            return value.node
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise cell_error(
                f"a cell computes with symbols and plain numbers, not with {type(value).__name__}.",
                place,
                "declare what the layer learns with self.affine, self.vector or self.parameter",
            )
        return self.constant(value).node

    @staticmethod
    def _shapes_advice(nodes: Sequence[Node]) -> str:
        return "the values here are " + ", ".join(f"{node.name or 'a value'} {show(node.shape)}" for node in nodes)


_building: ContextVar[Builder | None] = ContextVar("carousel_building", default=None)


def current_builder() -> Builder:
    """The graph of the step that is being traced.

    Raises:
        CellError: no step is.
    """
    builder = _building.get()
    if builder is None:
        raise cell_error("this is part of a cell's equations, outside of step.", here()[0], "write it in step")
    return builder


class Symbol:
    """A value of the equations: an input, a state, a parameter, or computed from these. It has a shape, not a number."""

    __slots__ = ("builder", "node")
    __array_ufunc__ = None  # numpy must not take a symbol for a number

    def __init__(self, builder: Builder, node: Node) -> None:
        self.builder = builder
        self.node = node

    @property
    def shape(self) -> Shape:
        """The named axes."""
        return self.node.shape

    def __repr__(self) -> str:
        return f"Symbol({self.node.name or self.node.kind}, {show(self.node.shape)})"

    def _binary(self, name: str, left: Symbol | float, right: Symbol | float) -> Symbol:
        return self.builder.apply(Elementwise(name), left, right)

    def __add__(self, other: Symbol | float) -> Symbol:
        left = self.node
        if left.kind == Elementwise("add") and left.name is None:  # a + b + c is one sum of three
            return self.builder.apply(Elementwise("add"), *map(self.builder.wrap, left.args), other)
        return self._binary("add", self, other)

    def __radd__(self, other: float) -> Symbol:
        return self._binary("add", other, self)

    def __sub__(self, other: Symbol | float) -> Symbol:
        return self._binary("sub", self, other)

    def __rsub__(self, other: float) -> Symbol:
        return self._binary("sub", other, self)

    def __mul__(self, other: Symbol | float) -> Symbol:
        return self._binary("mul", self, other)

    def __rmul__(self, other: float) -> Symbol:
        return self._binary("mul", other, self)

    def __truediv__(self, other: Symbol | float) -> Symbol:
        if isinstance(other, int | float) and other == 1:
            return self
        return self._binary("div", self, other)

    def __rtruediv__(self, other: float) -> Symbol:
        return self._binary("div", other, self)

    def __neg__(self) -> Symbol:
        return self.builder.apply(Elementwise("neg"), self)

    def __pos__(self) -> Symbol:
        return self

    def __abs__(self) -> Symbol:
        return self.builder.apply(Elementwise("abs"), self)

    def __pow__(self, exponent: float) -> Symbol:
        if isinstance(exponent, bool) or not isinstance(exponent, int | float):
            self._refuse("an exponent must be a plain number", "write exp(b * log(a)) for a power with a symbol")
        if exponent == 2:
            return self * self
        if exponent == 1:
            return self
        if exponent == 0.5:
            return sqrt(self)
        if exponent == 0:
            return self.builder.constant(1.0)
        return self.builder.apply(Elementwise("power", (float(exponent),)), self)

    def _refuse(self, message: str, advice: str) -> NoReturn:
        place, _ = here()
        raise cell_error(f"{message}.", place, advice)

    def __bool__(self) -> bool:
        self._refuse(
            "a symbol has no truth value: step is traced once, before there are numbers",
            "write where(greater(a, b), yes, no) for a choice by value, or branch on an option of the cell",
        )

    def _compare(self, _other: object) -> NoReturn:
        self._refuse("symbols are not compared with < and >", "write greater(a, b): 1 where it holds, else 0")

    __lt__ = __le__ = __gt__ = __ge__ = _compare

    def __float__(self) -> float:
        self._refuse("a symbol has no number yet", "compute with the symbol itself")

    def __int__(self) -> int:
        self._refuse("a symbol has no number yet", "compute with the symbol itself")

    def __len__(self) -> int:
        self._refuse("the sizes of a symbol are not known while a cell is traced", "use mean() or sum() over its axis")

    def __iter__(self) -> NoReturn:
        self._refuse("a symbol cannot be taken apart into numbers", "write the equation for the whole vector")

    def __getitem__(self, key: object) -> NoReturn:
        self._refuse("a symbol cannot be indexed", "give each part a name of its own: one affine for each gate")

    def __matmul__(self, other: object) -> NoReturn:
        self._refuse("products are named, so that their matrix has a name", 'write self.dense("U", h)')

    __rmatmul__ = __matmul__

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        place, _ = here()
        name = getattr(func, "__name__", str(func))
        near = f"from carousel import {name}" if name in FUNCTIONS or name == "softmax" else "see `carousel.graph`"
        raise cell_error(f"torch.{name} cannot be used on a symbol.", place, f"use carousel's own function: {near}")


def _apply(name: str, *args: Symbol | float, settings: tuple[float, ...] = ()) -> Symbol:
    for arg in args:
        if isinstance(arg, Symbol):
            return arg.builder.apply(Elementwise(name, settings), *args)
    place, _ = here()
    got = ", ".join(type(arg).__name__ for arg in args)
    raise cell_error(f"{name}() works on symbols; got {got}.", place, "use the arguments of step; for plain numbers use math")


def sigmoid(x: Symbol) -> Symbol:
    r"""The logistic function :math:`1 / (1 + e^{-x})`."""
    return _apply("sigmoid", x)


def tanh(x: Symbol) -> Symbol:
    """The hyperbolic tangent."""
    return _apply("tanh", x)


def relu(x: Symbol) -> Symbol:
    """The positive part; its derivative at 0 is 0, as in torch."""
    return _apply("relu", x)


def exp(x: Symbol) -> Symbol:
    """The exponential."""
    return _apply("exp", x)


def expm1(x: Symbol) -> Symbol:
    """``exp(x) - 1``, exact near 0."""
    return _apply("expm1", x)


def log(x: Symbol) -> Symbol:
    """The natural logarithm."""
    return _apply("log", x)


def sqrt(x: Symbol) -> Symbol:
    """The square root."""
    return _apply("sqrt", x)


def sin(x: Symbol) -> Symbol:
    """The sine, of radians."""
    return _apply("sin", x)


def cos(x: Symbol) -> Symbol:
    """The cosine, of radians."""
    return _apply("cos", x)


def erf(x: Symbol) -> Symbol:
    """The error function."""
    return _apply("erf", x)


def softplus(x: Symbol) -> Symbol:
    r"""The smooth positive part :math:`\log(1 + e^{x})`."""
    return _apply("softplus", x)


def sign(x: Symbol) -> Symbol:
    """-1, 0 or 1; its derivative is 0."""
    return _apply("sign", x)


def stop_gradient(x: Symbol) -> Symbol:
    """The value itself, through which no gradient flows."""
    return _apply("stop_gradient", x)


def maximum(a: Symbol | float, b: Symbol | float) -> Symbol:
    """The larger of two; NaN where either is NaN; a tie gives half the gradient to each, as in torch."""
    return _apply("maximum", a, b)


def minimum(a: Symbol | float, b: Symbol | float) -> Symbol:
    """The smaller of two; NaN where either is NaN; a tie gives half the gradient to each, as in torch."""
    return _apply("minimum", a, b)


def greater(a: Symbol | float, b: Symbol | float) -> Symbol:
    """1 where ``a > b``, else 0; its derivative is 0."""
    return _apply("greater", a, b)


def equal(a: Symbol | float, b: Symbol | float) -> Symbol:
    """1 where ``a == b``, else 0; its derivative is 0."""
    return _apply("equal", a, b)


def where(condition: Symbol, yes: Symbol | float, no: Symbol | float) -> Symbol:
    """`yes` where `condition` is 1, `no` where it is 0."""
    return _apply("where", condition, yes, no)


def clamp(x: Symbol, low: float, high: float) -> Symbol:
    """`x`, held between `low` and `high`."""
    return minimum(maximum(x, low), high)


def silu(x: Symbol) -> Symbol:
    """``x * sigmoid(x)``, also called swish."""
    return x * sigmoid(x)


def gelu(x: Symbol) -> Symbol:
    r"""``x`` times the normal distribution function (Hendrycks & Gimpel 2016), the exact form."""
    return 0.5 * x * (1 + erf(x * 0.5**0.5))


def elu(x: Symbol, alpha: float = 1.0) -> Symbol:
    """`x` where positive, else ``alpha * (exp(x) - 1)``."""
    return relu(x) + alpha * expm1(minimum(x, 0.0))


def leaky_relu(x: Symbol, slope: float = 0.01) -> Symbol:
    """`x` where positive, else ``slope * x``."""
    return where(greater(x, 0.0), x, slope * x)


def hard_sigmoid(x: Symbol) -> Symbol:
    """``x / 6 + 1/2``, held between 0 and 1."""
    return clamp(x * (1 / 6) + 0.5, 0.0, 1.0)


def hard_tanh(x: Symbol) -> Symbol:
    """`x`, held between -1 and 1."""
    return clamp(x, -1.0, 1.0)


def softsign(x: Symbol) -> Symbol:
    """``x / (1 + |x|)``."""
    return x / (1 + abs(x))


def identity_function(x: Symbol) -> Symbol:
    """The value itself: a linear unit."""
    return x


def _along(kind: type[_AlongAxis], x: Symbol, axis: Axis | None) -> Symbol:
    if not isinstance(x, Symbol):
        place, _ = here()
        raise cell_error(f"{kind.word}() works on symbols; got {type(x).__name__}.", place)
    try:
        along = kind.at(axis, x.shape)
    except ShapeProblem as problem:
        place, _ = here()
        raise cell_error(f"{problem}.", place) from None
    return x.builder.apply(along, x)


def sum(x: Symbol, axis: Axis | None = None) -> Symbol:  # noqa: A001 - the field's name; used as carousel.sum
    """The sum over an axis (the last), which stays with size 1."""
    return _along(Sum, x, axis)


def mean(x: Symbol, axis: Axis | None = None) -> Symbol:
    """The mean over an axis (the last), which stays with size 1."""
    return _along(Mean, x, axis)


def max(x: Symbol, axis: Axis | None = None) -> Symbol:  # noqa: A001
    """The largest over an axis (the last), which stays with size 1."""
    return _along(Max, x, axis)


def softmax(x: Symbol, axis: Axis | None = None) -> Symbol:
    """Positive numbers that sum to 1 along an axis (the last)."""
    return _along(Softmax, x, axis)


def logsumexp(x: Symbol, axis: Axis | None = None) -> Symbol:
    """The logarithm of the sum of exponentials over an axis (the last), which stays with size 1."""
    return _along(LogSumExp, x, axis)


def cumsum(x: Symbol, axis: Axis | None = None) -> Symbol:
    """The running sum along an axis (the last)."""
    return _along(CumulativeSum, x, axis)


def remainder(a: Symbol | float, b: Symbol | float) -> Symbol:
    """What is left of `a` after whole multiples of `b`, with the sign of `b`; its derivative is that of `a` alone."""
    return _apply("remainder", a, b)


def size(axis: Axis) -> Symbol:
    """The size of an axis, as a number that only a layer knows."""
    tracing = current_builder()
    return tracing.apply(Count(axis))


def product(matrix: Symbol, vector: Symbol) -> Symbol:
    """A learned matrix (out, in), or one computed from learned ones, times a vector (in)."""
    return vector.builder.apply(Dense(), matrix, vector)


def outer(a: Symbol, b: Symbol) -> Symbol:
    """The outer product of two vectors of the same row: (..., E) and (..., F) give (..., E, F)."""
    return a.builder.apply(Outer(), a, b)


def matvec(matrix: Symbol, vector: Symbol) -> Symbol:
    """A matrix that differs from row to row, times a vector: (..., E, F) and (..., F) give (..., E)."""
    return matrix.builder.apply(RowProduct(), matrix, vector)


def vecmat(vector: Symbol, matrix: Symbol) -> Symbol:
    """A vector times a matrix that differs from row to row: (..., E) and (..., E, F) give (..., F)."""
    return matrix.builder.apply(RowProduct(transposed=True), matrix, vector)


def reshape(x: Symbol, *axes: Axis) -> Symbol:
    """The same numbers under other axes: ``reshape(h, "N", "E")`` cuts (H) into heads, where H = N·E."""
    return x if x.shape == axes else x.builder.apply(Reshape(x.shape, axes), x)


ACTIVATIONS: dict[str, Callable[[Symbol], Symbol]] = {
    "elu": elu,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "hard_tanh": hard_tanh,
    "identity": identity_function,
    "leaky_relu": leaky_relu,
    "relu": relu,
    "sigmoid": sigmoid,
    "silu": silu,
    "sin": sin,
    "softmax": softmax,
    "softplus": softplus,
    "softsign": softsign,
    "tanh": tanh,
}


def activation(name: str) -> Callable[[Symbol], Symbol]:
    """Look an activation function up by its name, for cells that let their user choose one.

    Raises:
        ConfigError: no such function; the message has the nearest name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(unknown_name("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]
