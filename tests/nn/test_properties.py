"""What holds for every cell, whatever the weights, the lengths and the chunks."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import each, every_cell, floating, random_given, random_layer, random_state, tensors

NAN = float("nan")
# Products over more rows, or over fewer, may sum in another order: float64 rounding only.
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


@st.composite
def batches(draw, max_steps=7, max_batch=4):
    """A seed, T, and lengths from 0 to T in any order."""
    steps = draw(st.integers(1, max_steps))
    lengths = draw(st.lists(st.integers(0, steps), min_size=1, max_size=max_batch))
    return draw(st.integers(0, 2**20)), steps, torch.tensor(lengths)


layers = st.fixed_dictionaries({"num_layers": st.integers(1, 2), "bidirectional": st.booleans(), "batch_first": st.booleans()})


def make(case, seed, steps, batch, **options):
    torch.manual_seed(seed)
    layer = case.layer(**options)
    return layer, random_given(layer, steps, batch)


def time_first(layer, value):
    return value.transpose(0, 1) if layer.batch_first else value


def padding_of(steps, lengths):
    return torch.arange(steps)[:, None] >= lengths[None, :]  # (T, B)


def batch_axis(state):
    """Where the rows of a state are: (L·D, B, ...), or (B, ...) where layers have states of different sizes."""
    return 1 if hasattr(state, "_fields") else 0


def same(one, other):
    for a, b in zip(tensors(one), tensors(other), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@every_cell
@settings(max_examples=8)
@given(batch=batches(), options=layers)
def test_padding_changes_nothing_forward_or_backward(case, batch, options):
    seed, steps, lengths = batch
    layer, clean = make(case, seed, steps, len(lengths), **options)
    padding, results = padding_of(steps, lengths), []
    for fill in (0.0, NAN):
        layer.zero_grad()
        called, _ = clean.with_gradients()
        with torch.no_grad():
            for value in called.inputs.values():
                value[padding] = fill
        output, final = called.call(layer, lengths)
        parts = [output, *floating(final)]
        torch.manual_seed(seed)
        directions = [torch.randn_like(part) for part in parts]
        # Where no step ran the output is plain zeros, on which no gradient is defined.
        pairs = [pair for pair in zip(parts, directions, strict=True) if pair[0].requires_grad]
        torch.autograd.backward(*map(list, zip(*pairs, strict=True)))
        d_inputs = [zeros_or(value) for value in called.inputs.values()]
        assert all((d_x[padding] == 0).all() for d_x in d_inputs)
        assert (time_first(layer, output)[padding] == 0).all()
        starts = [zeros_or(part) for part in floating(called.state)]
        results.append([*parts, *d_inputs, *starts, *map(zeros_or, layer.parameters())])
    for one, poisoned in zip(*results, strict=True):
        assert torch.isfinite(poisoned).all()
        assert torch.equal(one, poisoned)


def zeros_or(leaf):
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


@every_cell
@settings(max_examples=6)
@given(seed=st.integers(0, 2**20), cuts=st.lists(st.integers(0, 7), max_size=4), num_layers=st.integers(1, 2))
def test_streaming_in_any_chunks_equals_the_whole(case, seed, cuts, num_layers):
    layer, start = make(case, seed, 7, 3, num_layers=num_layers)
    whole, final = start.call(layer)
    edges, state, pieces = [0, *sorted(cuts), 7], start.state, []
    for begin, end in itertools.pairwise(edges):
        piece, state = start.steps(slice(begin, end), state).call(layer)
        pieces.append(piece)
    same((torch.cat(pieces), state), (whole, final))
    state, pieces = start.state, []
    for t in range(7):
        piece, state = start.step(layer, t, state)
        pieces.append(piece)
    same((torch.stack(pieces), state), (whole, final))


@every_cell
@settings(max_examples=6)
@given(batch=batches(), options=layers)
def test_a_sequence_alone_equals_itself_in_a_batch(case, batch, options):
    seed, steps, lengths = batch
    layer, called = make(case, seed, steps, len(lengths), **options)
    output, final = called.call(layer, lengths)
    axis = batch_axis(final)
    for b, n in enumerate(lengths.tolist()):
        alone, alone_final = called.rows(slice(b, b + 1)).steps(slice(0, n)).call(layer)
        same(time_first(layer, alone), time_first(layer, output)[:n, b : b + 1])
        same(alone_final, each(lambda part, b=b: part.narrow(axis, b, 1), final))


@every_cell
@settings(max_examples=6)
@given(batch=batches(), options=layers, shuffle=st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_the_results(case, batch, options, shuffle):
    seed, steps, lengths = batch
    layer, called = make(case, seed, steps, len(lengths), **options)
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    output, final = called.call(layer, lengths)
    mixed, mixed_final = called.rows(order).call(layer, lengths[order])
    same(time_first(layer, mixed), time_first(layer, output)[:, order])
    axis, index = batch_axis(final), torch.tensor(order)
    same(mixed_final, each(lambda part: part.index_select(axis, index), final))


@every_cell
@settings(max_examples=6)
@given(batch=batches())
def test_flipped_input_is_the_twin_with_directions_swapped(case, batch):
    seed, steps, lengths = batch
    layer, called = make(case, seed, steps, len(lengths), bidirectional=True)
    twin = case.layer(bidirectional=True)
    twin.layers.load_state_dict(layer.layers_reverse.state_dict())
    twin.layers_reverse.load_state_dict(layer.layers.state_dict())

    def flip(values):
        flipped = values.clone()
        for b, n in enumerate(lengths.tolist()):
            flipped[:n, b] = values[:n, b].flip(0)
        return flipped

    output, final = called.call(layer, lengths)
    turned = type(called)(
        {n: flip(v) for n, v in called.inputs.items()}, each(lambda p: p.flip(0), called.state), called.context
    )
    other, other_final = turned.call(twin, lengths)
    ahead, back = flip(other).chunk(2, 2)
    same(torch.cat([back, ahead], 2), output)
    same(each(lambda part: part.flip(0), other_final), final)


@every_cell
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_no_steps_and_no_rows(case, steps, batch, bidirectional, ragged):
    layer, called = make(case, 1, steps, batch, num_layers=2, bidirectional=bidirectional)
    lengths = torch.zeros(batch, dtype=torch.long) if ragged else None
    called, _ = called.with_gradients()
    output, final = called.call(layer, lengths)
    assert output.shape[:3] == (steps, batch, layer.output_size)
    assert (output == 0).all()
    for part, start in zip(tensors(final), tensors(called.state), strict=True):
        assert part.shape == start.shape
        if ragged or steps == 0:
            assert torch.equal(part, start)
    sum(part.sum() for part in floating(final)).backward()
    assert all(torch.isfinite(part.grad).all() for part in floating(called.state))


@every_cell
def test_a_sequence_of_length_zero_keeps_its_state_and_hands_its_gradient_on(case):
    layer, called = make(case, 1, 4, 3, bidirectional=True)
    called, _ = called.with_gradients()
    _, final = called.call(layer, torch.tensor([2, 0, 4]))
    for part, start in zip(tensors(final), tensors(called.state), strict=True):
        assert torch.equal(part[:, 1], start[:, 1])
    sum(part.sum() for part in floating(final)).backward()
    assert all((start.grad[:, 1] == 1).all() for start in floating(called.state))


CAROUSELS = ["lstm", "peephole_lstm", "coupled_lstm", "multiplicative_lstm"]


def open_and_shut(name):
    """A layer whose forget gate is exactly 1 and whose input gate is exactly 0."""
    layer = random_layer(name, 3, 8, dtype=torch.float32)
    with torch.no_grad():
        layer.layers[0].b_i.fill_(-1e4)
        if "b_f" in dict(layer.layers[0].named_parameters()):
            layer.layers[0].b_f.fill_(1e4)
    return layer


@pytest.mark.parametrize("name", CAROUSELS)
def test_the_carousel_keeps_c_bit_equal_over_a_thousand_steps(name):
    layer = open_and_shut(name)
    x = torch.randn(1000, 2, 3)
    zero = layer.initial_state(2)
    state = zero._replace(h=torch.randn_like(zero.h), c=torch.randn_like(zero.c) * 3)
    with torch.no_grad():
        _, final = layer(x, state)
        _, stepped = layer.step(x[0], final)
    assert torch.equal(final.c, state.c)
    assert torch.equal(stepped.c, state.c)
    assert not torch.equal(final.h, state.h)


@pytest.mark.parametrize("name", CAROUSELS)
def test_the_carousel_carries_the_gradient_unchanged(name):
    layer = open_and_shut(name)
    state = random_state(layer, 2)
    state = state._replace(c=state.c.requires_grad_())
    _, final = layer(torch.randn(1000, 2, 3), state)
    direction = torch.randn_like(final.c)
    final.c.backward(direction)
    assert torch.equal(state.c.grad, direction)
