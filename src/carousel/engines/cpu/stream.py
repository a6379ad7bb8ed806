"""One step at a time: a cell's step as one kernel, with weights, arguments and states that stay ready between calls.

In a sequence the products with the inputs run for all steps at once, before the loop. A stream knows one input at a time, so
they are part of the step here: a step is one call of machine code. The states lie in two places in turn, the arguments are
written once for each of the two, and a call changes the addresses of its inputs and of its output, no more.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from carousel.engines.cpu import product as products
from carousel.engines.cpu import threads
from carousel.engines.cpu.loop import Where
from carousel.engines.cpu.lowering import unsupported
from carousel.engines.cpu.recipe import Steps, team_for
from carousel.engines.cpu.run import Call, CpuExecutor
from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import Team, groups_of_rows
from carousel.graph.differentiate import forward_program
from carousel.graph.kinds import Role
from carousel.graph.kinds.leaves import Leaf
from carousel.graph.program import Carried, Level, Program
from carousel.graph.schedule import schedule
from carousel.graph.shapes import Sizes, concrete
from carousel.graph.step import Step

# What a step puts out is handed on like a state: so it is computed in the loop whatever it is made of, and its memory can be
# any tensor. Nobody reads what the step before left there. No cell can have a state of this name.
OUTPUT = "the output"
_READY = 64  # kept for each loop: numbers of rows


def stream_program(step: Step) -> Program:
    """A step as a program that knows its inputs only when it runs."""
    program = forward_program(step)
    given = {node: Level.LOOP if level is Level.STEPS else level for node, level in program.given.items()}
    before = step.builder.node(Leaf(Role.STATE, OUTPUT, step.output.shape))
    return replace(program, given=given, carried={**program.carried, OUTPUT: Carried(before, step.output)}, emitted={})


_executors: weakref.WeakKeyDictionary[Step, CpuExecutor | str] = weakref.WeakKeyDictionary()


def _executor(step: Step) -> CpuExecutor | str:
    """What runs a step, or why nothing does."""
    found = _executors.get(step)
    if found is None:
        cut = schedule(stream_program(step))
        found = _executors[step] = unsupported(cut) or CpuExecutor(cut)
    return found


def why_not(step: Step, tensors: Sequence[Tensor]) -> str | None:
    """Why a step on such parameters cannot run as one kernel, or None."""
    found = _executor(step)
    if isinstance(found, str):
        return found
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"its parameters lie on {tensor.device}"
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            return f"its parameters are {str(tensor.dtype).removeprefix('torch.')}; float32 and float64 can be compiled"
    return None


@dataclass(frozen=True)
class Ready:
    """A step on the first so many rows, for either place of the states; `words` and `start` are indexed by the place.

    Attributes:
        words: the kernel's arguments.
        start: runs the kernel.
        shift: what is taken from the output's address.
        held: what the arguments point to.
    """

    words: tuple[Any, Any]
    start: tuple[Callable[[], None], Callable[[], None]]
    shift: tuple[int, int]
    held: tuple[Any, ...]


class StepLoop:
    """A cell that runs one step at a time.

    Args:
        step: the traced cell.
        sizes: the size of each axis letter.
        parameters: by name; read now, not again.
        states: by name, what each row starts with, (rows, ...): there is room for so many. In a layer that counts, the
            number of each row's next step, (rows, 1), is among them as ``time``.
        context: by name, what each row sees at every step, (rows, ...).
        ambient: what else the cell asks for, but the numbers of the steps, which are counted here.
        members: how many threads may share a step.
        weights: the type in which all matrices are kept; None for their own.
    """

    def __init__(
        self,
        step: Step,
        sizes: Sizes,
        parameters: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        context: Mapping[str, Tensor],
        ambient: Mapping[Role, Tensor],
        members: int,
        weights: str | None = None,
    ) -> None:
        executor = _executor(step)
        assert isinstance(executor, CpuExecutor)  # noqa: S101 - `why_not` said so
        like = states[next(iter(step.states))]
        self.executor, self.sizes, self.rows = executor, sizes, like.shape[0]
        self._members, self._weights = members, weights
        self.like = like[:0].clone()
        self.output_shape = concrete(step.output.shape, sizes)
        counted = "time" in states and "time" not in step.states
        self.time = states["time"].clone() if counted else None
        carried = {name: states[name] for name in step.states}
        carried[OUTPUT] = like.new_empty((self.rows, *self.output_shape))
        given = {step.parameters[name].node: parameters[name].detach().clone() for name in step.parameters}
        given |= {step.context[name]: tensor for name, tensor in context.items()}
        given |= {node: ambient[role] for role, node in step.ambient.items() if role in ambient}
        if self.time is not None and Role.TIME in step.ambient:
            given[step.ambient[Role.TIME]] = self.time
        for node in step.inputs.values():
            given[node] = like.new_zeros((self.rows, *concrete(node.shape, sizes)))
        with torch.no_grad():
            begun = executor.begin(given, carried, (self.rows,), sizes)
            call = Call(executor, begun, Team(1, columns=False), members, weights=weights)
        # Not the call itself: it has the weights as they were before they were packed.
        self._recipe = recipe = call.recipe
        self._numbers, self._held, self._memory = call.arguments, call.held, (call.workspace, call.states)
        self._place = {name: i for i, name in enumerate(recipe.compiled.names)}
        self._ready: dict[int, Ready] = {}
        self._aside: tuple[dict[str, Tensor], dict[int, tuple[Tensor, Tensor]], dict[int, Ready]] | None = None
        parts = {part.buffer.node: part for part in recipe.given}
        #: The arguments that are the inputs' addresses, in the order of the cell; None where the step does not read one.
        self.inputs = [parts[node].pointer if node in parts else None for node in step.inputs.values()]
        self.output = recipe.states[OUTPUT][2][1]
        self._halves = {
            name: call.states[name].view(2, self.rows, *concrete(node.shape, sizes)) for name, node in step.states.items()
        }
        self.turn = 0

    def states(self) -> dict[str, Tensor]:
        """By name, what the last step left, (rows, ...): views, good until the next step."""
        found = {name: halves[self.turn] for name, halves in self._halves.items()}
        return found if self.time is None else {**found, "time": self.time}

    def run(self, rows: int, inputs: Sequence[int], output: int) -> None:
        """Run a step on the first rows; the others keep their states only if they are all.

        Args:
            rows: how many; those behind are lost.
            inputs: the address of each input, rows one after another.
            output: the address of the output, likewise.
        """
        ready = self._ready.get(rows) or self.ready(rows)
        turn = self.turn
        words = ready.words[turn]
        for place, address in zip(self.inputs, inputs, strict=True):
            if place is not None:
                words[place] = address
        words[self.output] = output - ready.shift[turn]
        ready.start[turn]()
        self.turn = 1 - turn
        if self.time is not None:
            self.time[:rows] += 1

    def run_some(self, rows: Tensor, inputs: Sequence[int], output: int) -> None:
        """Run a step on some rows, which are taken out and put back; arguments as for `run`, but `rows` says which."""
        count = rows.shape[0]
        memory, copies, made = self._aside or self._lay_aside()
        ready = made.get(count)
        if ready is None:
            if len(made) >= _READY:
                made.pop(next(iter(made)))
            ready = made[count] = self._arguments(count, memory, {at: copy for at, (_, copy) in copies.items()})
        halves = self.states()
        for name, place in memory.items():
            torch.index_select(halves[name], 0, rows, out=place[0, :count])
        for whole, copy in copies.values():
            copy[:count] = whole.index_select(0, rows)
        words = ready.words[0]
        for at, address in zip(self.inputs, inputs, strict=True):
            if at is not None:
                words[at] = address
        words[self.output] = output - ready.shift[0]
        ready.start[0]()
        for name, place in memory.items():
            halves[name].index_copy_(0, rows, place[1, :count])
        if self.time is not None:
            self.time[rows] += 1

    # --- arguments ----------------------------------------------------------------------------------------------------

    def ready(self, rows: int) -> Ready:
        """The arguments of a step on the first rows."""
        found = self._ready.get(rows)
        if found is None:
            if len(self._ready) >= _READY:
                self._ready.pop(next(iter(self._ready)))
            found = self._ready[rows] = self._arguments(rows, {}, {})
        return found

    def _lay_aside(self) -> Any:
        """Memory for rows that are taken out: as the states', and for what each row is given."""
        memory = {name: torch.empty_like(halves) for name, halves in self._halves.items()}
        copies = {}
        for part, whole in self._by_row():
            copies[part.pointer] = (whole, torch.empty_like(whole))
        self._aside = memory, copies, {}
        return self._aside

    def _by_row(self) -> list[tuple[Any, Tensor]]:
        """What each row is given beside its inputs."""
        held = {tensor.data_ptr(): tensor for tensor in self._held}
        numbers, inputs = self._numbers, set(self.inputs)
        parts = [p for p in self._recipe.given if p.buffer.where is Where.ROW and p.pointer not in inputs]
        return [(part, held[int(numbers[part.pointer])]) for part in parts]

    def _arguments(self, rows: int, memory: Mapping[str, Tensor], copies: Mapping[int, Tensor]) -> Ready:
        """The arguments for a number of rows, with the states and some other values elsewhere."""
        place, like, recipe = self._place, self.like, self._recipe
        steps = Steps((rows,), self.rows, reverse=False)
        team = team_for(self.executor.schedule, self.sizes, steps, like.dtype, self._members, self._weights)
        numbers = self._numbers.copy()
        groups, group = groups_of_rows(rows, team, products.tiling(target()).rows)
        numbers[place["columns"]] = team.columns
        numbers[place["groups"]], numbers[place["group"]] = groups, group
        for name, tensor in memory.items():
            numbers[list(recipe.states[name][2])] = tensor.data_ptr()
        for at, tensor in copies.items():
            numbers[at] = tensor.data_ptr()
        words, starts, held = [], [], []
        for turn in range(2):
            table = steps.tables(trajectory=True)
            if turn:
                table[[2, 3]] = table[[3, 2]]
            mine: Any = numbers.copy()
            for i, name in enumerate(("*rows", "*first", "*turn before", "*turn after", "*line before", "*line after")):
                mine[place[name]] = table[i].ctypes.data
            held += [table, mine]
            words.append((ctypes.c_int64 * len(mine)).from_buffer(mine))
            starts.append(threads.prepared((recipe.compiled.address, mine.ctypes.data), team.members))
        width = recipe.states[OUTPUT][1] * like.element_size()
        kept = (*held, *memory.values(), *copies.values())
        return Ready((words[0], words[1]), (starts[0], starts[1]), (self.rows * width, 0), kept)


