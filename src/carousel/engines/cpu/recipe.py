"""Everything about a call that its numbers do not change: found once for its sizes, used for every call that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from carousel.engines.cpu import product as products
from carousel.engines.cpu.loop import Buffer, Loop, Product, Where
from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import PASS_OPERATIONS, Team, Work, choose_team, groups_of_rows
from carousel.engines.cpu.tiling import rows_of_a_tile
from carousel.engines.cpu.vectors import REALS
from carousel.engines.cpu.weights import Weights, stored
from carousel.engines.cpu.workspace import reserve
from carousel.graph.node import Node
from carousel.graph.schedule import Schedule, Section
from carousel.graph.shapes import Shape, Sizes, concrete

if TYPE_CHECKING:
    from carousel.engines.cpu.run import Compiled

# Room for a fused phase's results, in bytes: what stays in a first-level cache beside a panel.
TILE_ROOM = 16 << 10

Array = np.ndarray[Any, np.dtype[np.int64]]


class Steps:
    """The steps of a call, in the order in which the loop takes them.

    Args:
        batch_sizes: the rows of each step.
        batch: B.
        reverse: whether the loop runs from the last to the first.
    """

    def __init__(self, batch_sizes: Sequence[int], batch: int, reverse: bool) -> None:
        self.sizes = np.asarray(batch_sizes, dtype=np.int64)
        self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes)])
        self.count, self.batch, self.reverse = len(batch_sizes), batch, reverse
        self.rows = int(self.offsets[-1])
        self.most = int(self.sizes.max()) if self.count else 0
        #: Whether every row of the batch has every step.
        self.full = bool(self.count) and bool((self.sizes == batch).all())
        #: Whether the row of a step and that of the step before are found by one offset each.
        self.trajectory = not reverse or self.full or not self.count

    def tables(self, *, trajectory: bool) -> Array:
        """For each step its rows, where they begin, and where the states before and after begin: in turn, and in a line."""
        T, B = self.count, self.batch
        table = np.zeros((6, T + 1), dtype=np.int64)
        if T:
            t = np.arange(T - 1, -1, -1) if self.reverse else np.arange(T)
            table[0, :T], table[1, :T] = self.sizes[t], self.offsets[t]
            turn = np.arange(T) % 2 * B
            table[2, :T], table[3, :T] = turn, B - turn
            if trajectory and self.reverse:  # all rows of all steps, then the start
                table[4, :T], table[5, :T] = (t + 1) * B, t * B
            elif trajectory:  # the start, then the rows of all steps
                table[4, 1:T], table[5, :T] = B + self.offsets[t[:-1]], B + self.offsets[t]
            table[:, T] = table[:, T - 1]  # what the last step looks ahead to
        return table

    def last(self, line: bool) -> Tensor:
        """Where each row's last state lies; `line`: along all steps (forwards only), else in turn."""
        rows = np.arange(self.batch)
        lengths = (self.sizes[None, :] > rows[:, None]).sum(1)
        if line:
            begins = np.append(self.offsets[:-1], 0)
            index = np.where(lengths > 0, self.batch + begins[lengths - 1] + rows, rows)
        else:
            turns = np.full_like(rows, self.count) if self.reverse else lengths
            index = np.where(lengths > 0, turns % 2, 0) * self.batch + rows
        return torch.from_numpy(index)

    def before(self) -> Tensor | None:
        """Where the state before each row of all steps lies in a line of states; None where they lie one after another."""
        if self.full or not self.count:
            return None
        parts = [np.arange(self.sizes[0])]
        parts += [self.batch + self.offsets[t - 1] + np.arange(self.sizes[t]) for t in range(1, self.count)]
        return torch.from_numpy(np.concatenate(parts))


@dataclass(frozen=True)
class GivenPart:
    """A value that a call hands in: its arguments' places, and what it must look like."""

    pointer: int
    gap: int
    buffer: Buffer
    shape: tuple[int, ...]
    rows: int


@dataclass(frozen=True)
class Packing:
    """Matrices that a call packs: their nodes, the packer's numbers, and where the result goes."""

    matrices: tuple[Node, ...]
    units: int
    inner: int
    block: int
    transposed: bool
    heads: bool
    place: int
    gap: int


@dataclass
class Recipe:
    """A call's layout.

    Attributes:
        compiled: the loop and its code.
        steps: the steps.
        team: how the loop is split.
        weights: how they are stored.
        template: the kernel's arguments, without addresses that change.
        tables: what those arguments point to.
        room: bytes of the workspace.
        scratch: arguments that lie in the workspace, and where.
        states: by name, rows and width of the memory, and the arguments that point to it.
        start: the rows of a state's memory that hold the start.
        given: what is handed in.
        written: arguments that point to kept values.
        joint: kept values that lie side by side, and their widths.
        packings: the matrices.
    """

    compiled: Compiled
    steps: Steps
    team: Team
    weights: Weights
    template: Array
    tables: Array
    room: int = 0
    scratch: list[tuple[int, int]] = field(default_factory=list)
    states: dict[str, tuple[int, int, tuple[int, ...]]] = field(default_factory=dict)
    start: dict[str, slice] = field(default_factory=dict)
    given: list[GivenPart] = field(default_factory=list)
    written: list[tuple[int, int, Node]] = field(default_factory=list)
    joint: list[tuple[tuple[Node, ...], list[int]]] = field(default_factory=list)
    packings: list[Packing] = field(default_factory=list)
    last: dict[bool, Tensor] = field(default_factory=dict)
    before: Tensor | None = None


