"""What holds for every cell, whatever the weights, the lengths and the chunks."""

import pytest
import torch
from cases import every_cell, random_layer, random_state
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.cells import CELLS

NAN = float("nan")


@st.composite
def batches(draw, max_steps=7, max_batch=4):
    """A seed, T, and lengths from 0 to T in any order."""
    steps = draw(st.integers(1, max_steps))
    lengths = draw(st.lists(st.integers(0, steps), min_size=1, max_size=max_batch))
    return draw(st.integers(0, 2**20)), steps, torch.tensor(lengths)


layers = st.fixed_dictionaries({"num_layers": st.integers(1, 2), "bidirectional": st.booleans(), "batch_first": st.booleans()})


def make(name, seed, steps, batch, **options):
    torch.manual_seed(seed)
    layer = random_layer(name, 3, 4, **options)
    return layer, torch.randn(steps, batch, 3, dtype=torch.float64), random_state(layer, batch)


def time_first(layer, x):
    return x.transpose(0, 1) if layer.batch_first else x


def padding_of(steps, lengths):
    return torch.arange(steps)[:, None] >= lengths[None, :]  # (T, B)


@every_cell
@settings(max_examples=12)
@given(batch=batches(), options=layers)
def test_padding_changes_nothing_forward_or_backward(name, batch, options):
    seed, steps, lengths = batch
    layer, x, state = make(name, seed, steps, len(lengths), **options)
    padding, results = padding_of(steps, lengths), []
    for fill in (0.0, NAN):
        layer.zero_grad()
        given_x = time_first(layer, x.masked_fill(padding[..., None], fill)).clone().requires_grad_()
        given_state = [part.clone().requires_grad_() for part in state]
        output, final = layer(given_x, given_state, lengths)
        torch.manual_seed(seed)
        directions = [torch.randn_like(part) for part in (output, *final)]
        results_of = [part for part in (output, *final) if part.requires_grad]  # where no step ran, the output is plain zeros
        torch.autograd.backward(results_of, directions[-len(results_of) :])
        d_x = time_first(layer, torch.zeros_like(given_x) if given_x.grad is None else given_x.grad)
        assert (d_x[padding] == 0).all()
        assert (time_first(layer, output)[padding] == 0).all()
        learned = [torch.zeros_like(p) if p.grad is None else p.grad for p in layer.parameters()]
        results.append([output, *final, d_x, *(s.grad for s in given_state), *learned])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.isfinite(poisoned).all()
        assert torch.equal(clean, poisoned)


