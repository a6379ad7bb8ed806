"""`Cell`: one step of a recurrent network, written as its equations."""

from __future__ import annotations

import dataclasses
import hashlib
import typing
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, dataclass_transform

from carousel.errors import ConfigError, explain, unknown_name
from carousel.graph.initialisers import Initialiser, constant, glorot, orthogonal
from carousel.graph.kinds import Block, Convolution, Dense, Number, Role
from carousel.graph.node import here
from carousel.graph.shapes import Axis, Shape, Sizes, concrete, show
from carousel.graph.step import Step
from carousel.graph.symbol import Symbol, cell_error
from carousel.graph.tracing import NOISE_PER, current_tracing, make_noise, trace

# The matrices of an affine map, in the order of its operands: W for the first (as a rule the input), U for the second
# (as a rule the state), V for the third.
LETTERS = "WUVYZ"


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
class Cell:
    r"""One step of a recurrent network, written as its equations.

    A subclass names its states and writes `step` over symbols. Its annotated class attributes are options, as in a
    dataclass::

        class LeakyUnit(Cell):
            "h' = (1 - rate) h + rate tanh(W x + U h + b)"
            state = ("h",)
            rate: float = 0.1

            def step(self, x, h):
                return (1 - self.rate) * h + self.rate * tanh(self.affine("h", x, h))

    `step` is called once, with symbols, and gives a graph; gradients, schedules, layers and printing come from that.
    Cells are immutable and compare by their options.

    Attributes:
        state: the names of the states; the first is the output unless `step` returns ``Output(y), h, ...``.
        inputs: the names of the inputs; the arguments of `step` are the inputs, the states, then the context.
        context: the names of values constant over time (an attention memory, a speaker): the last arguments of `step`.
        shapes: the axes of any value that is not ``("I",)`` for an input, else ``("H",)``. An axis letter that `sizes` does
            not know (the number of memory slots) takes its size from what a layer is called with.
        reference: the paper, for tables.
        candidate: the name of what is new in a step, which recurrent dropout drops.
    """

    state: ClassVar[tuple[str, ...]] = ("h",)
    inputs: ClassVar[tuple[str, ...]] = ("x",)
    context: ClassVar[tuple[str, ...]] = ()
    shapes: ClassVar[Mapping[str, Shape]] = {}
    reference: ClassVar[str] = ""
    candidate: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        doc = cls.__doc__
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
        cls.__doc__ = doc  # dataclass writes a signature where a class has no docstring
        names = (*cls.inputs, *cls.state, *cls.context)
        place = here()[0]
        if any(isinstance(names, str) for names in (cls.state, cls.inputs, cls.context)):
            raise cell_error(f"{cls.__name__}: state, inputs and context are tuples of names.", place, 'write state = ("h",)')
        if len(set(names)) != len(names) or not cls.state:
            raise cell_error(f"{cls.__name__}: values need different names, and at least one state.", place)
        for name in names:
            if not name.isidentifier() or name.startswith("_"):
                raise cell_error(f"{cls.__name__}: {name!r} cannot be the name of a value.", place)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            _check_option(type(self).__name__, field.name, getattr(self, field.name), hints.get(field.name))

    def step(self, *values: Any, **named: Any) -> Any:
        """The equations of one step: inputs and states in, new states out."""
        raise NotImplementedError(f"{type(self).__name__} does not say its equations: define step")

    def sizes(self, input_size: Any, hidden_size: int) -> Sizes:
        """The size of each axis letter; a cell with axes of its own adds them.

        Args:
            input_size: I, or a tuple for inputs with several axes.
            hidden_size: H.
        """
        return {"I": input_size, "H": hidden_size}

    def input_size(self, features: int) -> Any:
        """What to give as a layer's `input_size` for so many features; a cell over pictures answers with a small one."""
        return features

    # --- what the cell learns -----------------------------------------------------------------------------------

    def affine(
        self,
        name: str,
        *operands: Symbol,
        size: Axis = "H",
        bias: bool = True,
        W: Initialiser | None = None,
        U: Initialiser | None = None,
        V: Initialiser | None = None,
        b: Initialiser | None = None,
    ) -> Symbol:
        r"""A sum of products with a bias: ``W_name x + U_name h + b_name``.

        Args:
            name: the gate; the matrices are called ``W_``, ``U_``, ``V_`` and the bias ``b_`` with this name.
            operands: what is multiplied: inputs, states or anything computed; the first by W, the second by U.
            size: the axis of the result.
            bias: whether there is one.
            W: how the first matrix starts; by default Glorot.
            U: how the second starts; by default orthogonal if it is square, else Glorot.
            V: how the third starts; likewise.
            b: how the bias starts; by default 0.

        Returns:
            A vector (size).

        Raises:
            CellError: no operands, a name used again with other operands, or an operand without axes.
        """
        tracing = current_tracing("affine")
        key = ("affine", *(symbol_key(o) for o in operands), size, bias, W, U, V, b)

        def make() -> Symbol:
            place, _ = here()
            if not 0 < len(operands) <= len(LETTERS):
                raise cell_error(f"affine('{name}') needs 1 to {len(LETTERS)} operands, got {len(operands)}.", place)
            chosen = dict(zip(LETTERS, (W, U, V, None, None), strict=True))
            terms = [
                self.dense(f"{letter}_{name}", operand, size=size, init=chosen[letter])
                for letter, operand in zip(LETTERS, operands, strict=False)
            ]
            if bias:
                terms.append(tracing.parameter(f"b_{name}", (size,), b or constant(0.0)))
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            return total

        return tracing.once(name, key, make)

    def dense(self, name: str, operand: Symbol, *, size: Axis = "H", init: Initialiser | None = None) -> Symbol:
        """The product of a matrix called exactly `name` with `operand`.

        Args:
            name: the matrix; its shape is (size, last axis of the operand).
            operand: a vector.
            size: the axis of the result.
            init: how the matrix starts; by default orthogonal where it multiplies something as long as its result, for
                operands after the input, else Glorot.

        Returns:
            A vector (size).
        """
        tracing = current_tracing("dense")

        def make() -> Symbol:
            place, _ = here()
            if not isinstance(operand, Symbol) or not operand.shape:
                raise cell_error(f"the product with {name} needs a vector, got {operand!r}.", place)
            inside = operand.shape[-1]
            start = init or (orthogonal() if inside == size else glorot())
            matrix = tracing.parameter(name, (size, inside), start)
            return tracing.builder.apply(Dense(), matrix, operand)

        return tracing.once(name, ("dense", symbol_key(operand), size, init), make)

    def vector(self, name: str, *, size: Axis = "H", init: Initialiser | None = None) -> Symbol:
        """A learned vector, one number for each unit: a peephole, a gain. Starts at 0 unless `init` says otherwise."""
        return self.parameter(name, (size,), init=init)

    def parameter(self, name: str, shape: Shape, *, init: Initialiser | None = None, learned: bool = True) -> Symbol:
        """A value of any shape that the layer keeps.

        Args:
            name: what it is called.
            shape: its axes, at least one.
            init: how it starts; by default 0.
            learned: False for a constant of the equations: saved with the layer, not trained.
        """
        tracing = current_tracing("parameter")
        start = init or constant(0.0)
        shape = (shape,) if isinstance(shape, str | int) else tuple(shape)
        if not shape:
            raise cell_error(f"the parameter {name} has no axis.", here()[0], "use the shape (1,) for a single number")
        return tracing.once(name, ("parameter", shape, start, learned), lambda: tracing.parameter(name, shape, start, learned))

    def blocks(self, name: str, operand: Symbol, *, size: Axis | None = None, init: Initialiser | None = None) -> Symbol:
        """The product of a block-diagonal matrix with heads: each head has a block of its own.

        Args:
            name: the parameter (N, size, E).
            operand: (N, E).
            size: the axis of each head of the result; by default E.
            init: how it starts; by default orthogonal blocks where they are square, else Glorot.

        Returns:
            (N, size).
        """
        tracing = current_tracing("blocks")

        def make() -> Symbol:
            if len(operand.shape) != 2:
                raise cell_error(
                    f"the product with {name} needs heads (N, E), got {show(operand.shape)}.",
                    here()[0],
                    'cut a vector into heads with reshape(h, "N", "E")',
                )
            heads, inside = operand.shape
            out = size or inside
            start = init or (orthogonal() if out == inside else glorot())
            return tracing.builder.apply(Block(), tracing.parameter(name, (heads, out, inside), start), operand)

        return tracing.once(name, ("blocks", symbol_key(operand), size, init), make)

    def convolution(
        self, name: str, operand: Symbol, *, size: Axis = "H", kernel: Axis = "K", init: Initialiser | None = None
    ) -> Symbol:
        """A learned kernel over a picture, with zero padding, so that the picture keeps its size.

        Args:
            name: the parameter (size, channels, kernel, kernel).
            operand: (channels, Y, X).
            size: the axis of the result's channels.
            kernel: the axis, or the number, of the kernel's height and width; odd.
            init: how it starts; by default Glorot.

        Returns:
            (size, Y, X).
        """
        tracing = current_tracing("convolution")

        def make() -> Symbol:
            if len(operand.shape) != 3:
                raise cell_error(f"{name} needs a picture (channels, Y, X), got {show(operand.shape)}.", here()[0])
            shape = (size, operand.shape[0], kernel, kernel)
            return tracing.builder.apply(Convolution(), tracing.parameter(name, shape, init or glorot()), operand)

        return tracing.once(name, ("convolution", symbol_key(operand), size, kernel, init), make)

    def time(self) -> Symbol:
        """The number of the step, (1), from 0; it goes on where a state is handed from call to call."""
        tracing = current_tracing("time")
        return tracing.builder.apply(Number(), tracing.supplied(Role.TIME))

    def noise(self, name: str, shape: Shape = ("H",), *, per: str = "step") -> Symbol:
        """Uniform noise in [0, 1), the same for the same seed whatever the chunks, the order of rows or the engine.

        Args:
            name: tells the noises of a cell apart.
            shape: its axes.
            per: ``step`` draws anew at every step of every row; ``sequence`` once for each row; ``call`` once for all rows.
        """
        tracing = current_tracing("noise")
        if per not in NOISE_PER:
            raise cell_error(unknown_name("noise", per, NOISE_PER), here()[0])
        return tracing.once(name, ("noise", shape, per), lambda: make_noise(tracing.supplied, name, tuple(shape), per))

    # --- what is derived ----------------------------------------------------------------------------------------

    @cached_property
    def graph(self) -> Step:
        """The traced step. Traced at the first use, then kept with the cell.

        Raises:
            CellError: the equations do not work; the message has the line.
        """
        return trace(self)

    def options(self) -> dict[str, Any]:
        """The options and their values, fit for JSON and YAML."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {
            name: {"cell": type(value).__name__, **value.options()} if isinstance(value, Cell) else value
            for name, value in values.items()
        }

    def parameter_shapes(self, input_size: int, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """The shape of everything the cell learns, for given sizes."""
        sizes = self.sizes(input_size, hidden_size)
        return {p.name: concrete(p.shape, sizes) for p in self.graph.parameters.values()}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the equations, parameter names and shapes: two cells that compute the same way have the same.

        Saved models keep it, so that weights are not loaded into equations that they do not fit.
        """
        graph = self.graph
        numbers = {node: i for i, node in enumerate(graph.nodes)}
        lines = [f"{i} {node.kind!r} {[numbers[a] for a in node.args]}" for node, i in numbers.items()]
        lines += [f"{name} {numbers[node]}" for name, node in graph.new_states.items()]
        lines += [f"output {numbers[graph.output]}"]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

    def __deepcopy__(self, memo: Any) -> Cell:
        return self  # immutable

    def __getstate__(self) -> dict[str, Any]:
        """Options only: the graph is traced again where it is needed."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        options = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({options})"


def symbol_key(value: object) -> object:
    """What tells two operands apart."""
    return value.node if isinstance(value, Symbol) else value


def _check_option(cell: str, name: str, value: Any, hint: Any) -> None:
    """Options come from command lines and files as well: check the plain types and the listed choices."""
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{cell}.{name}: " + unknown_name("choice", str(value), map(str, choices)))
        return
    wanted = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}.get(hint)
    if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool)):
        raise ConfigError(
            explain(
                f"{cell}.{name} is of the wrong type.",
                got=f"{value!r} ({type(value).__name__})",
                expected=hint.__name__,
            )
        )
