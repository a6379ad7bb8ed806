"""The engine's face: compiled loops inside torch's autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from carousel.engines.call import Call, Result
from carousel.engines.cpu.programs import Wanted, programs
from carousel.engines.cpu.run import run_together
from carousel.engines.eager import EagerEngine
from carousel.errors import KernelUnavailable, explain
from carousel.graph.node import Node

_TYPES = {torch.float32, torch.float64}


class CpuEngine:
    """Runs a cell over time with a compiled loop, whose derivative is a compiled loop too.

    What torch asks for beyond that runs in the eager engine: functional transforms (``torch.func``), forward-mode
    differentiation, other floating types and devices, and derivatives of the derivative. Under autocast the loop runs in
    float32: sums over time keep their precision.

    Args:
        forced: other floating types and devices are an error, since somebody asked for this engine by name.
    """

    name = "cpu"

    def __init__(self, *, forced: bool = False) -> None:
        self._eager = EagerEngine()
        self._forced = forced

    def run(self, call: Call) -> Result:
        """Run one cell over packed rows."""
        return self.run_together([call])[0]

    def run_together(self, calls: Sequence[Call]) -> list[Result]:
        """Run several cells that do not need each other, at once."""
        if torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling():
            with torch.autocast("cpu", enabled=False):
                return self.run_together([_in_float32(call) for call in calls])
        spread = [Spread.of(call) for call in calls]
        given = [tensor for each in spread for tensor in each.tensors]
        problem = _foreign(given)
        if problem and self._forced:
            raise KernelUnavailable(
                explain(
                    "the engine 'cpu', which was asked for, cannot run these tensors.",
                    got=problem,
                    expected="float32 or float64, all of one type, on a CPU",
                    advice="engine='auto' runs eager where it must",
                )
            )
        if problem or _beyond(given):
            return self._eager.run_together(calls)
        tensors = [tensor for each in spread for tensor in each.tensors]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            flat = list(_Compiled.apply(spread, *tensors))  # type: ignore[no-untyped-call]
        else:
            flat = alone(spread)
        results = []
        for call in calls:
            output, *final = flat[: 1 + len(call.states)]
            flat = flat[1 + len(call.states) :]
            results.append((output, dict(zip(call.step.states, final, strict=True))))
        return results


def _in_float32(call: Call) -> Call:
    """A call as autocast has it here: in float32, whatever the layers before made of the input."""

    def change(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
        halves = (torch.float16, torch.bfloat16)
        return {name: tensor.float() if tensor.dtype in halves else tensor for name, tensor in group.items()}

    groups: dict[str, Any] = {name: change(getattr(call, name)) for name in ("inputs", "states", "parameters", "context")}
    return replace(call, **groups)


def _foreign(tensors: Sequence[Tensor]) -> str | None:
    """What of the tensors' types and devices no compiled loop takes, or None."""
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    devices = {tensor.device.type for tensor in tensors}
    if devices <= {"cpu"} and kinds <= _TYPES and len(kinds) <= 1:
        return None
    return f"{', '.join(sorted(map(str, kinds)))} on {', '.join(sorted(devices))}"


