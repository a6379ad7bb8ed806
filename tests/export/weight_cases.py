"""Layers and arrays with random weights, different in every gate, for the tests of converted weights."""

import numpy as np
import torch

from carousel.nn import Recurrent

T, B, I, H = 7, 3, 5, 4  # noqa: E741
# Two orders of summation in float64: measured over 4 seeds and all tests here, what remains beyond a share of 1e-12 is at most
# 2.1e-16; the rest is margin.
SAME = {"rtol": 1e-12, "atol": 1e-13}


def random_layer(cell, *, input_size=I, hidden_size=H, dtype=torch.float64, **settings):
    """Biases and peepholes are random too, since those start at zero."""
    layer = Recurrent(cell, input_size, hidden_size, dtype=dtype, **settings)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
    return layer


def random_arrays(rng, *shapes, dtype=np.float64):
    return [(rng.standard_normal(shape) * 0.5).astype(dtype) for shape in shapes]


def assert_same_weights(layer, other):
    """Bit by bit, under the same names."""
    ours, theirs = layer.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name


def random_state(layer, batch=B):
    """Not zero: the recurrent matrix does not matter at the first step from zeros."""
    start = layer.initial_state(batch)
    return type(start)(*(torch.randn_like(part) for part in start))
