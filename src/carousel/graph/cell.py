"""`Cell`: one step of a recurrent network, written as its equations."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import typing
import zlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any, ClassVar, Literal, dataclass_transform

from carousel.errors import CellError, ConfigError, explain, unknown_name
from carousel.graph.initialisers import Initialiser, constant, glorot, orthogonal
from carousel.graph.kinds import Block, Convolution, Dense, Leaf, Noise, Role
from carousel.graph.node import Node, Place, here, reachable
from carousel.graph.shapes import Axis, Shape, Sizes, concrete, show
from carousel.graph.symbol import Builder, Symbol, _building, cell_error

# The matrices of an affine map, in the order of its operands: W for the first (as a rule the input), U for the second
# (as a rule the state), V for the third.
LETTERS = "WUVYZ"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a cell learns: a matrix or a vector, named as in its equations.

    Attributes:
        name: for example ``U_f``.
        shape: named axes; a matrix is (out, in).
        init: how it starts.
        node: its leaf in the graph.
        place: the line of the cell that declares it.
        learned: whether training changes it.
    """

    name: str
    shape: Shape
    init: Initialiser
    node: Node
    place: Place | None = None
    learned: bool = True


@dataclasses.dataclass(frozen=True)
class Output:
    """Marks what `step` puts out, where that is not its first state: ``return Output(y), h, c``."""

    value: Symbol

    def __post_init__(self) -> None:
        if isinstance(self.value, Symbol):
            self.value.builder.learn_names(here()[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A traced step: a cell's equations as a graph.

    Attributes:
        cell: whose equations they are.
        inputs: the leaf of each input.
        states: the leaf of each state, as the step before left it.
        parameters: what the cell learns, in the order of the equations.
        output: what the step puts out.
        new_states: each state, as this step leaves it.
        builder: where the nodes are made.
        context: the leaf of each value that is constant over time.
        ambient: the leaves that a layer supplies by itself: the number of the step, the row, the seed of the noise.
    """

    cell: Cell
    inputs: Mapping[str, Node]
    states: Mapping[str, Node]
    parameters: Mapping[str, Parameter]
    output: Node
    new_states: Mapping[str, Node]
    builder: Builder
    context: Mapping[str, Node] = dataclasses.field(default_factory=dict)
    ambient: Mapping[Role, Node] = dataclasses.field(default_factory=dict)

    @property
    def results(self) -> list[Node]:
        """The output and the new states."""
        return [self.output, *self.new_states.values()]

    @property
    def nodes(self) -> list[Node]:
        """All nodes the results need, each after its arguments."""
        return reachable(self.results)


#: The axes of what a layer supplies by itself.
AMBIENT: dict[Role, Shape] = {Role.TIME: (1,), Role.ROW: (1,), Role.SEED: (2,)}


class _Tracing:
    """What `Cell.affine` and its like write to while `step` runs."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.builder = Builder()
        self.parameters: dict[str, Parameter] = {}
        self.ambient: dict[Role, Symbol] = {}
        self.calls: dict[str, tuple[tuple[object, ...], Symbol, Place | None]] = {}

    def leaf(self, role: Role, name: str, shape: Shape) -> Symbol:
        symbol = self.builder.apply(Leaf(role, name, shape))
        symbol.node.name = name
        return symbol

    def supplied(self, role: Role) -> Symbol:
        """The number of the step, the row or the seed: leaves that a layer fills by itself."""
        if role not in self.ambient:
            self.ambient[role] = self.leaf(role, role.value, AMBIENT[role])
        return self.ambient[role]

    def once(self, name: str, key: tuple[object, ...], make: Callable[[], Symbol]) -> Symbol:
        """Return what `make` makes, or what it made before: the same name must mean the same thing."""
        place, variables = here()
        self.builder.learn_names(variables)
        if not isinstance(name, str) or not name.isidentifier():
            raise cell_error(f"{name!r} cannot be a parameter's name.", place, "use letters, digits and _, as in 'f' or 'W_f'")
        if name in self.calls:
            known, symbol, before = self.calls[name]
            if known != key:
                raise cell_error(
                    f"the name '{name}' is used again with other operands; it was first used at {before}.",
                    place,
                    "give each equation a name of its own",
                )
            return symbol
        symbol = make()
        self.calls[name] = (key, symbol, place)
        return symbol

    def parameter(self, name: str, shape: Shape, init: Initialiser, learned: bool = True) -> Symbol:
        place, _ = here()
        if name in self.parameters:
            raise cell_error(
                f"there are two parameters named '{name}'; the other is at {self.parameters[name].place}.",
                place,
                "give each equation a name of its own",
            )
        if name in (*self.cell.inputs, *self.cell.state, *self.cell.context):
            raise cell_error(f"'{name}' is already the name of a value of the step.", place, "give the parameter another")
        symbol = self.leaf(Role.PARAMETER, name, shape)
        self.parameters[name] = Parameter(name, shape, init, symbol.node, place, learned)
        return symbol


_tracing: ContextVar[_Tracing | None] = ContextVar("carousel_tracing", default=None)


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
        tracing = self._tracing("affine")
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
        tracing = self._tracing("dense")

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
        tracing = self._tracing("parameter")
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
        tracing = self._tracing("blocks")

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
        tracing = self._tracing("convolution")

        def make() -> Symbol:
            if len(operand.shape) != 3:
                raise cell_error(f"{name} needs a picture (channels, Y, X), got {show(operand.shape)}.", here()[0])
            shape = (size, operand.shape[0], kernel, kernel)
            return tracing.builder.apply(Convolution(), tracing.parameter(name, shape, init or glorot()), operand)

        return tracing.once(name, ("convolution", symbol_key(operand), size, kernel, init), make)

    def time(self) -> Symbol:
        """The number of the step, (1), from 0; it goes on where a state is handed from call to call."""
        tracing = self._tracing("time")
        return tracing.supplied(Role.TIME)

    def noise(self, name: str, shape: Shape = ("H",), *, per: str = "step") -> Symbol:
        """Uniform noise in [0, 1), the same for the same seed whatever the chunks, the order of rows or the engine.

        Args:
            name: tells the noises of a cell apart.
            shape: its axes.
            per: ``step`` draws anew at every step of every row; ``sequence`` once for each row; ``call`` once for all rows.
        """
        tracing = self._tracing("noise")
        if per not in NOISE_PER:
            raise cell_error(unknown_name("noise", per, NOISE_PER), here()[0])
        return tracing.once(name, ("noise", shape, per), lambda: make_noise(tracing.supplied, name, tuple(shape), per))

    def _tracing(self, verb: str) -> _Tracing:
        tracing = _tracing.get()
        if tracing is None:
            place, _ = here()
            raise cell_error(
                f"self.{verb} was called outside of step.",
                place,
                "what a cell learns is declared in its equations; build a layer with carousel.nn.Recurrent to run it",
            )
        return tracing

    # --- what is derived ----------------------------------------------------------------------------------------

    @cached_property
    def graph(self) -> Step:
        """The traced step. Traced at the first use, then kept with the cell.

        Raises:
            CellError: the equations do not work; the message has the line.
        """
        return _trace(self)

    def options(self) -> dict[str, Any]:
        """The options and their values, fit for JSON and YAML."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

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

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{type(self).__name__}({options})"


#: What noise may be drawn anew for, and the leaves that takes.
NOISE_PER: dict[str, tuple[Role, ...]] = {
    "call": (Role.SEED,),
    "sequence": (Role.SEED, Role.ROW),
    "step": (Role.SEED, Role.ROW, Role.TIME),
}


def make_noise(supplied: Callable[[Role], Symbol], name: str, shape: Shape, per: str) -> Symbol:
    """The noise called `name`, from the leaves that `supplied` gives."""
    leaves = [supplied(role) for role in NOISE_PER[per]]
    stream = zlib.crc32(name.encode())
    kind = Noise(stream, shape, by_row=per != "call", by_step=per == "step")
    return leaves[0].builder.apply(kind, *leaves)


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


def _trace(cell: Cell) -> Step:
    kind = type(cell)
    source = Place(inspect.getsourcefile(kind.step) or "?", kind.step.__code__.co_firstlineno)
    tracing = _Tracing(cell)
    token, building = _tracing.set(tracing), _building.set(tracing.builder)
    try:
        inputs = {name: tracing.leaf(Role.INPUT, name, cell.shapes.get(name, ("I",))) for name in cell.inputs}
        states = {name: tracing.leaf(Role.STATE, name, cell.shapes.get(name, ("H",))) for name in cell.state}
        context = {name: tracing.leaf(Role.CONTEXT, name, cell.shapes.get(name, ("H",))) for name in cell.context}
        arguments = [*inputs.values(), *states.values(), *context.values()]
        try:
            inspect.signature(kind.step).bind(cell, *arguments)
        except TypeError as problem:
            raise cell_error(
                f"{kind.__name__}.step does not take its inputs and states: {problem}.",
                source,
                f"write def step(self, {', '.join([*inputs, *states, *context])})",
            ) from None
        returned = cell.step(*arguments)
    except (CellError, ConfigError):
        raise
    except RecursionError:
        raise cell_error(f"{kind.__name__}.step never ends.", source) from None
    finally:
        _tracing.reset(token)
        _building.reset(building)

    results = returned if isinstance(returned, tuple) else (returned,)
    output: object = None
    if results and isinstance(results[0], Output):
        output, results = results[0].value, results[1:]
    if len(results) != len(states):
        raise cell_error(
            f"{kind.__name__}.step returned {len(results)} states, but there are {len(states)}: {', '.join(states)}.",
            source,
            f"end with: return {', '.join(states)}",
        )
    for name, value in [
        ("the output", output if output is not None else results[0]),
        *zip(states, results, strict=True),
    ]:
        if isinstance(value, Symbol) and value.builder is tracing.builder:
            continue
        raise cell_error(
            f"{kind.__name__}.step returned {type(value).__name__} for {name}, not a symbol of this step.",
            source,
            "return values computed from the arguments of step",
        )
    for name, leaf, value in zip(states, states.values(), results, strict=True):
        if value.shape != leaf.shape:
            raise cell_error(
                f"{kind.__name__}.step returned {name} with shape {show(value.shape)}, but the state has {show(leaf.shape)}.",
                source,
                f"make them equal, or declare shapes = {{'{name}': {value.shape}}}",
            )
    new_states = {name: value.node for name, value in zip(states, results, strict=True)}
    made = output.node if isinstance(output, Symbol) else results[0].node
    used = set(reachable([made, *new_states.values()]))
    parameters = {p.name: p for p in tracing.parameters.values() if p.node in used}
    return Step(
        cell=cell,
        inputs={name: symbol.node for name, symbol in inputs.items()},
        states={name: symbol.node for name, symbol in states.items()},
        parameters=parameters,
        output=made,
        new_states=new_states,
        builder=tracing.builder,
        context={name: symbol.node for name, symbol in context.items()},
        ambient={role: symbol.node for role, symbol in tracing.ambient.items() if symbol.node in used},
    )
