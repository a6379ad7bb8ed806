"""The number of the step, as a value in equations."""

import copy

import pytest
import torch

from carousel.cells import resolve_cell
from carousel.graph import Cell, Output, equal, greater, maximum, minimum, printing, remainder, sin, tanh, where
from cases import random_layer


def outputs(function, steps=6, dtype=torch.float64, **call):
    """What `function` of the step's number gives at each step, in a cell that also learns something."""

    class Timed(Cell):
        def step(self, x, h):
            h = tanh(self.affine("h", x, h))
            return Output(function(self.time()) + 0.0 * h), h

    layer = random_layer(Timed, 2, 1, dtype=dtype)
    output, _ = layer(torch.zeros(steps, 1, 2, dtype=dtype), **call)
    return output[:, 0, 0].detach()


STEPS = torch.arange(6, dtype=torch.float64)
FUNCTIONS = {
    "scaled": (lambda t: 0.1 * t, 0.1 * STEPS),
    "divided": (lambda t: 1 / (t + 3), 1 / (STEPS + 3)),
    "sine": (sin, STEPS.sin()),
    "greater": (lambda t: greater(t, 2.5), (STEPS > 2.5).double()),
    "less": (lambda t: greater(2.5, t), (STEPS < 2.5).double()),
    "equal": (lambda t: equal(t, 2.0), (STEPS == 2).double()),
    "maximum": (lambda t: maximum(t, 0.5), STEPS.clamp(min=0.5)),
    "minimum": (lambda t: minimum(t, 2.5), STEPS.clamp(max=2.5)),
    "remainder": (lambda t: remainder(t, 2.5), STEPS.remainder(2.5)),
    "choice": (lambda t: where(greater(t, 2.0), 0.1, 0.3), torch.where(STEPS > 2, 0.1, 0.3).double()),
    "condition": (lambda t: where(t, 0.25, 0.5), torch.tensor([0.5, *[0.25] * 5], dtype=torch.float64)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_time_are_those_of_numbers(name):
    function, expected = FUNCTIONS[name]
    found = outputs(function)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-7 if name == "choice" else 1e-15)


def test_time_runs_from_each_ends_own_start_and_on_between_calls():
    class Timed(Cell):
        def step(self, x, h):
            return Output(self.time() + 0.0 * tanh(self.affine("h", x, h))), h

    layer = random_layer(Timed, 2, 1, bidirectional=True)
    x, lengths = torch.zeros(4, 2, 2, dtype=torch.float64), torch.tensor([4, 2])
    output, state = layer(x, lengths=lengths)
    assert output[..., 0].T.tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert output[..., 1].T.tolist() == [[3, 2, 1, 0], [1, 0, 0, 0]]
    assert state.time[..., 0].tolist() == [[4, 2], [4, 2]]
    again, _ = layer(x, state, lengths)
    assert again[..., 0].T.tolist() == [[4, 5, 6, 7], [2, 3, 0, 0]]


def test_time_stays_exact_in_half_precision():
    layer = random_layer(resolve_cell("clockwork_rnn", {"modules": 2}), 1, 4, dtype=torch.float32)
    half = copy.deepcopy(layer).bfloat16()
    output, _ = half(torch.randn(600, 1, 1).bfloat16())
    slow = output[:, 0, 2:]
    assert torch.equal(slow[400:600:2], slow[401:600:2])  # the second module rests at odd steps, 257 as well as 1
    assert (slow[400:598:2] != slow[402:600:2]).any()


def test_time_is_written_as_t():
    class Timed(Cell):
        def step(self, x, h):
            return tanh(self.affine("h", x, h)) * sin(0.1 * self.time())

    assert "sin(0.1 * t)" in printing.equations(Timed())
