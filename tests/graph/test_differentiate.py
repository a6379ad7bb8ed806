"""The derived backward step, and what the plan saves for it, against torch's autograd."""

import pytest
import torch

from carousel import graph as g
from carousel.cells import CELLS
from carousel.graph import Cell, Output, cumsum, exp, glorot, logsumexp, mean, ones, relu, sigmoid, softmax, tanh
from carousel.graph.differentiate import plan
from cases import CASES, a_call, call_layer, every_case, random_layer
from interpreter import autograd, naive, scheduled

# float64: both ways make the same few hundred roundings in another order; 1e-10 is the promise, 1e-13 what was measured.
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def assert_same(got, expected):
    torch.testing.assert_close(got.output, expected.output, **CLOSE)
    for part in ("final", "inputs", "states", "parameters", "context"):
        found, wanted = getattr(got, part), getattr(expected, part)
        assert found.keys() == wanted.keys(), part
        for name in wanted:
            torch.testing.assert_close(found[name], wanted[name], **CLOSE, msg=lambda m, n=name, p=part: f"{p} {n}: {m}")


def check(cell, sizes=(3, 4), steps=5, batch=3):
    layer = random_layer(cell, *sizes)
    step, call = layer.cell.graph, a_call(layer, steps, batch)
    expected = autograd(step, call)
    for constant in (p.name for p in step.parameters.values() if not p.learned):
        expected.parameters[constant] = torch.zeros_like(expected.parameters[constant])
    assert_same(scheduled(step, call), expected)
    assert_same(naive(step, call), expected)
    output, final = call_layer(layer, call)
    torch.testing.assert_close(output, expected.output, **CLOSE)
    for name, part in final.items():
        torch.testing.assert_close(part, expected.final[name], **CLOSE)


def test_every_registered_cell_is_checked():
    assert {type(case.cell) for case in CASES} == set(CELLS.values())


@every_case
def test_scheduled_naive_and_autograd_agree(case):
    check(case.cell, case.sizes)


@every_case
def test_a_batch_of_one_step_and_one_row_agrees(case):
    check(case.cell, case.sizes, steps=1, batch=1)


@every_case
def test_planning_twice_gives_the_same_plan(case):
    first, second = plan(case.cell.graph), plan(case.cell.graph)
    assert (first.saved, first.recomputed) == (second.saved, second.recomputed)
    assert first.backward.results == second.backward.results


class OneGainPerGroup(Cell):
    """A parameter with an axis of size 1, stretched over the units."""

    def step(self, x, h):
        return self.parameter("gain", (1,), init=ones()) * tanh(self.affine("h", x, h)) + self.parameter("rest", (1,))


class ComputedParameter(Cell):
    """A parameter used through functions, more than once: its gradient follows from sums over all steps."""

    def step(self, x, h):
        rate = sigmoid(self.vector("rate"))
        return rate * h + (1 - rate) * tanh(self.affine("h", x, h) + exp(self.vector("rate")))


class NormalisedParameter(Cell):
    """Reductions of a parameter, outside of time."""

    def step(self, x, h):
        weights = softmax(self.vector("score"))
        return weights * h + tanh(self.affine("h", x, h)) * logsumexp(self.vector("score")) + g.max(self.vector("other"))


class UnusedState(Cell):
    """A state that nothing reads, and one that never changes."""

    state = ("h", "kept", "lost")

    def step(self, x, h, kept, lost):  # noqa: ARG002
        h = tanh(self.affine("h", x, h) + kept)
        return h, kept, 2 * h


class Shifted(Cell):
    """States that move along: the output is three steps old."""

    state = ("a", "b", "c")

    def step(self, x, a, b, c):
        return Output(self.dense("V", c)), tanh(self.affine("a", x, c)), a, b


class SharedState(Cell):
    """Two states, one value."""

    state = ("h", "c")

    def step(self, x, h, c):
        h = tanh(self.affine("h", x, h) + self.dense("Z", c))
        return h, h


class OutputOfInput(Cell):
    """The output needs the input and the new state, and nothing needs the output."""

    def step(self, x, h):
        h = tanh(self.dense("U", h) + self.dense("W", x))
        return Output(self.affine("y", h, relu(x)) * self.dense("Q", x)), h


class LoopAndAfter(Cell):
    """A value of every step that the loop reads, and a product after the loop too."""

    shapes = {"x": ("H",)}  # noqa: RUF012

    def step(self, x, h):
        h = tanh(self.dense("U", h) + x * self.vector("p"))
        return Output(self.dense("V", x * h) + self.dense("Q", x)), h

    def sizes(self, input_size, hidden_size):
        return {"I": input_size, "H": hidden_size}


class OutputHandedOn(Cell):
    """The output is the old state, the new state is a projection of a projection."""

    def step(self, x, h):
        return Output(h), self.dense("V", relu(self.affine("u", x, h, size="K")))

    def sizes(self, input_size, hidden_size):
        return {"I": input_size, "H": hidden_size, "K": 3 * hidden_size}


class Means(Cell):
    """Layer norm written out, a running sum and a softmax."""

    def step(self, x, h):
        z = self.affine("h", x, h)
        centred = z - mean(z)
        normal = centred * (mean(centred * centred) + 1e-5) ** -0.5
        return tanh(self.vector("g", init=ones()) * normal) + softmax(cumsum(h)) * g.sum(h * z)


class Heads(Cell):
    """States with two axes, products along the last, reductions along each."""

    state = ("m",)
    shapes = {"m": ("N", "E")}  # noqa: RUF012

    def step(self, x, m):  # noqa: ARG002
        z = tanh(self.dense("U", m, size="E") + self.parameter("P", ("N", "E"), init=glorot()))
        return Output(g.sum(z, "N") * softmax(m, "N")), z + softmax(m, "E") * mean(m, "N")

    def sizes(self, input_size, hidden_size):
        return {"I": input_size, "H": hidden_size, "N": 2, "E": hidden_size}


class SquareMatrix(Cell):
    """A parameter with the same letter twice: the last axis is meant unless another is named."""

    state = ("m",)
    shapes = {"m": ("H", "H")}  # noqa: RUF012

    def step(self, x, m):  # noqa: ARG002
        return tanh(self.dense("U", m) + softmax(m) - mean(m) * g.sum(self.parameter("A", ("H", "H"), init=glorot())))


OWN = [
    OneGainPerGroup, ComputedParameter, NormalisedParameter, UnusedState, Shifted, SharedState,
    OutputOfInput, OutputHandedOn, Means, Heads, SquareMatrix,
]  # fmt: skip


@pytest.mark.parametrize("cell", OWN)
def test_cells_with_unusual_graphs_agree(cell):
    check(cell)


def test_a_value_read_by_the_loop_and_after_it_agrees():
    check(LoopAndAfter, sizes=(4, 4))
