"""Cells in torch operations as a user would write them: a Python loop over steps, with the input's product before it.

Written out by hand and not derived from our graphs: they are what a user of torch has today, and check the equations once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

from carousel.bench.ours import side, stream, training, unstacked, without_gradients
from carousel.bench.work import Problem, Results, Side, Unavailable
from carousel.nn.gates import Layout, named

Weights = Mapping[str, Tensor]
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Written:
    """A cell written by hand.

    Attributes:
        layout: its weights, stacked as fits the loop, by the cell's names for their parts.
        before: what all steps need of x, (T, B, I) or (B, I).
        step: from (weights, what `before` gave for this step, state) to the next state, whose first is the output.
        states: how many (B, H) the state has.
    """

    layout: Layout
    before: Callable[[Weights, Tensor], Tensor]
    step: Callable[[Weights, Tensor, State], State]
    states: int = 1


def _linear(w: Weights, x: Tensor) -> Tensor:
    return linear(x, w["W"], w["b"])


def _lstm(w: Weights, z: Tensor, state: State) -> State:
    h, c = state
    i, f, g, o = torch.addmm(z, h, w["U"].t()).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _peephole(w: Weights, z: Tensor, state: State) -> State:
    h, c = state
    i, f, g, o = torch.addmm(z, h, w["U"].t()).chunk(4, 1)
    p_i, p_f, p_o = w["p"].chunk(3)
    c = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
    return torch.sigmoid(o + p_o * c) * torch.tanh(c), c


def _coupled(w: Weights, z: Tensor, state: State) -> State:
    h, c = state
    i, g, o = torch.addmm(z, h, w["U"].t()).chunk(3, 1)
    i = torch.sigmoid(i)
    c = (1 - i) * c + i * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _normed_input(w: Weights, x: Tensor) -> Tensor:
    return layer_norm(linear(x, w["W"]), w["gx"].shape, w["gx"], w["b"])


def _normed(w: Weights, z: Tensor, state: State) -> State:
    h, c = state
    i, f, g, o = (z + layer_norm(h @ w["U"].t(), w["gh"].shape, w["gh"])).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(layer_norm(c, w["gc"].shape, w["gc"], w["bc"])), c


def _gru(w: Weights, z: Tensor, state: State) -> State:
    (h,) = state
    gates, new = z[:, : 2 * h.shape[1]], z[:, 2 * h.shape[1] :]
    r, keep = torch.sigmoid(torch.addmm(gates, h, w["U"].t())).chunk(2, 1)
    n = torch.tanh(torch.addmm(new, r * h, w["U_n"].t()))
    return (keep * h + (1 - keep) * n,)


def _gru_after(w: Weights, z: Tensor, state: State) -> State:
    (h,) = state
    r, keep, new = z.chunk(3, 1)
    u_r, u_z, u_n = (h @ w["U"].t()).chunk(3, 1)
    n = torch.tanh(new + torch.sigmoid(r + u_r) * (u_n + w["b_hn"]))
    keep = torch.sigmoid(keep + u_z)
    return ((1 - keep) * n + keep * h,)


def _elman(w: Weights, z: Tensor, state: State) -> State:
    return (torch.tanh(torch.addmm(z, state[0], w["U"].t())),)


def _layout(gates: str, **more: tuple[str, ...]) -> Layout:
    return {"W": named("W", gates), "U": named("U", gates), "b": named("b", gates), **more}


#: By the cell's name.
WRITTEN: dict[str, Written] = {
    "coupled_lstm": Written(_layout("igo"), _linear, _coupled, 2),
    "elman": Written(_layout("h"), _linear, _elman),
    "gru": Written({**_layout("rzn"), "U": named("U", "rz"), "U_n": ("U_n",)}, _linear, _gru),
    "gru_reset_after": Written(_layout("rzn", b_hn=("b_hn",)), _linear, _gru_after),
    "layer_norm_lstm": Written(
        _layout("ifgo", gx=named("gx", "ifgo"), gh=named("gh", "ifgo"), gc=("gc",), bc=("bc",)), _normed_input, _normed, 2
    ),
    "lstm": Written(_layout("ifgo"), _linear, _lstm, 2),
    "peephole_lstm": Written(_layout("ifgo", p=named("p", "ifo")), _linear, _peephole, 2),
}


def loop(cell: Written, step: Any, w: Weights, x: Tensor, start: State) -> Tensor:
    """The output of all steps."""
    outputs, state = [], start
    for z in cell.before(w, x).unbind(0):
        state = step(w, z, state)
        outputs.append(state[0])
    return torch.stack(outputs)


def operations(problem: Problem) -> Side:
    """The loop as it stands."""
    return _ready(problem, _written(problem).step, loop)


def compiled_step(problem: Problem) -> Side:
    """The loop, whose step `torch.compile` has compiled."""
    torch.compiler.reset()  # the graphs of the row before, and their limits
    return _ready(problem, torch.compile(_written(problem).step, fullgraph=True, dynamic=False), loop)


def compiled_loop(problem: Problem) -> Side:
    """The loop, compiled as a whole: `torch.compile` writes out every step, which takes it minutes for a hundred."""
    if problem.work.mode == "step":
        raise Unavailable("a single step is what `compile` measures")
    torch.compiler.reset()
    return _ready(problem, _written(problem).step, torch.compile(loop, fullgraph=True, dynamic=False))


def _written(problem: Problem) -> Written:
    if problem.lengths is not None:
        raise Unavailable("the loops written by hand know no lengths")
    if problem.work.cell not in WRITTEN:
        raise Unavailable("no loop was written by hand for this cell; `eager` is the nearest")
    return WRITTEN[problem.work.cell]


def _ready(problem: Problem, step: Any, over_time: Any) -> Side:
    work, cell, values = problem.work, _written(problem), problem.parameters
    w = {name: torch.cat([values[part] for part in parts]).requires_grad_(work.trains) for name, parts in cell.layout.items()}
    x = problem.x.clone().requires_grad_(work.trains)
    start = tuple(torch.zeros(work.B, work.H) for _ in range(cell.states))

    def one(x_t: Tensor, state: State | None) -> tuple[Tensor, State]:
        state = step(w, cell.before(w, x_t), state or start)
        return state[0], state

    def results(output: Tensor) -> Results:
        if not work.trains:
            return {"output": output}
        found = {name: tensor.grad for name, tensor in w.items()}
        return {"output": output, "d x": x.grad, **unstacked(cell.layout, found)}  # type: ignore[dict-item]

    if work.mode == "step":
        return side(without_gradients(lambda: stream(one, x)), results)
    if work.trains:
        return side(training(problem, x, list(w.values()), lambda: over_time(cell, step, w, x, start)), results)
    return side(without_gradients(lambda: over_time(cell, step, w, x, start)), results)
