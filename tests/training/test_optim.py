import pytest
import torch

from carousel.training.config import OPTIMIZERS, TrainingConfig
from carousel.training.optim import build_optimizer, clip_gradients, shrinking
from training.toy import toy_model, toy_train


def gradients(*values):
    parameters = [torch.zeros(len(value), requires_grad=True) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return parameters


def test_clipping_by_norm_scales_all_gradients_alike():
    parameters = gradients([3.0, 0.0], [0.0, 4.0])
    clip_gradients(parameters, value=None, norm=1.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.0, 0.8]))


def test_clipping_by_value_cuts_each_component():
    parameters = gradients([3.0, -0.1], [-4.0, 0.2])
    clip_gradients(parameters, value=0.5, norm=None)
    assert torch.equal(parameters[0].grad, torch.tensor([0.5, -0.1]))
    assert torch.equal(parameters[1].grad, torch.tensor([-0.5, 0.2]))


def test_both_bounds_hold_together():
    parameters = gradients([30.0, 0.3], [-40.0, 0.4])
    clip_gradients(parameters, value=1.0, norm=1.2)
    everything = torch.cat([parameter.grad for parameter in parameters])
    torch.testing.assert_close(everything, torch.tensor([1.0, 0.3, -1.0, 0.4]) * 1.2 / 1.5)


@pytest.mark.parametrize(("config", "largest"), [({"clip_norm": 1e-3}, 1e-3), ({"clip_norm": None, "clip_value": 1e-4}, 1e-4)])
def test_a_run_clips_before_each_step(tmp_path, config, largest):
    model = toy_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    toy_train(tmp_path, model, epochs=1, optimizer="sgd", lr=1.0, valid=None, **config)
    moved = max(float((new.detach() - old).abs().max()) for new, old in zip(model.parameters(), before, strict=True))
    assert 0 < moved <= 6 * largest * 1.001  # six steps of at most `largest` each


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_trains_and_resumes(tmp_path, name):
    toy_train(tmp_path, epochs=1, optimizer=name)
    assert toy_train(tmp_path, epochs=2, optimizer=name, resume=True).epochs_run == 2


@pytest.mark.parametrize(("options", "expected"), [({"optimizer": "sgd", "momentum": 0.9}, 0.9), ({"optimizer": "sgd"}, 0)])
def test_options_reach_the_optimizer(options, expected):
    group = build_optimizer(TrainingConfig(lr=0.3, weight_decay=0.2, **options), toy_model().parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.3, 0.2, expected)


def test_frozen_parameters_stay_out_of_the_optimizer():
    model = toy_model()
    model.net[0].requires_grad_(False)
    assert len(build_optimizer(TrainingConfig(), model.parameters()).param_groups[0]["params"]) == 2


def test_a_norm_within_the_bound_shrinks_nothing():
    assert shrinking(torch.tensor(2.0), None) == 1.0
    assert shrinking(torch.tensor(2.0), 3.0) == 1.0
    assert shrinking(torch.tensor(6.0), 3.0) == pytest.approx(0.5)


def test_sparse_gradients_are_a_group_of_their_own():
    model = toy_model()
    parameters = list(model.parameters())
    dense, sparse = build_optimizer(TrainingConfig(optimizer="sgd"), parameters, sparse=parameters[:1]).param_groups
    assert len(dense["params"]) == len(parameters) - 1
    assert dense["fused"]
    assert sparse["params"][0] is parameters[0]
    assert not sparse["fused"]
