"""Rows of different lengths in one flat array: in memory, or on disk and mapped into memory once they are many."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt

from carousel.data.files import StrPath
from carousel.errors import ConfigError, DataError, DTypeError, ShapeError, explain

__all__ = ["Sequences"]

MEMORY_LIMIT = 1 << 28
_CHUNK = 1 << 22  # bytes written at once
_CODES = {"int32": "i", "int64": "q", "float32": "f"}

Row = Sequence[int] | npt.NDArray[Any]


def smallest(count: int) -> type[np.signedinteger[Any]]:
    """The type for numbers up to `count`, which halves what a large data set takes beside its values."""
    return np.int32 if count < 1 << 31 else np.int64


class Sequences:
    """The rows of a data set, one behind the other: token numbers, or series with C channels.

    Rows cost their numbers and 4 bytes each (8 beyond two thousand million numbers), whereas a list of lists costs ten
    times that. :meth:`build` moves them to a temporary file when they are too many for the memory.

    Args:
        values: (S,), token numbers, or (S, C), series: the steps of all rows. Not copied; do not change it.
        lengths: (N,), the steps of each row; they sum to S.

    Raises:
        ShapeError: the lengths do not sum to S, one is negative, or `values` has neither one nor two axes.

    Example:
        >>> rows = Sequences.build([[5], [6, 7, 8], []])
        >>> len(rows), rows[1].tolist(), rows.lengths.tolist()
        (3, [6, 7, 8], [1, 3, 0])
    """

    def __init__(self, values: npt.NDArray[Any], lengths: npt.ArrayLike) -> None:
        sizes = np.asarray(lengths)
        if values.ndim not in (1, 2) or sizes.ndim != 1 or (sizes < 0).any() or sizes.sum(dtype=np.int64) != len(values):
            got = f"values of shape {values.shape}, lengths of shape {sizes.shape} that sum to {sizes.sum()}"
            raise ShapeError(explain("Sequences: values and lengths do not fit.", got=got, expected="(S,) or (S, C) and (N,)"))
        self.values = values
        # Row n is offsets[n] to offsets[n + 1].
        self.offsets: npt.NDArray[np.signedinteger[Any]] = np.zeros(len(sizes) + 1, smallest(len(values)))
        np.cumsum(sizes, dtype=self.offsets.dtype, out=self.offsets[1:])
        self.on_disk = False

    @classmethod
    def build(
        cls,
        rows: Iterable[Row],
        *,
        dtype: npt.DTypeLike | None = None,
        memory_limit: int | None = MEMORY_LIMIT,
        directory: StrPath | None = None,
    ) -> Sequences:
        """Collect rows, one at a time.

        A temporary file is deleted with the last reference to the rows, and by the operating system if the process is
        killed.

        Args:
            rows: lists or arrays of token numbers (T,), or arrays (T, C), all with the same C. Copied.
            dtype: ``int32``, ``int64`` or ``float32``. None: ``float32`` if the first row has two axes, else ``int32``.
            memory_limit: bytes of values to keep in memory; more are kept in a temporary file. None: no limit.
            directory: where the temporary file is put; None is the system's place for such files.

        Returns:
            The rows.

        Raises:
            ConfigError: another `dtype`.
            DTypeError: a number does not fit `dtype`.
            ShapeError: rows with different numbers of axes or channels.
            DataError: the temporary file cannot be written.
        """
        builder = _Builder(dtype, memory_limit, directory)
        try:
            for row in rows:
                builder.add(row)
            return builder.finish(cls)
        finally:
            builder.close()

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,), the steps of each row."""
        return np.diff(self.offsets).astype(np.int64)

    @property
    def channels(self) -> int | None:
        """C, or None for token numbers."""
        return int(self.values.shape[1]) if self.values.ndim == 2 else None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, row: slice) -> list[npt.NDArray[Any]]: ...
    def __getitem__(self, row: int | slice) -> npt.NDArray[Any] | list[npt.NDArray[Any]]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __repr__(self) -> str:
        kind = "token numbers" if self.channels is None else f"steps of {self.channels} channels"
        return f"Sequences({len(self)} rows, {len(self.values)} {kind}{', on disk' if self.on_disk else ''})"


