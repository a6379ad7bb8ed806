"""`Linear`: torch's results, gradients and second derivatives, by another product."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.engines.cpu import outside
from carousel.nn import Linear


@pytest.fixture(autouse=True)
def every_product_is_large(monkeypatch):
    monkeypatch.setattr(outside, "LARGE", 0.0)


def twins(features, out, **options):
    torch.manual_seed(0)
    theirs = torch.nn.Linear(features, out, **options)
    ours = Linear(features, out, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def through(layer, x, direction):
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(direction)
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@settings(deadline=None, max_examples=25)
@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=3),
    features=st.integers(1, 70),
    out=st.integers(1, 70),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_results_and_gradients_are_torchs(shape, features, out, bias, dtype):
    theirs, ours = twins(features, out, bias=bias, dtype=dtype)
    x, direction = torch.randn(*shape, features, dtype=dtype), torch.randn(*shape, out, dtype=dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for got, want in zip(through(ours, x, direction), through(theirs, x, direction), strict=True):
        torch.testing.assert_close(got, want, **tolerance)


def test_our_kernels_really_run(monkeypatch):
    asked = []
    monkeypatch.setattr(outside, "linear", lambda *args, **_: asked.append(1) or torch.nn.functional.linear(*args))
    monkeypatch.setattr(outside, "outer", lambda g, x, **_: asked.append(2) or g.mT @ x)
    layer = Linear(5, 4, bias=False)
    layer(torch.randn(3, 5, requires_grad=True)).sum().backward()
    assert asked == [1, 1, 2]
    monkeypatch.setenv("CAROUSEL_ENGINE", "eager")
    layer(torch.randn(3, 5)).sum().backward()
    assert asked == [1, 1, 2]


@pytest.mark.parametrize("wanted", [(True, False, False), (False, True, False), (False, False, True), (False, True, True)])
def test_only_what_is_wanted_is_computed(wanted):
    theirs, ours = twins(6, 5)
    for layer in (theirs, ours):
        for parameter, yes in zip((layer.weight, layer.bias), wanted[1:], strict=True):
            parameter.requires_grad_(yes)
    x = torch.randn(4, 6)
    found = []
    for layer in (theirs, ours):
        here = x.clone().requires_grad_(wanted[0])
        layer(here).square().sum().backward()
        found.append([here.grad, layer.weight.grad, layer.bias.grad])
    for want, got, yes in zip(*found, wanted, strict=True):
        assert (got is not None) == yes
        torch.testing.assert_close(got, want)


def test_first_and_second_derivatives_by_differences():
    layer = Linear(3, 2, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def function(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,)).tanh()

    arguments = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_what_torch_asks_for_besides_is_torchs():
    theirs, ours = twins(6, 5)
    x = torch.randn(4, 6)
    torch.testing.assert_close(torch.func.vmap(ours)(x), theirs(x))
    _, tangent = torch.func.jvp(ours, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, torch.ones_like(x) @ theirs.weight.mT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(x).dtype is torch.bfloat16
    assert ours.to(torch.bfloat16)(x.bfloat16()).dtype is torch.bfloat16
    with pytest.raises(RuntimeError):
        twins(6, 5)[1](torch.randn(4, 7))


def test_it_is_copied_and_read_like_torchs():
    theirs, ours = twins(6, 5)
    assert isinstance(ours, torch.nn.Linear)
    assert repr(ours) == repr(theirs)
    x = torch.randn(2, 6)
    torch.testing.assert_close(copy.deepcopy(ours)(x), theirs(x))
    assert ours(torch.randn(0, 6)).shape == (0, 5)
