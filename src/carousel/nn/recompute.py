"""Memory for time: keep the state of every k-th step, and run the steps between again in the backward pass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from carousel.engines.call import Call, Engine, Result
from carousel.graph.kinds import Role


def run_in_chunks(engine: Engine, calls: Sequence[Call], keep_every: int | None) -> list[Result]:
    """Run several cells; the backward pass keeps states at the borders of chunks, and computes what is inside again.

    With T steps in chunks of k, T/k states and the values of k steps are in memory instead of those of T steps: k near the
    square root of T needs least. The forward pass runs twice.

    Args:
        engine: what runs them.
        calls: with one number of steps.
        keep_every: k; None keeps everything.

    Returns:
        As `Engine.run_together`.

    References:
        Chen et al. (2016), "Training Deep Nets with Sublinear Memory Cost".
    """
    steps = len(calls[0].batch_sizes)
    if keep_every is None or keep_every >= steps or not torch.is_grad_enabled():
        return engine.run_together(calls)
    states = [dict(call.states) for call in calls]
    outputs: list[list[Tensor]] = [[] for _ in calls]
    for start in range(0, steps, keep_every):
        stop = min(start + keep_every, steps)
        parts = []
        for call, state in zip(calls, states, strict=True):
            first, last = (steps - stop, steps - start) if call.reverse else (start, stop)
            parts.append(_part(call, state, first, last))
        results = _again(engine, parts)
        for i, (output, state) in enumerate(results):
            outputs[i].append(output)
            states[i] = state
    ordered = [found[::-1] if call.reverse else found for call, found in zip(calls, outputs, strict=True)]
    return [(torch.cat(found), state) for found, state in zip(ordered, states, strict=True)]


def _part(call: Call, states: Mapping[str, Tensor], first: int, last: int) -> Call:
    """The steps from `first` up to (not including) `last`."""
    offsets = [0, *itertools.accumulate(call.batch_sizes)]
    rows = slice(offsets[first], offsets[last])
    return replace(
        call,
        inputs={name: tensor[rows] for name, tensor in call.inputs.items()},
        states=states,
        batch_sizes=call.batch_sizes[first:last],
        ambient={role: tensor[rows] if role is Role.TIME else tensor for role, tensor in call.ambient.items()},
    )


def _again(engine: Engine, calls: Sequence[Call]) -> list[Result]:
    """Run calls, keeping nothing but what they were given."""
    groups = ("inputs", "states", "parameters", "context")
    given = [tensor for call in calls for group in groups for tensor in getattr(call, group).values()]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        copies = []
        for call in calls:
            fields: dict[str, Any] = {group: {name: next(left) for name in getattr(call, group)} for group in groups}
            copies.append(replace(call, **fields))
        return tuple(tensor for output, state in engine.run_together(copies) for tensor in (output, *state.values()))

    # Noise is a function of its seed, which is given, so no generator's state has to be kept.
    flat = iter(checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False))
    return [(next(flat), {name: next(flat) for name in call.step.states}) for call in calls]
