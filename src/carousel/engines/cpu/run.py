"""Running compiled loops: what a call hands in is bound to a recipe, the kernels run, the results are taken out."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carousel.engines.cpu import kernel, outside, threads
from carousel.engines.cpu.compile import Code, compiled
from carousel.engines.cpu.layout import build_loop
from carousel.engines.cpu.loop import Buffer, Loop, Where
from carousel.engines.cpu.own import tools
from carousel.engines.cpu.printing import loop_text
from carousel.engines.cpu.recipe import Cook, GivenPart, Packing, Recipe, Steps, team_for
from carousel.engines.cpu.surround import Surround, spread_rows
from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import Team
from carousel.engines.cpu.vectors import REALS
from carousel.engines.cpu.weights import TILES
from carousel.engines.cpu.workspace import Workspace
from carousel.engines.eager.execute import Begun, Run
from carousel.graph.node import Node
from carousel.graph.schedule import Schedule
from carousel.graph.shapes import Sizes, concrete

_RECIPES = 64  # kept for each program: a training run on ragged batches meets new lengths at every step


@dataclass(frozen=True)
class Compiled:
    """A loop program and its machine code."""

    loop: Loop
    code: Code
    address: int
    names: tuple[str, ...]


class CpuExecutor(Surround):
    """Runs a schedule whose loop is compiled. What comes before and after the loop runs as in the eager engine.

    Args:
        schedule: what to run; `lowering.unsupported` says whether its loop can be compiled.
        owned: given values whose memory may be used for kept ones, in calls that allow it.
    """

    def __init__(self, schedule: Schedule, owned: frozenset[Node] = frozenset()) -> None:
        super().__init__(schedule)
        self.owned = owned
        self._compiled: dict[tuple[bool, bool, torch.dtype], Compiled] = {}
        self._recipes: dict[object, Recipe] = {}

    def compiled(self, *, trajectory: bool, fuse: bool, dtype: torch.dtype) -> Compiled:
        """The loop's machine code: in memory, on disk, or compiled now."""
        key = (trajectory, fuse, dtype)
        if key not in self._compiled:
            real, cpu = REALS[str(dtype).removeprefix("torch.")], target()
            loop = build_loop(self.schedule, trajectory=trajectory, fuse=fuse, owned=self.owned)
            code = compiled(lambda: kernel.build(loop, cpu, real), ("loop", real.name, loop_text(loop)), cpu)
            names = tuple(kernel.argument_names(loop))
            self._compiled[key] = Compiled(loop, code, code.address(kernel.NAME), names)
        return self._compiled[key]

    def recipe(self, begun: Begun, team: Team | int, capacity: int, weights: str | None = None) -> Recipe:
        """The layout of a call.

        Args:
            begun: what came before the loop.
            team: how it is split, or how many may share it.
            capacity: how many members may at most come.
            weights: the type in which weights are stored; None for that of the numbers.
        """
        like, sizes = next(iter(begun.carried.values())), begun.on.sizes
        shape = (tuple(begun.batch_sizes), begun.reverse, like.shape[0], tuple(sizes.items()))
        key = (*shape, like.dtype, team, capacity, weights)
        found = self._recipes.get(key)
        if found is None:
            steps = Steps(begun.batch_sizes, like.shape[0], begun.reverse)
            if isinstance(team, int):
                team = team_for(self.schedule, sizes, steps, like.dtype, team, weights)
            # In tiles, every product rounds and lays its rows together first: blocks of units would do so again and again.
            fuse = team.columns and weights != TILES.name
            made = self.compiled(trajectory=steps.trajectory, fuse=fuse, dtype=like.dtype)
            fixed = {"*product": tools(REALS[str(like.dtype).removeprefix("torch.")], weights)[0]}
            found = Cook(made, steps, sizes, like.dtype, team, capacity, self._joint, fixed, weights).recipe
            if len(self._recipes) >= _RECIPES:
                self._recipes.pop(next(iter(self._recipes)), None)
            self._recipes[key] = found
        return found

    def run(
        self,
        given: Mapping[Node, Tensor],
        carried: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        sizes: Sizes,
        *,
        reverse: bool = False,
        team: Team | None = None,
    ) -> Run:
        """As the eager executor's; `team` forces how the work is split."""
        begun = self.begin(given, carried, batch_sizes, sizes, reverse=reverse)
        return run_together([(self, begun)], team)[0]

    def value(self, begun: Begun, node: Node) -> Any:
        """A value that was found before the loop."""
        return begun.values[self._slot[node]]


