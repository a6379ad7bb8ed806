"""Element-wise functions: a table of derivatives, one row for each function.

A function not in the table is one :class:`Function` more, added with :func:`register`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carousel.errors import ConfigError, unknown_name
from carousel.graph.kinds.base import Eager, Kind
from carousel.graph.shapes import broadcast

if TYPE_CHECKING:
    from carousel.graph.node import Node
    from carousel.graph.shapes import Shape
    from carousel.graph.symbol import Symbol

Shares = Sequence["Symbol | None"]


@dataclass(frozen=True)
class Function:
    """One element-wise function.

    Attributes:
        name: what it is called in text.
        derivative: from (arguments, value, gradient, settings) to the gradient's share of each argument.
        eager: from (torch, arguments, settings) to the value.
        cost: rough operations for each element.
        latex: a format with ``{0}``, ``{1}`` for the arguments; None writes ``\\operatorname{name}``.
        infix: the operator in text, for those that have one.
        binding: how tightly the written form binds (0 a sum, 1 a product, 2 a function).
    """

    name: str
    derivative: Callable[[Sequence[Any], Any, Any, tuple[float, ...]], Shares]
    eager: Callable[[Any, Sequence[Any], tuple[float, ...]], Any]
    cost: float = 1.0
    latex: str | None = None
    infix: str | None = None
    binding: int = 2


FUNCTIONS: dict[str, Function] = {}


def register(function: Function) -> None:
    """Add a function to the table.

    Raises:
        ConfigError: the name is taken.
    """
    if function.name in FUNCTIONS:
        raise ConfigError(f"an element-wise function named '{function.name}' exists already: choose another name")
    FUNCTIONS[function.name] = function


@dataclass(frozen=True)
class Elementwise(Kind):
    """An element-wise function of one or more values.

    Args:
        name: the function, a name in :data:`FUNCTIONS`.
        settings: its numbers (an exponent, a slope).
    """

    name: str
    settings: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise ConfigError(unknown_name("function", self.name, FUNCTIONS))

    @property
    def cost(self) -> float:
        """As the table says."""
        return FUNCTIONS[self.name].cost

    @property
    def binding(self) -> int:
        """As the table says."""
        return FUNCTIONS[self.name].binding

    def shape(self, *args: Node) -> Shape:
        """The shape in which all arguments fit."""
        return broadcast(*(arg.shape for arg in args))

    def adjoint(self, args: Sequence[Symbol], value: Symbol, gradient: Symbol) -> Shares:
        """As the table says."""
        return FUNCTIONS[self.name].derivative(args, value, gradient, self.settings)

    def eager(self, on: Eager, *values: Any) -> Any:
        """As the table says."""
        return FUNCTIONS[self.name].eager(on.torch, values, self.settings)

    def text(self, *args: str) -> str:
        """``a * b`` or ``tanh(a)``."""
        function = FUNCTIONS[self.name]
        if self.name == "neg":
            return f"-{args[0]}"
        if function.infix:
            return f" {function.infix} ".join(args)
        return f"{self.name}({', '.join([*args, *(f'{number:g}' for number in self.settings)])})"

    def latex(self, *args: str) -> str:
        """As the table says."""
        pattern = FUNCTIONS[self.name].latex
        if pattern is None:
            escaped = self.name.replace("_", r"\_")
            inside = ", ".join([*args, *(f"{number:g}" for number in self.settings)])
            return rf"\operatorname{{{escaped}}}\left({inside}\right)"
        return pattern.format(*args, *(f"{number:g}" for number in self.settings))


def _of(name: str) -> Callable[[Any, Sequence[Any], tuple[float, ...]], Any]:
    """The eager form that is one torch function of the same arguments."""
    return lambda torch, args, settings: getattr(torch, name)(*args)


def _sum(torch: Any, args: Sequence[Any], settings: tuple[float, ...]) -> Any:
    total = args[0]
    for arg in args[1:]:
        total = total + arg
    return total


def _sqrt(torch: Any, args: Sequence[Any], settings: tuple[float, ...]) -> Any:
    return args[0].sqrt() if isinstance(args[0], torch.Tensor) else math.sqrt(args[0])  # a number: the size of an axis


def _compare(operator: str) -> Callable[[Any, Sequence[Any], tuple[float, ...]], Any]:
    """1 where the comparison holds, else 0, in the dtype of the operand that is a tensor."""

    def eager(torch: Any, args: Sequence[Any], settings: tuple[float, ...]) -> Any:
        tensor = next(arg for arg in args if isinstance(arg, torch.Tensor))
        a, b = (arg if isinstance(arg, torch.Tensor) else tensor.new_full((), arg) for arg in args)
        return getattr(torch, operator)(a, b).to(tensor.dtype)

    return eager


def _extreme(name: str) -> Callable[[Any, Sequence[Any], tuple[float, ...]], Any]:
    def eager(torch: Any, args: Sequence[Any], settings: tuple[float, ...]) -> Any:
        tensor = next(arg for arg in args if isinstance(arg, torch.Tensor))
        return getattr(torch, name)(*(a if isinstance(a, torch.Tensor) else tensor.new_full((), a) for a in args))

    return eager


def _choose(torch: Any, args: Sequence[Any], settings: tuple[float, ...]) -> Any:
    condition, *values = args
    # Two plain numbers would make a tensor of torch's default dtype; the condition may be one of bools.
    like = next((value for value in values if isinstance(value, torch.Tensor)), condition)
    return torch.where(condition != 0, *(v if isinstance(v, torch.Tensor) else like.new_full((), v) for v in values))


def _larger_gets_it(a: Any, b: Any, g: Any) -> Shares:
    # At a tie torch gives half to each; so do we, to agree with it everywhere.
    from carousel.graph.functions import equal, greater

    half = 0.5 * equal(a, b)
    return g * (greater(a, b) + half), g * (greater(b, a) + half)


def _greater(a: Any, b: Any) -> Any:
    from carousel.graph.functions import greater

    return greater(a, b)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    from carousel.graph.functions import where

    return where(condition, yes, no)


def _function(name: str, x: Any) -> Any:
    return x.builder.apply(Elementwise(name), x)


_SLOW = 12.0  # a vectorised exp, tanh or sigmoid costs about a dozen multiply-adds
_CALL = r"\left({0}\right)"

for _f in (
    Function("add", lambda a, y, g, s: [g] * len(a), _sum, infix="+", binding=0, latex="{0}"),
    Function("sub", lambda a, y, g, s: (g, -g), lambda t, a, s: a[0] - a[1], infix="-", binding=0, latex="{0} - {1}"),
    Function(
        "mul",
        lambda a, y, g, s: (g * a[1], g * a[0]),
        lambda t, a, s: a[0] * a[1],
        infix="*",
        binding=1,
        latex=r"{0} \odot {1}",
    ),
    Function(
        "div",
        lambda a, y, g, s: (g / a[1], -(g * y) / a[1]),
        lambda t, a, s: a[0] / a[1],
        cost=4,
        infix="/",
        binding=1,
        latex=r"{0} / {1}",
    ),
    Function("neg", lambda a, y, g, s: (-g,), lambda t, a, s: -a[0], latex="-{0}", binding=1),
    Function("sigmoid", lambda a, y, g, s: (g * y * (1 - y),), _of("sigmoid"), _SLOW, r"\sigma" + _CALL),
    Function("tanh", lambda a, y, g, s: (g * (1 - y * y),), _of("tanh"), _SLOW, r"\tanh" + _CALL),
    Function("relu", lambda a, y, g, s: (g * _greater(y, 0.0),), _of("relu")),
    Function("exp", lambda a, y, g, s: (g * y,), _of("exp"), _SLOW, r"\exp" + _CALL),
    Function("expm1", lambda a, y, g, s: (g * (y + 1),), _of("expm1"), _SLOW),
    Function("log", lambda a, y, g, s: (g / a[0],), _of("log"), _SLOW, r"\log" + _CALL),
    Function("sqrt", lambda a, y, g, s: (0.5 * g / y,), _sqrt, 8, r"\sqrt{{{0}}}"),
    Function("sin", lambda a, y, g, s: (g * _function("cos", a[0]),), _of("sin"), _SLOW, r"\sin" + _CALL),
    Function("cos", lambda a, y, g, s: (-(g * _function("sin", a[0])),), _of("cos"), _SLOW, r"\cos" + _CALL),
    Function(
        "erf",
        lambda a, y, g, s: (g * (2 / math.sqrt(math.pi)) * _function("exp", -(a[0] * a[0])),),
        _of("erf"),
        _SLOW,
    ),
    Function(
        "softplus",
        lambda a, y, g, s: (g * _function("sigmoid", a[0]),),
        # logaddexp has no threshold beyond which it gives up the function, so every derivative agrees with the formula.
        lambda t, a, s: t.logaddexp(a[0], t.zeros_like(a[0])),
        _SLOW,
    ),
    Function("abs", lambda a, y, g, s: (g * _function("sign", a[0]),), _of("abs"), latex=r"\left|{0}\right|"),
    Function("sign", lambda a, y, g, s: (None,), _of("sign")),
    Function("stop_gradient", lambda a, y, g, s: (None,), lambda t, a, s: a[0].detach()),
    Function("greater", lambda a, y, g, s: (None, None), _compare("gt"), latex=r"\left[{0} > {1}\right]"),
    Function("equal", lambda a, y, g, s: (None, None), _compare("eq"), latex=r"\left[{0} = {1}\right]"),
    Function("maximum", lambda a, y, g, s: _larger_gets_it(a[0], a[1], g), _extreme("maximum"), latex=r"\max({0}, {1})"),
    Function(
        "minimum",
        lambda a, y, g, s: tuple(reversed(list(_larger_gets_it(a[0], a[1], g)))),
        _extreme("minimum"),
        latex=r"\min({0}, {1})",
    ),
    Function("remainder", lambda a, y, g, s: (g, None), lambda t, a, s: t.remainder(a[0], a[1]), 4, r"{0} \bmod {1}"),
    Function(
        "where",
        lambda a, y, g, s: (None, _where(a[0], g, 0.0), _where(a[0], 0.0, g)),
        _choose,
    ),
    Function(
        "power",
        lambda a, y, g, s: (g * s[0] * a[0].builder.apply(Elementwise("power", (s[0] - 1,)), a[0]),),
        lambda t, a, s: t.pow(a[0], s[0]),
        2 * _SLOW,
        "{0}^{{{1}}}",
    ),
):
    register(_f)
