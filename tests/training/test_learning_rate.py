import math

import pytest
import torch

from carousel.errors import ConfigError, TrainingError
from carousel.training import TrainingConfig, find_lr, load_checkpoint
from carousel.training.learning_rate import RateTest, draw_rate_test
from training.test_resume import same_weights
from training.test_schedules import interrupt
from training.toy import ToyBatches, read_rows, toy_model, toy_train


def config(**options):
    return TrainingConfig(**({"device": "cpu", "threads": 1, "progress": False, "lr": "auto"} | options))


def test_the_rates_grow_by_a_constant_factor_and_the_choice_is_one_that_learns(tmp_path):
    test = find_lr(toy_model(), ToyBatches(), config(optimizer="sgd"), lowest=1e-4, highest=100.0, steps=60)
    steps = [later / earlier for earlier, later in zip(test.rates, test.rates[1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert len(test.losses) == len(test.rates)
    # far above the first rates, where nothing moves, and far below where the loss explodes
    assert 0.01 < test.best < 10
    learned = toy_train(tmp_path / "best", lr=test.best, optimizer="sgd", epochs=3, valid=None, monitor="loss", mode="min")
    slow = toy_train(tmp_path / "slow", lr=test.best / 100, optimizer="sgd", epochs=3, valid=None, monitor="loss", mode="min")
    assert learned.last["train_loss"] < 0.95 * slow.last["train_loss"]


def test_nothing_of_the_test_remains():
    model, reference = toy_model(), toy_model()
    model.eval()
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    find_lr(model, ToyBatches(), config(), steps=30)
    assert torch.equal(torch.rand(3), expected)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in reference.state_dict().items())


def test_accumulated_batches_are_one_step():
    model = toy_model()
    model.measured = 0
    test = find_lr(model, ToyBatches(6), config(accumulate=4), steps=20)
    # 6 batches an epoch make a step of 4 and one of 2
    assert (len(test.rates), model.measured) == (20, 60)


def test_a_loss_that_falls_at_no_rate_is_an_error():
    flat = toy_model(on_measure=lambda _, loss: 0.0 * loss + 1.0)
    with pytest.raises(TrainingError, match=r"the training loss falls at no rate(.|\n)*give lr a number"):
        find_lr(flat, ToyBatches(), config())
    with pytest.raises(TrainingError, match="a loss that is not a finite number"):
        find_lr(toy_model(on_measure=lambda _, loss: loss * math.nan), ToyBatches(), config())


def test_arguments_are_checked():
    with pytest.raises(ConfigError, match="steps is too small"):
        find_lr(toy_model(), ToyBatches(), config(), steps=5)
    with pytest.raises(ConfigError, match="nothing to train on"):
        find_lr(toy_model(), ToyBatches(0), config())


def test_auto_is_the_run_with_the_rate_that_was_found_and_resumes(tmp_path, capsys):
    options = {"epochs": 3, "patience": None, "lr": "auto"}
    toy_train(tmp_path / "auto", progress=True, **options)
    found = load_checkpoint(tmp_path / "auto" / "last")["callbacks"]["carousel"]["config"]["lr"]
    assert f"learning rate found: {found:g}" in capsys.readouterr().err
    assert {float(row["lr"]) for row in read_rows(tmp_path / "auto")} == {found}
    assert (tmp_path / "auto" / "lr_finder.png").read_bytes().startswith(b"\x89PNG")
    toy_train(tmp_path / "same", **(options | {"lr": found}))
    assert same_weights(tmp_path / "auto" / "last", tmp_path / "same" / "last")
    steps = len(find_lr(toy_model(), ToyBatches(), config()).rates)
    interrupt(tmp_path / "parts", steps + 9, options)
    toy_train(tmp_path / "parts", resume=True, **options)
    assert same_weights(tmp_path / "auto" / "last", tmp_path / "parts" / "last")


def test_the_picture_replaces_an_older_one(tmp_path):
    path = tmp_path / "lr_finder.png"
    path.write_bytes(b"old")
    draw_rate_test(path, RateTest(rates=(1e-3, 1e-2), losses=(1.0, 0.5), best=1e-2))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [item.name for item in tmp_path.iterdir()] == ["lr_finder.png"]
