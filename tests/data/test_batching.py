"""Batches of similar lengths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.data import Batch, BucketedBatches, Sequences, batching
from carousel.errors import ConfigError, DTypeError, ShapeError


def lognormal_sequences(count, seed=0):
    generator = np.random.default_rng(seed)
    lengths = np.clip(generator.lognormal(2.7, 0.6, count).astype(int), 1, 200)
    return [generator.integers(2, 5000, length).tolist() for length in lengths]


@given(
    sequences=st.lists(st.lists(st.integers(0, 99), max_size=12), max_size=40),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**64),
    epoch=st.integers(0, 1000),
    pad=st.integers(-1, 100),
)
@settings(deadline=None)
def test_every_sequence_comes_once_with_its_own_tokens(sequences, batch_size, shuffle, seed, epoch, pad):
    labels = [7 * number for number in range(len(sequences))]
    batches = BucketedBatches(sequences, labels, batch_size=batch_size, shuffle=shuffle, seed=seed, pad=pad)
    batches.set_epoch(epoch)
    seen = []
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert batch.inputs.shape == (len(batch), max(1, int(batch.lengths.max())))
        assert batch.token_count == int(batch.lengths.sum())
        for row, length, label, index in zip(batch.inputs, batch.lengths, batch.labels, batch.index, strict=True):
            assert row[:length].tolist() == sequences[index]
            assert row[length:].tolist() == [pad] * (len(row) - length)
            assert label == labels[index]
            seen.append(int(index))
    assert sorted(seen) == list(range(len(sequences)))
    assert len(list(batches)) == len(batches)


def orders(batches, epoch):
    batches.set_epoch(epoch)
    return [batch.index.tolist() for batch in batches]


def test_the_order_depends_on_seed_and_epoch_alone():
    sequences = lognormal_sequences(500)
    make = lambda seed: BucketedBatches(sequences, batch_size=8, shuffle=True, seed=seed)  # noqa: E731
    batches = make(1)
    first = orders(batches, 0)
    torch.manual_seed(0)
    np.random.seed(0)
    assert orders(batches, 1) != first
    assert orders(batches, 0) == first
    assert orders(make(1), 0) == first
    assert orders(make(2), 0) != first


def test_the_order_is_the_same_on_every_machine():
    batches = BucketedBatches([[1] * n for n in (3, 1, 2, 3, 1, 2, 5)], batch_size=2, shuffle=True, seed=3)
    assert orders(batches, 2) == [[6], [5, 2], [0, 3], [4, 1]]  # as NumPy 2.4 on Linux had it


def test_padding_is_small_and_the_order_random():
    sequences = lognormal_sequences(8000)
    batches = BucketedBatches(sequences, batch_size=32, shuffle=True, seed=1)
    padded = sum(batch.inputs.numel() for batch in batches)
    real = sum(batch.token_count for batch in batches)
    assert real == sum(map(len, sequences))
    assert padded / real < 1.1  # 1.07 here; 3.1 without the sorting
    longest = np.array([batch.inputs.shape[1] for batch in batches], dtype=float)
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.2  # neighbours say nothing about each other
    assert len({frozenset(rows) for epoch in (0, 1) for rows in orders(batches, epoch)}) > 1.9 * len(batches)


def test_without_shuffling_the_longest_come_first_and_index_puts_them_back():
    sequences = [[n] * n for n in (2, 5, 1, 4, 5)]
    batches = BucketedBatches(sequences, batch_size=2, shuffle=False)
    assert orders(batches, 0) == orders(batches, 1) == [[1, 4], [3, 0], [2]]
    back = torch.empty(5, dtype=torch.int64)
    for batch in batches:
        back[batch.index] = batch.inputs[:, 0]
    assert back.tolist() == [2, 5, 1, 4, 5]


def test_labels_may_be_missing_and_a_data_set_empty():
    assert next(iter(BucketedBatches([[1]], batch_size=1, shuffle=True))).labels is None
    empty = BucketedBatches([], [], batch_size=4, shuffle=True)
    assert (len(empty), list(empty)) == (0, [])


def test_a_batch_is_moved_whole():
    batch = next(iter(BucketedBatches([[1, 2], [3]], [0, 1], batch_size=2, shuffle=False)))
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert {tensor.device.type for tensor in (moved.inputs, moved.lengths, moved.labels, moved.index)} == {"meta"}
    assert {tensor.dtype for tensor in (batch.inputs, batch.lengths, batch.labels, batch.index)} == {torch.int64}
    assert moved.token_count == 3
    assert batch.inputs.device.type == "cpu"


def test_what_is_given_is_copied():
    sequences, labels = [[1, 2]], np.array([4])
    batches = BucketedBatches(sequences, labels, batch_size=1, shuffle=False)
    sequences[0][0], labels[0] = 9, 9
    batch = next(iter(batches))
    batch.inputs.fill_(8)
    batch.lengths.fill_(8)
    batch.labels.fill_(8)
    batch = next(iter(batches))
    assert (batch.inputs.tolist(), batch.lengths.tolist(), batch.labels.tolist()) == ([[1, 2]], [2], [4])


@pytest.mark.parametrize(("option", "number"), [("batch_size", 0), ("seed", -1)])
def test_a_number_too_small_is_refused(option, number):
    with pytest.raises(ConfigError, match=f"{option} is too small"):
        BucketedBatches([[1]], **{"batch_size": 1, "shuffle": True, option: number})


def test_a_label_too_few_is_refused():
    with pytest.raises(ShapeError, match="1 labels, 2 sequences"):
        BucketedBatches([[1], [2]], [0], batch_size=1, shuffle=True)


def series(count=40, channels=3, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.random((length, channels), np.float32) for length in generator.integers(0, 12, count)]


@pytest.mark.parametrize("limit", [None, 0], ids=["memory", "disk"])
def test_series_are_padded_with_zeros(limit):
    rows = series()
    given = rows if limit is None else Sequences.build(rows, memory_limit=limit)
    seen = 0
    for batch in BucketedBatches(given, batch_size=7, shuffle=True, pad=9):
        assert batch.inputs.dtype == torch.float32
        assert batch.inputs.shape == (len(batch), max(1, int(batch.lengths.max())), 3)
        for row, length, index in zip(batch.inputs, batch.lengths, batch.index, strict=True):
            assert np.array_equal(row[:length], rows[index])
            assert not row[length:].any()
            seen += 1
    assert seen == len(rows)


def test_rows_on_disk_give_the_same_batches_as_lists():
    sequences = lognormal_sequences(300)
    for_lists = BucketedBatches(sequences, batch_size=8, shuffle=True, seed=5)
    on_disk = BucketedBatches(Sequences.build(sequences, memory_limit=0), batch_size=8, shuffle=True, seed=5)
    for one, other in zip(for_lists, on_disk, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.index, other.index)


@pytest.mark.parametrize(
    ("labels", "dtype", "rows"),
    [
        ([3, 0, 300], torch.int64, [3, 0, 300]),
        ([-1, 0, 2], torch.int64, [-1, 0, 2]),
        (np.array([[True, False], [True, True], [False, False]]), torch.float32, [[1, 0], [1, 1], [0, 0]]),
        (np.array([[0.5], [1.5], [-2.0]]), torch.float32, [[0.5], [1.5], [-2.0]]),
        ([0.5, 1.5, -2.0], torch.float32, [[0.5], [1.5], [-2.0]]),
    ],
    ids=["one", "below zero", "several", "numbers", "a number each"],
)
def test_labels_are_numbers_sets_or_targets(labels, dtype, rows):
    batches = BucketedBatches([[1], [2], [3]], labels, batch_size=3, shuffle=True)
    batch = next(iter(batches))
    assert batch.labels.dtype == dtype
    assert batch.labels.tolist() == [rows[index] for index in batch.index]


def test_labels_that_are_no_numbers_are_refused():
    for labels in (["a", "b"], [[[1]], [[2]]]):
        with pytest.raises(DTypeError, match="are not labels"):
            BucketedBatches([[1], [2]], labels, batch_size=1, shuffle=True)


@pytest.mark.parametrize("shuffle", [True, False])
def test_skipped_batches_are_not_built_and_the_rest_is_the_same(shuffle, monkeypatch):
    batches = BucketedBatches(lognormal_sequences(100), batch_size=8, shuffle=shuffle, seed=2)
    whole = orders(batches, 1)
    built = []
    build = BucketedBatches._batch
    monkeypatch.setattr(BucketedBatches, "_batch", lambda self, rows: built.append(1) or build(self, rows))
    batches.skip(5)
    assert orders(batches, 1) == whole[5:]
    assert len(built) == len(whole) - 5
    assert orders(batches, 1) == whole  # once only
    batches.skip(len(batches))
    assert list(batches) == []
    for number in (-1, len(batches) + 1):
        with pytest.raises(ConfigError, match="not so many batches"):
            batches.skip(number)


def test_an_iteration_keeps_its_epoch():
    batches = BucketedBatches(lognormal_sequences(100), batch_size=8, shuffle=True)
    expected = orders(batches, 3)
    batches.set_epoch(3)
    iteration = iter(batches)
    batches.set_epoch(4)
    assert [batch.index.tolist() for batch in iteration] == expected


def test_weights_draw_in_proportion_and_again_the_same():
    weights = np.array([0.0, 1.0, 3.0, 0.0, 4.0, 0.0] * 500)
    make = lambda seed: BucketedBatches([[1]] * 3000, batch_size=16, shuffle=True, seed=seed, weights=weights)  # noqa: E731
    drawn = np.concatenate(orders(make(1), 0))
    assert len(drawn) == 3000
    assert weights[drawn].min() > 0
    shares = [np.isin(drawn, np.flatnonzero(weights == weight)).mean() for weight in (1, 3, 4)]
    assert np.allclose(shares, [1 / 8, 3 / 8, 4 / 8], rtol=0, atol=0.04)  # four standard deviations
    assert orders(make(1), 0) == orders(make(1), 0) != orders(make(1), 1)
    assert orders(make(2), 0) != orders(make(1), 0)


def test_the_draw_is_the_same_on_every_machine():
    batches = BucketedBatches(
        [[1] * n for n in (3, 1, 2, 3, 1, 2, 5)], batch_size=2, shuffle=True, seed=3, weights=[1, 2, 3, 0, 5, 1, 2]
    )
    assert orders(batches, 0) == [[4, 2], [1, 4], [5], [1, 4]]  # as NumPy 2.4 on Linux had it


def test_balanced_batches_hold_labels_about_equally():
    labels = np.array([0] * 900 + [1] * 100)
    weights = 1 / np.bincount(labels)[labels]
    batches = BucketedBatches([[1]] * 1000, labels, batch_size=50, shuffle=True, weights=weights)
    share = np.mean([batch.labels.float().mean() for batch in batches])
    assert abs(share - 0.5) < 0.1


@pytest.mark.parametrize("weights", [[1, -1], [1, float("nan")], [0, 0], [1, float("inf")]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ConfigError, match="weights are not possible"):
        BucketedBatches([[1], [2]], batch_size=1, shuffle=True, weights=weights)


def test_weights_need_a_random_order_and_one_each():
    with pytest.raises(ConfigError, match="need a random order"):
        BucketedBatches([[1], [2]], batch_size=1, shuffle=False, weights=[1, 1])
    with pytest.raises(ShapeError, match="1 weights, 2 sequences"):
        BucketedBatches([[1], [2]], batch_size=1, shuffle=True, weights=[1])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_of_a_batch_are_the_batch(world):
    batch = next(iter(BucketedBatches(lognormal_sequences(7), list(range(7)), batch_size=7, shuffle=True)))
    parts = [batch.part(rank, world) for rank in range(world)]
    assert sum(part.token_count for part in parts) == batch.token_count
    for rank, part in enumerate(parts):
        assert len(part) == len(range(rank, 7, world))
        for name in ("inputs", "lengths", "labels", "index"):
            assert torch.equal(getattr(part, name), getattr(batch, name)[rank::world])
    assert max(part.token_count for part in parts) < 2 * batch.token_count / world


def test_a_part_may_be_empty_and_must_exist():
    batch = next(iter(BucketedBatches([[1]], batch_size=1, shuffle=True)))
    assert (len(batch.part(1, 2)), batch.part(1, 2).token_count) == (0, 0)
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match="no such process"):
            batch.part(rank, world)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 5000])
def test_the_order_is_that_of_the_random_words_but_for_their_last_bits(count):
    words = np.random.PCG64(count).random_raw(count) if count else np.empty(0, np.uint64)
    kept = words.copy()
    order = batching._order(words)
    assert sorted(order.tolist()) == list(range(count))
    bits = max(count - 1, 1).bit_length()
    assert order.tolist() == sorted(range(count), key=lambda place: (int(kept[place]) >> bits, place))
