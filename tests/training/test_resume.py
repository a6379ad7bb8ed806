import shutil

import pytest
import torch
from safetensors.torch import load_file

from carousel.errors import CheckpointError, ConfigError
from training.toy import ToyBatches, read_rows, toy_model, toy_train

TIMES = ("seconds", "tokens_per_second")


def without_times(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def same_weights(left, right):
    left, right = (load_file(directory / "model.safetensors") for directory in (left, right))
    return sorted(left) == sorted(right) and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    "config", [{}, {"optimizer": "sgd", "momentum": 0.9}, {"trainer": {"accumulate_grad_batches": 4}}], ids=str
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, config):
    whole, parts = toy_model(), toy_model()
    expected = toy_train(tmp_path / "whole", whole, epochs=4, patience=None, **config)
    toy_train(tmp_path / "parts", parts, epochs=2, patience=None, **config)
    batches = ToyBatches()
    torch.manual_seed(99)  # what the caller's generators did in between must not matter
    other = toy_model()
    result = toy_train(tmp_path / "parts", other, batches=batches, epochs=4, patience=None, resume=True, **config)
    assert batches.epochs == [2, 3]
    assert same_weights(tmp_path / "whole" / "last", tmp_path / "parts" / "last")
    assert same_weights(tmp_path / "whole" / "best", tmp_path / "parts" / "best")
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    assert without_times(read_rows(tmp_path / "parts")) == without_times(read_rows(tmp_path / "whole"))
    assert without_times(result.history) == without_times(expected.history)
    assert result.best_epoch == expected.best_epoch
    assert result.seconds > result.history[1]["seconds"]


def test_a_run_can_be_resumed_epoch_by_epoch(tmp_path):
    toy_train(tmp_path / "whole", epochs=3, patience=None)
    for epochs in (1, 2, 3):
        toy_train(tmp_path / "parts", epochs=epochs, patience=None, resume=epochs > 1)
    assert same_weights(tmp_path / "whole" / "last", tmp_path / "parts" / "last")


def test_a_finished_run_resumes_to_itself(tmp_path):
    first = toy_train(tmp_path, epochs=2)
    model = toy_model()
    again = toy_train(tmp_path, model, epochs=2, resume=True)
    assert (again.history, again.best_epoch, again.seconds) == (first.history, first.best_epoch, first.seconds)
    best = load_file(tmp_path / "best" / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], best[name]) for name in best)


def test_patience_that_ran_out_stays_out_until_it_is_raised(tmp_path):
    stopped = toy_train(tmp_path, monitor="loss", mode="max", epochs=9, patience=2)
    assert stopped.epochs_run < 9
    assert toy_train(tmp_path, monitor="loss", mode="max", epochs=9, patience=2, resume=True).epochs_run == stopped.epochs_run
    assert toy_train(tmp_path, monitor="loss", mode="max", epochs=9, patience=3, resume=True).epochs_run > stopped.epochs_run


@pytest.mark.parametrize(("option", "value"), [("lr", 0.5), ("optimizer", "sgd"), ("seed", 9), ("clip_norm", None)])
def test_an_option_that_makes_another_run_cannot_change(tmp_path, option, value):
    toy_train(tmp_path, epochs=1)
    with pytest.raises(
        ConfigError, match=rf"{option} cannot change when a run is resumed(.|\n)*got:(.|\n)*expected:(.|\n)*try:"
    ):
        toy_train(tmp_path, epochs=2, resume=True, **{option: value})


def test_the_monitored_metric_cannot_change(tmp_path):
    toy_train(tmp_path, epochs=1)
    with pytest.raises(ConfigError, match="monitor cannot change"):
        toy_train(tmp_path, epochs=2, resume=True, monitor="loss")


def test_another_model_is_refused_by_the_name_of_what_differs(tmp_path):
    toy_train(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=r"another model: they differ in net.0.weight(.|\n)*\(8, 6\)(.|\n)*\(9, 6\)"):
        toy_train(tmp_path, toy_model(hidden=9), epochs=2, resume=True)


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        toy_train(tmp_path / "nothing", resume=True)
    assert not list(tmp_path.iterdir())


def spoil(directory):
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])


def test_a_damaged_checkpoint_makes_way_for_the_one_before(tmp_path):
    toy_train(tmp_path / "whole", epochs=3, patience=None)
    toy_train(tmp_path / "run", epochs=2, patience=None)
    spoil(tmp_path / "run" / "last")
    batches = ToyBatches()
    with pytest.warns(UserWarning, match=r"last is damaged(.|\n)*model\.safetensors(.|\n)*goes on from there"):
        toy_train(tmp_path / "run", batches=batches, epochs=3, patience=None, resume=True)
    assert batches.epochs == [1, 2]
    assert same_weights(tmp_path / "whole" / "last", tmp_path / "run" / "last")
    assert without_times(read_rows(tmp_path / "run")) == without_times(read_rows(tmp_path / "whole"))


def test_a_missing_checkpoint_makes_way_for_the_one_before(tmp_path):
    toy_train(tmp_path, epochs=2)
    shutil.rmtree(tmp_path / "last")
    with pytest.warns(UserWarning, match="goes on from there"):
        assert toy_train(tmp_path, epochs=2, resume=True).epochs_run == 2


def test_damaged_checkpoints_are_refused_and_a_copy_of_best_helps(tmp_path):
    toy_train(tmp_path, epochs=1)
    spoil(tmp_path / "last")
    spoil(tmp_path / ".last.before")
    with pytest.raises(CheckpointError, match=r"last is damaged or incomplete: model\.safetensors cannot be read"):
        toy_train(tmp_path, epochs=2, resume=True)
    shutil.rmtree(tmp_path / "last")
    shutil.copytree(tmp_path / "best", tmp_path / "last")
    assert toy_train(tmp_path, epochs=2, resume=True).epochs_run == 2


def test_no_run_begins_where_only_the_checkpoint_before_is_left(tmp_path):
    toy_train(tmp_path, epochs=1)
    for name in ("last", "best"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        toy_train(tmp_path, epochs=1)
