"""Runs a scheduled program over time with torch operations.

Rows are packed: step `t` has ``batch_sizes[t]`` rows, the rows of all steps lie one after another, and a sequence keeps its
place in the batch, the longest first. So finished sequences cost nothing, and padding is never seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from carousel.engines.packing import places
from carousel.graph.kinds import Constant, Dense, Elementwise, Kind, TotalByRow
from carousel.graph.kinds.base import Eager
from carousel.graph.node import Node, users
from carousel.graph.program import Level
from carousel.graph.schedule import Group, Schedule, Section, Stage
from carousel.graph.shapes import Sizes, concrete

Value = Any  # a tensor; a Python number for constants


class Run(NamedTuple):
    """What running a program gives.

    Attributes:
        emitted: by name, the rows of all steps, (sum of batch_sizes, ...).
        carried: by name, what the last step of each row left, (B, ...).
        totals: by name, sums over all steps and rows.
    """

    emitted: dict[str, Tensor]
    carried: dict[str, Tensor]
    totals: dict[str, Tensor]


class Begun(NamedTuple):
    """A run whose loop is still to come.

    Attributes:
        values: of each node, by slot.
        on: what eager forms use.
        carried: by name, what each row starts with.
        batch_sizes: the rows of each step.
        reverse: whether it runs from the last step to the first.
    """

    values: list[Value]
    on: Eager
    carried: Mapping[str, Tensor]
    batch_sizes: Sequence[int]
    reverse: bool


@dataclass(frozen=True)
class Instruction:
    """One call: `group` computed from the slots of its arguments, into the slots of its nodes.

    Attributes:
        group: what is computed.
        arguments: the slots of the first node's arguments.
        results: the slots of the nodes; where a bias is added at once, of the sums.
        biases: the slots of the biases that are added at once, one for each node.
    """

    group: Group
    arguments: tuple[int, ...]
    results: tuple[int, ...]
    biases: tuple[int, ...] = ()


class Stack(NamedTuple):
    """First operands of a group as one, found before it is computed.

    Attributes:
        joined: the operand.
        parts: how much of the result each node has.
        order: which node has which part.
        bias: what is added, or None.
    """

    joined: Tensor
    parts: list[int]
    order: Sequence[int]
    bias: Tensor | None = None


class Executor:
    """Runs one schedule. Made once for a cell, used for any sizes, dtype and device.

    Args:
        schedule: what to run.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.program = schedule.program
        level = self.program.levels()
        everything = [*self.program.nodes, *self.program.known]
        self._level = level
        self._readers = users(self.program.nodes, stop=self.program.known)
        self._results = set(self.program.results)
        self._slot = {node: i for i, node in enumerate(dict.fromkeys(everything))}
        # Constant over time, but not the same for every row: each section that runs on the rows of all steps reads a copy of
        # it spread over them, from a slot of its own.
        by_row = [node for node in self._slot if node.rows and level[node] is Level.ONCE]
        self._spread = {node: len(self._slot) + i for i, node in enumerate(by_row)}
        self._calls = {section: self._compile(section) for section in Section}
        in_loop = {node for stage in schedule.sections[Section.LOOP] for node in self._nodes(stage)}
        carried = {c.before for c in self.program.carried.values()}
        read = {arg for node in in_loop for arg in node.args} | {c.after for c in self.program.carried.values()}
        self._read_by_loop = [n for n in read if n not in in_loop and n not in carried]
        wide = (Section.BEFORE, Section.AFTER)
        spread = {arg for s in wide for stage in schedule.sections[s] for n in self._nodes(stage) for arg in n.args}
        # Whether a node needs to know to which row of the batch each packed row belongs.
        self._needs_rows = bool(by_row) or any(isinstance(node.kind, TotalByRow) for node in self.program.nodes)
        self._to_spread = [n for n in by_row if n in spread or n in self.program.emitted.values()]

    def run(
        self,
        given: Mapping[Node, Tensor],
        carried: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        sizes: Sizes,
        *,
        reverse: bool = False,
    ) -> Run:
        """Run the program over all steps.

        Args:
            given: the value of each given node: parameters as they are, others packed, (sum of batch_sizes, ...).
            carried: what each row starts with, (B, ...). Rows beyond ``batch_sizes[0]`` have no steps and keep it.
            batch_sizes: the rows of each step, never growing.
            sizes: the size of each axis letter.
            reverse: run from each row's last step to its first.

        Returns:
            What the program emits, carries out and sums up.
        """
        begun = self.begin(given, carried, batch_sizes, sizes, reverse=reverse)
        return self.finish(begun, *self._loop(begun.values, carried, batch_sizes, begun.on, reverse))

    def begin(
        self,
        given: Mapping[Node, Tensor],
        carried: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        sizes: Sizes,
        *,
        reverse: bool = False,
    ) -> Begun:
        """Run what comes before the loop; arguments as for `run`."""
        like = next(iter(carried.values()))
        on = Eager(torch, sizes, like.dtype, like.shape[0], self._row_of(batch_sizes, like))
        values: list[Value] = [None] * (len(self._slot) + len(self._spread))
        for node, tensor in given.items():
            if node in self._slot:
                values[self._slot[node]] = tensor
        self._do(Section.ONCE, values, on)
        for node in self._to_spread:
            values[self._spread[node]] = values[self._slot[node]].index_select(0, on.row_of)
        self._do(Section.BEFORE, values, on)
        return Begun(values, on, carried, batch_sizes, reverse)

    def finish(self, begun: Begun, final: dict[str, Tensor], kept: dict[Node, Tensor]) -> Run:
        """Run what comes after the loop.

        Args:
            begun: what `begin` returned.
            final: by name, what the last step of each row left.
            kept: the values of all steps that the loop kept.

        Returns:
            As for `run`.
        """
        values, on, like = begun.values, begun.on, next(iter(begun.carried.values()))
        for node, tensor in kept.items():
            values[self._slot[node]] = tensor
        total_rows = sum(begun.batch_sizes)
        if total_rows:
            self._do(Section.AFTER, values, on)
            self._do(Section.FINISH, values, on)
        emitted = {
            name: self._rows(values[self._spread.get(node, self._slot[node])], node, total_rows, on, like)
            for name, node in self.program.emitted.items()
        }
        totals = {}
        for name, node in self.program.totals.items():
            value = values[self._slot[node]]
            if not isinstance(value, Tensor):  # nothing depends on it, or no step ran
                value = like.new_zeros((*([on.batch] if node.rows else []), *concrete(node.shape, on.sizes)))
            totals[name] = value
        return Run(emitted, final, totals)

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _loop(
        self,
        values: list[Value],
        start: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        on: Eager,
        reverse: bool,
    ) -> tuple[dict[str, Tensor], dict[Node, Tensor]]:
        names = list(self.program.carried)
        before = [self._slot[self.program.carried[name].before] for name in names]
        after = [self.program.carried[name].after for name in names]
        state = [start[name] for name in names]
        waiting: list[list[Tensor]] = [[] for _ in names]  # finished rows (forwards), in the order they finished
        kept: dict[Node, list[Tensor]] = {node: [] for node in self.schedule.kept}
        pieces = self._pieces(values, batch_sizes)
        whole = [(slot, values[slot]) for slot, _ in pieces]
        calls = self._calls[Section.LOOP]
        stacks = [self._stack(call, values) for call in calls]  # what is stacked there is known before the loop

        rows = state[0].shape[0] if not reverse else (batch_sizes[-1] if batch_sizes else 0)
        if reverse:
            state = [tensor[:rows] for tensor in state]
        order = range(len(batch_sizes) - 1, -1, -1) if reverse else range(len(batch_sizes))
        for t in order:
            count = batch_sizes[t]
            if count < rows:
                for i, tensor in enumerate(state):
                    waiting[i].append(tensor[count:])
                    state[i] = tensor[:count]
            elif count > rows:
                state = [torch.cat([s, start[name][rows:count]]) for s, name in zip(state, names, strict=True)]
            rows = count
            for slot, tensor in zip(before, state, strict=True):
                values[slot] = tensor
            for slot, piece in pieces:
                values[slot] = piece[t]
            for call, stack in zip(calls, stacks, strict=True):
                self._call(call, stack, values, on)
            for node, collected in kept.items():
                collected.append(self._rows(values[self._slot[node]], node, rows, on, state[0]))
            state = [self._rows(values[self._slot[node]], node, rows, on, old) for node, old in zip(after, state, strict=True)]
        for slot, value in whole:  # the section after the loop reads all steps again
            values[slot] = value
        if reverse:
            final = [torch.cat([s, start[name][rows:]]) for s, name in zip(state, names, strict=True)]
        else:
            final = [torch.cat([s, *reversed(w)]) if w else s for s, w in zip(state, waiting, strict=True)]
        packed = {node: self._pack(node, parts, on, state[0], reverse) for node, parts in kept.items()}
        return dict(zip(names, final, strict=True)), packed

    def _pieces(self, values: list[Value], batch_sizes: Sequence[int]) -> list[tuple[int, Sequence[Tensor]]]:
        """Cut what the loop reads, and was computed for all steps at once, into steps."""
        cut: list[tuple[int, Sequence[Tensor]]] = []
        for node in self._read_by_loop:
            slot = self._slot[node]
            value = values[slot]
            if node in self._spread:
                cut.append((slot, [value[:count] for count in batch_sizes]))
            elif node.rows and isinstance(value, Tensor):
                cut.append((slot, torch.split(value, list(batch_sizes))))
        return cut

    def _row_of(self, batch_sizes: Sequence[int], like: Tensor) -> Tensor | None:
        """For each packed row, its place in the batch; only where a node needs it."""
        if not self._needs_rows:
            return None
        return places(torch.tensor(batch_sizes, dtype=torch.long, device=like.device))[1]

    @staticmethod
    def _pack(node: Node, parts: list[Tensor], on: Eager, like: Tensor, reverse: bool) -> Tensor:
        if not parts:
            return like.new_zeros((0, *concrete(node.shape, on.sizes)))
        return torch.cat(parts[::-1] if reverse else parts)

    @staticmethod
    def _rows(value: Value, node: Node, rows: int, on: Eager, like: Tensor) -> Tensor:
        """A value as a tensor with rows, even if the equations made it a number, a parameter, or nothing at all."""
        if node.rows and isinstance(value, Tensor):
            return value
        shape = (rows, *(concrete(node.shape, on.sizes) or like.shape[1:]))
        if value is None:  # no step ran
            return like.new_zeros(shape)
        return value.expand(shape) if isinstance(value, Tensor) else like.new_full(shape, value)

    # --- instructions -------------------------------------------------------------------------------------------------

    def _compile(self, section: Section) -> list[Instruction]:
        calls = []
        wide = self._spread if section in (Section.BEFORE, Section.AFTER) else {}
        for stage in self.schedule.sections[section]:
            sums = self._sums(stage)
            done = {sums[node][0] for node in sums}
            for group in [*stage.groups, *(Group((node,)) for node in stage.region if node not in done)]:
                arguments = tuple(wide.get(arg, self._slot[arg]) for arg in group.nodes[0].args)
                with_bias = [sums[node] for node in group.nodes if node in sums]
                if len(with_bias) == len(group.nodes):
                    results = tuple(self._slot[total] for total, _ in with_bias)
                    calls.append(Instruction(group, arguments, results, tuple(self._slot[bias] for _, bias in with_bias)))
                else:
                    calls.append(Instruction(group, arguments, tuple(self._slot[node] for node in group.nodes)))
        return calls

    def _sums(self, stage: Stage) -> dict[Node, tuple[Node, Node]]:
        """Products that only a sum with a bias reads, where that holds for a whole group: the sum and the bias."""
        found: dict[Node, tuple[Node, Node]] = {}
        for group in stage.groups:
            pairs = [self._sum(node, stage) for node in group.nodes]
            if all(pair is not None for pair in pairs):
                found.update({node: pair for node, pair in zip(group.nodes, pairs, strict=True) if pair is not None})
        return found

    def _sum(self, node: Node, stage: Stage) -> tuple[Node, Node] | None:
        readers = self._readers[node]
        if node.kind != Dense() or len(node.args) != 2 or len(readers) != 1 or node in self._results:
            return None
        total = readers[0]
        if total.kind != Elementwise("add") or len(total.args) != 2 or total not in stage.region:
            return None
        bias = total.args[1] if total.args[0] is node else total.args[0]
        constant = self._level[bias] is Level.ONCE and not bias.rows and not isinstance(bias.kind, Constant)
        return (total, bias) if constant and bias.shape == node.shape and len(bias.shape) == 1 else None

    @staticmethod
    def _nodes(stage: Any) -> list[Node]:
        return [*itertools.chain.from_iterable(group.nodes for group in stage.groups), *stage.region]

    def _do(self, section: Section, values: list[Value], on: Eager) -> None:
        for call in self._calls[section]:
            self._call(call, self._stack(call, values), values, on)

    def _stack(self, call: Instruction, values: list[Value]) -> Stack | None:
        """For a call on several nodes: their first operands joined, and how long each is."""
        if not call.group.stacked and not call.biases:
            return None
        first = [values[self._slot[node.args[0]]] for node in call.group.nodes]
        axis, _ = call.group.nodes[0].kind.stacking or (0, 0)
        parts = [operand.shape[axis] for operand in first]
        order: Sequence[int] = range(len(first))
        if len(first) == 1:
            return Stack(first[0], parts, order, values[call.biases[0]])
        bias = torch.cat([values[slot] for slot in call.biases]) if call.biases else None
        together = self._adjacent(first) if axis == -1 else None
        if together is not None:
            joined, order = together
            return Stack(joined, [parts[i] for i in order], order, bias)
        return Stack(torch.cat(first, axis), parts, order, bias)

    def _adjacent(self, tensors: Sequence[Tensor]) -> tuple[Tensor, Sequence[int]] | None:  # noqa: ARG002 - see below
        """Tensors that lie side by side as one, and in which order they lie; None to copy them, as autograd needs it here."""
        return None

    def _call(self, call: Instruction, stack: Stack | None, values: list[Value], on: Eager) -> None:
        kind = call.group.nodes[0].kind
        if stack is None:
            values[call.results[0]] = self._one(kind, on, [values[slot] for slot in call.arguments])
            return
        together = self._together(kind, on, stack, values[call.arguments[1]])
        for i, part in zip(stack.order, torch.split(together, stack.parts, (kind.stacking or (0, 0))[1]), strict=True):
            values[call.results[i]] = part

    def _one(self, kind: Kind, on: Eager, arguments: Sequence[Value]) -> Value:
        """One node."""
        return kind.eager(on, *arguments)

    def _together(self, kind: Kind, on: Eager, stack: Stack, second: Value) -> Tensor:
        """Several nodes at once."""
        if stack.bias is not None:
            return torch.nn.functional.linear(second, stack.joined, stack.bias)
        result: Tensor = kind.eager(on, stack.joined, second)
        return result
