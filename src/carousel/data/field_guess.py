"""What a file seems to be, from its first lines: texts or series, in which format, in which columns."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import PurePath

from carousel.data.files import STANDARD_INPUT, StrPath
from carousel.data.readers import FORMATS, SUFFIXES, format_of
from carousel.data.series import SERIES_FORMATS
from carousel.data.source import parse_number

__all__ = ["SAMPLE", "Guess", "guess"]

SAMPLE = 100
"""Lines that are looked at."""

_TEXT_NAMES = ("text", "sentence", "review", "content", "body", "comment", "message", "question", "tweet", "title", "name")
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "sentiment", "intent", "stars", "rating", "score", "y")
_LABEL_CHARACTERS = 40

Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class Guess:
    """What a file seems to be.

    Args:
        text: texts; else series.
        format: the name of the format.
        text_field: the column of the text, if there are columns.
        label_field: the column of the label; None if there are no labels.
        guessed: those of the two fields that are not what was asked for.
    """

    text: bool
    format: str
    text_field: str | None
    label_field: str | None
    guessed: tuple[str, ...]


def guess(path: StrPath, format: str | None, first: list[str], text_field: str, label_field: str, id_field: str) -> Guess:  # noqa: A002
    """Look at the first lines of a file.

    Args:
        path: the file, for its suffix.
        format: the name of the format, if it is known.
        first: its first lines.
        text_field: the column where the text should be.
        label_field: the column where the label should be.
        id_field: the column where a series' name should be.
    """
    first = [line for line in first if line.strip()]
    known = format or _format(path, first, text_field)
    if known == "ts":
        return Guess(False, known, None, None, ())
    if known == "txt":
        return Guess(True, known, None, label_field if _starts_with_labels(first) else None, ())
    names, rows = _json_table(first) if known == "jsonl" else _table(first, known)
    if known in SERIES_FORMATS and text_field not in names and _is_series(names, rows, id_field, label_field):
        return Guess(False, known, None, label_field if label_field in names else None, ())
    if known not in FORMATS:
        known = "csv"
    text_at = _text_column(names, rows, text_field, label_field)
    label_at = _label_column(names, rows, text_at, label_field)
    chosen = (text_field if text_at is None else names[text_at], None if label_at is None else names[label_at])
    guessed = tuple(there for there, asked in zip(chosen, (text_field, label_field), strict=True) if there not in (asked, None))
    return Guess(True, known, *chosen, tuple(name for name in guessed if name is not None))


def _format(path: StrPath, first: list[str], text_field: str) -> str:
    suffixes = [] if path == STANDARD_INPUT else [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    if suffixes and suffixes[-1] in (*SUFFIXES, ".ts"):
        return "ts" if suffixes[-1] == ".ts" else SUFFIXES[suffixes[-1]]
    line = first[0] if first else ""
    if line.lower().startswith("@problemname") or any(line.lower().startswith("@data") for line in first):
        return "ts"
    found = format_of(line, text_field)
    for name, delimiter in (("tsv", "\t"), ("csv", ",")):
        columns = {column.strip().strip('"').lower() for column in line.split(delimiter)}
        if found == "txt" and len(columns) > 1 and columns & {*_TEXT_NAMES, "id"} and columns & {*_LABEL_NAMES}:
            return name
    return found


def _table(first: list[str], format: str) -> tuple[list[str], Rows]:  # noqa: A002
    reader = csv.reader((line + "\n" for line in first), delimiter="," if format == "csv" else "\t")
    try:
        rows = list(reader)
    except csv.Error:
        rows = [line.split("," if format == "csv" else "\t") for line in first]
    names = [name.strip() for name in rows[0]] if rows else []
    return names, [row for row in rows[1:] if len(row) == len(names)]


def _json_table(first: list[str]) -> tuple[list[str], Rows]:
    records = []
    for line in first:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(record)
    names = list(records[0]) if records else []
    rows = [[record[name] if isinstance(record[name], str) else json.dumps(record[name]) for name in names]
            for record in records if record.keys() >= set(names)]  # fmt: skip
    return names, rows


def _starts_with_labels(first: list[str]) -> bool:
    """Whether lines of text start with labels: their first words are few, and something follows."""
    words = [line.split(None, 1) for line in first]
    return bool(words) and all(len(parts) == 2 for parts in words) and 3 * len({parts[0] for parts in words}) <= len(words) + 3


def _is_series(names: list[str], rows: Rows, id_field: str, label_field: str) -> bool:
    values = [place for place, name in enumerate(names) if name not in (id_field, label_field)]
    if id_field not in names or not values or not rows:
        return False
    numbers = sum(parse_number(row[place]) is not None for row in rows for place in values)
    return 10 * numbers >= 9 * len(rows) * len(values)


def _text_column(names: list[str], rows: Rows, text_field: str, label_field: str) -> int | None:
    if text_field in names:
        return names.index(text_field)
    lowered = [name.lower() for name in names]
    for name in (text_field.lower(), *_TEXT_NAMES):
        if name in lowered and names[lowered.index(name)] != label_field:
            return lowered.index(name)
    others = [place for place, name in enumerate(names) if name != label_field]
    return max(others, key=lambda place: sum(len(row[place]) for row in rows), default=None) if rows else None


def _label_column(names: list[str], rows: Rows, text_at: int | None, label_field: str) -> int | None:
    if label_field in names:
        return names.index(label_field)
    lowered = [name.lower() for name in names]
    for name in (label_field.lower(), *_LABEL_NAMES):
        if name in lowered and lowered.index(name) != text_at:
            return lowered.index(name)
    for place in range(len(names) if rows else 0):  # few different values, all of them short
        values = [row[place] for row in rows]
        different = set(values)
        if place != text_at and 2 * len(different) <= len(values) and max(map(len, different)) <= _LABEL_CHARACTERS:
            return place
    return None