class Call:
    """A loop that is about to run: its arguments, and the memory they point to.

    Args:
        executor: whose loop.
        begun: what came before the loop.
        team: how it is split, or how many may share it.
        capacity: how many members may at most come: there is room for each.
        consume: whether nobody will need the values again that the executor owns.
        weights: the type in which the loop's weights are stored; None for that of the numbers.
    """

    def __init__(
        self,
        executor: CpuExecutor,
        begun: Begun,
        team: Team | int,
        capacity: int,
        *,
        consume: bool = False,
        weights: str | None = None,
    ) -> None:
        self.executor, self.begun, self.consume = executor, begun, consume
        self.like = next(iter(begun.carried.values()))
        self.recipe = executor.recipe(begun, team, capacity, weights)
        self.steps, self.team, self.loop = self.recipe.steps, self.recipe.team, self.recipe.compiled.loop
        self.arguments = self.recipe.template.copy()
        self.held: list[Tensor] = []  # what the arguments point to
        self.states: dict[str, Tensor] = {}
        self.kept: dict[Node, Tensor] = {}
        self._states()
        self._kept_and_given()
        self.workspace = Workspace(self.recipe.room)
        for at, offset in self.recipe.scratch:
            self.arguments[at] = self.workspace.address + offset
        for packing in self.recipe.packings:
            self._pack(packing)

    def job(self) -> tuple[int, int]:
        """The kernel's and its arguments' address."""
        return self.recipe.compiled.address, self.arguments.ctypes.data

    @property
    def numbers(self) -> dict[str, int]:
        """The kernel's arguments by name."""
        return dict(zip(self.recipe.compiled.names, self.arguments.tolist(), strict=True))

    def _states(self) -> None:
        B = self.steps.batch
        for name, (rows, width, places) in self.recipe.states.items():
            memory = self.like.new_empty((rows, width))
            start = memory[self.recipe.start[name]]
            # In turn, rows that have ended, or not begun, are found in either place.
            (start.view(-1, B, width) if B else start).copy_(self.begun.carried[name].detach().reshape(B, width))
            self.states[name] = memory
            self.arguments[list(places)] = memory.data_ptr()

    def _kept_and_given(self) -> None:
        taken: dict[Buffer, Tensor] = {}
        # Values that lie side by side take the place of others all together or not at all.
        apart = {n for group, _ in self.recipe.joint if not self._places(group) for n in group}
        for node, buffer in self.loop.kept.items():
            place = self.loop.instead.get(buffer)
            if place is not None and node not in apart and (self.consume or place.node not in self.executor.owned):
                part = next(part for part in self.recipe.given if part.buffer is place)
                self.kept[node] = taken[place] = self._given(part)
        for group, widths in self.recipe.joint:
            if not self.kept.keys() & set(group):
                joint = spread_rows(self.like, self.steps.rows, sum(widths))
                parts = torch.split(joint, [widths[i] for i in self._order(group)], 1)
                self.kept.update(zip([group[i] for i in self._order(group)], parts, strict=True))
        for pointer, gap, node in self.recipe.written:
            if node not in self.kept:
                self.kept[node] = self.like.new_empty((self.steps.rows, *concrete(node.shape, self.begun.on.sizes)))
            self._point(pointer, gap, self.kept[node])
        for part in self.recipe.given:
            self._point(part.pointer, part.gap, taken[part.buffer] if part.buffer in taken else self._given(part))

    def _places(self, group: Sequence[Node]) -> list[Tensor]:
        """The values whose place these would take, if they lie side by side as these shall; else none."""
        instead = [self.loop.instead.get(self.loop.kept[node]) for node in group]
        values = [self.executor.value(self.begun, place.node) for place in instead if place is not None]
        tensors = [value for value in values if isinstance(value, Tensor)]
        one = len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
        return tensors if one and len(tensors) == len(group) else []

    def _order(self, group: Sequence[Node]) -> list[int]:
        """The order in which values would lie if they took the place of others: sums over them then have the same bits."""
        places = self._places(group)
        return sorted(range(len(group)), key=lambda i: places[i].storage_offset()) if places else list(range(len(group)))

    def _point(self, pointer: int, gap: int, tensor: Tensor) -> None:
        self.held.append(tensor)
        self.arguments[pointer] = tensor.data_ptr()
        self.arguments[gap] = (tensor.stride(0) if tensor.dim() else 0) * tensor.element_size()

    def _given(self, part: GivenPart) -> Tensor:
        """A value from outside, each row in one piece."""
        value = self.executor.value(self.begun, part.buffer.node)
        dtype = torch.long if part.buffer.whole else self.like.dtype
        if not isinstance(value, Tensor):
            value = self.like.new_full((), float(value))
        value = value.detach()
        if value.dtype is not dtype:
            value = value.to(dtype)
        if part.buffer.where is Where.ONCE:
            return value.expand(part.shape).contiguous()
        if tuple(value.shape) != (part.rows, *part.shape):
            value = value.expand(part.rows, *part.shape)
        inner = 1
        for size, stride in zip(reversed(value.shape[1:]), reversed(value.stride()[1:]), strict=True):
            if size != 1 and stride != inner:
                return value.contiguous()
            inner *= size
        return value

    def _pack(self, packing: Packing) -> None:
        like = self.like
        real = REALS[str(like.dtype).removeprefix("torch.")]
        pack, size = tools(real, self.recipe.weights.name)[1], real.size
        tensors = [self.executor.value(self.begun, node).detach().to(like.dtype) for node in packing.matrices]
        first = tensors[0].stride()[-2:]
        if any(tensor.stride()[-2:] != first for tensor in tensors):
            tensors = [tensor.contiguous() for tensor in tensors]
        o, k = (-1, -2) if packing.transposed else (-2, -1)
        strides = tensors[0].stride(o) * size, tensors[0].stride(k) * size
        numbers, place = (packing.units, packing.inner), self.workspace.address + packing.place
        if not packing.heads:
            addresses = (ctypes.c_int64 * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
            pack(len(tensors), *numbers, addresses, *strides, packing.block, place)
            return
        for tensor in tensors:
            for head in range(tensor.shape[0]):
                address = (ctypes.c_int64 * 1)(tensor.data_ptr() + head * tensor.stride(0) * size)
                pack(1, *numbers, address, *strides, packing.block, place)
                place += packing.gap

    # --- results ------------------------------------------------------------------------------------------------------

    def finish(self) -> tuple[dict[str, Tensor], dict[Node, Tensor]]:
        """Final states and kept values, after the loop."""
        self.workspace.close()
        steps, sizes = self.steps, self.begun.on.sizes
        B = steps.batch
        final = {}
        for name, (before, _) in self.loop.states.items():
            memory, shape = self.states[name], (B, *concrete(before.shape, sizes))
            line = name in self.loop.trajectory
            if steps.full:
                start = (0 if steps.reverse else steps.rows) if line else steps.count % 2 * B
                final[name] = memory[start : start + B].clone().view(shape)  # a view would keep all steps alive
            else:
                final[name] = memory.index_select(0, self.recipe.last[line]).view(shape)
        kept = dict(self.kept)
        for node, buffer in self.loop.kept.items():
            if buffer.state is not None:
                kept[node] = self._line(buffer).view(steps.rows, *concrete(node.shape, sizes))
        return final, kept

    def _line(self, buffer: Buffer) -> Tensor:
        """A state before or after all steps, as rows of all steps."""
        memory, steps = self.states[str(buffer.state)], self.steps
        after = buffer.where is Where.AFTER
        if steps.reverse:
            return memory[: steps.rows] if after else memory[steps.batch :]
        if after:
            return memory[steps.batch :]
        return memory[: steps.rows] if self.recipe.before is None else memory.index_select(0, self.recipe.before)


def run_together(
    begun: Sequence[tuple[CpuExecutor, Begun]],
    team: Team | None = None,
    *,
    consume: bool = False,
    weights: str | None = None,
) -> list[Run]:
    """Run several loops at once: the two directions of a layer.

    Args:
        begun: executors, and what came before their loops.
        team: how each loop is split; chosen by the work and torch's number of threads if None.
        consume: whether nobody will need the values again that the executors own.
        weights: the type in which the loops' weights are stored; None for that of the numbers, or for tiles where products may
            be rounded.
    """
    if (
        weights is None
        and outside.rounded_in_loops()
        and all(next(iter(what.carried.values())).dtype is torch.float32 for _, what in begun)
    ):
        weights = TILES.name
    available = len(begun) * team.members if team else threads.default_threads()
    each = max(1, available // max(1, len(begun)))
    calls = [Call(executor, what, team or each, available, consume=consume, weights=weights) for executor, what in begun]
    jobs = [call.job() for call in calls if call.steps.rows]
    total = min(available, sum(call.team.members for call in calls if call.steps.rows))
    if jobs:
        threads.run(jobs, total)
    return [executor.finish(what, *call.finish()) for (executor, what), call in zip(begun, calls, strict=True)]
