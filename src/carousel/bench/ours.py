"""This library's layers, and torch's own, as contestants: modules that are called alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

from carousel.bench.work import Problem, Results, Side, Unavailable, gradients
from carousel.errors import ConfigError, KernelUnavailable
from carousel.export import to_torch
from carousel.nn import GRU, LSTM, RNN, Recurrent, pack_padded_sequence, pad_packed_sequence
from carousel.nn.gates import TORCH, Layout

Apply = Callable[[nn.Module, Tensor], Tensor]

#: This library's layers in place of torch's.
REPLACEMENTS: dict[type[nn.Module], type[LSTM | GRU | RNN]] = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


def training(problem: Problem, x: Tensor, parameters: list[Tensor], forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Forward and backward, from no gradients to all."""
    d_output = problem.d_output

    def run() -> Tensor:
        x.grad = None
        for parameter in parameters:
            parameter.grad = None
        output = forward()
        output.backward(d_output)  # type: ignore[no-untyped-call]
        return output

    return run


def side(run: Callable[[], Tensor], results: Callable[[Tensor], Results]) -> Side:
    """A contestant whose results are made from the output of a run."""
    return Side(run, lambda: results(run().detach()))


def module_side(problem: Problem, module: nn.Module, forward: Apply, step: Any, named: Callable[[Any], Results]) -> Side:
    """A module as a contestant.

    Args:
        problem: the work.
        module: with the problem's weights.
        forward: whole sequences through it.
        step: one step through it, from (x_t, state) to (output, state).
        named: the gradients in its parameters, by the cell's names.
    """
    work, x = problem.work, problem.x.clone()
    if work.trains:
        x.requires_grad_()
        run = training(problem, x, list(module.parameters()), lambda: forward(module, x))
        return side(run, lambda output: {"output": output, **gradients(x, {}), **named(module)})
    module.eval()
    if work.mode == "step":
        return side(without_gradients(lambda: stream(step, x)), lambda output: {"output": output})
    return side(without_gradients(lambda: forward(module, x)), lambda output: {"output": output})


def without_gradients(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same, under `torch.no_grad`."""

    def quiet() -> Tensor:
        with torch.no_grad():
            return run()

    return quiet


def stream(step: Any, x: Tensor) -> Tensor:
    """One call for each step; the state goes from one to the next."""
    outputs, state = [], None
    for x_t in x.unbind(0):
        output, state = step(x_t, state)
        outputs.append(output)
    return torch.stack(outputs)


def recurrent(problem: Problem, engine: str, ragged: bool = True) -> Side:
    """`Recurrent` on one of our engines."""
    work = problem.work
    try:
        layer = Recurrent(work.cell, work.I, work.H, engine=engine)
    except KernelUnavailable as error:
        raise Unavailable(str(error).splitlines()[0]) from error
    layer.load_state_dict(problem.layer.state_dict())
    lengths = problem.lengths if ragged else None

    def named(module: Any) -> Results:
        return gradients(torch.empty(0), dict(module.named_parameters()))

    if work.mode == "step" and engine == "cpu":
        return streaming(problem, layer.eval())
    ready = module_side(problem, layer, lambda module, x: module(x, lengths=lengths)[0], layer.step, named)
    return ready if ragged else Side(ready.run, dict)


def streaming(problem: Problem, layer: Recurrent | LSTM | GRU | RNN) -> Side:
    """A stream that lives on from run to run; to be checked, a new one."""
    inputs, ready = list(problem.x.clone()), layer.stream(problem.work.B)

    def run() -> None:
        for x_t in inputs:
            ready(x_t)

    def results() -> Results:
        new = layer.stream(problem.work.B)
        return {"output": torch.stack([new(x_t) for x_t in inputs])}

    return Side(run, results)


def single_steps(problem: Problem) -> Side:
    """The layer's `step` on the compiled engine, which is given a state and gives one back."""
    if problem.work.mode != "step":
        raise Unavailable("it stands beside streams only")
    layer = Recurrent(problem.work.cell, problem.work.I, problem.work.H, engine="cpu")
    layer.load_state_dict(problem.layer.state_dict())
    return module_side(problem, layer, layer, layer.step, dict)


def cpu(problem: Problem) -> Side:
    """The compiled engine."""
    return recurrent(problem, "cpu")


def eager(problem: Problem) -> Side:
    """The reference, in torch operations."""
    return recurrent(problem, "eager")


def dense(problem: Problem) -> Side:
    """The compiled engine on rows that are all T long, beside a ragged batch."""
    if problem.lengths is None:
        raise Unavailable("it stands beside ragged batches only")
    return recurrent(problem, "cpu", ragged=False)


def torch_module(problem: Problem) -> nn.Module:
    """torch's layer with the problem's weights."""
    try:
        return to_torch(copy.deepcopy(problem.layer))
    except ConfigError as error:
        raise Unavailable("torch.nn has no such cell") from error


def torchs(problem: Problem) -> Side:
    """torch.nn's layer."""
    return _called_as_torchs(problem, torch_module(problem))


def replacement(problem: Problem) -> Side:
    """This library's layer of the same name, on the engine that it chooses."""
    module = torch_module(problem)
    sizes: dict[str, Any] = {"proj_size": size} if (size := getattr(module, "proj_size", 0)) else {}
    ours = REPLACEMENTS[type(module)](problem.work.I, problem.work.H, **sizes)
    ours.load_state_dict(module.state_dict())
    if problem.work.mode == "step":
        return streaming(problem, ours.eval())
    return _called_as_torchs(problem, ours)


def _called_as_torchs(problem: Problem, module: nn.Module) -> Side:
    layout = TORCH[problem.work.cell]
    ours = isinstance(module, LSTM | GRU | RNN)
    pack = pack_padded_sequence if ours else rnn.pack_padded_sequence
    pad = pad_packed_sequence if ours else rnn.pad_packed_sequence

    def forward(module: nn.Module, x: Tensor) -> Tensor:
        if problem.lengths is None:
            output: Tensor = module(x)[0]
            return output
        return pad(module(pack(x, problem.lengths, enforce_sorted=False))[0], total_length=problem.work.T)[0]

    def step(x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        output, state = module(x_t[None], state)
        return output[0], state

    def named(module: nn.Module) -> Results:
        return unstacked(layout, {name.removesuffix("_l0"): p.grad for name, p in module.named_parameters()})

    return module_side(problem, module, forward, step, named)


def unstacked(layout: Layout, found: Any) -> dict[str, Tensor]:
    """Gradients of stacked tensors, by the cell's names; of two biases that are added, each has the whole gradient."""
    named: dict[str, Tensor] = {}
    for name, parts in layout.items():
        for part, block in zip(parts, found[name].chunk(len(parts)), strict=True):
            named.setdefault(f"d {part}", block)
    return named