def measure(schedule: Schedule, sizes: Sizes, steps: Steps, size: int, lanes: int) -> Work:
    """What a loop costs, to choose its team; `size` is a weight's, in bytes."""

    def count(shape: Shape) -> int:
        return int(np.prod(concrete(shape, sizes), dtype=np.int64))

    weights = operations = widest = 0
    for stage in schedule.sections[Section.LOOP]:
        for group in stage.groups:
            columns = sum(count(node.shape) for node in group.nodes)
            inner = sum(concrete(operand.shape, sizes)[-1] for operand in group.nodes[0].args[1::2])
            weights += columns * inner * size
            operations += 2 * columns * inner
            widest = max(widest, columns)
    operations += PASS_OPERATIONS * sum(count(c.before.shape) for c in schedule.program.carried.values())
    return Work(weights, operations, widest, steps.most, steps.rows, lanes)


class Cook:
    """Makes a recipe.

    Args:
        compiled: the loop and its code.
        steps: the steps.
        sizes: the size of each axis letter.
        dtype: of the numbers.
        team: how the loop is split.
        capacity: how many members may at most come: there is room for each.
        joint: kept values that a product will read side by side.
        fixed: arguments that are the same for all calls.
        weights: the type in which weights are stored; None for that of the numbers.
    """

    def __init__(
        self,
        compiled: Compiled,
        steps: Steps,
        sizes: Sizes,
        dtype: torch.dtype,
        team: Team,
        capacity: int,
        joint: Sequence[tuple[Node, ...]],
        fixed: Mapping[str, int],
        weights: str | None = None,
    ) -> None:
        self.loop: Loop = compiled.loop
        self.steps, self.sizes, self.team, self.capacity = steps, sizes, team, capacity
        self.real = REALS[str(dtype).removeprefix("torch.")]
        self.cpu = target()
        self.lanes = self.cpu.bits // self.real.bits
        self.place = {name: i for i, name in enumerate(compiled.names)}
        template = np.zeros(len(compiled.names), dtype=np.int64)
        tables = steps.tables(trajectory=steps.trajectory)
        self.recipe = Recipe(compiled, steps, team, stored(self.real, weights), template, tables)
        self.groups = groups_of_rows(steps.most, team, rows_of_a_tile(self.cpu, self.recipe.weights))
        self._fixed(fixed)
        self._states()
        self._joint(joint)
        for i, buffer in enumerate(self.loop.buffers):
            self._buffer(i, buffer)
        blocks: dict[int, int] = {}
        for i, phase in enumerate(self.loop.phases):
            if phase.fused:
                blocks.update(dict.fromkeys((product.number for product in phase.products), self._phase(i)))
        for product in self.loop.products:
            self._matrices(product, blocks.get(product.number))

    def _set(self, name: str, value: int) -> None:
        self.recipe.template[self.place[name]] = value

    def _count(self, shape: Shape) -> int:
        return int(np.prod(concrete(shape, self.sizes), dtype=np.int64))

    def _size(self, axis: str | int) -> int:
        return concrete((axis,), self.sizes)[0]

    def _reserve(self, size: int) -> int:
        start, self.recipe.room = reserve(self.recipe.room, size)
        return start

    def _in_workspace(self, name: str, start: int) -> None:
        self.recipe.scratch.append((self.place[name], start))

    def _fixed(self, fixed: Mapping[str, int]) -> None:
        groups, group = self.groups
        numbers = {"steps": self.steps.count, "columns": int(self.team.columns), "groups": groups, "group": group, **fixed}
        numbers |= {f"size {axis}": self._size(axis) for axis in self.loop.axes}
        rows = ("*rows", "*first", "*turn before", "*turn after", "*line before", "*line after")
        numbers |= {name: self.recipe.tables[i].ctypes.data for i, name in enumerate(rows)}
        for name, value in numbers.items():
            self._set(name, value)

    def _states(self) -> None:
        B, steps, recipe = self.steps.batch, self.steps, self.recipe
        for name, (before, after) in self.loop.states.items():
            width = self._count(before.shape)
            line = name in self.loop.trajectory
            numbers = [self.loop.buffers.index(buffer) for buffer in (before, after)]
            for i in numbers:
                self._set(f"row {i}", width * self.real.size)
            rows = B + steps.rows if line else 2 * B
            recipe.states[name] = (rows, width, tuple(self.place[f"*buffer {i}"] for i in numbers))
            begin = (steps.rows if steps.reverse else 0) if line else 0
            recipe.start[name] = slice(begin, begin + B if line else 2 * B)
        kinds = {name in self.loop.trajectory for name in self.loop.states}
        if not steps.full:
            recipe.last = {line: steps.last(line) for line in kinds}
        kept_before = any(b.where is Where.BEFORE for b in self.loop.kept.values())
        recipe.before = steps.before() if kept_before and steps.trajectory else None

    def _joint(self, joint: Sequence[tuple[Node, ...]]) -> None:
        own = {node for node, buffer in self.loop.kept.items() if buffer.where is Where.STEP}
        for group in joint:
            if own.issuperset(group):
                self.recipe.joint.append((group, [self._count(node.shape) for node in group]))

    def _buffer(self, i: int, buffer: Buffer) -> None:
        pointer, gap = self.place[f"*buffer {i}"], self.place[f"row {i}"]
        if buffer.state is not None:
            return
        if buffer.given:
            rows = self.steps.rows if buffer.where is Where.STEP else self.steps.batch
            self.recipe.given.append(GivenPart(pointer, gap, buffer, concrete(buffer.shape, self.sizes), rows))
        elif buffer.where is Where.STEP:
            self.recipe.written.append((pointer, gap, buffer.node))
        else:
            self._scratch(i, buffer)

    def _scratch(self, i: int, buffer: Buffer) -> None:
        size, line = self.real.size, 4 * self.lanes  # whole quads of vectors: noise is written so
        if buffer.product is not None:
            product = self.loop.products[buffer.product]
            if buffer.gate == 0:
                gap = self._gate(product) * len(product.outputs) * size
                self._results = self._reserve(gap * self.steps.batch), gap
            start, gap = self._results
            self._in_workspace(f"*buffer {i}", start + buffer.gate * self._gate(product) * size)
            self._set(f"row {i}", gap)
            return
        width = -(-self._count(buffer.shape) // line) * line * size
        count = self.capacity if buffer.where is Where.LOCAL else self.steps.batch
        self._in_workspace(f"*buffer {i}", self._reserve(width * count))
        self._set(f"row {i}", width)

    def _gate(self, product: Product) -> int:
        """Numbers from one gate's results to the next's: whole vectors, and room for what a head's last vector leaves over."""
        units = -(-self._count(product.shape) // self.lanes) * self.lanes
        return units + self.lanes if product.blocks else units

    def _phase(self, i: int) -> int:
        """How a fused phase is cut into blocks of units and chunks of rows; returns the vectors of a block."""
        phase, panel = self.loop.phases[i], products.vectors_per_panel(self.cpu, self.real)
        gates = [len(product.outputs) for product in phase.products]
        units = -(-self._size(phase.products[0].shape[0]) // self.lanes)
        block = 1 if all(gate % panel == 0 for gate in gates) else panel  # whole panels
        rows = self.groups[1]
        while rows == 1 and min(gates) * block < 4 * panel and block < units:
            block *= 2  # one row takes several panels at once
        room = sum(gates) * block * self.lanes * self.real.size
        chunk = min(max(8, TILE_ROOM // room // 8 * 8), rows)
        for name, value in {f"block {i}": block, f"chunk {i}": chunk, f"tiles {i}": room * chunk}.items():
            self._set(name, value)
        self._in_workspace(f"*tiles {i}", self._reserve(room * chunk * self.capacity))
        return block

    def _matrices(self, product: Product, block: int | None) -> None:
        units = self._size(product.shape[-1])
        vectors = -(-units // self.lanes)
        gates = 1 if product.blocks else len(product.outputs)
        count = self._size(product.shape[0]) * len(product.outputs) if product.blocks else 1
        for pair, operand in enumerate(product.operands):
            inner = self._size(operand.shape[-1])
            vector = self.recipe.weights.rows(inner) * self.lanes * self.real.size
            size = -(-vectors * gates * vector // 64) * 64
            place = self._reserve(size * count)
            self._in_workspace(f"*matrix {product.number} {pair}", place)
            self._set(
                *((f"head {product.number} {pair}", size) if product.blocks else (f"vector {product.number} {pair}", vector))
            )
            numbers = (units, inner, block or max(vectors, 1))
            made = Packing(product.matrices[pair], *numbers, product.transposed, product.blocks, place, size)
            self.recipe.packings.append(made)


def team_for(
    schedule: Schedule, sizes: Sizes, steps: Steps, dtype: torch.dtype, threads: int, weights: str | None = None
) -> Team:
    """How a loop is split among at most so many threads."""
    real = REALS[str(dtype).removeprefix("torch.")]
    return choose_team(measure(schedule, sizes, steps, stored(real, weights).size, target().bits // real.bits), threads)
