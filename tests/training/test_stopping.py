import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from carousel.errors import TrainingError
from carousel.training import load_checkpoint
from training.toy import ToyBatches, read_rows, toy_model, toy_train


def test_patience_stops_after_so_many_epochs_without_a_better_one(tmp_path):
    result = toy_train(tmp_path, monitor="loss", mode="max", epochs=20, patience=3)
    assert result.epochs_run == result.best_epoch + 3
    assert load_checkpoint(tmp_path / "best")["callbacks"]["carousel"]["run"]["best_epoch"] == result.best_epoch


def test_no_patience_never_stops_early(tmp_path):
    assert toy_train(tmp_path, monitor="loss", mode="max", epochs=6, patience=None).epochs_run == 6


def test_a_time_limit_ends_an_epoch_early_and_still_validates(tmp_path):
    model = toy_model(on_measure=lambda _, loss: time.sleep(0.02) or loss)
    began = time.monotonic()
    result = toy_train(tmp_path, model, batches=ToyBatches(500), max_minutes=0.005)
    assert time.monotonic() - began < 8
    assert result.epochs_run == 1
    assert 3 <= result.last["step"] < 100
    assert "valid_accuracy" in result.last
    assert not result.interrupted
    for name in ("last", "best"):
        assert load_checkpoint(tmp_path / name)["callbacks"]["carousel"]["run"]["history"] == result.history


def test_a_run_that_the_clock_ended_goes_on_with_the_next_epoch(tmp_path):
    toy_train(tmp_path, batches=ToyBatches(), epochs=3, max_minutes=1e-9)
    batches = ToyBatches()
    result = toy_train(tmp_path, batches=batches, epochs=3, max_minutes=None, resume=True)
    assert batches.epochs == [1, 2]
    assert [row["step"] for row in result.history] == [1, 7, 13]


def test_max_steps_end_an_epoch_early_and_still_validate(tmp_path):
    result = toy_train(tmp_path, epochs=5, trainer={"max_steps": 9})
    assert [row["step"] for row in result.history] == [6, 9]
    assert "valid_loss" in result.last
    assert toy_train(tmp_path, epochs=5, trainer={"max_steps": 9}, resume=True).history == result.history


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_epoch_and_batch(tmp_path, bad):
    model = toy_model(on_measure=lambda self, loss: loss * bad if self.measured == 9 else loss)
    with pytest.raises(TrainingError, match=r"not a finite number in epoch 2, batch 3(.|\n)*got:(.|\n)*try:"):
        toy_train(tmp_path, model, epochs=3)
    assert len(read_rows(tmp_path)) == 1
    for name in ("last", "best"):
        kept = load_checkpoint(tmp_path / name)
        assert len(kept["callbacks"]["carousel"]["run"]["history"]) == 1
        assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())
    assert toy_train(tmp_path, epochs=3, resume=True).epochs_run == 3


