"""Every token is a target once, rows go on from window to window, and lengths depend on seed and epoch alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.data.token_stream import IGNORED, TokenStream
from carousel.errors import ConfigError, ShapeError

START = 1
PINNED = [0, 6, 25, 39, 47, 63, 73, 78]


def rows_of(stream):
    """Inputs and targets of each row over an epoch, without the empty places."""
    windows = list(stream)
    inputs = torch.cat([window.inputs for window in windows], dim=1)
    targets = torch.cat([window.targets for window in windows], dim=1)
    return [(i[t != IGNORED].tolist(), t[t != IGNORED].tolist()) for i, t in zip(inputs, targets, strict=True)]


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 400),
    batch_size=st.integers(1, 9),
    window=st.integers(1, 40),
    random=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_every_token_is_a_target_once_and_follows_its_input(count, batch_size, window, random, epoch):
    numbers = np.arange(10, 10 + count)
    stream = TokenStream(numbers, batch_size=batch_size, window=window, start=START, random=random, seed=3)
    stream.set_epoch(epoch)
    windows = list(stream)
    assert len(windows) == len(stream)
    assert [one.first for one in windows] == [True] + [False] * (len(windows) - 1)
    assert sum(one.token_count for one in windows) == stream.token_count == count
    assert all(one.token_count == int((one.targets != IGNORED).sum()) > 0 for one in windows)
    assert all(one.inputs.shape == one.targets.shape == (min(batch_size, count), one.inputs.shape[1]) for one in windows)
    assert sum(int((one.targets == IGNORED).sum()) for one in windows) < batch_size
    rows = rows_of(stream)
    inputs, targets = ([token for row in rows for token in row[side]] for side in (0, 1))
    assert targets == numbers.tolist()
    assert inputs == [START, *numbers[:-1].tolist()]


@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 300), window=st.integers(1, 20), random=st.booleans(), data=st.data())
def test_what_is_skipped_is_left_out_once(count, window, random, data):
    stream = TokenStream(np.arange(count), batch_size=2, window=window, start=START, random=random)
    whole = list(stream)
    skipped = data.draw(st.integers(0, len(whole)))
    stream.skip(skipped)
    rest, again = list(stream), list(stream)
    assert len(again) == len(whole)
    for one, other in zip(rest, whole[skipped:], strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert one.first == other.first


def test_random_windows_are_drawn_as_published():
    # 400,000 steps: about 5,860 windows.
    stream = TokenStream(np.zeros(400_000, np.int32), batch_size=1, window=70, start=START, random=True, seed=5)
    lengths = np.diff(stream._borders(0))
    assert 0.9 < np.mean(lengths > 52) < 0.99  # 0.95 of them around the whole length
    whole = lengths[lengths > 52]
    assert abs(whole.mean() - 70) < 1.0
    assert 4.5 < whole.std() < 5.5
    assert abs(lengths[lengths <= 52].mean() - 35) < 2.0
    assert lengths.min() >= 4
    assert np.diff(stream._borders(1)).tolist() != lengths.tolist()
    assert [one.rate for one in list(stream)[:20]] == [length / 70 for length in lengths[:20].tolist()]


def test_the_order_depends_on_seed_and_epoch_alone():
    def stream(seed):
        made = TokenStream(np.zeros(900, np.int64), batch_size=1, window=9, start=0, random=True, seed=seed)
        return made._borders(2)

    assert stream(1) == stream(1)
    assert stream(1) != stream(2)
    assert stream(1)[:8] == PINNED  # the same on every machine, for ever


def test_processes_share_the_rows():
    stream = TokenStream(np.arange(50), batch_size=5, window=4, start=START)
    for window in stream:
        parts = [window.part(rank, 2) for rank in (0, 1)]
        assert torch.equal(parts[0].targets, window.targets[::2])
        assert torch.equal(parts[1].inputs, window.inputs[1::2])
        assert sum(part.token_count for part in parts) == window.token_count
    with pytest.raises(ConfigError, match="no such process"):
        window.part(2, 2)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"batch_size": 0}, ConfigError, "batch_size"),
        ({"window": 0}, ConfigError, "window"),
        ({"seed": -1}, ConfigError, "seed"),
        ({"numbers": np.zeros(0, np.int64)}, ShapeError, "N at least 1"),
        ({"numbers": np.zeros((2, 2), np.int64)}, ShapeError, "row of integers"),
        ({"numbers": np.zeros(3)}, ShapeError, "float64"),
    ],
)
def test_what_is_impossible_is_refused(change, kind, said):
    options = {"numbers": np.arange(5), "batch_size": 2, "window": 2, "start": 0, "seed": 0} | change
    with pytest.raises(kind, match=said):
        TokenStream(options.pop("numbers"), **options)


def test_no_more_windows_are_skipped_than_there_are():
    with pytest.raises(ConfigError, match="0 to 3"):
        TokenStream(np.arange(5), batch_size=1, window=2, start=0).skip(4)