class _Builder:
    """What :meth:`Sequences.build` knows while it collects."""

    def __init__(self, dtype: npt.DTypeLike | None, memory_limit: int | None, directory: StrPath | None) -> None:
        self.dtype = None if dtype is None else np.dtype(dtype)
        if self.dtype is not None and self.dtype.name not in _CODES:
            what = "Sequences: this dtype is not possible."
            raise ConfigError(explain(what, got=self.dtype.name, expected="one of " + ", ".join(_CODES)))
        self.memory_limit = memory_limit
        self.directory = directory
        self.channels: int | None = None
        self.lengths = array("i")
        self.buffer: array[Any] = array("i")  # what is not in the file yet
        self.file: IO[bytes] | None = None

    def add(self, row: Row) -> None:
        channels = _channels(row)
        if not self.lengths:
            self.dtype = self.dtype or np.dtype("int32" if channels is None else "float32")
            self.channels = channels
            self.buffer = array(_CODES[self.dtype.name])
        elif channels != self.channels:
            shapes = ["(T,)" if number is None else f"(T, {number})" for number in (self.channels, channels)]
            raise ShapeError(explain("Sequences: the rows differ in their channels.", got=" and ".join(shapes)))
        try:
            if isinstance(row, np.ndarray):
                self.buffer.frombytes(_converted(row, self.buffer.typecode).tobytes())
            else:
                self.buffer.extend(row)
        except (OverflowError, TypeError) as error:
            what = "Sequences: a row holds what its type cannot."
            raise DTypeError(explain(what, got=str(error), expected=f"numbers of type {self.dtype}")) from error
        self.lengths.append(len(row))
        size = len(self.buffer) * self.buffer.itemsize
        if self.file is None and self.memory_limit is not None and size > self.memory_limit:
            with _room():
                # Its name is removed at once where the system can do so: not even a killed process leaves it behind.
                self.file = tempfile.TemporaryFile(prefix="carousel-", dir=self.directory)  # noqa: SIM115 - see close()
        if self.file is not None and size > _CHUNK:
            self.write(self.file)

    def write(self, file: IO[bytes]) -> None:
        """Move what was collected to the file."""
        with _room():
            file.write(memoryview(self.buffer).cast("B"))
            file.flush()
        self.buffer = array(self.buffer.typecode)

    def finish(self, kind: type[Sequences]) -> Sequences:
        dtype = self.dtype or np.dtype("int32")
        if self.file is not None:
            self.write(self.file)
            # The map outlives the file's name and handle: when it goes, so does the file.
            values: npt.NDArray[Any] = np.memmap(self.file, dtype, mode="r").view(np.ndarray)
        else:
            values = np.frombuffer(self.buffer, dtype) if self.buffer else np.empty(0, dtype)
        if self.channels is not None:
            values = values.reshape(-1, self.channels)
        rows = kind(values, np.frombuffer(self.lengths, np.int32) if self.lengths else np.empty(0, np.int32))
        rows.on_disk = self.file is not None
        return rows

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


@contextmanager
def _room() -> Iterator[None]:
    """Say what to do about a temporary file that cannot be written."""
    try:
        yield
    except OSError as error:
        advice = "free some room, or choose another place for temporary files with the variable TMPDIR"
        raise DataError(explain("the temporary file of the data cannot be written.", got=str(error), advice=advice)) from error


def _converted(row: npt.NDArray[Any], typecode: str) -> npt.NDArray[Any]:
    """The row in the type of the values; a number that does not fit is an error, not another number."""
    converted = row.astype(typecode, casting="same_kind")
    if converted.dtype.kind == "i" and row.dtype != converted.dtype and (converted != row).any():
        raise OverflowError(f"{row[converted != row].flat[0]}")
    return converted


def _channels(row: Row) -> int | None:
    axes = row.ndim if isinstance(row, np.ndarray) else 1
    if axes not in (1, 2) or (axes == 2 and np.shape(row)[1] == 0):
        raise ShapeError(
            explain("Sequences: a row has a shape that is not possible.", got=str(np.shape(row)), expected="(T,) or (T, C)")
        )
    return int(np.shape(row)[1]) if axes == 2 else None
