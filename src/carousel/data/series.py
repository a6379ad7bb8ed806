"""Readers of series of numbers: the .ts files of the UCR/UEA archive, and tables with one step on each row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from carousel.data.files import StrPath, numbered_lines, shown_path
from carousel.data.series_values import MISSING_VALUES, Series, SeriesLayout, filled, values_of
from carousel.data.source import MISSING, Lines, Source, choose_format, listed, parse_number
from carousel.data.tables import table
from carousel.data.ts_format import ts_series
from carousel.errors import ConfigError, DataError, explain, unknown_name

__all__ = ["SERIES_FORMATS", "Series", "read_series", "series_format", "series_in"]

_SUFFIXES = {".ts": "ts", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}


def read_series(
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - the word users know it by
    id_field: str = "id",
    label_field: str = "label",
    require_label: bool = True,
    missing: str = "refuse",
    target_fields: Sequence[str] | None = None,
    feature_fields: Sequence[str] | None = None,
    time_field: str | None = None,
) -> list[Series]:
    """Read series of numbers with their labels from a file.

    ======== ================================================================================================
    format   what is read
    ======== ================================================================================================
    ts       the files of the UCR/UEA archive: a header with ``@``, then one series a line, its channels between
             colons, their values between commas, the label last; no time stamps
    csv      a table whose first line names the columns; a row is one step; the rows with the same `id_field` are one
             series, in the order of the file, and need not stand together; series are in the order of their first rows
    tsv      the same between tabs
    ======== ================================================================================================

    Series may differ in length, not in channels. The label of a table's series must be the same on all its rows; a row
    may also leave it out. Gzip, byte order marks and all line ends are understood. The file's content is held in memory,
    4 bytes for each value.

    Args:
        path: the file; ``-`` is standard input.
        format: one of `SERIES_FORMATS`. By default the file's suffix says it (``.gz`` is looked through), and where it
            does not, the first line.
        id_field: the column of the name of a table's series.
        label_field: the column of a table's label.
        require_label: whether every series must have a label. Without it, a missing label is None.
        missing: what is done about a value that is missing (``?``, ``NaN``, in a table also nothing): ``refuse`` the
            file, put ``zero`` in its place, or the ``previous`` value of its channel (0 before the first), or ``keep``
            it as NaN. An infinity is refused always.
        target_fields: the columns of numbers to be foretold, in place of the label; they are constant within a series.
            For ts its names do not matter: the label is a number.
        feature_fields: the columns of a table's channels, in this order. None: all that are nothing else.
        time_field: a column by whose numbers the rows of a series are sorted. None: they are in order.

    Returns:
        The series; at least one.

    Raises:
        ConfigError: an unknown `format` or `missing`.
        DataError: the file cannot be read, holds no series, or does not hold what is said above; names file and line.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "train.csv")
        ...     size = file.write_text("id,x,y,label\\na,1,2,up\\na,3,4,up\\nb,5,6,down\\n", encoding="utf-8")
        ...     [(series.name, series.label, series.values.tolist()) for series in read_series(file)]
        [('a', 'up', [[1.0, 2.0], [3.0, 4.0]]), ('b', 'down', [[5.0, 6.0]])]
    """
    for kind, name, names in (("format", format, SERIES_FORMATS), ("way to treat missing values", missing, MISSING_VALUES)):
        if name is not None and name not in names:
            raise ConfigError(unknown_name(kind, name, names))
    fields = (label_field,) if target_fields is None else tuple(target_fields)
    if not fields:
        raise ConfigError(explain("target_fields is empty.", advice="name the columns of the numbers, or leave it out"))
    layout = SeriesLayout(
        source=Source(shown_path(path)),
        id_field=id_field,
        label_fields=fields,
        require_label=require_label,
        missing=missing,
        numbers=target_fields is not None,
        feature_fields=None if feature_fields is None else tuple(feature_fields),
        time_field=time_field,
    )
    with closing(numbered_lines(path)) as lines:
        chosen, all_lines = (format, lines) if format else series_format(path, lines)
        found = list(series_in(all_lines, chosen, layout))
    if not found:
        advice = "check that this is the right file"
        raise layout.source.error(None, "the file holds no series.", got="no record", advice=advice)
    return found


def series_format(path: StrPath, lines: Lines) -> tuple[str, Lines]:
    """The format of a file of series, and all its lines."""
    return choose_format(path, lines, _SUFFIXES, _format_of)


def series_in(lines: Lines, format: str, layout: SeriesLayout) -> Iterator[Series]:  # noqa: A002
    """The series that stand in lines of a known format."""
    return _READERS[format](lines, layout)


def _format_of(first_line: str) -> str:
    if first_line.startswith(("@", "#")):
        return "ts"
    return "tsv" if "\t" in first_line else "csv"


@dataclass(slots=True)
class _Group:
    """A series of a table, while its rows are collected."""

    line: int
    steps: array[float] = field(default_factory=lambda: array("f"))
    times: array[float] = field(default_factory=lambda: array("d"))
    labels: tuple[str, ...] | None = None
    label_line: int = 0


class _Columns:
    """Where the columns of a table stand."""

    def __init__(self, header: int, names: list[str], layout: SeriesLayout) -> None:
        source = layout.source
        self.id = source.column(layout.id_field, "id_field", header, names)
        option = "target_fields" if layout.numbers else "label_field"
        wanted = layout.require_label or set(layout.label_fields) & set(names)
        self.labels = [source.column(name, option, header, names) for name in layout.label_fields] if wanted else []
        self.time = None if layout.time_field is None else source.column(layout.time_field, "time_field", header, names)
        if layout.feature_fields is None:
            other = {self.id, self.time, *self.labels}
            self.features = [place for place in range(len(names)) if place not in other]
        else:
            self.features = [source.column(name, "feature_fields", header, names) for name in layout.feature_fields]
        self.names = [names[place] for place in self.features]
        if not self.features:
            advice = "give every step a number, in a column of its own"
            raise source.error(header, "there is no column of values.", got=listed(names), advice=advice)


def _table_series(lines: Lines, format: str, layout: SeriesLayout) -> Iterator[Series]:  # noqa: A002
    header, names, rows = table(lines, format, layout.source)
    if not names:
        return
    columns = _Columns(header, names, layout)
    groups: dict[str, _Group] = {}
    for line, row in rows:
        try:
            _add(groups, line, row, columns, layout)
        except DataError as error:
            layout.source.refuse(error)
    for name, group in groups.items():
        try:
            yield _series(name, group, columns, layout)
        except DataError as error:
            layout.source.refuse(error)


def _add(groups: dict[str, _Group], line: int, row: list[str], columns: _Columns, layout: SeriesLayout) -> None:
    """Put one row into its series."""
    source = layout.source
    name = row[columns.id].strip()
    if not name:
        raise source.error(line, f"column '{layout.id_field}' is empty.", advice="give every row the name of its series")
    fields = [row[place] for place in columns.features]
    step = values_of(["?" if text.strip() in MISSING else text for text in fields], line, layout, columns.names)
    time = None if columns.time is None else parse_number(row[columns.time])
    if columns.time is not None and time is None:
        got = repr(row[columns.time][:80])
        raise source.error(line, f"'{layout.time_field}' is not a number.", got=got, advice="give a finite number")
    labels = tuple(row[place].strip() for place in columns.labels)
    group = groups.get(name)
    if group is None:
        group = groups[name] = _Group(line)
    if not all(label in MISSING for label in labels):
        if group.labels is None:
            group.labels, group.label_line = labels, line
        elif group.labels != labels:
            got = f"{', '.join(labels)!r}; on line {group.label_line}: {', '.join(group.labels)!r}"
            advice = "give all rows of a series the same label"
            raise source.error(line, f"series '{name[:80]}' has two labels.", got=got, advice=advice)
    group.steps.frombytes(step.tobytes())
    if time is not None:
        group.times.append(time)


def _series(name: str, group: _Group, columns: _Columns, layout: SeriesLayout) -> Series:
    label, targets = layout.label_of(group.labels or (None,) * len(layout.label_fields), group.label_line or group.line)
    values: npt.NDArray[np.float32] = np.frombuffer(group.steps, np.float32).reshape(-1, len(columns.features))  # (T, C)
    if columns.time is not None:
        values = values[np.argsort(np.frombuffer(group.times, np.float64), kind="stable")]
    return Series(filled(values, layout.missing), label, name, layout.source.shown, group.line, targets)


def _csv_series(lines: Lines, layout: SeriesLayout) -> Iterator[Series]:
    return _table_series(lines, "csv", layout)


def _tsv_series(lines: Lines, layout: SeriesLayout) -> Iterator[Series]:
    return _table_series(lines, "tsv", layout)


_READERS: dict[str, Callable[[Lines, SeriesLayout], Iterator[Series]]] = {
    "csv": _csv_series,
    "ts": ts_series,
    "tsv": _tsv_series,
}

SERIES_FORMATS = tuple(_READERS)
"""The names of the formats of series that are understood."""
