"""Running compiled loops: what a call hands in is bound to a recipe, the kernels run, the results are taken out."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carousel.engines.cpu import kernel, threads
from carousel.engines.cpu import product as products
from carousel.engines.cpu.compile import Code, compiled
from carousel.engines.cpu.layout import build_loop
from carousel.engines.cpu.loop import Buffer, Loop, Where
from carousel.engines.cpu.printing import loop_text
from carousel.engines.cpu.recipe import Cook, GivenPart, Packing, Recipe, Steps, team_for
from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import Team
from carousel.engines.cpu.vectors import REALS, Real
from carousel.engines.cpu.workspace import LINE, Workspace
from carousel.engines.eager.execute import Begun, Executor, Run, Stack
from carousel.graph.kinds import Dense, Kind
from carousel.graph.node import Node
from carousel.graph.schedule import Schedule, Section
from carousel.graph.shapes import Sizes, concrete

_RECIPES = 64  # kept for each program: a training run on ragged batches meets new lengths at every step


@functools.cache
def tools(real: Real) -> tuple[int, Any]:
    """The address of `product`, and `pack` as a function, for a type of numbers."""
    cpu = target()
    code = compiled(lambda: products.build(cpu, real), ("product", real.name), cpu)
    words = [ctypes.c_int64] * 3
    pack = ctypes.CFUNCTYPE(None, *words, ctypes.c_void_p, *words, ctypes.c_void_p)(code.address("pack"))
    return code.address("product"), pack


def spread_rows(like: Tensor, rows: int, width: int) -> Tensor:
    """New memory for rows. Rows a power of two apart would all fall into the same few sets of a cache: a line more helps."""
    size = like.element_size()
    spare = LINE // size if width * size % 2048 == 0 else 0
    return like.new_empty((rows, width + spare))[:, :width]


@dataclass(frozen=True)
class Compiled:
    """A loop program and its machine code."""

    loop: Loop
    code: Code
    address: int
    names: tuple[str, ...]


class CpuExecutor(Executor):
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
        self._joint = self._joint_groups()

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

    def recipe(self, begun: Begun, team: Team | int, capacity: int) -> Recipe:
        """The layout of a call.

        Args:
            begun: what came before the loop.
            team: how it is split, or how many may share it.
            capacity: how many members may at most come.
        """
        like, sizes = next(iter(begun.carried.values())), begun.on.sizes
        shape = (tuple(begun.batch_sizes), begun.reverse, like.shape[0], tuple(sizes.items()))
        key = (*shape, like.dtype, team, capacity)
        found = self._recipes.get(key)
        if found is None:
            steps = Steps(begun.batch_sizes, like.shape[0], begun.reverse)
            if isinstance(team, int):
                team = team_for(self.schedule, sizes, steps, like.dtype, team)
            made = self.compiled(trajectory=steps.trajectory, fuse=team.columns, dtype=like.dtype)
            fixed = {"*product": tools(REALS[str(like.dtype).removeprefix("torch.")])[0]}
            found = Cook(made, steps, sizes, like.dtype, team, capacity, self._joint, fixed).recipe
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

    # --- what surrounds the loop --------------------------------------------------------------------------------------

    def _joint_groups(self) -> list[tuple[Node, ...]]:
        """Kept values that a product after the loop reads side by side: they are kept side by side."""
        kept, taken, found = set(self.schedule.kept), set[Node](), []
        for stage in self.schedule.sections[Section.AFTER]:
            for group in stage.groups:
                first = tuple(dict.fromkeys(node.args[0] for node in group.nodes))
                flat = len(first) == len(group.nodes) and all(len(node.shape) == 1 for node in first)
                if group.stacked and flat and kept.issuperset(first) and not taken & set(first):
                    taken |= set(first)
                    found.append(first)
        return found

    def _adjacent(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Sequence[int]] | None:
        order = sorted(range(len(tensors)), key=lambda i: tensors[i].storage_offset())
        first = tensors[order[0]]
        start, storage = first.storage_offset(), first.untyped_storage().data_ptr()
        for i in order:
            tensor = tensors[i]
            same = tensor.untyped_storage().data_ptr() == storage and tensor.stride() == first.stride()
            if not same or tensor.dim() != 2 or tensor.storage_offset() != start or tensor.stride(1) != 1:
                return None
            start += tensor.shape[1]
        width = start - first.storage_offset()
        if width > first.stride(0) and first.shape[0] > 1:
            return None
        return first.as_strided((first.shape[0], width), first.stride()), order

    def _one(self, kind: Kind, on: Any, arguments: Sequence[Any]) -> Any:
        """One node; a sum of products over operands that lie side by side is one product with a longer sum."""
        if isinstance(kind, Dense) and len(arguments) > 2:
            together = self._adjacent(arguments[1::2])
            if together is not None:
                joined, order = together
                matrices = [arguments[2 * i] for i in order]
                return joined @ (torch.cat(matrices) if kind.transposed else torch.cat(matrices, 1).mT)
        return super()._one(kind, on, arguments)

    def _together(self, kind: Kind, on: Any, stack: Stack, second: Any) -> Tensor:
        if stack.bias is None or second.dim() != 2:
            return super()._together(kind, on, stack, second)
        # The loop will keep other values in the place of these, and a product will read those: see `spread_rows`.
        out = spread_rows(second, second.shape[0], stack.joined.shape[0])
        return torch.addmm(stack.bias, second, stack.joined.mT, out=out)


class Call:
    """A loop that is about to run: its arguments, and the memory they point to.

    Args:
        executor: whose loop.
        begun: what came before the loop.
        team: how it is split, or how many may share it.
        capacity: how many members may at most come: there is room for each.
        consume: whether nobody will need the values again that the executor owns.
    """

    def __init__(self, executor: CpuExecutor, begun: Begun, team: Team | int, capacity: int, *, consume: bool = False) -> None:
        self.executor, self.begun, self.consume = executor, begun, consume
        self.like = next(iter(begun.carried.values()))
        self.recipe = executor.recipe(begun, team, capacity)
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
        for node, buffer in self.loop.kept.items():
            place = self.loop.instead.get(buffer)
            if place is not None and (self.consume or place.node not in self.executor.owned):
                part = next(part for part in self.recipe.given if part.buffer is place)
                self.kept[node] = taken[place] = self._given(part)
        for group, widths in self.recipe.joint:
            if not self.kept.keys() & set(group):
                joint = spread_rows(self.like, self.steps.rows, sum(widths))
                self.kept.update(zip(group, torch.split(joint, widths, 1), strict=True))
        for pointer, gap, node in self.recipe.written:
            if node not in self.kept:
                self.kept[node] = self.like.new_empty((self.steps.rows, *concrete(node.shape, self.begun.on.sizes)))
            self._point(pointer, gap, self.kept[node])
        for part in self.recipe.given:
            self._point(part.pointer, part.gap, taken[part.buffer] if part.buffer in taken else self._given(part))

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
        pack, size = tools(REALS[str(like.dtype).removeprefix("torch.")])[1], like.element_size()
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


def run_together(begun: Sequence[tuple[CpuExecutor, Begun]], team: Team | None = None, *, consume: bool = False) -> list[Run]:
    """Run several loops at once: the two directions of a layer.

    Args:
        begun: executors, and what came before their loops.
        team: how each loop is split; chosen by the work and torch's number of threads if None.
        consume: whether nobody will need the values again that the executors own.
    """
    available = len(begun) * team.members if team else threads.default_threads()
    each = max(1, available // max(1, len(begun)))
    calls = [Call(executor, what, team or each, available, consume=consume) for executor, what in begun]
    jobs = [call.job() for call in calls if call.steps.rows]
    total = min(available, sum(call.team.members for call in calls if call.steps.rows))
    if jobs:
        threads.run(jobs, total)
    return [executor.finish(what, *call.finish()) for (executor, what), call in zip(begun, calls, strict=True)]
