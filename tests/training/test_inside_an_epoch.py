"""Runs that go on from the middle of an epoch."""

import os
import signal
import time

import pytest
import torch

from carousel.errors import CheckpointError
from carousel.training import load_checkpoint, save_checkpoint
from training.killed import same, summary
from training.toy import ToyBatch, ToyBatches, toy_model, toy_train


def press_ctrl_c(kind, at):
    """Press it at the batch of that number, over all epochs, of training or of validation."""
    seen = []

    def meddle(model, loss):
        if ("train" if model.training else "valid") == kind:
            seen.append(0)
            if len(seen) == at:
                os.kill(os.getpid(), signal.SIGINT)
        torch.rand(2)
        return loss

    return toy_model(on_measure=meddle)


def stopped_and_resumed(folder, kind, at, make_batches=ToyBatches, **config):
    """Run once without and once with an interruption; return what is left of both, and the batches of the resumed part."""
    options = {"epochs": 3, "patience": None} | config
    toy_train(folder / "whole", press_ctrl_c("never", 0), batches=make_batches(), **options)
    result = toy_train(folder / "parts", press_ctrl_c(kind, at), batches=make_batches(), **options)
    assert result.interrupted
    batches = make_batches()
    torch.manual_seed(99)  # what the caller's generators did in between must not matter
    result = toy_train(folder / "parts", press_ctrl_c("never", 0), batches=batches, resume=True, **options)
    assert not result.interrupted
    return summary(folder / "whole"), summary(folder / "parts"), batches


