"""`CausalAttention`: against NumPy, gradients, and pieces, streams and padding that change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from carousel.errors import ConfigError, ShapeError
from carousel.nn import CausalAttention


def layer(size=6, window=4, seed=0, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    made = CausalAttention(size, window, dtype=dtype, **options)
    torch.nn.init.normal_(made.output.weight)
    return made


def by_hand(made, x):
    """The equations, one number after another; x (T, F) of one sequence."""
    Wq, Wk, Wv, Wo = (part.weight.detach().numpy() for part in (made.queries, made.keys, made.values, made.output))
    y = x.copy()
    for t in range(len(x)):
        steps = range(max(0, t - made.window + 1), t + 1)
        for head in range(made.heads):
            part = slice(head * made.head_size, (head + 1) * made.head_size)
            q = Wq[part] @ x[t]
            scores = [q @ (Wk[part] @ (x[s - 1] if s else 0 * x[0])) / np.sqrt(made.head_size) for s in steps]
            weights = np.exp(scores - np.max(scores))
            weights /= weights.sum()
            y[t] += Wo[:, part] @ sum(weight * (Wv[part] @ x[s]) for weight, s in zip(weights, steps, strict=True))
    return y


@pytest.mark.parametrize(("window", "heads"), [(1, 1), (4, 1), (4, 2), (20, 3)])
def test_it_is_its_equations(window, heads):
    made = layer(window=window, heads=heads, head_size=2)
    x = torch.randn(9, 3, 6, dtype=torch.float64)
    y, _ = made(x)
    for row in range(3):
        np.testing.assert_allclose(y[:, row].detach().numpy(), by_hand(made, x[:, row].numpy()), rtol=1e-9, atol=1e-12)


def test_it_begins_as_nothing():
    torch.manual_seed(0)
    x = torch.randn(5, 2, 6)
    assert torch.equal(CausalAttention(6, 3)(x)[0], x)


def test_gradients_also_of_the_state():
    made = layer(size=3, window=3)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    state = made(torch.randn(2, 2, 3, dtype=torch.float64))[1]
    last, keys, values = (part.detach().requires_grad_() for part in state[:3])
    lengths = torch.tensor([4, 2])

    def run(x, last, keys, values, *_):
        y, after = made(x, (last, keys, values, state[3]), lengths)
        return y, *after[:3]

    assert gradcheck(run, (x, last, keys, values, *made.parameters()))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 100))
def test_pieces_are_the_whole(window, pieces, seed):
    made = layer(window=window, seed=seed)
    x = torch.randn(sum(pieces) + 1, 2, 6, dtype=torch.float64)
    whole, end = made(x)
    found, state = [], None
    for piece in torch.split(x, [*pieces, 1]):
        y, state = made(piece, state)
        found.append(y)
    torch.testing.assert_close(torch.cat(found), whole)
    for one, other in zip(state, end, strict=True):
        torch.testing.assert_close(one, other)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 100))
def test_what_is_not_a_number_in_the_padding_changes_nothing(window, lengths, seed):
    made = layer(window=window, seed=seed)
    T, B = 7, len(lengths)
    x = torch.randn(T, B, 6, dtype=torch.float64)
    before = made(torch.randn(3, B, 6, dtype=torch.float64))[1]
    dirty = x.clone()
    for row, length in enumerate(lengths):
        dirty[length:, row] = torch.nan
    y, state = made(dirty, before, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, after = made(x[:length, row : row + 1], tuple(part[:, row : row + 1] for part in before))
        torch.testing.assert_close(y[:length, row : row + 1], alone)
        assert not y[length:, row].any()
        for one, other in zip(state, after, strict=True):
            torch.testing.assert_close(one[:, row : row + 1], other)


def test_a_stream_is_the_whole():
    made = layer()
    x = torch.randn(9, 2, 6, dtype=torch.float64)
    whole, end = made(x)
    stream = made.stream(2)
    found = [stream.step(row) for row in x]
    torch.testing.assert_close(torch.stack(found), whole)
    for one, other in zip(stream.state, end, strict=True):
        torch.testing.assert_close(one, other)
    stream.restart(2)
    torch.testing.assert_close(stream.step(x[0]), whole[0])


def test_it_learns_to_repeat_what_followed_a_sign_once():
    """Pairs of a sign and a letter, the same within a text: told once, it is known."""
    torch.manual_seed(0)
    made, read, say = CausalAttention(32, 40), torch.nn.Embedding(16, 32), torch.nn.Linear(32, 16)
    optimizer = torch.optim.Adam([*made.parameters(), *read.parameters(), *say.parameters()], 1e-2)

    def text():
        letters = torch.randint(8, 16, (64, 8))
        signs = torch.randint(0, 8, (64, 15))
        return torch.stack([signs, letters.gather(1, signs)], -1).flatten(1).T

    for _ in range(250):
        tokens = text()
        logits = say(made(read(tokens))[0])[-2]
        loss = torch.nn.functional.cross_entropy(logits, tokens[-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = text()
    known = (tokens[:-2:2] == tokens[-2]).any(0)
    right = say(made(read(tokens))[0])[-2].argmax(-1) == tokens[-1]
    assert right[known].float().mean() > 0.8  # by chance: 0.13


def test_bad_sizes_are_told():
    with pytest.raises(ConfigError, match="window"):
        CausalAttention(4, 0)
    with pytest.raises(ConfigError, match="heads"):
        CausalAttention(4, 3, heads=0)
    with pytest.raises(ShapeError, match=r"\(T, B, F\)"):
        CausalAttention(4, 3)(torch.zeros(2, 3, 5))