def _beyond(tensors: Sequence[Tensor]) -> bool:
    """Whether torch asks for what only the eager engine does."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    for tensor in tensors:
        if type(tensor) not in (Tensor, torch.nn.Parameter) or forward_ad.unpack_dual(tensor).tangent is not None:  # type: ignore[no-untyped-call]
            return True
    return False


@dataclass(frozen=True)
class Spread:
    """A call with its tensors in one row, as autograd wants them.

    Attributes:
        call: without any tensor that autograd should see.
        parts: names and kinds of the tensors.
        tensors: the tensors.
    """

    call: Call
    parts: tuple[tuple[str, str], ...]
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, call: Call) -> Spread:
        """Take a call apart."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "inputs": call.inputs,
            "states": {name: call.states[name] for name in call.step.states},
            "parameters": {name: call.parameters[name] for name in call.step.parameters},
            "context": call.context,
        }
        parts = [(kind, name) for kind, group in groups.items() for name in group]
        return cls(call, tuple(parts), tuple(groups[kind][name] for kind, name in parts))

    def bare(self) -> Spread:
        """Without the tensors, which a graph keeps where torch looks after them: freed with it, checked, offloaded."""
        call = self.call
        rest: dict[str, Any] = {"batch_sizes": call.batch_sizes, "sizes": call.sizes, "reverse": call.reverse}
        return Spread(Call(call.step, {}, {}, {}, **rest, ambient=call.ambient), self.parts, ())

    def call_with(self, tensors: Sequence[Tensor]) -> Call:
        """The call on other tensors."""
        groups: dict[str, Any] = {"inputs": {}, "states": {}, "parameters": {}, "context": {}}
        for (kind, name), tensor in zip(self.parts, tensors, strict=True):
            groups[kind][name] = tensor
        call = self.call
        rest: dict[str, Any] = {"batch_sizes": call.batch_sizes, "sizes": call.sizes, "reverse": call.reverse}
        return Call(call.step, **groups, **rest, ambient=call.ambient)


def _flat(call: Call, output: Tensor, final: Mapping[str, Tensor]) -> list[Tensor]:
    return [output, *(final[name] for name in call.step.states)]


def alone(spread: Sequence[Spread]) -> list[Tensor]:
    """Forwards, with nothing kept."""
    with torch.no_grad():
        begun = []
        for each in spread:
            call, executor = each.call, programs(each.call.step).alone
            states = {name: call.states[name] for name in call.step.states}
            begun.append((executor, executor.begin(call.given(), states, call.batch_sizes, call.sizes, reverse=call.reverse)))
        runs = run_together(begun, weights=spread[0].call.weights)  # calls of one layer, which are alike in this
    return [t for each, run in zip(spread, runs, strict=True) for t in _flat(each.call, run.emitted["output"], run.carried)]


def saving(spread: Sequence[Spread]) -> tuple[list[Tensor], list[Tensor], list[list[Node]]]:
    """Forwards: the results, what the way back reads, and what that is."""
    begun, plans = [], []
    for each in spread:
        call, found = each.call, programs(each.call.step)
        plans.append(found)
        states = {name: call.states[name] for name in call.step.states}
        ready = found.saving.begin(call.given(), states, call.batch_sizes, call.sizes, reverse=call.reverse)
        begun.append((found.saving, ready))
    results: list[Tensor] = []
    kept: list[Tensor] = []
    nodes: list[list[Node]] = []
    for each, found, run in zip(spread, plans, run_together(begun), strict=True):
        values = {node: run.emitted[name] for name, node in {**found.trail, **found.saved_names}.items()}
        values.setdefault(each.call.step.output, run.emitted["output"])
        nodes.append(list(values))
        kept += values.values()
        results += _flat(each.call, run.emitted["output"], run.carried)
    return results, kept, nodes


class _Compiled(torch.autograd.Function):
    """Several cells over time, and their derivatives."""

    @staticmethod
    def forward(ctx: Any, spread: Sequence[Spread], *tensors: Tensor) -> tuple[Tensor, ...]:
        rest, whole = list(tensors), []
        for each in spread:
            mine, rest = rest[: len(each.parts)], rest[len(each.parts) :]
            whole.append(Spread(each.call_with(mine), each.parts, tuple(mine)))
        flat, kept, nodes = saving(whole)
        # Views could not be changed in place. Detached ones can, and share their version with what is saved: if that was
        # changed, the way back says so.
        results = [result.detach() for result in flat]
        ctx.spread, ctx.nodes, ctx.count = [each.bare() for each in spread], nodes, len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # once: checkpointing unpacks a tensor no second time
        tensors, kept = saved[: ctx.count], saved[ctx.count :]
        wanted = ctx.needs_input_grad[1:]
        with torch.autocast("cpu", enabled=False):
            return _Compiled._gradients(ctx, tensors, kept, gradients, wanted)

    @staticmethod
    def _gradients(ctx: Any, tensors: Any, kept: Any, gradients: Any, wanted: Any) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            return (None, *_again(ctx.spread, tensors, gradients, wanted))
        # Unless the graph is kept for another backward pass, what was saved for this one alone may be overwritten.
        consume = not torch._C._autograd._get_current_graph_task_keep_graph()
        return (None, *backward(ctx.spread, ctx.nodes, tensors, kept, gradients, wanted, consume=consume))


