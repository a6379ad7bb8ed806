"""The functions of the language: element-wise functions, reductions, products of values, activations by name."""

from __future__ import annotations

from collections.abc import Callable

from carousel.errors import ConfigError, unknown_name
from carousel.graph.kinds import (
    Count,
    CumulativeSum,
    Dense,
    Elementwise,
    LogSumExp,
    Max,
    Mean,
    Outer,
    Reshape,
    RowProduct,
    Softmax,
    Sum,
)
from carousel.graph.kinds.reductions import _AlongAxis
from carousel.graph.node import here
from carousel.graph.shapes import Axis, ShapeProblem
from carousel.graph.symbol import Symbol, cell_error, current_builder


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
    positive = greater(x, 0.0)  # not minimum(x, 0): a tie would halve the slope at 0
    return where(positive, x, alpha * expm1(where(positive, 0.0, x)))


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
