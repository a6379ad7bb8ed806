"""Tracing: running `step` once, with symbols, and checking what it did."""

from __future__ import annotations

import inspect
import traceback
import zlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from carousel.errors import CarouselError
from carousel.graph.initialisers import Initialiser
from carousel.graph.kinds import Leaf, Noise, Role
from carousel.graph.node import Place, here, is_ours, reachable
from carousel.graph.shapes import Shape, show
from carousel.graph.step import Output, Parameter, Step
from carousel.graph.symbol import Builder, Symbol, building, cell_error

if TYPE_CHECKING:
    from carousel.graph.cell import Cell

#: The axes of what a layer supplies by itself.
AMBIENT: dict[Role, Shape] = {Role.TIME: (1,), Role.ROW: (1,), Role.SEED: (2,)}


class Tracing:
    """What `Cell.affine` and its like write to while `step` runs."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.builder = Builder()
        self.parameters: dict[str, Parameter] = {}
        self.ambient: dict[Role, Symbol] = {}
        self.calls: dict[str, tuple[tuple[object, ...], Symbol, Place | None]] = {}

    def leaf(self, role: Role, name: str, shape: Shape) -> Symbol:
        """A value that the step is given."""
        if not shape:
            raise cell_error(f"the value {name} has no axis.", here()[0], "use the shape (1,) for a single number")
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
        """A value that the layer keeps."""
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


_tracing: ContextVar[Tracing | None] = ContextVar("carousel_tracing", default=None)


#: What noise may be drawn anew for, and the leaves that takes.
NOISE_PER: dict[str, tuple[Role, ...]] = {
    "call": (Role.SEED,),
    "sequence": (Role.SEED, Role.ROW),
    "step": (Role.SEED, Role.ROW, Role.TIME),
}


def current_tracing(verb: str) -> Tracing:
    """The tracing that runs.

    Args:
        verb: what asks for it, for the message.

    Raises:
        CellError: none does.
    """
    tracing = _tracing.get()
    if tracing is None:
        raise cell_error(
            f"self.{verb} was called outside of step.",
            here()[0],
            "what a cell learns is declared in its equations; build a layer with carousel.nn.Recurrent to run it",
        )
    return tracing


def stream_of(name: str) -> int:
    """What tells the noise called `name` from others."""
    return zlib.crc32(name.encode())


def make_noise(supplied: Callable[[Role], Symbol], name: str, shape: Shape, per: str) -> Symbol:
    """The noise called `name`, from the leaves that `supplied` gives."""
    leaves = [supplied(role) for role in NOISE_PER[per]]
    kind = Noise(stream_of(name), shape, by_row=per != "call", by_step=per == "step")
    return leaves[0].builder.apply(kind, *leaves)


def trace(cell: Cell) -> Step:
    """Run a cell's `step` once, with symbols.

    Raises:
        CellError: the equations do not work; the message has the line.
    """
    kind = type(cell)
    source = Place(inspect.getsourcefile(kind.step) or "?", kind.step.__code__.co_firstlineno)
    tracing = Tracing(cell)
    tokens = _tracing.set(tracing), building.set(tracing.builder)
    try:
        inputs = {name: tracing.leaf(Role.INPUT, name, cell.shapes.get(name, ("I",))) for name in cell.inputs}
        states = {name: tracing.leaf(Role.STATE, name, cell.shapes.get(name, ("H",))) for name in cell.state}
        context = {name: tracing.leaf(Role.CONTEXT, name, cell.shapes.get(name, ("H",))) for name in cell.context}
        returned = _call(cell, {**inputs, **states, **context}, source)
    finally:
        _tracing.reset(tokens[0])
        building.reset(tokens[1])
    output, results = _results(tracing, returned, states, source)
    used = set(reachable([output.node, *(symbol.node for symbol in results.values())]))
    return Step(
        cell=cell,
        inputs={name: symbol.node for name, symbol in inputs.items()},
        states={name: symbol.node for name, symbol in states.items()},
        parameters={p.name: p for p in tracing.parameters.values() if p.node in used},
        output=output.node,
        new_states={name: symbol.node for name, symbol in results.items()},
        builder=tracing.builder,
        context={name: symbol.node for name, symbol in context.items()},
        ambient={role: symbol.node for role, symbol in tracing.ambient.items() if symbol.node in used},
    )


def _call(cell: Cell, arguments: Mapping[str, Symbol], source: Place) -> Any:
    """Call `step`, having checked that it takes these arguments."""
    name = type(cell).__name__
    try:
        inspect.signature(type(cell).step).bind(cell, *arguments.values())
    except TypeError as problem:
        raise cell_error(
            f"{name}.step does not take its inputs and states: {problem}.",
            source,
            f"write def step(self, {', '.join(arguments)})",
        ) from None
    try:
        return cell.step(*arguments.values())
    except CarouselError:
        raise
    except Exception as problem:  # a user's equations may raise anything; it becomes one message with its line
        frames = [(frame, line) for frame, line in traceback.walk_tb(problem.__traceback__) if not is_ours(frame)]
        place = Place(frames[-1][0].f_code.co_filename, frames[-1][1]) if frames else source
        what = "never ends" if isinstance(problem, RecursionError) else f"raised {type(problem).__name__}: {problem}"
        raise cell_error(f"{name}.step {what}.", place) from problem


def _results(tracing: Tracing, returned: Any, states: Mapping[str, Symbol], source: Place) -> tuple[Symbol, dict[str, Symbol]]:
    """The output and the new states, from what `step` returned."""
    who = f"{type(tracing.cell).__name__}.step"
    results = returned if isinstance(returned, tuple) else (returned,)
    output = results[0].value if results and isinstance(results[0], Output) else None
    if output is not None:
        results = results[1:]
    if len(results) != len(states):
        raise cell_error(
            f"{who} returned {len(results)} states, but there are {len(states)}: {', '.join(states)}.",
            source,
            f"end with: return {', '.join(states)}",
        )
    named = dict(zip(states, results, strict=True))
    shown = results[0] if output is None else output
    for name, value in {"the output": shown, **named}.items():
        if not isinstance(value, Symbol) or value.builder is not tracing.builder:
            raise cell_error(
                f"{who} returned {type(value).__name__} for {name}, not a symbol of this step.",
                source,
                "return values computed from the arguments of step",
            )
    for name, value in named.items():
        if value.shape != states[name].shape:
            raise cell_error(
                f"{who} returned {name} with shape {show(value.shape)}, but the state has {show(states[name].shape)}.",
                source,
                f"make them equal, or declare shapes = {{'{name}': {value.shape}}}",
            )
    return shown, named
