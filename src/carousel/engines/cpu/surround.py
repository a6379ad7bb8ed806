"""What stands before and after a compiled loop: products and sums over the rows of all steps.

What a product reads side by side is kept side by side, so nothing is copied before it; all gates' gradients make one product
with the inputs, and the sums for the biases are taken on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from carousel.engines.cpu import outside
from carousel.engines.cpu.noise import noise_around
from carousel.engines.cpu.workspace import LINE
from carousel.engines.eager.execute import Executor, Instruction, Stack
from carousel.graph.kinds import Dense, Kind, Noise, Total, TotalOuter
from carousel.graph.node import Node
from carousel.graph.schedule import Schedule, Section


def spread_rows(like: Tensor, rows: int, width: int) -> Tensor:
    """New memory for rows. Rows a power of two apart would all fall into the same few sets of a cache: a line more helps."""
    size = like.element_size()
    spare = LINE // size if width * size % 2048 == 0 else 0
    return like.new_empty((rows, width + spare))[:, :width]


class Surround(Executor):
    """The parts of a schedule around its loop.

    Args:
        schedule: what to run.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self._joint = self._joint_groups()
        self._totals = self._take_totals()

    def _joint_groups(self) -> list[tuple[Node, ...]]:
        """Kept values that a product after the loop reads side by side: they are kept side by side.

        Two products that share some of them get a row of theirs: what only the first reads, what both read, and the rest.
        """
        kept, found = set(self.schedule.kept), list[tuple[Node, ...]]()
        single: set[int] = set()  # groups that one product alone reads
        for stage in self.schedule.sections[Section.AFTER]:
            for group in stage.groups:
                first = tuple(dict.fromkeys(node.args[0] for node in group.nodes))
                flat = len(first) == len(group.nodes) and all(len(node.shape) == 1 for node in first)
                if not (group.stacked and flat and kept.issuperset(first)):
                    continue
                meets = [i for i, other in enumerate(found) if set(other) & set(first)]
                if not meets:
                    single.add(len(found))
                    found.append(first)
                elif len(meets) == 1 and meets[0] in single and set(found[meets[0]]) != set(first):
                    other = found[meets[0]]
                    both = [node for node in other if node in first]
                    ahead = [node for node in other if node not in first]
                    found[meets[0]] = (*ahead, *both, *(node for node in first if node not in other))
                    single.discard(meets[0])
        return found

    def _take_totals(self) -> dict[tuple[int, ...], list[tuple[int, int]]]:
        """Sums of what a product reads as well, by that product's results: the sum's slot, and whose sum it is.

        They are taken out of the instructions.
        """
        calls = self._calls[Section.AFTER]
        read = {slot for call in calls for slot in call.arguments}
        sums: dict[Node, Instruction] = {}
        for call in calls:
            node = call.group.nodes[0]
            if isinstance(node.kind, Total) and len(call.group.nodes) == 1 and call.results[0] not in read:
                sums.setdefault(node.args[0], call)
        found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for call in calls:
            nodes = call.group.nodes
            if not isinstance(nodes[0].kind, TotalOuter) or any(len(node.args[0].shape) != 1 for node in nodes):
                continue
            mine = [(i, sums.pop(node.args[0])) for i, node in enumerate(nodes) if node.args[0] in sums]
            if mine:
                found[call.results] = [(total.results[0], i) for i, total in mine]
        taken = {slot for pairs in found.values() for slot, _ in pairs}
        self._calls[Section.AFTER] = [call for call in calls if call.results[0] not in taken]
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

    def _call(self, call: Instruction, stack: Stack | None, values: list[Any], on: Any) -> None:
        kind = call.group.nodes[0].kind
        if not isinstance(kind, TotalOuter):
            super()._call(call, stack, values, on)
            return
        left = values[call.arguments[0]] if stack is None else stack.joined
        right = values[call.arguments[1]]
        wanted = self._totals.get(call.results, ())
        total = left.new_empty(left.shape[-1]) if wanted else None
        # Where only parameters meet, there is no axis of rows.
        pair = [value.reshape(-1, value.shape[-1]) for value in (left, right)]
        product = outside.outer(*pair, total=total)
        if stack is None:
            values[call.results[0]] = product
            parts, order = [total], {0: 0}
        else:
            for i, part in zip(stack.order, torch.split(product, stack.parts), strict=True):
                values[call.results[i]] = part
            parts = [] if total is None else list(torch.split(total, stack.parts))
            order = {i: at for at, i in enumerate(stack.order)}
        for slot, i in wanted:
            values[slot] = parts[order[i]]

    def _one(self, kind: Kind, on: Any, arguments: Sequence[Any]) -> Any:
        """One node; a sum of products over operands that lie side by side is one product with a longer sum."""
        if isinstance(kind, Dense) and all(vector.dim() == 2 for vector in arguments[1::2]):
            matrices, joined = list(arguments[::2]), arguments[1]
            if len(matrices) > 1:
                together = self._adjacent(arguments[1::2])
                if together is None:
                    return super()._one(kind, on, arguments)
                joined, order = together
                matrices = [torch.cat([matrices[i] for i in order], 0 if kind.transposed else 1)]
            return outside.linear(joined, matrices[0].mT if kind.transposed else matrices[0])
        if isinstance(kind, Noise):
            return noise_around(kind, arguments, on.sizes, on.dtype)
        return super()._one(kind, on, arguments)

    def _together(self, kind: Kind, on: Any, stack: Stack, second: Any) -> Tensor:
        if not isinstance(kind, Dense) or second.dim() != 2:
            return super()._together(kind, on, stack, second)
        matrix = stack.joined.mT if kind.transposed else stack.joined
        # The loop will keep other values in the place of these, and a product will read those: see `spread_rows`.
        out = None if stack.bias is None else spread_rows(second, second.shape[0], matrix.shape[0])
        return outside.linear(second, matrix, stack.bias, out=out)
