"""The battery that every registered cell passes by being registered, in the builds that `tests/nn` does not try.

`tests/nn/test_properties.py` draws lengths, chunks and depths; here are gradients by every kind of value, learned starts,
layers against time, merges and skips, the state round trip, and the edges of time and batch.
"""

import copy
import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from builds import Given, random_given, random_layer, run, step
from cases import INDICATORS, each, every_cell, floating, leaves, tensors

STEPS, BATCH = 4, 4
LENGTHS = torch.tensor([3, 0, 4, 1])
NAN = float("nan")
# One product over more rows may sum in another order: float64 rounding only.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}

BUILDS = {
    "plain": {},
    "reverse": {"reverse": True},
    "learned starts": {"learn_state": True},
    "deep residual": {"num_layers": 2, "skip": "residual"},
    "both ways, mean": {"bidirectional": True, "merge": "mean", "num_layers": 2},
    "independent": {"bidirectional": True, "independent": True, "merge": "sum", "num_layers": 2},
}
every_build = pytest.mark.parametrize("options", BUILDS.values(), ids=BUILDS)


def build(case, options, steps=STEPS, batch=BATCH):
    """A layer and what it is called with; with learned starts, no state is given."""
    layer = case.layer(**options)
    given = random_given(layer, steps, batch)
    if layer.learn_state:
        given.state = None
    return layer, given


def rows(given, index):
    """Some rows, also where no state is given."""
    if given.state is not None:
        return given.rows(index)
    inputs = {name: value[:, index] for name, value in given.inputs.items()}
    return Given(inputs, None, {name: value[index] for name, value in given.context.items()})


def close(got, expected):
    for one, other in zip(tensors(got), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def as_function(layer, given, lengths):
    """The layer as a function of inputs, context, initial states and parameters: that, and those values as leaves.

    What is 1 or 0 by its meaning stays: a finite difference there is another choice.
    """
    parameters = dict(layer.named_parameters())
    states = dict(enumerate(tensors(given.state))) if given.state is not None else {}
    groups = [given.inputs, given.context, parameters, states]
    free = [(g, n) for g, group in enumerate(groups) for n, v in group.items() if v.is_floating_point() and n not in INDICATORS]

    def function(*values):
        filled = [dict(group) for group in groups]
        for (g, n), value in zip(free, values, strict=True):
            filled[g][n] = value
        inputs, context, learned, parts = filled
        remaining = iter(parts.values())
        state = None if given.state is None else each(lambda _: next(remaining), given.state)
        output, final = functional_call(layer, learned, (inputs, state, lengths), {"context": context or None})
        return output, *floating(final)

    return function, leaves(*(groups[g][n] for g, n in free))


@every_cell
@pytest.mark.parametrize("name", ["reverse", "learned starts"])
def test_gradients_of_inputs_states_context_and_parameters(case, name):
    layer, given = build(case, BUILDS[name], steps=3, batch=3)
    function, sources = as_function(layer, given, torch.tensor([2, 0, 3]))
    found = torch.autograd.grad(sum(part.square().sum() for part in function(*sources)), sources, allow_unused=True)
    # All matter, but a rectifier may be shut for a whole parameter.
    moved = sum(bool(g is not None and g.abs().max() > 0) for g in found)
    assert moved >= 0.75 * len(found), "the check would compare nothing with nothing"
    # Central differences in float64 are good to about 1e-9 here.
    assert gradcheck(function, sources, eps=1e-6, atol=1e-7, rtol=1e-6, fast_mode=True)
    if not layer.learn_state:  # which only puts other leaves where the states were
        assert gradgradcheck(function, sources, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


@every_cell
@every_build
def test_padding_reaches_nothing(case, options):
    layer, given = build(case, options)
    padding = torch.arange(STEPS)[:, None] >= LENGTHS
    results = []
    for fill in (0.0, NAN):
        layer.zero_grad()
        filled, asked = given.with_gradients() if given.state is not None else (given, [])
        for name, value in given.inputs.items():
            shape = padding.reshape(*padding.shape, *[1] * (value.dim() - 2))
            filled.inputs[name] = value.detach().masked_fill(shape, fill).requires_grad_()
        output, final = run(layer, filled, LENGTHS)
        loss = output.square().sum() + sum(part.square().sum() for part in floating(final))
        loss.backward()
        assert (output[padding] == 0).all()
        found = [*filled.inputs.values(), *(a for a in asked if a.grad is not None), *layer.parameters()]
        results.append([output, *tensors(final), *(f.grad for f in found if f.grad is not None)])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.isfinite(poisoned).all()
        assert torch.equal(clean, poisoned)


@every_cell
@every_build
def test_rows_alone_and_in_another_order(case, options):
    layer, given = build(case, options)
    output, final = run(layer, given, LENGTHS)
    order = torch.tensor([2, 0, 3, 1])
    mixed, mixed_final = run(layer, rows(given, order), LENGTHS[order])
    torch.testing.assert_close(mixed, output[:, order], **CLOSE)
    by_layer = hasattr(final, "_fields")
    close(mixed_final, each(lambda part: part[:, order] if by_layer else part[order], final))
    for b, n in enumerate(LENGTHS.tolist()):
        row = rows(given, slice(b, b + 1))
        row.inputs = {name: value[:n] for name, value in row.inputs.items()}
        alone, alone_final = run(layer, row)
        torch.testing.assert_close(alone, output[:n, b : b + 1], **CLOSE)
        close(alone_final, each(lambda part, b=b: part[:, b : b + 1] if by_layer else part[b : b + 1], final))


@every_cell
@pytest.mark.parametrize("name", ["plain", "learned starts", "deep residual"])
def test_chunks_and_steps_are_the_whole(case, name):
    layer, given = build(case, BUILDS[name])
    whole, final = run(layer, given)
    for edges in ((0, 1, STEPS), (0, 0, 2, 2, STEPS)):
        state, pieces = given.state, []
        for begin, end in itertools.pairwise(edges):
            chunk = {n: value[begin:end] for n, value in given.inputs.items()}
            piece, state = layer(chunk, state, context=given.context or None)
            pieces.append(piece)
        torch.testing.assert_close(torch.cat(pieces), whole, **CLOSE)
        close(state, final)
    state, pieces = given.state, []
    for t in range(STEPS):
        piece, state = step(layer, given, t, state)
        pieces.append(piece)
    torch.testing.assert_close(torch.stack(pieces), whole, **CLOSE)
    close(state, final)


@every_cell
def test_ragged_chunks_are_the_whole(case):
    """A sequence that ends in one chunk sits out the next ones: its length there is 0."""
    layer, given = build(case, {})
    whole, final = run(layer, given, LENGTHS)
    state, pieces = given.state, []
    for begin in range(0, STEPS, 2):
        chunk = {name: value[begin : begin + 2] for name, value in given.inputs.items()}
        piece, state = layer(chunk, state, (LENGTHS - begin).clamp(0, 2), context=given.context or None)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces), whole, **CLOSE)
    close(state, final)


