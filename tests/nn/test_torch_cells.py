"""`carousel.nn.LSTMCell`, `GRUCell` and `RNNCell` stand in for torch's, line for line."""

import copy
import inspect
import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

import carousel.nn
from carousel.errors import ConfigError, DTypeError, ShapeError
from nn.torch_twins import CELLS, SAME, assert_same_results, module_error_inputs, module_inputs, tensors, twins

B, I, H = 3, 2, 4  # noqa: E741

FORMS = [("LSTMCell", {}), ("GRUCell", {}), ("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"})]
every_cell = pytest.mark.parametrize("name", CELLS)
every_form = pytest.mark.parametrize(("name", "form"), FORMS, ids=["LSTMCell", "GRUCell", "RNNCell", "RNNCell-relu"])


def states(name, *shape):
    made = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for _ in range(2 if name == "LSTMCell" else 1)]
    return tuple(made) if len(made) > 1 else made[0]


def inputs(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@every_cell
def test_torchs_own_module_inputs_give_the_same_outputs_and_gradients(name):
    entries = module_inputs(name)
    assert len(entries) >= 2
    for entry in entries:
        made, given = entry.constructor_input, entry.forward_input
        theirs, ours = twins(name, *made.args, **made.kwargs)
        assert_same_results(theirs, ours, *given.args, **given.kwargs)


@every_form
@pytest.mark.parametrize(("alone", "bias"), list(itertools.product([False, True], [False, True])))
def test_steps_give_the_same_states_and_gradients(name, form, alone, bias):
    theirs, ours = twins(name, I, H, bias=bias, **form)
    lead = () if alone else (B,)
    assert_same_results(theirs, ours, inputs(*lead, I), states(name, *lead, H))
    assert_same_results(theirs, ours, inputs(*lead, I))


@every_form
def test_steps_in_a_loop_are_the_layer(name, form):
    _, ours = twins(name, I, H, **form)
    layer = getattr(carousel.nn, name.removesuffix("Cell"))(I, H, dtype=torch.float64, **form)
    layer.load_state_dict({f"{found}_l0": p for found, p in ours.state_dict().items()}, strict=True)
    x, hx = inputs(6, B, I), states(name, B, H)
    start = hx if isinstance(hx, torch.Tensor) else hx[0]
    whole, last = layer(x, hx.unsqueeze(0) if start is hx else tuple(part.unsqueeze(0) for part in hx))
    shown = []
    for x_t in x:
        hx = ours(x_t, hx)
        shown.append(tensors(hx)[0])
    torch.testing.assert_close(torch.stack(shown), whole, **SAME)
    for a, b in zip(tensors(hx), tensors(last), strict=True):
        torch.testing.assert_close(a, b[0], **SAME)


@every_form
@pytest.mark.parametrize("bias", [False, True])
def test_the_same_seed_starts_with_the_same_parameters(name, form, bias):
    made = []
    for where in (nn, carousel.nn):
        torch.manual_seed(5)
        cell = getattr(where, name)(I, H, bias, **form)
        made.append((cell, [*cell.named_parameters(), ("the next draw", torch.rand(3))]))
    (theirs, before), (ours, after) = made
    assert [found for found, _ in before] == [found for found, _ in after]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True))
    assert (ours.bias_hh is None) == (theirs.bias_hh is None)
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())


@every_cell
def test_arguments_and_defaults_are_torchs(name):
    for method in ("__init__", "forward"):
        theirs, ours = (inspect.signature(getattr(getattr(where, name), method)) for where in (nn, carousel.nn))
        wanted = [(p.name, p.default) for p in theirs.parameters.values()]
        assert [(p.name, p.default) for p in ours.parameters.values()] == wanted


