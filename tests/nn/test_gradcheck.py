"""First and second derivatives of whole layers against finite differences, in float64."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from cases import INDICATORS, Given, each, every_case, floating, leaves, random_given, random_layer

LENGTHS = torch.tensor([2, 0, 3])
STEPS, BATCH = 3, 3


class Substituted:
    """A layer with other parameters."""

    batch_first = False

    def __init__(self, layer, parameters):
        self.layer, self.parameters = layer, parameters

    def __call__(self, *args, **named):
        return functional_call(self.layer, self.parameters, args, named)


def as_function(layer, lengths, steps=STEPS):
    """The layer as a function of inputs, context, initial states and parameters, all of them leaves."""
    start = random_given(layer, steps, BATCH if lengths is None else len(lengths))
    inputs = {name: value for name, value in start.inputs.items() if name not in INDICATORS}
    context = {name: value for name, value in start.context.items() if name not in INDICATORS}
    parts = [inputs, context, dict(enumerate(floating(start.state))), dict(layer.named_parameters())]

    def function(*values):
        values = iter(values)
        inputs, context, state, parameters = ({name: next(values) for name in part} for part in parts)
        state = iter(state.values())
        given = Given(
            start.inputs | inputs,
            each(lambda old: next(state) if old.is_floating_point() else old, start.state),
            start.context | context,
        )
        output, final = given.call(Substituted(layer, parameters), lengths)
        return output, *floating(final)

    given = leaves(*(value for part in parts for value in part.values()))
    gradients = torch.autograd.grad(sum((part * part).sum() for part in function(*given)), given)
    # A rectified unit that is off has no gradient; the rest must have one, or nothing is compared with nothing.
    assert sum(bool(gradient.any()) for gradient in gradients) >= 0.6 * len(gradients)
    return function, given


def small(case, *, num_layers=1, **options):
    """As small as the cell allows."""
    sizes = (2, 2) if case.sizes == (3, 4) else case.sizes
    return random_layer(case.cell, *sizes, num_layers=case.depth(num_layers), **options)


@every_case
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
def test_inputs_parameters_and_initial_states(case, lengths):
    function, given = as_function(small(case, bidirectional=True), lengths)
    # eps and tolerances of the check itself: central differences in float64 are good to about 1e-9 here. The slow mode, which
    # looks at every entry, for the ragged one.
    fast = lengths is None or sum(value.numel() for value in given) > 90
    assert gradcheck(function, given, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=fast)


@every_case
def test_second_order(case):
    layer = small(case, bidirectional=True)
    if sum(p.numel() for p in layer.parameters()) > 60:
        layer = small(case, reverse=True)  # one way of a large cell is enough of a wait
    function, given = as_function(layer, LENGTHS[:2], steps=2)
    assert gradgradcheck(function, given, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@every_case
def test_two_layers_ragged(case):
    function, given = as_function(small(case, num_layers=2), LENGTHS)
    assert gradcheck(function, given, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=True)


def test_a_wrong_gradient_is_found():
    """The check itself: a layer whose states are cut from the graph must fail it."""
    function, given = as_function(random_layer("lstm", 2, 2), None)

    def cut(x, *rest):
        return function(x, *(part.detach() for part in rest[:2]), *rest[2:])

    assert not gradcheck(cut, given, raise_exception=False)
