"""Numbers that are not finite: a run stops within the step, names layer and batch, and keeps what was good."""

import math
import re

import pytest
import torch
from torch import nn

from carousel.errors import TrainingError
from carousel.training import load_checkpoint
from carousel.training.optim import clip_gradients
from training.toy import ToyBatches, ToyModel, toy_model, toy_train


def weights_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


class Spoiler(nn.Module):
    """Passes its input on, and spoils it, or the gradient that comes back, in one call."""

    def __init__(self, at, output=None, gradient=None):
        super().__init__()
        self.at, self.output, self.gradient = at, output, gradient
        self.calls = 0
        self.before = None

    def forward(self, x):
        if self.training:
            self.calls += 1
        if self.calls < self.at or not self.training:
            return x
        if self.output is not None:
            return x * self.output
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * self.gradient)
        return x


class Spoiled(ToyModel):
    def __init__(self, *arguments, place=2, **options):
        super().__init__()
        self.spoiler = Spoiler(*arguments, **options)
        layers = list(self.net)
        self.net = nn.Sequential(*layers[:place], self.spoiler, *layers[place:])
        self.good = []

    def measure(self, batch):
        if self.training:
            self.good.append(weights_of(self))
        return super().measure(batch)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_names_the_first_bad_layer_and_the_batch(tmp_path, bad):
    model = Spoiled(9, output=bad)
    message = (
        r"loss is not a finite number in epoch 2, batch 3\.\n  got: +NaN or infinity, first in the output of (net\.2|spoiler) "
    )
    with pytest.raises(TrainingError, match=message):
        toy_train(tmp_path, model, epochs=3)
    assert model.spoiler.calls == 10  # the bad step, and its batch once more to find the layer
    assert all(map(torch.equal, weights_of(model), model.good[8]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "config", [{}, {"clip_norm": None}, {"clip_value": 0.1}, {"clip_norm": None, "clip_value": 0.1}], ids=str
)
def test_a_gradient_names_the_first_bad_layer_and_the_batch(tmp_path, bad, config):
    model = Spoiled(9, gradient=bad)
    message = r"a gradient is not finite in epoch 2, batch 3(.|\n)*first in the gradient of net\.0\.bias \(and of 1 more"
    with pytest.raises(TrainingError, match=message):
        toy_train(tmp_path, model, epochs=3, **config)
    assert model.spoiler.calls == 9  # within the step
    assert all(map(torch.equal, weights_of(model), model.good[8]))  # which did not reach the weights
    for name in ("last", "best"):
        kept = load_checkpoint(tmp_path / name)
        assert len(kept["callbacks"]["carousel"]["run"]["history"]) == 1
        assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_the_last_save_inside_the_epoch_stays(tmp_path):
    with pytest.raises(TrainingError, match="epoch 1, batch 6"):
        toy_train(tmp_path, Spoiled(6, gradient=math.nan), save_steps=2)
    assert load_checkpoint(tmp_path / "last")["callbacks"]["carousel"]["place"]["batch"] == 4


def test_accumulated_gradients_are_looked_at_before_their_step(tmp_path):
    model = Spoiled(3, gradient=math.nan)
    with pytest.raises(TrainingError, match="a gradient is not finite in epoch 1, batch 4"):
        toy_train(tmp_path, model, batches=ToyBatches(8), accumulate=4)
    assert all(map(torch.equal, weights_of(model), model.good[0]))


def test_a_step_that_overflows_is_not_saved(tmp_path):
    def overflow(model, loss):
        if model.training and model.measured == 9:
            with torch.no_grad():
                model.net[3].weight[0, 0] = math.inf  # as a step of a huge rate would
        return loss.detach().nan_to_num(1.0) + 0 * sum(parameter.nan_to_num().sum() for parameter in model.parameters())

    with pytest.raises(TrainingError, match=re.escape("weights are not finite after epoch 2, batch 4")):
        toy_train(tmp_path, toy_model(on_measure=overflow), epochs=3, save_steps=2, clip_norm=None)
    assert torch.isfinite(load_checkpoint(tmp_path / "last")["state_dict"]["net.3.weight"]).all()


def test_a_norm_that_only_overflows_is_no_reason_to_stop():
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3e30, 4e30])  # its squares are infinite in 32 bits
    assert clip_gradients([weight], value=None, norm=1.0).item() == pytest.approx(5e30)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


def test_sparse_gradients_are_looked_at():
    weight = torch.zeros(4, 2, requires_grad=True)
    rows, values = torch.tensor([[1, 1]]), torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    weight.grad = torch.sparse_coo_tensor(rows, values, (4, 2), check_invariants=True)
    assert clip_gradients([weight], value=None, norm=None).item() == pytest.approx(5.0)