def backward(
    spread: Sequence[Spread],
    nodes: Sequence[Sequence[Node]],
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    wanted: Sequence[bool],
    *,
    consume: bool,
) -> list[Tensor | None]:
    """The derived backward loops; `consume`: nobody will need what was saved again."""
    rest, left, ahead, ask = list(tensors), list(kept), list(gradients), list(wanted)
    begun = []
    for each, mine in zip(spread, nodes, strict=True):
        count = len(each.parts)
        call, asked = each.call_with(rest[:count]), [part for part, yes in zip(each.parts, ask[:count], strict=True) if yes]
        known, saved = call.given(), dict(zip(mine, left[: len(mine)], strict=True))
        d_output, *d_final = ahead[: 1 + len(call.states)]
        rest, left, ask, ahead = rest[count:], left[len(mine) :], ask[count:], ahead[1 + len(call.states) :]
        found = programs(call.step)
        executor = found.backward(_wanted(asked))
        known.update(saved)
        if d_output is None:
            d_output = torch.zeros_like(saved[call.step.output])
        known[found.plan.gradients.of_output] = d_output
        start = {
            name: torch.zeros_like(state) if d is None else d
            for (name, state), d in zip(call.states.items(), d_final, strict=True)
        }
        given = {node: known[node] for node in executor.program.given}
        begun.append((executor, executor.begin(given, start, call.batch_sizes, call.sizes, reverse=not call.reverse)))
    results: list[Tensor | None] = []
    asked_for = iter(zip(tensors, wanted, strict=True))
    for each, run in zip(spread, run_together(begun, consume=consume), strict=True):
        where = {"inputs": run.emitted, "states": run.carried, "parameters": run.totals, "context": run.totals}
        for kind, name in each.parts:
            tensor, yes = next(asked_for)
            results.append(_fitted(where[kind][name], tensor) if yes else None)
    return results


def _fitted(gradient: Tensor, tensor: Tensor) -> Tensor:
    """A gradient in its value's shape; where nothing depends on the value it is the number 0."""
    return gradient if gradient.shape == tensor.shape else torch.zeros_like(tensor)


def _wanted(asked: Sequence[tuple[str, str]]) -> Wanted:
    names = {kind: frozenset(name for k, name in asked if k == kind) for kind in ("inputs", "parameters", "context")}
    return Wanted(**names)


def _again(
    spread: Sequence[Spread], tensors: Sequence[Tensor], gradients: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradient as a function that can be differentiated once more: the eager engine's."""
    rest = list(tensors)
    flat: list[Tensor] = []
    for each in spread:
        mine, rest = rest[: len(each.parts)], rest[len(each.parts) :]
        call = each.call_with(mine)
        flat += _flat(call, *EagerEngine().run(call))
    pairs = [(out, d) for out, d in zip(flat, gradients, strict=True) if d is not None and out.requires_grad]
    sources = [tensor for tensor, yes in zip(tensors, wanted, strict=True) if yes]
    if not pairs:
        return [None] * len(tensors)
    found = iter(
        torch.autograd.grad([out for out, _ in pairs], sources, [d for _, d in pairs], create_graph=True, allow_unused=True)
    )
    return [next(found) if yes else None for yes in wanted]
