"""Gate orders are letters, declared once."""

import numpy as np
import pytest
import torch

from carousel.errors import ConfigError, ShapeError
from carousel.export import GATE_ORDERS, permute_gates
from carousel.nn.gates import TORCH, named


def test_every_framework_has_the_same_gates():
    for orders in GATE_ORDERS.values():
        for kind, order in orders.items():
            assert len(order.theirs) == len(order.ours) == len(set(order.ours))
            if kind in GATE_ORDERS["carousel"]:
                assert sorted(order.ours) == sorted(GATE_ORDERS["carousel"][kind].ours)


@pytest.mark.parametrize(("kind", "cell"), [("lstm", "lstm"), ("lstm", "lstmp"), ("gru", "gru_reset_after"), ("rnn", "elman")])
def test_torchs_order_is_that_of_the_layers_that_replace_its_own(kind, cell):
    assert TORCH[cell]["weight_ih"] == named("W", GATE_ORDERS["torch"][kind].ours)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("target", sorted(GATE_ORDERS))
@pytest.mark.parametrize("source", sorted(GATE_ORDERS))
def test_permuting_there_and_back_gives_the_same_numbers(source, target, kind):
    there, back = GATE_ORDERS[source][kind].ours, GATE_ORDERS[target][kind].ours
    stacked = np.random.default_rng(0).standard_normal((2, 3 * len(there)))
    permuted = permute_gates(stacked, there, back, axis=1)
    for gate in there:
        at, to = there.index(gate), back.index(gate)
        assert np.array_equal(permuted[:, 3 * to : 3 * to + 3], stacked[:, 3 * at : 3 * at + 3])
    assert np.array_equal(permute_gates(permuted, back, there, axis=1), stacked)


def test_tensors_stay_tensors_and_arrays_stay_arrays_of_their_dtype():
    numbers = np.arange(6, dtype=np.float32)[::-1]
    numbers.flags.writeable = False
    assert permute_gates(numbers, "rzn", "zrn").tolist() == [3, 2, 5, 4, 1, 0]
    assert permute_gates(numbers, "rzn", "zrn").dtype == np.float32
    assert permute_gates(torch.arange(6), "rzn", "nzr").tolist() == [4, 5, 2, 3, 0, 1]


@pytest.mark.parametrize(("source", "target"), [("ifgo", "zrn"), ("ifgo", "ifgg"), ("ifco", "ifgo"), ("rzz", "rzz")])
def test_orders_with_other_letters_are_refused(source, target):
    with pytest.raises(ConfigError, match=rf"the same letters, each once\.\n.*source '{source}', target '{target}'"):
        permute_gates(np.zeros(12), source, target)


def test_an_axis_that_cannot_be_cut_is_refused():
    with pytest.raises(ShapeError, match="cannot be cut evenly"):
        permute_gates(np.zeros(10), "rzn", "zrn")