CONFIGS = [
    {},
    {"optimizer": "sgd", "momentum": 0.9, "schedule": "plateau", "lr_epochs": 1},
    {"accumulate": 4},
    {"average": "ema", "schedule": "one_cycle"},
    {"average": "swa", "average_from": 2, "warmup_steps": 4},
    {"trainer": {"limit_train_batches": 5}},
    {"precision": "bf16-mixed"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize(("kind", "at"), [("train", 8), ("valid", 4)])
def test_ctrl_c_and_resume_change_nothing(tmp_path, config, kind, at):
    whole, parts, _ = stopped_and_resumed(tmp_path, kind, at, **config)
    assert same(whole, parts)


@pytest.mark.parametrize(
    ("kind", "at"), [("train", 1), ("train", 6), ("train", 7), ("train", 12), ("train", 18), ("valid", 3), ("valid", 9)]
)
def test_it_does_not_matter_where(tmp_path, kind, at):
    whole, parts, _ = stopped_and_resumed(tmp_path, kind, at)
    assert same(whole, parts)


def test_without_validation_too(tmp_path):
    whole, parts, _ = stopped_and_resumed(tmp_path, "train", 12, valid=None)
    assert same(whole, parts)


class Drawing(ToyBatches):
    """Batches whose order comes from torch's generator, as a DataLoader's does."""

    def __iter__(self):
        for chosen in torch.randperm(len(self.x)).split(8):
            yield ToyBatch(self.x[chosen] + torch.rand(()), self.y[chosen])


class Skipping(ToyBatches):
    """Batches that can start late without making those before."""

    def __init__(self):
        super().__init__()
        self.made = []
        self.start = 0

    def skip(self, count):
        self.start = count

    def __iter__(self):
        start, self.start = self.start, 0
        for number, chosen in enumerate(self.order.split(8)[start:], start):
            self.made.append((self.epochs[-1], number))
            yield ToyBatch(self.x[chosen], self.y[chosen])


def test_batches_that_draw_their_order_from_a_generator_come_in_the_same_order(tmp_path):
    whole, parts, _ = stopped_and_resumed(tmp_path, "train", 9, Drawing)
    assert same(whole, parts)


def test_batches_that_can_skip_are_not_made_in_vain(tmp_path):
    whole, parts, batches = stopped_and_resumed(tmp_path, "train", 9, Skipping)
    assert same(whole, parts)
    assert batches.made == [(1, 3), (1, 4), (1, 5), *((2, number) for number in range(6))]


def saves(monkeypatch):
    """The place of every checkpoint that is written, None for those between epochs."""
    seen = []

    def note(path, checkpoint, **options):
        place = checkpoint["callbacks"]["carousel"]["place"]
        if path.name == "last":
            seen.append(None if place is None else place["batch"])
        save_checkpoint(path, checkpoint, **options)

    monkeypatch.setattr("carousel.training.checkpoint_io.save_checkpoint", note)
    return seen


def test_saves_come_after_so_many_steps(tmp_path, monkeypatch):
    seen = saves(monkeypatch)
    toy_train(tmp_path, batches=ToyBatches(7), epochs=2, save_steps=3)
    assert seen == [None, 3, 6, None, 3, 6, None]


def test_saves_come_after_so_many_minutes(tmp_path, monkeypatch):
    seen = saves(monkeypatch)
    model = toy_model(on_measure=lambda model, loss: (time.sleep(0.05 * model.training), loss)[1])
    toy_train(tmp_path, model, batches=ToyBatches(8), epochs=1, save_minutes=0.12 / 60)
    assert seen[0] is seen[-1] is None
    assert 1 <= len(seen[1:-1]) <= 3
    assert all(later - earlier >= 2 for earlier, later in zip([0, *seen[1:-1]], seen[1:-1], strict=False))


def test_without_either_only_epochs_are_saved(tmp_path, monkeypatch):
    seen = saves(monkeypatch)
    toy_train(tmp_path, epochs=2, save_minutes=None)
    assert seen == [None, None, None]


def test_max_steps_are_not_passed_by_a_resume_in_validation(tmp_path):
    options = {"epochs": 5, "trainer": {"max_steps": 9}}
    toy_train(tmp_path / "whole", press_ctrl_c("never", 0), **options)
    toy_train(tmp_path / "parts", press_ctrl_c("valid", 5), **options)
    result = toy_train(tmp_path / "parts", press_ctrl_c("never", 0), resume=True, **options)
    assert [row["step"] for row in result.history] == [6, 9]
    assert same(summary(tmp_path / "whole"), summary(tmp_path / "parts"))


def test_seconds_and_speed_count_the_whole_epoch(tmp_path):
    model = press_ctrl_c("train", 3)
    slow = model.on_measure
    model.on_measure = lambda *arguments: (time.sleep(0.1), slow(*arguments))[1]
    toy_train(tmp_path, model, epochs=1)
    result = toy_train(tmp_path, epochs=1, resume=True)
    assert result.last["seconds"] >= 0.3
    assert result.last["tokens_per_second"] <= 6 * 48 / 0.3


def test_a_run_that_fails_after_a_save_can_be_resumed_from_it(tmp_path):
    def fail(model, loss):
        if model.measured == 5:
            raise ZeroDivisionError
        return loss

    with pytest.raises(ZeroDivisionError):
        toy_train(tmp_path, toy_model(on_measure=fail), save_steps=2)
    assert load_checkpoint(tmp_path / "last")["callbacks"]["carousel"]["place"]["batch"] == 4
    with pytest.raises(ZeroDivisionError):  # and a resume that fails takes nothing back
        toy_train(tmp_path, toy_model(on_measure=lambda *_: 1 / 0), save_steps=2, resume=True)
    model = toy_model()
    assert toy_train(tmp_path, model, save_steps=2, resume=True).epochs_run == 2
    assert model.measured == 2 + 6


def lose_an_entry(checkpoint):
    del checkpoint["callbacks"]["carousel"]["generators"]


def keep_no_dictionary(checkpoint):
    checkpoint["callbacks"]["carousel"]["run"] = [1, 2]


def count_backwards(checkpoint):
    checkpoint["callbacks"]["carousel"]["run"]["best_epoch"] = 99


def be_no_history(checkpoint):
    checkpoint["callbacks"]["carousel"]["run"]["history"] = [{"epoch": "one"}]


def be_nowhere(checkpoint):
    checkpoint["callbacks"]["carousel"]["place"]["batch"] = -3


def be_no_sums(checkpoint):
    checkpoint["callbacks"]["carousel"]["place"]["tally"]["sums"] = {"loss": "much"}


def be_no_generators(checkpoint):
    checkpoint["callbacks"]["carousel"]["generators"]["torch"] = torch.zeros(3, dtype=torch.uint8)


def be_no_twister(checkpoint):
    checkpoint["callbacks"]["carousel"]["generators"]["python"] = (3, torch.zeros(2, dtype=torch.int64), None)


def grow_the_moments(checkpoint):
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(1000)


def lose_the_optimizer(checkpoint):
    checkpoint["optimizer_states"] = []


def have_no_groups(checkpoint):
    checkpoint["optimizer_states"][0]["param_groups"] = "all"


def lose_the_schedule(checkpoint):
    del checkpoint["module"]["schedule"]


@pytest.mark.parametrize(
    "spoil",
    [
        lose_an_entry,
        keep_no_dictionary,
        count_backwards,
        be_no_history,
        be_nowhere,
        be_no_sums,
        be_no_generators,
        be_no_twister,
        grow_the_moments,
        lose_the_optimizer,
        have_no_groups,
        lose_the_schedule,
    ],
)
def test_a_whole_checkpoint_of_nonsense_is_an_error_of_ours(tmp_path, spoil):
    toy_train(tmp_path, press_ctrl_c("train", 8))
    last = tmp_path / "last"
    checkpoint = load_checkpoint(last)
    spoil(checkpoint)
    for directory in (last, tmp_path / ".last.before"):
        save_checkpoint(directory, checkpoint)
    with pytest.raises(CheckpointError, match="does not hold the state of a run"):
        toy_train(tmp_path, resume=True)
    assert load_checkpoint(last)["epoch"] == checkpoint["epoch"]  # nothing was taken back
