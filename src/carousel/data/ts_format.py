"""The .ts files of the UCR/UEA archive of time series."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from carousel.data.series_values import Series, SeriesLayout, filled, values_of
from carousel.data.source import Lines, hint, listed
from carousel.errors import DataError

__all__ = ["ts_series"]

MAX_CHANNELS = 1 << 16

_YES_NO = {"true": True, "false": False}


@dataclass(slots=True)
class _Header:
    """What the lines before ``@data`` say."""

    line: int = 0
    labels: tuple[str, ...] = ()
    has_label: bool = False
    numbers: bool = False
    channels: int | None = None
    length: int | None = None
    equal_length: bool = False


def ts_series(lines: Lines, layout: SeriesLayout) -> Iterator[Series]:
    """The series of a file, one a line after the header."""
    header = _header(lines, layout)
    if header is None:
        return
    for line, content in lines:
        if not content.strip() or content.startswith("#"):
            continue
        try:
            series = _series(line, content, header, layout)
        except DataError as error:
            layout.source.refuse(error)
        else:
            yield series


def _header(lines: Lines, layout: SeriesLayout) -> _Header | None:
    """The header; None for a file of nothing but comments."""
    header, source, line = _Header(), layout.source, 0
    seen = False
    for line, content in lines:
        words = content.split()
        if not words or content.startswith("#"):
            continue
        seen = True
        key = words[0].lower()
        if key == "@data":
            header.line = line
            if not header.has_label and layout.require_label:
                advice = "add `@classLabel true` and the names of the classes, and a label at the end of every line"
                raise source.error(line, "the series have no labels.", got="no @classLabel or @targetLabel", advice=advice)
            return header
        if not key.startswith("@"):
            advice = "end the header with a line `@data`; a comment starts with #"
            raise source.error(line, "this line of the header is not understood.", got=repr(content[:80]), advice=advice)
        _take(key, words[1:], line, header, layout)
    if seen:
        raise source.error(line, "the file ends within its header.", got="no line @data", advice="check that the file is whole")
    return None


def _take(key: str, words: list[str], line: int, header: _Header, layout: SeriesLayout) -> None:
    """Take over one line of the header; what is not needed is passed over."""
    if key in ("@classlabel", "@targetlabel"):
        header.has_label = _yes_or_no(key, words, line, layout)
        header.labels = tuple(words[1:]) if key == "@classlabel" else ()
        header.numbers = header.has_label and key == "@targetlabel"
    elif key in ("@dimension", "@dimensions"):
        header.channels = _count(key, words, line, layout)
    elif key == "@univariate":
        if _yes_or_no(key, words, line, layout):
            header.channels = 1
    elif key == "@serieslength":
        header.length = _count(key, words, line, layout)
    elif key == "@equallength":
        header.equal_length = _yes_or_no(key, words, line, layout)
    elif key == "@timestamps" and _yes_or_no(key, words, line, layout):
        advice = "write the values alone, at equal distances in time"
        raise layout.source.error(line, "series with time stamps are not read.", got="@timeStamps true", advice=advice)


def _yes_or_no(key: str, words: list[str], line: int, layout: SeriesLayout) -> bool:
    answer = _YES_NO.get(words[0].lower()) if words else None
    if answer is None:
        got, advice = listed(words[:1]), f"write `{key} true` or `{key} false`"
        raise layout.source.error(line, f"{key} is neither true nor false.", got=got, advice=advice)
    return answer


def _count(key: str, words: list[str], line: int, layout: SeriesLayout) -> int:
    if len(words) != 1 or not (words[0].isascii() and words[0].isdigit()) or not 0 < int(words[0][:10]) < 10**9:
        advice = f"write `{key} 3`, say"
        raise layout.source.error(line, f"{key} is not a number of steps or channels.", got=listed(words), advice=advice)
    return int(words[0])


def _series(line: int, content: str, header: _Header, layout: SeriesLayout) -> Series:
    source = layout.source
    if content.lstrip().startswith("("):
        raise source.error(
            line, "series with time stamps are not read.", got=repr(content[:40]), advice="write the values alone"
        )
    count = content.count(":") + (not header.has_label)  # before the line is split: it may be all colons
    if header.channels is None:
        header.channels = min(max(1, count), MAX_CHANNELS)
    if count != header.channels:
        got = f"{count} where there are {header.channels}" + (", and a label" if header.has_label else "")
        advice = "separate channels and label by colons"
        raise source.error(line, "the line has another number of channels.", got=got, advice=advice)
    channels, label, targets = content.split(":"), None, None
    if header.has_label:
        label, targets = _label(channels.pop().strip(), line, header, layout)
    if not all(channels):
        raise source.error(line, "a channel is empty.", got="no value", advice="give it at least one value")
    columns = [values_of(channel, line, layout) for channel in channels]
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        got, advice = f"{min(lengths)} to {max(lengths)} steps", "give all channels of a series the same steps"
        raise source.error(line, "the channels differ in length.", got=got, advice=advice)
    _check_length(len(columns[0]), line, header, layout)
    return Series(filled(np.stack(columns, axis=1), layout.missing), label, None, source.shown, line, targets)


def _check_length(length: int, line: int, header: _Header, layout: SeriesLayout) -> None:
    if not header.equal_length:
        return
    if header.length is None:
        header.length = length
    if length != header.length:
        got, advice = f"{length} steps where there are {header.length}", "or write `@equalLength false` into the header"
        raise layout.source.error(line, "the series has another length.", got=got, advice=f"check the line, {advice}")


def _label(label: str, line: int, header: _Header, layout: SeriesLayout) -> tuple[str | None, tuple[float, ...] | None]:
    name, targets = layout.label_of([None if label == "?" else label], line)
    if name is not None and header.labels and name not in header.labels:
        what = f"the label is not one of those of the header.{hint(name, list(header.labels))}"
        got, advice = repr(name[:80]), "the header names " + listed(list(header.labels))
        raise layout.source.error(line, what, got=got, advice=advice)
    return name, targets