@every_form
def test_second_derivatives_are_exact(name, form):
    _, ours = twins(name, I, 3, **form)
    names = [found for found, _ in ours.named_parameters()]
    weights = [ours.get_parameter(found).detach().clone().requires_grad_() for found in names]

    def run(x, *rest):
        start = rest[len(names) :]
        given = dict(zip(names, rest[: len(names)], strict=True))
        return tuple(tensors(functional_call(ours, given, (x, start if len(start) > 1 else start[0]))))

    arguments = (inputs(2, I), *weights, *tensors(states(name, 2, 3)))
    assert torch.autograd.gradcheck(run, arguments)
    assert torch.autograd.gradgradcheck(run, arguments, fast_mode=True)


@every_form
def test_functional_transforms_give_what_torch_gives(name, form):
    theirs, ours = twins(name, I, H, **form)
    other = {found: torch.randn_like(p) for found, p in theirs.named_parameters()}
    xs = torch.randn(5, B, I, dtype=torch.float64)
    hx = states(name, B, H)
    found = []
    for cell in (theirs, ours):

        def first(parameters, x, cell=cell):
            return tensors(functional_call(cell, parameters, (x, hx)))[0]

        def loss(parameters, x, first=first):
            return first(parameters, x).pow(2).sum()

        jacobian = jacrev(lambda parameters, first=first: first(parameters, xs[0]).sum(0))(other)
        found.append([first(other, xs[0]), *grad(loss)(other, xs[0]).values(), *jacobian.values()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, **SAME)
    each = vmap(lambda x: tensors(ours(x, hx))[0])(xs)
    torch.testing.assert_close(each, torch.stack([tensors(theirs(x, hx))[0] for x in xs]), **SAME)


@every_cell
def test_deep_copies_the_meta_device_and_empty_batches(name):
    _, ours = twins(name, I, H)
    x = inputs(B, I)
    for a, b in zip(tensors(copy.deepcopy(ours)(x)), tensors(ours(x)), strict=True):
        assert torch.equal(a, b)
    hollow = getattr(carousel.nn, name)(I, H, device="meta")
    assert tensors(hollow(torch.empty(B, I, device="meta")))[0].shape == (B, H)
    assert tensors(ours(inputs(0, I)))[0].shape == (0, H)
    assert ours.engine.name == "cpu"


@every_cell
def test_what_torch_refuses_is_refused(name):
    entries = module_error_inputs(name)
    assert len(entries) >= 4
    for entry in entries:
        made, given = entry.module_error_input.constructor_input, entry.module_error_input.forward_input
        # torch raises RuntimeError or ValueError here; ours is a ValueError, or, where it takes "relu" for bias, a TypeError.
        with pytest.raises((ShapeError, DTypeError)):
            getattr(carousel.nn, name)(*made.args, **made.kwargs)(*given.args)


MISTAKES = [
    (lambda: carousel.nn.RNNCell(I, H, nonlinearity="gelu"), ConfigError, "RNNCell: unknown nonlinearity 'gelu'"),
    (
        lambda: carousel.nn.RNNCell(I, H, "relu"),
        DTypeError,
        r"RNNCell: bias must be True or False\.\n.*'relu' \(str\)",
    ),
    (lambda: carousel.nn.GRUCell(0, H), ConfigError, r"GRUCell: input_size is too small\.\n.*0\n.*1 or more"),
    (lambda: carousel.nn.GRUCell(I, H)(torch.zeros(B, 7)), ShapeError, r"GRUCell.forward: the last axis of the input is 7"),
    (lambda: carousel.nn.GRUCell(I, H)(torch.zeros(1, B, I)), ShapeError, "GRUCell.forward: the input must have 1 or 2 axes"),
    (
        lambda: carousel.nn.GRUCell(I, H)(torch.zeros(B, I), torch.zeros(5, H)),
        ShapeError,
        r"GRUCell.forward: the initial state h does not fit.*\n.*h \(5, 4\)\n.*h \(B, 4\) = \(3, 4\)",
    ),
    (lambda: carousel.nn.LSTMCell(I, H)(torch.zeros(B, I), torch.zeros(B, H)), ShapeError, "hx must be a tuple of 2 tensors"),
    (lambda: carousel.nn.LSTMCell(I, H)(torch.zeros(B, I).double()), DTypeError, "LSTMCell.forward: the input and the param"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_a_mistake_says_what_to_do(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
