"""Compiled loops as torch operators, for what traces a model instead of running it: `torch.compile`, `torch.export`.

One operator runs a layer in all its directions on a padded batch, whatever T: packing depends on the lengths' values, so it
happens inside. What the backward operator needs comes out beside the results, as tensors of its own, since a traced graph has
no other way to hand anything on.
"""

from __future__ import annotations

import functools
import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carousel.engines.call import Call
from carousel.engines.cpu.engine import Spread, alone, backward, saving
from carousel.engines.cpu.programs import programs
from carousel.engines.packing import Packing, ambient, packing
from carousel.errors import KernelUnavailable, explain
from carousel.graph.kinds import Constant, Leaf
from carousel.graph.node import Node
from carousel.graph.shapes import concrete
from carousel.graph.step import Step

# By name, one step for all layers that have its equations. A traced graph may outlive its layer, so they stay.
_steps: dict[str, Step] = {}
_names: weakref.WeakKeyDictionary[Step, str] = weakref.WeakKeyDictionary()  # the layers of a stack share a step


def know(step: Step) -> str:
    """Make a step known to the operators; returns its name, the same in every process for the same equations."""
    if step in _names:
        return _names[step]
    number: dict[Node, int] = {}
    lines = [type(step.cell).__name__]
    for node in step.nodes:
        number[node] = len(number)
        args = ",".join(str(number[arg]) for arg in node.args)
        kind = (node.kind.role.value, node.kind.name, node.kind.axes) if isinstance(node.kind, Leaf) else node.kind
        lines.append(f"{kind!r}({args})")
    lines += [f"{name}={number[node]}" for name, node in step.new_states.items() if not isinstance(node.kind, Constant)]
    name = f"{type(step.cell).__name__}-{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:24]}"
    _steps.setdefault(name, step)
    _names[step] = name
    return name


def spec(step: Step, sizes: dict[str, int], directions: Sequence[tuple[bool, int]], *, counted: bool) -> str:
    """What an operator is told about a layer.

    Args:
        step: the traced cell.
        sizes: the size of each axis letter, without those that only a context has.
        directions: for each, whether it runs backwards, and its number among all layers and directions.
        counted: whether it is told how many steps each sequence has behind it.
    """
    words = {"step": know(step), "sizes": sizes, "directions": directions, "counted": counted}
    return json.dumps(words, sort_keys=True)


@dataclass(frozen=True)
class _Layer:
    """A layer as an operator sees it."""

    step: Step
    sizes: dict[str, int]
    directions: list[tuple[bool, int]]
    counted: bool

    @property
    def groups(self) -> list[tuple[str, list[str]]]:
        """The tensors of a direction, by kind and name, in order."""
        step = self.step
        kinds = {"inputs": step.inputs, "states": step.states, "parameters": step.parameters, "context": step.context}
        return [(kind, list(names)) for kind, names in kinds.items()]

    @property
    def count(self) -> int:
        """How many tensors a direction has."""
        return sum(len(names) for _, names in self.groups)

    @property
    def saved(self) -> list[Node]:
        """What the backward operator reads beside tensors and outputs."""
        found = programs(self.step)
        nodes = {**found.trail, **found.saved_names}.values()
        return [node for node in dict.fromkeys(nodes) if node is not self.step.output]

    def with_context(self, tensors: Sequence[Tensor]) -> dict[str, int]:
        """The sizes, with those that a context brings."""
        sizes = dict(self.sizes)
        names = [(kind, name) for kind, group in self.groups for name in group]
        for (kind, name), tensor in zip(names, tensors, strict=True):
            if kind == "context":
                axes = self.step.context[name].shape
                free = zip(axes, tensor.shape[1:], strict=True)
                sizes.update({axis: size for axis, size in free if isinstance(axis, str) and axis not in sizes})
        return sizes


