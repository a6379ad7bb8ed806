import math

import pytest
import torch

from carousel.training import Measured
from carousel.training.tally import Tally


def measured(loss, items=1, correct=0, device="cpu"):
    return Measured(torch.tensor(loss, device=device), items=items, tokens=2 * items, sums={"accuracy": torch.tensor(correct)})


def test_means_weigh_batches_by_their_items():
    tally = Tally()
    tally.add(measured(1.0, items=1, correct=1))
    tally.add(measured(3.0, items=3, correct=1))
    assert tally.means() == {"loss": 2.5, "accuracy": 0.5}
    assert tally.tokens == 8


def test_no_items_have_no_means():
    assert Tally().means() == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_is_named(bad):
    tally = Tally()
    for loss in (1.0, bad, 2.0, bad):
        tally.add(measured(loss))
    assert tally.bad_batch == 2


def test_waiting_for_a_device_changes_no_number():
    at_once, together = Tally(), Tally(every=4)
    losses = torch.rand(10).tolist()
    losses[5] = math.nan
    for loss in losses:
        at_once.add(measured(loss, items=2, correct=1))
        # what `add` does for a tensor that is not on the CPU
        together.batches += 1
        together.items += 2
        together.tokens += 4
        together._waiting.append((2, ["accuracy"], [torch.tensor(loss), torch.tensor(1)]))
        if len(together._waiting) >= together.every:
            together.flush()
    together.flush()
    assert together.bad_batch == at_once.bad_batch == 6
    assert together.smooth_loss == at_once.smooth_loss
    assert together.means()["accuracy"] == at_once.means()["accuracy"]
