"""Symbols: what a cell's `step` computes with. Every operation on them adds a node to the graph being traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn

from carousel.errors import CellError, explain
from carousel.graph.kinds import Constant, Elementwise, Kind
from carousel.graph.node import Node, Place, here
from carousel.graph.shapes import Shape, ShapeProblem, show

# A loop in a cell's step that an option makes endless ends here, in about a second.
MAX_OPERATIONS = 20_000


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
            if len(self._known) == MAX_OPERATIONS:
                raise cell_error(f"the step has more than {MAX_OPERATIONS:,} operations.", place, "write a smaller step")
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


building: ContextVar[Builder | None] = ContextVar("carouselbuilding", default=None)


def current_builder() -> Builder:
    """The graph of the step that is being traced.

    Raises:
        CellError: no step is.
    """
    builder = building.get()
    if builder is None:
        raise cell_error("this is part of a cell's equations, outside of step.", here()[0], "write it in step")
    return builder


class Symbol:
    """A value of the equations: an input, a state, a parameter, or computed from these. It has a shape, not a number."""

    __slots__ = ("builder", "node")

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
            return self.builder.apply(Elementwise("sqrt"), self)
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

    def _same(self, _other: object) -> NoReturn:
        self._refuse("symbols are not compared with == and !=", "write equal(a, b): 1 where they are equal, else 0")

    __eq__ = __ne__ = _same
    __hash__ = object.__hash__

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
        _refuse_function("torch", func)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> NoReturn:
        _refuse_function("numpy", func)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Symbol:
        """Take numpy's own numbers, as in ``np.sqrt(2) * h``, and nothing else of numpy's."""
        if method != "__call__" or ufunc.__name__ not in _OPERATORS:
            _refuse_function("numpy", ufunc)
        numbers = [i.item() if getattr(i, "ndim", None) == 0 else i for i in inputs]
        return self._binary(_OPERATORS[ufunc.__name__], *numbers)


_OPERATORS = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "div"}


def _refuse_function(library: str, function: Any) -> NoReturn:
    from carousel import graph

    place, _ = here()
    name = getattr(function, "__name__", str(function))
    near = f"from carousel import {name}" if name in graph.__all__ else "see `carousel.graph`"
    raise cell_error(f"{library}.{name} cannot be used on a symbol.", place, f"use carousel's own function: {near}")
