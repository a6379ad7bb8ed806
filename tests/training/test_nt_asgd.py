"""The average that begins when validation stops getting better, and the schedule that waits."""

import pytest
import torch
from torch import nn

from carousel.training import TrainingConfig
from carousel.training.averaging import WeightAverage
from carousel.training.schedules import rate_at
from training.toy import read_rows, toy_model, toy_train


def begins_at(values, *, patience, mode="min"):
    """The epoch, counted from 1, after which the average has begun; None if it never does."""
    average = WeightAverage(nn.Linear(1, 1), "nt_asgd", patience=patience, mode=mode)
    for epoch, value in enumerate(values, start=1):
        average.after_validation(value)
        average.after_step()
        if average.count:
            return epoch
    return None


@pytest.mark.parametrize(
    ("values", "patience", "expected"),
    [
        ([5, 4, 3, 2, 1], 2, None),
        ([5, 4, 3, 3.5, 3.4, 3.3], 2, 6),  # 3.3 is worse than 3, seen before the last two
        ([3, 4, 5, 4.5, 3.9, 3.8], 2, 4),
        ([5, 6, 7], 5, None),
        ([5, 5, 5, 5], 2, None),
    ],
)
def test_it_begins_as_published(values, patience, expected):
    # The published code: val_loss > min(best_val_loss[:-n]) before val_loss is appended.
    by_hand = next((at + 1 for at in range(len(values)) if at > patience and values[at] > min(values[: at - patience])), None)
    assert begins_at(values, patience=patience) == expected == by_hand
    assert begins_at([-value for value in values], patience=patience, mode="max") == expected


def test_the_average_is_the_mean_of_the_steps_since_then():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, "nt_asgd", patience=1, mode="min")
    for value in (1.0, 2.0, 3.0):
        average.after_validation(value)
    for weight in (10.0, 20.0, 60.0):
        nn.init.constant_(model.weight, weight)
        average.after_step()
    average.swap()
    assert model.weight.item() == 30.0


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    options = {"average": "nt_asgd", "average_patience": 1, "optimizer": "sgd", "lr": 2.0, "patience": None, "mode": "min"}
    whole, parts = toy_model(), toy_model()
    toy_train(tmp_path / "whole", whole, epochs=8, monitor="loss", **options)
    for epochs in (3, 6, 8):
        toy_train(tmp_path / "parts", parts, epochs=epochs, monitor="loss", resume=epochs > 3, **options)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name])
    rows = [[row["valid_loss"] for row in read_rows(tmp_path / name)] for name in ("whole", "parts")]
    assert rows[0] == rows[1]
    plain = toy_model()
    toy_train(tmp_path / "plain", plain, epochs=8, monitor="loss", **options | {"average": "none"})
    assert [row["valid_loss"] for row in read_rows(tmp_path / "plain")] != rows[0]  # it did begin


def test_step_waits_before_it_counts():
    config = TrainingConfig(lr=1.0, schedule="step", lr_factor=0.5, lr_epochs=1, lr_hold=4)
    rates = [rate_at(2 * epoch, config, total_steps=26, steps_per_epoch=2) for epoch in range(13)]
    assert rates == [1.0] * 5 + [0.5**n for n in range(1, 9)]