@functools.lru_cache(maxsize=256)
def _layer(text: str) -> _Layer:
    words = json.loads(text)
    step = _steps.get(words["step"])
    if step is None:
        raise KernelUnavailable(
            explain(
                "carousel::over_time: no layer of this process has the cell that was traced.",
                got=words["step"],
                advice="build the layer once before running an exported program",
            )
        )
    directions = [(bool(backwards), int(at)) for backwards, at in words["directions"]]
    return _Layer(step, dict(words["sizes"]), directions, bool(words["counted"]))


def _spread(
    layer: _Layer, pack: Packing, tensors: Sequence[Tensor], seed: Tensor | None, begun: Sequence[Tensor]
) -> list[Spread]:
    """The calls of all directions, on packed rows."""
    found = []
    for i, (backwards, at) in enumerate(layer.directions):
        mine = iter(tensors[i * layer.count : (i + 1) * layer.count])
        groups: dict[str, dict[str, Tensor]] = {}
        for kind, names in layer.groups:
            groups[kind] = {name: _packed(kind, pack, next(mine)) for name in names}
        time = pack.sort(begun[i]) if layer.counted else None
        device = tensors[0].device
        around = ambient(layer.step, pack, time, backwards=backwards, words=seed, at=at, device=device)
        sizes = layer.with_context(tensors[i * layer.count : (i + 1) * layer.count])
        call = Call(layer.step, groups["inputs"], groups["states"], groups["parameters"], pack.batch_sizes, sizes)
        found.append(Spread.of(_replaced(call, backwards, groups["context"], around)))
    return found


def _replaced(call: Call, reverse: bool, context: Any, around: Any) -> Call:
    return Call(call.step, call.inputs, call.states, call.parameters, call.batch_sizes, call.sizes, reverse, context, around)


def _packed(kind: str, pack: Packing, tensor: Tensor) -> Tensor:
    """A tensor of a padded batch as the engine takes it."""
    if kind == "parameters":
        return tensor
    return pack.pack(tensor) if kind == "inputs" else pack.sort(tensor)


def _unpacked(kind: str, pack: Packing, tensor: Tensor) -> Tensor:
    """And back."""
    if kind == "parameters":
        return tensor
    return pack.unpack(tensor) if kind == "inputs" else pack.unsort(tensor)


def _packing(tensors: Sequence[Tensor], lengths: Tensor | None) -> Packing:
    T, B = tensors[0].shape[:2]
    return packing(T, B, lengths, tensors[0].device, "carousel::over_time")


def _roomy(rows: Tensor, capacity: int) -> Tensor:
    """A tensor of its own with room for every row of a padded batch: its size must not depend on the lengths."""
    made = rows.new_empty((capacity, *rows.shape[1:]))
    made[: rows.shape[0]] = rows
    made[rows.shape[0] :].zero_()
    return made


@torch.library.custom_op("carousel::over_time", mutates_args=())
def over_time(
    text: str, tensors: list[Tensor], lengths: Tensor | None, seed: Tensor | None, begun: list[Tensor], keep: bool
) -> list[Tensor]:
    """Run a layer: for each direction its padded output and its final states; then, if `keep`, what the way back needs."""
    layer = _layer(text)
    pack = _packing(tensors, lengths)
    spread = _spread(layer, pack, tensors, seed, begun)
    with torch.no_grad():
        flat, kept, nodes = saving(spread) if keep else (alone(spread), [], [])
    results, each = [], 1 + len(layer.step.states)
    for i in range(len(layer.directions)):
        output, *final = flat[i * each : (i + 1) * each]
        results += [pack.unpack(output).clone(), *(pack.unsort(state).clone() for state in final)]
    left = iter(kept)
    for mine in nodes:
        values = {node: next(left) for node in mine}
        results += [_roomy(values[node], pack.steps * pack.batch) for node in layer.saved]
    return results