@every_cell
@every_build
def test_the_edges_of_time_and_batch(case, options):
    layer = case.layer(**options)
    for steps, batch in ((0, 3), (3, 0), (0, 0), (1, 1)):
        given, _ = random_given(layer, steps, batch).with_gradients()
        if layer.learn_state:
            given.state = None
        start = layer.initial_state(batch) if given.state is None else given.state
        for lengths in (None, torch.full((batch,), steps), torch.zeros(batch, dtype=torch.long)):
            output, final = run(layer, given, lengths)
            assert output.shape[:2] == (steps, batch)
            assert output.shape[2] == layer.output_size
            for part, begun in zip(tensors(final), tensors(start), strict=True):
                assert part.shape == begun.shape
                assert part.dtype == begun.dtype
                if steps == 0 or (lengths is not None and not lengths.any()):
                    assert torch.equal(part, begun)
            sum(part.sum() for part in floating(final)).backward()


@every_cell
def test_length_zero_keeps_the_state_and_hands_its_gradient_on(case):
    layer = case.layer(bidirectional=True)
    given, _ = random_given(layer, STEPS, BATCH).with_gradients()
    _, final = run(layer, given, LENGTHS)
    for part, start in zip(tensors(final), tensors(given.state), strict=True):
        assert torch.equal(part[:, 1], start[:, 1])
    sum(part.sum() for part in floating(final)).backward()
    assert all((start.grad[:, 1] == 1).all() for start in floating(given.state))


@every_cell
def test_nothing_given_is_changed(case):
    layer, given = build(case, {"num_layers": 2})
    before = copy.deepcopy(given)
    output, final = run(layer, given, LENGTHS)
    with torch.no_grad():
        for made in (output, *tensors(final)):
            made.zero_()
    for one, other in ((given.inputs, before.inputs), (given.context, before.context)):
        assert all(torch.equal(one[name], other[name]) for name in one)
    close(given.state, before.state)


@every_cell
def test_the_state_returned_is_a_state_to_give(case):
    """As a named tuple, a plain one and, where the layers are alike, a mapping."""
    layer, given = build(case, {"num_layers": 2})
    _, state = run(layer, given)
    expected = run(layer, given.steps(slice(None), state))[0]
    forms = [tuple(map(tuple, state))] if not hasattr(state, "_fields") else [tuple(state), state._asdict()]
    for form in forms:
        assert torch.equal(run(layer, given.steps(slice(None), form))[0], expected)


@every_cell
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_are_kept_and_near(case, dtype):
    layer, given = build(case, {})
    exact = run(layer, given)[0]
    small = copy.deepcopy(layer).to(dtype)
    inputs = {name: value.to(dtype) for name, value in given.inputs.items()}
    context = {name: value.to(dtype) for name, value in given.context.items()}
    state = each(lambda part: part.to(dtype) if part.is_floating_point() else part, given.state)
    output, final = small(inputs, state, context=context or None)
    assert output.dtype == dtype
    assert all(part.dtype == dtype for part in floating(final))
    # Four steps of cells that may divide by small numbers: a hundred roundings of float32, and bfloat16's 8 bits.
    close_to = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.2, "atol": 0.2}
    torch.testing.assert_close(output.double(), exact, **close_to)


@every_cell
def test_state_dict_and_deepcopy(case):
    layer, given = build(case, {"num_layers": 2, "bidirectional": True})
    twin = copy.deepcopy(layer)
    assert torch.equal(run(twin, given)[0], run(layer, given)[0])
    other = random_layer(case.cell, *case.sizes, num_layers=layer.num_layers, bidirectional=True)
    assert not torch.equal(run(other, given)[0], run(layer, given)[0])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(run(other, given)[0], run(layer, given)[0])