@every_cell
@settings(max_examples=8)
@given(seed=st.integers(0, 2**20), cuts=st.lists(st.integers(0, 7), max_size=4), num_layers=st.integers(1, 2))
def test_streaming_in_any_chunks_equals_the_whole(name, seed, cuts, num_layers):
    layer, x, start = make(name, seed, 7, 3, num_layers=num_layers)
    whole, final = layer(x, start)
    edges, state, pieces = [0, *sorted(cuts), 7], start, []
    for begin, end in zip(edges, edges[1:], strict=False):
        piece, state = layer(x[begin:end], state)
        pieces.append(piece)
    # A product over more rows may sum in another order: float64 rounding only.
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(tuple(state), tuple(final), rtol=1e-12, atol=1e-13)
    state, pieces = start, []
    for x_t in x:
        piece, state = layer.step(x_t, state)
        pieces.append(piece)
    torch.testing.assert_close(torch.stack(pieces), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(tuple(state), tuple(final), rtol=1e-12, atol=1e-13)


@every_cell
@settings(max_examples=8)
@given(batch=batches(), options=layers)
def test_a_sequence_alone_equals_itself_in_a_batch(name, batch, options):
    seed, steps, lengths = batch
    layer, x, state = make(name, seed, steps, len(lengths), **options)
    output, final = layer(time_first(layer, x), state, lengths)
    output = time_first(layer, output)
    for b, n in enumerate(lengths.tolist()):
        alone, alone_final = layer(time_first(layer, x[:n, b : b + 1]), [part[:, b : b + 1] for part in state])
        torch.testing.assert_close(time_first(layer, alone), output[:n, b : b + 1], rtol=1e-12, atol=1e-13)
        for one, whole in zip(alone_final, final, strict=True):
            torch.testing.assert_close(one, whole[:, b : b + 1], rtol=1e-12, atol=1e-13)


@every_cell
@settings(max_examples=8)
@given(batch=batches(), options=layers, shuffle=st.randoms(use_true_random=False))
def test_permuting_the_batch_permutes_the_results(name, batch, options, shuffle):
    seed, steps, lengths = batch
    layer, x, state = make(name, seed, steps, len(lengths), **options)
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    output, final = layer(time_first(layer, x), state, lengths)
    mixed, mixed_final = layer(time_first(layer, x[:, order]), [part[:, order] for part in state], lengths[order])
    torch.testing.assert_close(
        time_first(layer, mixed), time_first(layer, output)[:, order], rtol=1e-12, atol=1e-13
    )
    for one, other in zip(mixed_final, final, strict=True):
        torch.testing.assert_close(one, other[:, order], rtol=1e-12, atol=1e-13)


@every_cell
@settings(max_examples=8)
@given(batch=batches())
def test_flipped_input_is_the_twin_with_directions_swapped(name, batch):
    seed, steps, lengths = batch
    layer, x, state = make(name, seed, steps, len(lengths), bidirectional=True)
    twin = random_layer(name, 3, 4, bidirectional=True)
    twin.layers.load_state_dict(layer.layers_reverse.state_dict())
    twin.layers_reverse.load_state_dict(layer.layers.state_dict())

    def flip(values):
        flipped = values.clone()
        for b, n in enumerate(lengths.tolist()):
            flipped[:n, b] = values[:n, b].flip(0)
        return flipped

    output, final = layer(x, state, lengths)
    other, other_final = twin(flip(x), [part.flip(0) for part in state], lengths)
    ahead, back = flip(other).chunk(2, -1)
    torch.testing.assert_close(torch.cat([back, ahead], -1), output, rtol=1e-12, atol=1e-13)
    for one, two in zip(other_final, final, strict=True):
        torch.testing.assert_close(one.flip(0), two, rtol=1e-12, atol=1e-13)


@every_cell
@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_no_steps_and_no_rows(name, steps, batch, bidirectional, ragged):
    layer, x, state = make(name, 1, steps, batch, num_layers=2, bidirectional=bidirectional)
    lengths = torch.zeros(batch, dtype=torch.long) if ragged else None
    state = [part.requires_grad_() for part in state]
    output, final = layer(x, state, lengths)
    assert output.shape == (steps, batch, layer.output_size)
    assert (output == 0).all()
    for part, start in zip(final, state, strict=True):
        assert part.shape == start.shape
        if ragged or steps == 0:
            assert torch.equal(part, start)
    sum(part.sum() for part in final).backward()
    assert all(torch.isfinite(part.grad).all() for part in state)


@every_cell
def test_a_sequence_of_length_zero_keeps_its_state_and_hands_its_gradient_on(name):
    layer, x, state = make(name, 1, 4, 3, bidirectional=True)
    state = [part.requires_grad_() for part in state]
    _, final = layer(x, state, torch.tensor([2, 0, 4]))
    for part, start in zip(final, state, strict=True):
        assert torch.equal(part[:, 1], start[:, 1])
    sum(part.sum() for part in final).backward()
    assert all((start.grad[:, 1] == 1).all() for start in state)


def open_and_shut(name):
    """A layer whose forget gate is exactly 1 and whose input gate is exactly 0."""
    layer = random_layer(name, 3, 8, dtype=torch.float32)
    with torch.no_grad():
        layer.layers[0].b_i.fill_(-1e4)
        if "b_f" in dict(layer.layers[0].named_parameters()):
            layer.layers[0].b_f.fill_(1e4)
    return layer


@pytest.mark.parametrize("name", [name for name in CELLS if "c" in CELLS[name].state and name.endswith("lstm")])
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


@pytest.mark.parametrize("name", [name for name in CELLS if "c" in CELLS[name].state and name.endswith("lstm")])
def test_the_carousel_carries_the_gradient_unchanged(name):
    layer = open_and_shut(name)
    state = random_state(layer, 2)
    state = state._replace(c=state.c.requires_grad_())
    _, final = layer(torch.randn(1000, 2, 3), state)
    direction = torch.randn_like(final.c)
    final.c.backward(direction)
    assert torch.equal(state.c.grad, direction)
