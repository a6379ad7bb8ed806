import pytest
import torch
from torch import nn

from carousel.training import load_checkpoint
from carousel.training.averaging import WeightAverage
from training.test_resume import same_weights, without_times
from training.test_schedules import interrupt
from training.toy import ToyBatches, read_rows, toy_model, toy_train


def follow(kind, **options):
    """Averages over steps of a weight, by the class and by hand."""
    torch.manual_seed(3)
    model = nn.Linear(4, 3)
    average = WeightAverage(model, kind, **options)
    seen = []
    for step in range(1, 8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)
        seen.append(model.weight.detach().clone())
        average.after_step()
        average.after_epoch(step)
    return model, average, seen


def test_swa_is_the_mean_from_its_epoch_on():
    model, average, seen = follow("swa", start=3)
    torch.testing.assert_close(average.averaged(model.state_dict())["weight"], torch.stack(seen[2:]).mean(0))


def test_ema_forgets_by_its_decay_and_its_start_sooner():
    model, average, seen = follow("ema", decay=0.5)
    torch.manual_seed(3)
    expected = nn.Linear(4, 3).weight.detach()
    for count, weight in enumerate(seen):
        decay = min(0.5, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(average.averaged(model.state_dict())["weight"], expected)


def test_swapping_twice_changes_nothing_and_once_gives_the_average():
    model, average, seen = follow("swa")
    mean = average.averaged(model.state_dict())
    average.swap()
    assert all(torch.equal(model.state_dict()[name], mean[name]) for name in mean)
    assert all(torch.equal(average.averaged(model.state_dict())[name], mean[name]) for name in mean)
    average.swap()
    assert torch.equal(model.weight, seen[-1])


def test_tied_weights_and_buffers_are_taken_along():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)
            self.second = nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("seen", torch.zeros(1))

    model = Tied()
    average = WeightAverage(model, "swa")
    for epoch, value in enumerate([1.0, 3.0], start=1):
        nn.init.constant_(model.first.weight, value)
        model.seen.fill_(value)
        average.after_epoch(epoch)
    averaged = average.averaged(model.state_dict())
    assert averaged["first.weight"].unique().tolist() == averaged["second.weight"].unique().tolist() == [2.0]
    assert averaged["seen"].item() == 3.0


@pytest.mark.parametrize("options", [{"average": "ema", "average_decay": 0.9}, {"average": "swa", "average_from": 2}], ids=str)
def test_validation_and_the_checkpoints_use_the_average(tmp_path, options):
    model = toy_model()
    result = toy_train(tmp_path, model, epochs=4, patience=None, lr=0.05, **options)
    plain = toy_model()
    toy_train(tmp_path / "plain", plain, epochs=4, patience=None, lr=0.05)
    kept = load_checkpoint(tmp_path / "last")
    last = load_checkpoint(tmp_path / "plain" / "last")["state_dict"]
    # training went the same way; the average is another model
    assert all(torch.equal(kept["module"]["average"]["raw"][name], last[name]) for name in last)
    assert not torch.equal(kept["state_dict"]["net.0.weight"], last["net.0.weight"])
    model.load_state_dict(kept["state_dict"])
    model.eval()
    batches = ToyBatches(3, seed=1)
    loss = nn.functional.cross_entropy(model.net(batches.x), batches.y).item()
    assert result.last["valid_loss"] == pytest.approx(loss, rel=1e-6)


def test_the_model_comes_back_with_the_averaged_weights_of_the_best_epoch(tmp_path):
    model = toy_model()
    toy_train(tmp_path, model, epochs=3, average="ema")
    best = load_checkpoint(tmp_path / "best")["state_dict"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in best.items())


@pytest.mark.parametrize("options", [{"average": "ema"}, {"average": "swa", "average_from": 2}], ids=str)
@pytest.mark.parametrize("batch", [3, 9, 15])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, options, batch):
    options = options | {"epochs": 4, "patience": None}
    toy_train(tmp_path / "whole", **options)
    interrupt(tmp_path / "parts", batch, options)
    toy_train(tmp_path / "parts", resume=True, **options)
    for name in ("last", "best"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
    whole, parts = (load_checkpoint(tmp_path / name / "last")["module"]["average"] for name in ("whole", "parts"))
    assert whole["count"] == parts["count"]
    assert all(torch.equal(whole["raw"][name], parts["raw"][name]) for name in whole["raw"])
    assert without_times(read_rows(tmp_path / "parts")) == without_times(read_rows(tmp_path / "whole"))


def test_without_validation_the_ends_of_epochs_are_averaged_too(tmp_path):
    toy_train(tmp_path, valid=None, monitor="loss", mode="min", epochs=3, average="swa")
    assert load_checkpoint(tmp_path / "last")["module"]["average"]["count"] == 3
