"""A series, what is looked for in a file of them, and the values of its steps."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carousel.data.source import MISSING, Source, parse_number

__all__ = ["MISSING_VALUES", "Series", "SeriesLayout", "filled", "values_of"]

MISSING_VALUES = ("keep", "previous", "refuse", "zero")

_UNKNOWN = ("?", "NaN", "nan")
_WRITTEN = re.compile(r"[0-9eE+\-.,?]+")
_COMMA = re.compile(r"[ \t]*,[ \t]*")

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A series of numbers and its label, and where they stand.

    Args:
        values: (T, C), float32: T steps of C channels; T is at least 1.
        label: the label; None if there is none.
        name: the name of the series in its file; None if it has none.
        path: the file, as messages show it.
        line: the line of the file where the series starts, counted from 1.
        targets: where numbers are to be foretold: one for each column; None if there are none.
    """

    values: Values
    label: str | None
    name: str | None
    path: str
    line: int
    targets: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class SeriesLayout:
    """What is looked for in a file of series."""

    source: Source
    id_field: str
    label_fields: tuple[str, ...]
    require_label: bool
    missing: str
    numbers: bool
    feature_fields: tuple[str, ...] | None
    time_field: str | None

    def label_of(self, spelled: Sequence[str | None], line: int) -> tuple[str | None, tuple[float, ...] | None]:
        """The label and the target numbers, of which one at most is asked for."""
        if all(text is None or text in MISSING for text in spelled):
            if self.require_label:
                got = "nothing" if spelled[0] is None else repr(spelled[0])
                advice = "give every series a label, or remove it; a class of that name must be called something else"
                raise self.source.error(line, "the label is missing.", got=got, advice=advice)
            return None, None
        joined = ",".join(text or "" for text in spelled)
        if not self.numbers:
            return joined, None
        targets = []
        for name, text in zip(self.label_fields, spelled, strict=True):
            number = parse_number(text or "")
            if number is None:
                advice = "give a finite number, 0.5 or -1e3 say"
                raise self.source.error(line, f"'{name}' is not a number.", got=repr(text)[:80], advice=advice)
            targets.append(number)
        return joined, tuple(targets)


def values_of(text: str | list[str], line: int, layout: SeriesLayout, names: Sequence[str] | None = None) -> Values:
    """The values that stand in a text between commas, or in the fields of a row; NaN for a missing one.

    Args:
        text: the text or the fields.
        line: its line.
        layout: what is looked for.
        names: the names of the columns, for messages.

    Raises:
        DataError: one is not a number that float32 can hold, or is missing and may not be.
    """
    joined = text if isinstance(text, str) else ",".join(text)
    values = _parsed(joined)
    count = joined.count(",") + 1 if isinstance(text, str) else len(text)
    if values is None or len(values) != count:
        return _one_by_one(text, line, layout, names)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    bad = np.isinf(single) if layout.missing != "refuse" else ~np.isfinite(single)
    return _one_by_one(text, line, layout, names) if bad.any() else single


def _parsed(text: str) -> npt.NDArray[np.float64] | None:
    """The values, or None if they are not all plain numbers and question marks. Fast: made for long lines."""
    for word in _UNKNOWN[1:]:
        text = text.replace(word, "?")
    if " " in text or "\t" in text:
        text = _COMMA.sub(",", text.strip(" \t"))  # NumPy would take a blank alone for a value
    if not _WRITTEN.fullmatch(text):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy warns, or will raise, where a value is malformed
        try:
            return np.fromstring(text.replace("?", "nan"), np.float64, sep=",")
        except (ValueError, DeprecationWarning):
            return None


def _one_by_one(text: str | list[str], line: int, layout: SeriesLayout, names: Sequence[str] | None) -> Values:
    """The same slowly, to find the value that is wrong."""
    values = []
    pieces = _pieces(text) if isinstance(text, str) else iter(text)
    for place, piece in enumerate(pieces):
        name = f"value {place + 1}" if names is None else f"'{names[place][:80]}'"
        got = repr(piece[:80])
        if piece.strip() in _UNKNOWN:
            if layout.missing == "refuse":
                advice = "remove the series, or say with missing what is put in its place: zero, or the previous value"
                raise layout.source.error(line, f"{name} is missing.", got=got, advice=advice)
            values.append(np.nan)
            continue
        number = parse_number(piece)
        if number is None or abs(number) > float(np.finfo(np.float32).max):
            advice = "give a finite number, 0.5 or -1e3 say, below 3.4e38"
            raise layout.source.error(line, f"{name} is not a number.", got=got, advice=advice)
        values.append(number)
    return np.array(values, np.float32)


def _pieces(text: str) -> Iterator[str]:
    """What stands between the commas; a line can be too long to be split at once."""
    start = 0
    while (end := text.find(",", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def filled(values: Values, missing: str) -> Values:
    """(T, C), with the missing values as `missing` wants them. The same array, if none is missing."""
    gone = np.isnan(values)
    if missing == "keep" or not gone.any():
        return values
    if missing == "zero":
        return np.where(gone, np.float32(0), values)
    last = np.where(gone, -1, np.arange(len(values))[:, None])  # (T, C): the step whose value stands here
    np.maximum.accumulate(last, axis=0, out=last)
    return np.where(last < 0, np.float32(0), np.take_along_axis(values, np.maximum(last, 0), axis=0))
