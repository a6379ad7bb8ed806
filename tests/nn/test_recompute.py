"""`keep_every`: the same values and gradients with less memory."""

import pytest
import torch

from builds import TRANSFORMS, run
from carousel.errors import ConfigError
from carousel.nn import Recurrent
from cases import every_cell, random_given, random_layer

T, B = 11, 4
LENGTHS = torch.tensor([11, 0, 7, 3])


def gradients(layer, given, lengths=None, **more):
    given, asked = given.with_gradients()
    output, state = run(layer, given, lengths, **more)
    parts = [output, *(part for part in state if part.is_floating_point())]
    loss = sum((part * torch.linspace(0.1, 1.0, part.numel(), dtype=part.dtype).view_as(part)).sum() for part in parts)
    wanted = [*layer.parameters(), *asked]
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return parts, [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)]


@every_cell
@pytest.mark.parametrize("keep_every", [1, 4, 100])
def test_values_and_gradients_are_those_of_the_whole(case, keep_every):
    layer = random_layer(case.cell, *case.sizes, bidirectional=True)
    given = random_given(layer, T, B)
    values, expected = gradients(layer, given, LENGTHS)
    layer.keep_every = keep_every
    again, found = gradients(layer, given, LENGTHS)
    for a, b in zip([*values, *expected], [*again, *found], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("transform", ["zoneout", "variational dropout", "recurrent dropout"])
def test_noise_is_the_same_when_steps_are_run_again(transform):
    layer = random_layer("lstm", transforms=(TRANSFORMS[transform],))
    given = random_given(layer, T, B)
    expected = gradients(layer, given, LENGTHS, seed=5)
    layer.keep_every = 3
    found = gradients(layer, given, LENGTHS, seed=5)
    for a, b in zip(expected[0] + expected[1], found[0] + found[1], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-11)


def saved_bytes(layer, x):
    """What autograd keeps between forward and backward, each storage once."""
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)[0].sum()
    return sum(seen.values())


def test_less_is_kept():
    layer, x = Recurrent("lstm", 8, 64), torch.randn(400, 4, 8, requires_grad=True)
    everything = saved_bytes(layer, x)
    layer.keep_every = 20
    assert saved_bytes(layer, x) < 0.2 * everything  # the input, the states, and one chunk; 0.07 was measured


@pytest.mark.parametrize("keep_every", [0, -1, 2.0, True])
def test_it_must_be_a_whole_number(keep_every):
    with pytest.raises(ConfigError, match="keep_every"):
        Recurrent("lstm", 3, 4, keep_every=keep_every)
