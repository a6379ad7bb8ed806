"""First and second derivatives of whole layers against finite differences, in float64."""

import pytest
import torch
from cases import every_case, leaves, random_layer, random_state
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

LENGTHS = torch.tensor([2, 0, 3])
STEPS, BATCH, INPUTS, HIDDEN = 3, 3, 2, 2


def as_function(layer, lengths):
    """The layer as a function of inputs, initial states and parameters, all of them leaves."""
    names = [name for name, _ in layer.named_parameters()]
    count = len(layer.cell.state)

    def function(x, *rest):
        state, parameters = rest[:count], dict(zip(names, rest[count:], strict=True))
        output, final = functional_call(layer, parameters, (x, state, lengths))
        return output, *final

    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    given = leaves(x, *random_state(layer, BATCH), *(p for _, p in layer.named_parameters()))
    gradients = torch.autograd.grad(sum((part * part).sum() for part in function(*given)), given)
    assert all(g.abs().max() > 0 for g in gradients), "the check would compare nothing with nothing"
    return function, given


@every_case
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_inputs_parameters_and_initial_states(case, lengths):
    function, given = as_function(random_layer(case.cell, INPUTS, HIDDEN, bidirectional=True), lengths)
    # eps and tolerances of the check itself: central differences in float64 are good to about 1e-9 here.
    assert gradcheck(function, given, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=lengths is None)


@every_case
def test_second_order(case):
    function, given = as_function(random_layer(case.cell, INPUTS, HIDDEN, bidirectional=True), LENGTHS)
    assert gradgradcheck(function, given, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@every_case
def test_two_layers_ragged(case):
    function, given = as_function(random_layer(case.cell, INPUTS, HIDDEN, num_layers=2), LENGTHS)
    assert gradcheck(function, given, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=True)


def test_a_wrong_gradient_is_found():
    """The check itself: a layer whose states are cut from the graph must fail it."""
    layer = random_layer("lstm", INPUTS, HIDDEN)
    function, given = as_function(layer, None)

    def cut(x, *rest):
        return function(x, *(part.detach() for part in rest[:2]), *rest[2:])

    assert not gradcheck(cut, given, raise_exception=False)
