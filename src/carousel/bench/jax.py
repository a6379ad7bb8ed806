"""JAX as a contestant: the same cells in its operations, `lax.scan` over the steps, all under `jit`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from carousel.bench.ours import unstacked
from carousel.bench.torch_loops import WRITTEN
from carousel.bench.work import Problem, Results, Side, Unavailable

Step = Callable[[Any, Any, Any, Any], Any]  # (jax, weights, what x gives, state) to the next state


def _lstm(jax: Any, w: Any, z: Any, state: Any) -> Any:
    h, c = state
    i, f, g, o = jax.numpy.split(z + h @ w["U"].T, 4, 1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o) * jax.numpy.tanh(c), c


def _peephole(jax: Any, w: Any, z: Any, state: Any) -> Any:
    h, c = state
    i, f, g, o = jax.numpy.split(z + h @ w["U"].T, 4, 1)
    p_i, p_f, p_o = jax.numpy.split(w["p"], 3)
    c = jax.nn.sigmoid(f + p_f * c) * c + jax.nn.sigmoid(i + p_i * c) * jax.numpy.tanh(g)
    return jax.nn.sigmoid(o + p_o * c) * jax.numpy.tanh(c), c


def _gru(jax: Any, w: Any, z: Any, state: Any) -> Any:
    (h,) = state
    gates, new = z[:, : 2 * h.shape[1]], z[:, 2 * h.shape[1] :]
    r, keep = jax.numpy.split(jax.nn.sigmoid(gates + h @ w["U"].T), 2, 1)
    n = jax.numpy.tanh(new + (r * h) @ w["U_n"].T)
    return (keep * h + (1 - keep) * n,)


def _gru_after(jax: Any, w: Any, z: Any, state: Any) -> Any:
    (h,) = state
    r, keep, new = jax.numpy.split(z, 3, 1)
    u_r, u_z, u_n = jax.numpy.split(h @ w["U"].T, 3, 1)
    n = jax.numpy.tanh(new + jax.nn.sigmoid(r + u_r) * (u_n + w["b_hn"]))
    keep = jax.nn.sigmoid(keep + u_z)
    return ((1 - keep) * n + keep * h,)


def _elman(jax: Any, w: Any, z: Any, state: Any) -> Any:
    return (jax.numpy.tanh(z + state[0] @ w["U"].T),)


#: By the cell's name. Weights are stacked as for the loops in torch operations.
STEPS: dict[str, Step] = {
    "elman": _elman,
    "gru": _gru,
    "gru_reset_after": _gru_after,
    "lstm": _lstm,
    "peephole_lstm": _peephole,
}


def scan(problem: Problem) -> Side:
    """A contestant that waits for its results, as all do."""
    work = problem.work
    if problem.lengths is not None:
        raise Unavailable("its loop knows no lengths")
    if work.cell not in STEPS:
        raise Unavailable("no step was written in JAX for this cell")
    try:
        jax = importlib.import_module("jax")
    except ImportError as error:
        raise Unavailable("jax is not installed (pip install jax)") from error
    cell, one, values = WRITTEN[work.cell], STEPS[work.cell], problem.parameters
    put = jax.numpy.asarray
    w = {name: put(np.concatenate([values[part].numpy() for part in parts])) for name, parts in cell.layout.items()}
    x, d_output = put(problem.x.numpy()), put(problem.d_output.numpy())
    start = tuple(jax.numpy.zeros((work.B, work.H), "float32") for _ in range(cell.states))

    def forward(w: Any, x: Any) -> Any:
        def body(state: Any, z: Any) -> Any:
            state = one(jax, w, z, state)
            return state, state[0]

        return jax.lax.scan(body, start, x @ w["W"].T + w["b"])[1]

    def both(w: Any, x: Any) -> Any:
        output, back = jax.vjp(forward, w, x)
        return output, back(d_output)

    def step(w: Any, x_t: Any, state: Any) -> Any:
        return one(jax, w, x_t @ w["W"].T + w["b"], state)

    quick = jax.jit(step if work.mode == "step" else both if work.trains else forward)
    inputs = list(x)

    def whole() -> Any:
        return jax.block_until_ready(quick(w, x))

    def steps() -> Any:
        outputs, state = [], start
        for x_t in inputs:
            state = jax.block_until_ready(quick(w, x_t, state))
            outputs.append(np.asarray(state[0]))
        return np.stack(outputs)

    def results() -> Results:
        if work.mode == "step":
            return {"output": tensor(steps())}
        if not work.trains:
            return {"output": tensor(whole())}
        output, (d_w, d_x) = whole()
        found = unstacked(cell.layout, {name: tensor(d) for name, d in d_w.items()})
        return {"output": tensor(output), "d x": tensor(d_x), **found}

    return Side(steps if work.mode == "step" else whole, results)


def tensor(array: Any) -> torch.Tensor:
    """A copy for torch: JAX's arrays may not be written to."""
    return torch.from_numpy(np.array(array))


@contextmanager
def processors(count: int) -> Iterator[None]:
    """Keep all threads of this process on so many processors: JAX's have no other limit that can change while they live.

    Where the operating system does not offer this, nothing happens.
    """
    if not hasattr(os, "sched_setaffinity") or not os.path.isdir("/proc/self/task"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    _keep_on(set(sorted(allowed)[-count:]))
    try:
        yield
    finally:
        _keep_on(allowed)


def _keep_on(chosen: set[int]) -> None:
    for task in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(task), chosen)
        except ProcessLookupError:  # it has ended meanwhile
            continue
