"""Integers as inputs: what one-hot vectors give, without computing with them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from carousel import Cell, tanh
from carousel.errors import ConfigError
from carousel.nn import InputDropout, Recurrent, WeightDrop

V, H, T, B = 11, 6, 7, 5
LENGTHS = torch.tensor([7, 3, 0, 5, 1])


class Highway(Cell):
    """Its input is read by itself, not only through matrices."""

    state = ("h",)
    shapes = {"x": ("H",)}  # noqa: RUF012 - a plain table

    def step(self, x, h):
        return tanh(self.affine("h", x, h)) + x


class TwoInputs(Cell):
    state = ("h",)
    inputs = ("x", "y")
    shapes = {"x": ("I",), "y": ("I",)}  # noqa: RUF012 - a plain table

    def step(self, x, y, h):
        return tanh(self.affine("a", x, h) + self.affine("b", y))


def gradients(layer, output):
    return torch.autograd.grad(output.sin().sum(), list(layer.parameters()), allow_unused=True)


def same(layer, numbers, vectors, **given):
    expected, final = layer(vectors, **given)
    found, end = layer(numbers, **given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(end, final, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(gradients(layer, found), gradients(layer, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", ["eager", "cpu"])
@pytest.mark.parametrize(
    "cell", ["elman", "lstm", "peephole_lstm", "gru", "mgu", "rhn", "multiplicative_lstm", "sru", "indrnn"]
)
def test_numbers_give_what_one_hot_vectors_give(cell, engine):
    layer = Recurrent(cell, V, H, num_layers=2, bidirectional=True, engine=engine, dtype=torch.float64)
    numbers = torch.randint(V, (T, B))
    same(layer, numbers, one_hot(numbers, V).double(), lengths=LENGTHS)


@pytest.mark.parametrize("transforms", [(InputDropout(0.3),), (WeightDrop(0.4, "W_*"),)])
def test_a_transform_of_the_input_or_its_matrices_sees_vectors(transforms):
    layer = Recurrent("gru", V, H, transforms=transforms, dtype=torch.float64)
    numbers = torch.randint(V, (T, B))
    same(layer, numbers, one_hot(numbers, V).double(), seed=5)


def test_an_input_that_is_read_by_itself_becomes_vectors():
    layer = Recurrent(Highway, V, V, dtype=torch.float64)
    numbers = torch.randint(V, (T, B))
    same(layer, numbers, one_hot(numbers, V).double(), lengths=LENGTHS)


def test_one_of_two_inputs_may_be_numbers():
    layer = Recurrent(TwoInputs, V, H, dtype=torch.float64)
    numbers, y = torch.randint(V, (T, B)), torch.randn(T, B, V, dtype=torch.float64)
    same(layer, (numbers, y), (one_hot(numbers, V).double(), y))


def test_what_stands_in_the_padding_may_be_any_number():
    layer = Recurrent("lstm", V, H, batch_first=True)
    numbers = torch.randint(V, (B, T))
    expected = layer(numbers, lengths=LENGTHS)[0]
    numbers[torch.arange(T)[None] >= LENGTHS[:, None]] = -100
    assert torch.equal(layer(numbers, lengths=LENGTHS)[0], expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integers(dtype):
    layer, numbers = Recurrent("gru", V, H), torch.randint(V, (T, B))
    assert torch.equal(layer(numbers.to(dtype))[0], layer(numbers)[0])


@pytest.mark.parametrize("wrong", [-1, V])
def test_a_number_of_no_class(wrong):
    layer, numbers = Recurrent("gru", V, H), torch.randint(V, (T, B))
    numbers[2, 1] = wrong
    with pytest.raises(ConfigError, match=rf"no class.\n  got:      {wrong}\n  expected: 0 to 10"):
        layer(numbers)
    with pytest.raises(ConfigError, match="no class"):
        layer.eval().stream(B)(numbers[2])


def test_streams_and_steps_take_numbers():
    layer, numbers = Recurrent("lstm", V, H, num_layers=2).eval(), torch.randint(V, (T, B))
    whole = layer(numbers)[0]
    stream, state = layer.stream(B), None
    for x, expected in zip(numbers, whole, strict=True):
        output, state = layer.step(x, state)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(stream(x), expected)


def test_traced_layers_take_numbers():
    layer, numbers = Recurrent("gru", V, H), torch.randint(V, (T, B))
    traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(numbers, lengths=LENGTHS)[0], layer(numbers, lengths=LENGTHS)[0])


def test_long_sequences_in_less_memory():
    layer = Recurrent("lstm", V, H, keep_every=3, dtype=torch.float64)
    numbers = torch.randint(V, (T, B))
    same(layer, numbers, one_hot(numbers, V).double())
