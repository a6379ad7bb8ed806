"""Packing and padding give what torch's functions give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import rnn

from carousel.errors import DTypeError, ShapeError
from carousel.nn import LSTM, pack_padded_sequence, pad_packed_sequence

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def same(ours: rnn.PackedSequence, theirs: rnn.PackedSequence) -> None:
    assert torch.equal(ours.data, theirs.data)
    assert torch.equal(ours.batch_sizes, theirs.batch_sizes)
    for name in ("sorted_indices", "unsorted_indices"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert (mine is None) == (other is None)
        assert mine is None or torch.equal(mine, other)


@given(LENGTHS, st.booleans(), st.booleans(), st.integers(0, 2), st.integers(0, 2))
def test_as_torch_has_it(lengths, batch_first, ordered, more, axes):
    """Torch's sort need not keep the order of equals, so values are compared where lengths differ or were sorted before."""
    lengths = sorted(lengths, reverse=True) if ordered else list(dict.fromkeys(lengths))
    T = max(lengths) + more
    shape = ((len(lengths), T) if batch_first else (T, len(lengths))) + (3,) * axes
    x = torch.randn(shape, requires_grad=True, dtype=torch.float64)
    y = x.detach().clone().requires_grad_()
    ours = pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=ordered)
    theirs = rnn.pack_padded_sequence(y, torch.tensor(lengths), batch_first, enforce_sorted=ordered)
    same(ours, theirs)
    found = pad_packed_sequence(ours, batch_first, padding_value=2.5, total_length=T)
    expected = rnn.pad_packed_sequence(theirs, batch_first, padding_value=2.5, total_length=T)
    assert torch.equal(found[0], expected[0])
    assert found[1].tolist() == expected[1].tolist() == lengths
    for padded in (found[0], expected[0]):
        padded.sin().sum().backward()
    assert torch.equal(x.grad, y.grad)


@given(LENGTHS)
def test_there_and_back(lengths):
    x = torch.randn(max(lengths), len(lengths), 2)
    padded, counts = pad_packed_sequence(pack_padded_sequence(x, lengths, enforce_sorted=False), padding_value=7.0)
    real = torch.arange(len(x))[:, None] < torch.tensor(lengths)[None]
    assert torch.equal(padded, torch.where(real[..., None], x, 7.0))
    assert counts.tolist() == lengths


def test_a_layer_takes_them_in_place_of_torchs():
    layer, x = LSTM(3, 4), torch.randn(6, 4, 3)
    lengths = torch.tensor([2, 6, 1, 4])
    ours = pad_packed_sequence(layer(pack_padded_sequence(x, lengths, enforce_sorted=False))[0])[0]
    theirs = rnn.pad_packed_sequence(layer(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))[0])[0]
    torch.testing.assert_close(ours, theirs)


def test_what_is_refused():
    x = torch.zeros(4, 2, 3)
    with pytest.raises(ShapeError, match="lengths grow"):
        pack_padded_sequence(x, [2, 3])
    with pytest.raises(ShapeError, match="at least one step"):
        pack_padded_sequence(x, [2, 0])
    with pytest.raises(ShapeError, match="longer than the sequence"):
        pack_padded_sequence(x, [5, 2])
    with pytest.raises(ShapeError, match="one length for each"):
        pack_padded_sequence(x, [2])
    with pytest.raises(DTypeError, match="integers"):
        pack_padded_sequence(x, torch.tensor([2.0, 1.0]))
    with pytest.raises(ShapeError, match="axes of time and of batch"):
        pack_padded_sequence(x[0, 0], [1])
    with pytest.raises(ShapeError, match="too short"):
        pad_packed_sequence(pack_padded_sequence(x, [3, 2]), total_length=2)