class LayerLoops:
    """Layers on top of each other, one step at a time.

    Args:
        loops: the layers.
        between: from a layer's number, its input and its output to what the next layer sees; None for the output itself.
    """

    def __init__(self, loops: Sequence[StepLoop], between: Callable[[int, Tensor, Tensor], Tensor] | None) -> None:
        self._loops, self._between = loops, between
        self._like = loops[0].like
        shapes = [(loop.rows, *loop.output_shape) for loop in loops[:-1]]
        self._held = [self._like.new_empty(shape) for shape in shapes]  # the outputs of all layers but the last
        self._inner = [(loop, held.data_ptr()) for loop, held in zip(loops, self._held, strict=False)]
        self._last = loops[-1]

    def read(self, rows: slice | Tensor) -> list[dict[str, Tensor]]:
        """Copies of the states of some rows, by layer and name."""
        return [{name: state[rows].clone() for name, state in loop.states().items()} for loop in self._loops]

    def write(self, rows: slice | Tensor, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Set the states of some rows, as `read` gives them."""
        for loop, part in zip(self._loops, parts, strict=True):
            for name, state in loop.states().items():
                state[rows] = part[name]

    def step(self, rows: int, inputs: Sequence[Tensor]) -> Tensor:
        """Run a step on the first rows, which must be all that are in use.

        Args:
            rows: how many, at least 1.
            inputs: each input of the first layer, (rows, ...), contiguous.

        Returns:
            The last layer's output, (rows, ...).
        """
        if self._between is not None:
            return self._apart(inputs, lambda loop, *places: loop.run(rows, *places), rows)
        places: Sequence[int] = [tensor.data_ptr() for tensor in inputs]
        for loop, place in self._inner:
            loop.run(rows, places, place)
            places = (place,)
        output = self._like.new_empty((rows, *self._last.output_shape))
        self._last.run(rows, places, output.data_ptr())
        return output

    def direct(self, rows: int) -> Callable[[Tensor], Tensor]:
        """`step` for one input and a number of rows, with as little Python as there can be."""
        loop = self._last
        place, ready = loop.inputs[0], loop.ready(rows)
        if self._inner or loop.time is not None or place is None:
            return lambda x: self.step(rows, (x,))
        words, start, shift, goal = ready.words, ready.start, ready.shift, loop.output
        model, new = self._like.new_empty((rows, *loop.output_shape)), torch.empty_like

        def step(x: Tensor) -> Tensor:
            output, turn = new(model), loop.turn
            mine = words[turn]
            mine[place] = x.data_ptr()
            mine[goal] = output.data_ptr() - shift[turn]
            start[turn]()
            loop.turn = 1 - turn
            return output

        return step

    def step_some(self, rows: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Run a step on the rows that `rows` counts; the others keep their states."""
        return self._apart(inputs, lambda loop, *places: loop.run_some(rows, *places), rows.shape[0])

    def _apart(self, inputs: Sequence[Tensor], run: Callable[[StepLoop, Sequence[int], int], None], rows: int) -> Tensor:
        values = inputs
        for layer, loop in enumerate(self._loops):
            output = self._like.new_empty((rows, *loop.output_shape))
            run(loop, [tensor.data_ptr() for tensor in values], output.data_ptr())
            if layer and self._between is not None:
                output = self._between(layer, values[0], output).contiguous()
            values = (output,)
        return values[0]
