import json
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


def feed_as_a_device_would(tally, loss, norm=None):
    """What `add` and `watch` do for numbers that are not on the CPU, without a device."""
    tally.flush()
    tally.batches += 1
    tally.items += 2
    tally.tokens += 4
    batch = tally.batches
    tally._send([torch.tensor(loss), torch.tensor(1)], lambda read: tally._count(2, read[0], [("accuracy", read[1])], batch))
    if norm is not None:
        tally.watch(torch.tensor(norm))


def test_waiting_for_a_device_changes_no_number():
    at_once, late = Tally(), Tally()
    losses = torch.rand(10).tolist()
    losses[5] = math.nan
    for loss in losses:
        at_once.add(measured(loss, items=2, correct=1))
        feed_as_a_device_would(late, loss)
    late.flush()
    assert late.bad_batch == at_once.bad_batch == 6
    assert late.smooth_loss == at_once.smooth_loss
    assert late.means()["accuracy"] == at_once.means()["accuracy"]


def test_a_device_tells_of_a_bad_batch_one_batch_later():
    tally = Tally()
    for loss, norm, bad_batch, bad_gradient in [
        (1.0, 1.0, None, None),
        (math.inf, 2.0, None, None),
        (1.0, math.nan, 2, None),
        (1.0, 1.0, 2, 3),
    ]:
        feed_as_a_device_would(tally, loss, norm)
        assert (tally.bad_batch, tally.bad_gradient) == (bad_batch, bad_gradient)


def test_sums_go_on_where_they_were():
    whole, first, second = Tally(), Tally(), Tally()
    losses = torch.rand(7).tolist()
    for number, loss in enumerate(losses):
        whole.add(measured(loss, items=number + 1, correct=number))
        (first if number < 4 else second).add(measured(loss, items=number + 1, correct=number))
        if number == 3:
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.means() == whole.means()
    assert second.smooth_loss == whole.smooth_loss
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize("change", [{"batches": 1.0}, {"sums": []}, {"sums": {"loss": "1"}}, {"extra": 1}, {"_smooth": None}])
def test_what_are_no_sums_is_refused(change):
    tally = Tally()
    tally.add(measured(1.0))
    with pytest.raises(ValueError, match="no sums"):
        Tally().load_state_dict(tally.state_dict() | change)
