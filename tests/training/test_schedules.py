import math

import pytest
import torch

from carousel.errors import ConfigError
from carousel.training import TrainingConfig
from carousel.training.schedules import Schedule, rate_at
from training.test_resume import same_weights, without_times
from training.toy import ToyModel, read_rows, toy_model, toy_train


def rates(config, total, per_epoch=5):
    return [float(config.lr) * rate_at(step, config, total_steps=total, steps_per_epoch=per_epoch) for step in range(total)]


def test_one_cycle_is_torchs_but_for_its_end():
    config = TrainingConfig(lr=0.2, schedule="one_cycle", lr_end=0.2 / 25e4)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=40, cycle_momentum=False)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < 40:
            theirs.step()
    assert rates(config, 40) == pytest.approx(expected, rel=1e-9)


def test_cosine_is_torchs():
    config = TrainingConfig(lr=0.2, schedule="cosine", lr_end=0.01)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=29, eta_min=0.01)
    expected = []
    for _ in range(30):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates(config, 30) == pytest.approx(expected, rel=1e-9)


def test_step_cuts_every_so_many_epochs_and_not_below_the_end():
    config = TrainingConfig(lr=1.0, schedule="step", lr_factor=0.1, lr_epochs=2, lr_end=0.05)
    assert rates(config, 30) == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.05] * 10)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau"])
def test_warm_up_rises_in_a_line_to_the_rate(schedule):
    config = TrainingConfig(lr=0.4, schedule=schedule, warmup_steps=4)
    assert rates(config, 20, per_epoch=20)[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_run_of_very_few_steps_has_a_rate_at_each(schedule, total):
    config = TrainingConfig(lr=0.4, schedule=schedule)
    assert all(0 <= rate <= 0.4 and math.isfinite(rate) for rate in rates(config, total))


def test_plateau_cuts_after_so_many_epochs_without_a_better_one_and_leaves_the_warm_up_alone():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    config = TrainingConfig(lr=0.8, schedule="plateau", warmup_steps=3, lr_factor=0.5, lr_epochs=2, lr_end=0.3)
    schedule = Schedule(optimizer, config, total_steps=1, steps_per_epoch=1, mode="max")
    seen = []
    for value in (0.1, 0.9, 0.5, 0.9, 0.4, 0.4, 0.4, 0.4, 0.95):
        schedule.after_step()
        schedule.after_epoch(value)
        seen.append(round(optimizer.param_groups[0]["lr"], 6))
    #           two of warm-up     0.5 is the first value judged, 0.9 is better, then two cuts, the second held at the end
    assert seen == [round(1.6 / 3, 6), 0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.3, 0.3]


def test_the_file_shows_the_rate_of_the_last_step_of_each_epoch(tmp_path):
    result = toy_train(tmp_path, schedule="cosine", epochs=3, lr=0.02, patience=None)
    config = TrainingConfig(schedule="cosine", lr=0.02)
    assert [row["lr"] for row in result.history] == pytest.approx([rates(config, 18)[step] for step in (5, 11, 17)])


def test_each_step_uses_its_rate(tmp_path):
    # sgd on a loss whose gradient is always 1: the weight falls by the rates
    class Falling(ToyModel):
        def measure(self, batch):
            measured = super().measure(batch)
            loss = self.net[0].bias[0] + 0.0 * measured.loss
            return type(measured)(loss, measured.items, measured.tokens, measured.sums)

    torch.manual_seed(0)
    model = Falling()
    before = model.net[0].bias[0].item()
    toy_train(
        tmp_path, model, optimizer="sgd", lr=0.1, schedule="one_cycle", epochs=2, clip_norm=None, valid=None, monitor="loss"
    )
    config = TrainingConfig(schedule="one_cycle", lr=0.1)
    # the model comes back with the best epoch: by the largest loss, the first
    assert before - model.net[0].bias[0].item() == pytest.approx(sum(rates(config, 12)[:6]), rel=1e-4)


SCHEDULES = [
    {"schedule": "cosine"},
    {"schedule": "one_cycle"},
    {"schedule": "step", "lr_epochs": 1, "warmup_steps": 3},
    {"schedule": "plateau", "lr_epochs": 1, "monitor": "loss", "mode": "max"},
    {"warmup_steps": 15},
    {"schedule": "cosine", "accumulate": 4, "warmup_steps": 1},
]


@pytest.mark.parametrize("options", SCHEDULES, ids=str)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, options):
    options = options | {"epochs": 4, "patience": None}
    toy_train(tmp_path / "whole", **options)
    interrupt(tmp_path / "parts", 9, options)
    toy_train(tmp_path / "parts", resume=True, **options)
    assert same_weights(tmp_path / "whole" / "last", tmp_path / "parts" / "last")
    rows = read_rows(tmp_path / "whole")
    assert without_times(read_rows(tmp_path / "parts")) == without_times(rows)
    assert len({row["lr"] for row in rows}) > 1


def interrupt(run_dir, batch, options):
    """Stop a run as Ctrl-C does, in batch number `batch`."""
    import os
    import signal

    def press(model, loss):
        if model.training and model.measured == batch:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    assert toy_train(run_dir, toy_model(on_measure=press), **options).interrupted


@pytest.mark.parametrize("option", ["epochs", "accumulate"])
def test_a_schedule_laid_out_for_a_number_of_steps_keeps_it(tmp_path, option):
    toy_train(tmp_path, schedule="cosine", epochs=1, accumulate=1)
    with pytest.raises(ConfigError, match=f"{option} cannot change when a run is resumed"):
        toy_train(tmp_path, resume=True, schedule="cosine", **({"epochs": 1, "accumulate": 1} | {option: 2}))


def test_a_planned_run_refuses_another_number_of_batches(tmp_path):
    options = {"schedule": "cosine", "epochs": 2}
    interrupt(tmp_path, 9, options)
    with pytest.raises(ConfigError, match=r"the length of a run with the schedule cosine cannot change(.|\n)*10 (.|\n)*12"):
        toy_train(tmp_path, resume=True, trainer={"limit_train_batches": 5}, **options)
