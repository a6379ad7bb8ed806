"""What the parameters of the registered cells start as."""

import math

import pytest
import torch

from carousel.cells import resolve_cell
from carousel.nn import Recurrent


def test_forget_gates_start_open():
    assert (Recurrent("lstm", 3, 4).layers[0].b_f == 1).all()
    assert (Recurrent(resolve_cell("lstm", {"forget_bias": 2.5}), 3, 4).layers[0].b_f == 2.5).all()
    assert (Recurrent("peephole_lstm", 3, 4).layers[0].b_f == 1).all()
    assert (Recurrent("coupled_lstm", 3, 4).layers[0].b_i == -1).all()
    assert (Recurrent("lstm", 3, 4).layers[0].b_i == 0).all()


def test_irnn_starts_as_the_identity_and_copies_its_state():
    layer = Recurrent("irnn", 3, 4)
    assert torch.equal(layer.layers[0].U_h, torch.eye(4))
    assert (layer.layers[0].b_h == 0).all()
    assert layer.layers[0].W_h.abs().max() < 0.01
    state = torch.rand(1, 2, 4)
    _, final = layer(torch.zeros(1000, 2, 3), state)
    assert torch.equal(final.h, state)
    assert torch.equal(Recurrent(resolve_cell("irnn", {"scale": 0.01}), 3, 4).layers[0].U_h, 0.01 * torch.eye(4))


@pytest.mark.parametrize("name", ["lstm", "gru", "elman"])
def test_recurrent_matrices_start_orthogonal_and_input_matrices_by_glorot(name):
    layer = Recurrent(name, 30, 40)
    for key, value in layer.layers[0].named_parameters():
        if key.startswith("U_"):
            torch.testing.assert_close(value @ value.mT, torch.eye(40), rtol=1e-4, atol=1e-5)  # float32 QR
        elif key.startswith("W_"):
            assert 0.9 * math.sqrt(6 / 70) < value.abs().max() <= math.sqrt(6 / 70)