def test_an_error_before_the_first_epoch_ends_leaves_nothing(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(TrainingError, match="epoch 1, batch 2"):
        toy_train(tmp_path, toy_model(on_measure=lambda self, loss: loss * math.nan if self.measured == 2 else loss))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert toy_train(tmp_path).epochs_run == 2


def test_a_validation_loss_that_is_not_a_number_is_not_kept(tmp_path):
    model = toy_model(on_measure=lambda self, loss: loss if self.training or self.measured < 12 else loss * math.nan)
    with pytest.raises(TrainingError, match="validation loss is not a number after epoch 2"):
        toy_train(tmp_path, model, epochs=3)
    assert len(read_rows(tmp_path)) == 1


def press_ctrl_c_at(step):
    def meddle(model, loss):
        if model.training and model.measured == step:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    return meddle


def test_ctrl_c_keeps_every_step_and_loads_the_best(tmp_path, capsys):
    model = toy_model(on_measure=press_ctrl_c_at(15))
    before = signal.getsignal(signal.SIGINT)
    result = toy_train(tmp_path, model, epochs=4, progress=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert result.interrupted
    assert result.epochs_run == 2
    assert result.best_epoch in (1, 2)
    best = load_checkpoint(tmp_path / "best")["state_dict"]
    assert all(torch.equal(model.state_dict()[name], best[name]) for name in best)
    said = capsys.readouterr().err
    assert "Interrupted in epoch 3; all up to batch 3 of 6 is kept in" in said
    assert "resume=True" in said
    batches = ToyBatches()
    again = toy_model()
    assert toy_train(tmp_path, again, batches=batches, epochs=4, resume=True).epochs_run == 4
    assert batches.epochs == [2, 3]
    assert again.measured == 9  # three batches of the third epoch were left, and the fourth
    toy_train(tmp_path / "whole", epochs=4)
    ours, whole = (load_checkpoint(directory / "last")["state_dict"] for directory in (tmp_path, tmp_path / "whole"))
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_ctrl_c_waits_for_the_step_that_gradients_wait_for(tmp_path):
    config = {"accumulate": 4}
    result = toy_train(tmp_path, toy_model(on_measure=press_ctrl_c_at(2)), batches=ToyBatches(10), **config)
    assert result.interrupted
    place = load_checkpoint(tmp_path / "last")["callbacks"]["carousel"]["place"]
    assert (place["batch"], place["step"]) == (4, 1)


def test_ctrl_c_in_the_first_epoch_can_be_continued_too(tmp_path):
    result = toy_train(tmp_path, toy_model(on_measure=press_ctrl_c_at(2)))
    assert (result.interrupted, result.epochs_run, result.best_epoch, result.best, result.last) == (True, 0, 0, {}, {})
    resumed, whole = toy_model(), toy_model()
    toy_train(tmp_path, resumed, resume=True)
    toy_train(tmp_path / "whole", whole)
    assert all(torch.equal(resumed.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())


def test_ctrl_c_during_validation_keeps_the_training_of_the_epoch(tmp_path):
    def meddle(model, loss):
        if not model.training and model.measured == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    result = toy_train(tmp_path, toy_model(on_measure=meddle))
    assert (result.interrupted, result.epochs_run) == (True, 1)
    model = toy_model()
    result = toy_train(tmp_path, model, resume=True)
    assert (result.interrupted, result.epochs_run, model.measured) == (False, 2, 0)
    whole = toy_train(tmp_path / "whole")
    assert result.best == pytest.approx(
        whole.best | {name: result.best[name] for name in ("seconds", "tokens_per_second")}, rel=0
    )


def test_a_second_ctrl_c_does_not_wait_for_the_batch(tmp_path):
    def meddle(model, loss):
        if model.measured == 8:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        return loss

    began = time.monotonic()
    result = toy_train(tmp_path, toy_model(on_measure=meddle))
    assert (result.interrupted, result.epochs_run) == (True, 1)
    assert time.monotonic() - began < 30


def test_a_ctrl_c_after_the_loop_is_a_plain_one(tmp_path, monkeypatch):
    def pressed_twice(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.setattr("carousel.training.keeper.draw_learning_curve", pressed_twice)
    with pytest.raises(KeyboardInterrupt):
        toy_train(tmp_path)


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(toy_train(tmp_path)))
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert results[0].epochs_run == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_keyboard_interrupt_of_somebody_else_ends_a_run_the_same_way(tmp_path):
    def meddle(model, loss):
        if model.measured == 8:
            raise KeyboardInterrupt
        return loss

    before = signal.getsignal(signal.SIGINT)
    result = toy_train(tmp_path, toy_model(on_measure=meddle))
    assert (result.interrupted, result.epochs_run) == (True, 1)
    assert signal.getsignal(signal.SIGINT) is before


SCRIPT = """
import json, sys, time
from training.toy import toy_model, toy_train, ToyBatches

def meddle(model, loss):
    if model.training and model.measured == 8:
        print("in the second epoch", flush=True)
    if model.measured > 8:
        time.sleep(0.05)
    return loss

result = toy_train(sys.argv[1], toy_model(on_measure=meddle), epochs=1000, patience=None, progress=True)
print(json.dumps([result.interrupted, result.epochs_run]))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process on Windows")
def test_sigint_to_a_process_that_trains_is_a_clean_exit(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline().strip() == "in the second epoch"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out) == [True, 1]
    assert "Traceback" not in err
    assert "To continue, run the same again" in err
    assert len(load_checkpoint(tmp_path / "run" / "last")["callbacks"]["carousel"]["run"]["history"]) == 1
