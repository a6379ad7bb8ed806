"""Rows in one flat array, in memory or in a temporary file."""

import gc
import os
import tempfile

import numpy as np
import pytest

from carousel.data import BucketedBatches, Sequences
from carousel.errors import ConfigError, DataError, DTypeError, ShapeError


def rows_of(count=300, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 2**31 - 1, length).tolist() for length in generator.integers(0, 9, count)]


@pytest.mark.parametrize("limit", [None, 1 << 20, 100, 0])
@pytest.mark.parametrize("make", [list, np.array], ids=["lists", "arrays"])
def test_rows_come_back(limit, make):
    rows = rows_of()
    built = Sequences.build((make(row).astype(np.int64) if make is np.array else row for row in rows), memory_limit=limit)
    assert built.on_disk == (limit in (100, 0))
    assert built.values.dtype == np.int32
    assert (len(built), built.channels) == (300, None)
    assert [row.tolist() for row in built[:]] == rows
    assert built.lengths.tolist() == [len(row) for row in rows]
    assert built[-1].tolist() == rows[-1]
    assert "300 rows" in repr(built)
    with pytest.raises(IndexError):
        built[300]


@pytest.mark.parametrize("limit", [None, 100])
def test_series_come_back(limit):
    rows = [np.random.rand(length, 3) for length in (4, 1, 9, 0)]
    built = Sequences.build(rows, memory_limit=limit)
    assert (built.channels, built.values.dtype, built.on_disk) == (3, np.float32, limit is not None)
    assert all(np.array_equal(one, np.float32(other)) for one, other in zip(built, rows, strict=True))


def test_no_rows_and_rows_of_nothing_are_possible():
    for limit in (None, 0):
        assert len(Sequences.build([], memory_limit=limit)) == 0
        assert Sequences.build([[], []], memory_limit=limit).lengths.tolist() == [0, 0]


def held_files(folder):
    """The files of a folder that this process holds open or mapped, also those without a name."""
    with open("/proc/self/maps") as maps:
        return [line for line in maps if str(folder) in line]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="asks Linux what is mapped")
def test_the_temporary_file_is_gone_with_the_rows(tmp_path):
    rows = Sequences.build(rows_of(), memory_limit=100, directory=tmp_path)
    batches = BucketedBatches(rows, batch_size=8, shuffle=True)
    assert list(tmp_path.iterdir()) == []  # not even a killed process leaves it behind
    del rows
    assert len(held_files(tmp_path)) == 1
    assert sum(len(batch) for batch in batches) == 300
    del batches
    gc.collect()
    assert held_files(tmp_path) == []


def test_nothing_is_left_after_an_error(tmp_path):
    def broken():
        yield from rows_of()
        raise KeyError

    with pytest.raises(KeyError):
        Sequences.build(broken(), memory_limit=100, directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match=r"temporary file of the data cannot be written(.|\n)*No space left(.|\n)*TMPDIR"):
        Sequences.build([[1] * (1 << 21)], memory_limit=100)


def test_an_error_of_the_rows_stays_what_it_is():
    def rows():
        yield [1]
        raise OSError("the caller's")

    with pytest.raises(OSError, match="the caller's"):
        Sequences.build(rows(), memory_limit=0)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([[1], [2**31]], DTypeError, "int32"),
        ([np.array([2**31])], DTypeError, "2147483648"),
        ([np.array([0.5])], DTypeError, "Cannot cast"),
        ([[0.5]], DTypeError, "int32"),
        ([["a"]], DTypeError, "int32"),
        ([np.ones((2, 3)), np.ones((2, 4))], ShapeError, r"\(T, 3\) and \(T, 4\)"),
        ([np.ones((2, 3)), [1]], ShapeError, r"\(T, 3\) and \(T,\)"),
        ([np.ones((2, 3, 4))], ShapeError, r"\(2, 3, 4\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, error, words):
    with pytest.raises(error, match=words):
        Sequences.build(rows, dtype=None if np.ndim(rows[0]) > 1 else "int32")


def test_an_impossible_type_and_impossible_lengths_are_refused():
    with pytest.raises(ConfigError, match="float64"):
        Sequences.build([], dtype="float64")
    for lengths in ([1], [4, -1], [[3]]):
        with pytest.raises(ShapeError, match="do not fit"):
            Sequences(np.arange(3), lengths)