@over_time.register_fake
def _(text: str, tensors: list[Tensor], lengths: Any, seed: Any, begun: Any, keep: bool) -> list[Tensor]:  # noqa: ARG001
    layer = _layer(text)
    T, B = tensors[0].shape[:2]
    results, saved = [], []
    for i in range(len(layer.directions)):
        mine = tensors[i * layer.count : (i + 1) * layer.count]
        sizes, like = layer.with_context(mine), mine[0]
        results.append(like.new_empty((T, B, *concrete(layer.step.output.shape, sizes))))
        results += [like.new_empty((B, *concrete(node.shape, sizes))) for node in layer.step.states.values()]
        if keep:
            saved += [like.new_empty((T * B, *concrete(node.shape, sizes))) for node in layer.saved]
    return results + saved


@torch.library.custom_op("carousel::back_over_time", mutates_args=())
def back_over_time(
    text: str,
    tensors: list[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    begun: list[Tensor],
    results: list[Tensor],
    gradients: list[Tensor],
    wanted: list[bool],
) -> list[Tensor]:
    """The gradients of the tensors that are wanted."""
    layer = _layer(text)
    pack = _packing(tensors, lengths)
    with torch.no_grad():
        spread = _spread(layer, pack, tensors, seed, begun)
        each, count = 1 + len(layer.step.states), len(layer.directions)
        rows = sum(pack.batch_sizes)
        saved = iter(results[each * count :])
        kept: list[Tensor] = []
        nodes: list[list[Node]] = []
        ahead: list[Tensor | None] = []
        for i in range(count):
            values = {node: next(saved)[:rows] for node in layer.saved}
            values[layer.step.output] = pack.pack(results[i * each])
            kept += values.values()
            nodes.append(list(values))
            d_output, *d_final = gradients[i * each : (i + 1) * each]
            ahead += [pack.pack(d_output), *(pack.sort(d) for d in d_final)]
        flat = [tensor for one in spread for tensor in one.tensors]
        found = backward(spread, nodes, flat, kept, ahead, wanted, consume=False)
    answers = []
    kinds = [kind for _ in layer.directions for kind, names in layer.groups for _ in names]
    for kind, gradient, yes in zip(kinds, found, wanted, strict=True):
        if yes and gradient is not None:
            answers.append(_unpacked(kind, pack, gradient).clone())
    return answers


@back_over_time.register_fake
def _(
    text: str,  # noqa: ARG001 - the operator's arguments, of which shapes need two
    tensors: list[Tensor],
    lengths: Any,  # noqa: ARG001
    seed: Any,  # noqa: ARG001
    begun: Any,  # noqa: ARG001
    results: Any,  # noqa: ARG001
    gradients: Any,  # noqa: ARG001
    wanted: list[bool],
) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor, yes in zip(tensors, wanted, strict=True) if yes]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    text, tensors, lengths, seed, begun, keep = inputs
    ctx.text, ctx.keep = text, keep
    ctx.counts = (len(tensors), len(begun))
    ctx.optional = (lengths is not None, seed is not None)
    extra = [tensor for tensor in (lengths, seed) if tensor is not None]
    ctx.save_for_backward(*tensors, *begun, *extra, *output)


def _gradients(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    if not ctx.keep:
        raise RuntimeError("carousel::over_time was traced without gradients; trace it with an input that requires them")
    saved = list(ctx.saved_tensors)
    count, begun_count = ctx.counts
    tensors, saved = saved[:count], saved[count:]
    begun, saved = saved[:begun_count], saved[begun_count:]
    lengths = saved.pop(0) if ctx.optional[0] else None
    seed = saved.pop(0) if ctx.optional[1] else None
    layer = _layer(ctx.text)
    shown = len(layer.directions) * (1 + len(layer.step.states))
    ahead = [
        torch.zeros_like(result) if d is None else d.contiguous()
        for result, d in zip(saved[:shown], gradients[:shown], strict=True)
    ]
    wanted = [bool(tensor.requires_grad) for tensor in tensors]
    found = iter(back_over_time(ctx.text, tensors, lengths, seed, begun, saved, ahead, wanted))
    answers = [next(found) if yes else None for yes in wanted]
    return None, answers, None, None, [None] * begun_count, None


over_time.register_autograd(_gradients, setup_context=_setup)
