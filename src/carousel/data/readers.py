"""Readers of labelled text: TSV, CSV, JSON lines, and lines that start with their label."""

from __future__ import annotations

import csv
import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from carousel.data.files import STANDARD_INPUT, StrPath, numbered_lines, shown_path
from carousel.errors import ConfigError, DataError, explain, unknown_name

__all__ = ["FORMATS", "Example", "read_labelled"]

MAX_FIELD_CHARACTERS = 1 << 24

_SUFFIXES = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "txt",
}
_NOT_A_LABEL = frozenset({"", "nan", "NaN", "None", "null", "NULL"})  # how tables spell a missing value
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Lines = Iterator[tuple[int, str]]
Record = tuple[int, str | None, str]  # the line, the label if there is one, the text


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label, and where they stand.

    Args:
        text: the text, without blanks around it.
        label: the label; None if there is none.
        path: the file, as messages show it.
        line: the line of the file where the record starts, counted from 1.
    """

    text: str
    label: str | None
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """What is looked for in a file."""

    shown: str
    text_field: str
    label_field: str
    require_label: bool
    allow_empty: bool

    def error(self, line: int, what: str, *, got: str | None = None, advice: str | None = None) -> DataError:
        return DataError(explain(what, got=got, advice=advice), path=self.shown, line=line)


def read_labelled(
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - the word users know it by
    text_field: str = "text",
    label_field: str = "label",
    require_label: bool = True,
    allow_empty: bool = False,
) -> list[Example]:
    """Read texts with their labels from a file.

    ======== ================================================================================================
    format   a record
    ======== ================================================================================================
    tsv      a line of fields between tabs; the first line names the columns, in any order; a field may be quoted
    csv      the same between commas; a quoted field may hold line breaks
    jsonl    a line with one JSON object; the label is a string, a number or a boolean
    txt      a line ``label text``; without `require_label`, a line is just text
    ======== ================================================================================================

    Blank lines are skipped. The one exception: lines of just text (txt without `require_label`) with `allow_empty`
    give one example each, so that outputs can be put beside inputs. Gzip, byte order marks and all line ends are
    understood. A field of a TSV file that is not quoted throughout is taken as it stands, as many files hold stray
    quotes.

    Args:
        path: the file; ``-`` is standard input.
        format: one of `FORMATS`. By default the file's suffix says it (``.gz`` is looked through), and where it does
            not, the first line.
        text_field: the column or key of the text.
        label_field: the column or key of the label.
        require_label: whether every record must have a label. Without it, a missing label is None.
        allow_empty: whether a text may be empty.

    Returns:
        The examples in the order of the file; at least one.

    Raises:
        ConfigError: an unknown `format`.
        DataError: the file cannot be read, holds no record, or a record is not as above; names file and line.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "train.tsv")
        ...     size = file.write_text("label\\ttext\\nItalian\\tDe luca\\n", encoding="utf-8")
        ...     [(example.label, example.text, example.line) for example in read_labelled(file)]
        [('Italian', 'De luca', 2)]
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(unknown_name("format", format, FORMATS))
    layout = _Layout(shown_path(path), text_field, label_field, require_label, allow_empty)
    with closing(numbered_lines(path)) as lines:
        chosen, lines_again = (format, lines) if format else _choose_format(path, lines, layout)
        examples = [_example(record, layout) for record in _READERS[chosen](lines_again, layout)]
    if not examples:
        message = explain("the file holds no examples.", got="no record", advice="check that this is the right file")
        raise DataError(message, path=layout.shown)
    return examples


def _example(record: Record, layout: _Layout) -> Example:
    line, label, text = record
    text = text.strip()
    if not text and not layout.allow_empty:
        raise layout.error(line, "the text is empty.", advice="give the record a text, or remove it")
    if label is not None:
        label = label.strip()
    if label is None or label in _NOT_A_LABEL:
        if layout.require_label:
            advice = "give every record a label, or remove it; a class of that name must be called something else"
            raise layout.error(line, "the label is missing.", got="nothing" if label is None else repr(label), advice=advice)
        label = None
    return Example(text, label, layout.shown, line)


def _choose_format(path: StrPath, lines: Lines, layout: _Layout) -> tuple[str, Lines]:
    """The format by the suffix, else by the first line that is not blank; and all the lines."""
    if path != STANDARD_INPUT:
        suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
        if suffixes[-1:] == [".gz"]:
            suffixes.pop()
        if suffixes and suffixes[-1] in _SUFFIXES:
            return _SUFFIXES[suffixes[-1]], lines
    seen = []
    for number, line in lines:
        seen.append((number, line))
        if line.strip():
            break
    first = seen[-1][1] if seen else ""
    return _format_of(first, layout), itertools.chain(seen, lines)


def _format_of(first_line: str, layout: _Layout) -> str:
    if first_line.lstrip().startswith("{"):
        try:
            if isinstance(json.loads(first_line), dict):
                return "jsonl"
        except (ValueError, RecursionError):
            pass  # a text that starts with a brace
    for name, delimiter in (("tsv", "\t"), ("csv", ",")):
        columns = [column.strip().strip('"') for column in first_line.split(delimiter)]
        if len(columns) > 1 and layout.text_field in columns:
            return name
    return "txt"


def _tsv_records(lines: Lines, layout: _Layout) -> Iterator[Record]:
    rows = ((number, _tsv_fields(line)) for number, line in lines if line.strip(" "))
    return _table_records(rows, layout, "in a TSV file a record is one line, and a text holds no tab; else write CSV")


def _tsv_fields(line: str) -> list[str]:
    fields = line.split("\t")
    if '"' not in line:
        return fields
    _allow_long_fields()
    try:
        return next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
        return fields


def _csv_records(lines: Lines, layout: _Layout) -> Iterator[Record]:
    advice = "a text that holds a comma or a line break must stand in double quotes"
    return _table_records(_csv_rows(lines, layout), layout, advice)


def _csv_rows(lines: Lines, layout: _Layout) -> Iterator[tuple[int, list[str]]]:
    last = 0

    def fed() -> Iterator[str]:
        nonlocal last
        for number, line in lines:
            last = number
            yield line + "\n"

    _allow_long_fields()
    reader = csv.reader(fed(), strict=True)
    while True:
        start = last + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            advice = "a quote inside a quoted field is written twice, and every quoted field is closed"
            raise layout.error(start, "the record is not valid CSV.", got=str(error), advice=advice) from error
        if len(row) > 1 or any(field.strip() for field in row):
            yield start, row


def _allow_long_fields() -> None:
    # The limit belongs to the whole process. It is raised and never lowered, so that threads cannot trip each other.
    if csv.field_size_limit() < MAX_FIELD_CHARACTERS:
        csv.field_size_limit(MAX_FIELD_CHARACTERS)


def _table_records(rows: Iterator[tuple[int, list[str]]], layout: _Layout, advice: str) -> Iterator[Record]:
    header = next(rows, None)
    if header is None:
        return
    header_line, names = header[0], [name.strip() for name in header[1]]
    text_at = _column(layout.text_field, "text_field", header_line, names, layout)
    has_label = layout.require_label or layout.label_field in names
    label_at = _column(layout.label_field, "label_field", header_line, names, layout) if has_label else None
    for line, row in rows:
        if len(row) != len(names):
            count = "few" if len(row) < len(names) else "many"
            got = f"{len(row)} fields for the {len(names)} columns {', '.join(names)}"
            raise layout.error(line, f"the record has too {count} fields.", got=got, advice=advice)
        yield line, None if label_at is None else row[label_at], row[text_at]


def _column(name: str, option: str, line: int, columns: list[str], layout: _Layout) -> int:
    if columns.count(name) == 1:
        return columns.index(name)
    if name in columns:
        advice = "give every column a name of its own"
        raise layout.error(line, f"column '{name}' stands there twice.", got=_listed(columns), advice=advice)
    advice = f"the first line must name the columns; choose another one with {option}"
    if len(columns) == 1 and (other := re.search(r"[\t;,|]", columns[0])):
        advice = f"the columns seem to be separated by {other.group()!r}; a TSV file has tabs, a CSV file has commas"
    raise layout.error(line, f"column '{name}' is missing.{_hint(name, columns)}", got=_listed(columns), advice=advice)


def _jsonl_records(lines: Lines, layout: _Layout) -> Iterator[Record]:
    for line, content in lines:
        if content.strip():
            record = _json_object(line, content, layout)
            label = _json_label(line, record, layout)
            yield line, label, _json_text(line, record, layout)


def _json_object(line: int, content: str, layout: _Layout) -> dict[str, Any]:
    advice = f'write one object on each line: {{"{layout.label_field}": ..., "{layout.text_field}": ...}}'
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise layout.error(line, "the line is not valid JSON.", got=str(error), advice=advice) from error
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise layout.error(line, "the line is not a JSON object.", got=f"JSON of type {kind}", advice=advice)
    return record


def _json_text(line: int, record: dict[str, Any], layout: _Layout) -> str:
    name = layout.text_field
    if name not in record:
        raise _missing_key(name, "text_field", line, record, layout)
    text = record[name]
    if text is None and layout.allow_empty:
        return ""
    if not isinstance(text, str):
        got = "null" if text is None else f"{json.dumps(text)[:80]} of type {type(text).__name__}"
        raise layout.error(line, f"key '{name}' is not a string.", got=got, advice="put the text in double quotes")
    _check_json_string(name, text, line, layout)
    return text


def _json_label(line: int, record: dict[str, Any], layout: _Layout) -> str | None:
    name = layout.label_field
    if name not in record:
        if layout.require_label:
            raise _missing_key(name, "label_field", line, record, layout)
        return None
    label = record[name]
    if label is None:
        return None
    if isinstance(label, float) and math.isnan(label):
        return "NaN"
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, str):
        _check_json_string(name, label, line, layout)
    elif not isinstance(label, int | float):
        got = f"{json.dumps(label)[:80]} of type {type(label).__name__}"
        raise layout.error(line, f"key '{name}' is not a label.", got=got, advice="give a string, a number or a boolean")
    return str(label)


def _check_json_string(name: str, content: str, line: int, layout: _Layout) -> None:
    if "\0" in content or _LONE_SURROGATE.search(content):
        advice = r"remove \u0000, and write characters above \uffff as themselves or as two escapes"
        got = "a NUL character" if "\0" in content else "half of a surrogate pair"
        raise layout.error(line, f"key '{name}' is not plain text.", got=got, advice=advice)


def _missing_key(name: str, option: str, line: int, record: dict[str, Any], layout: _Layout) -> DataError:
    keys = list(record)
    what = f"key '{name}' is missing.{_hint(name, keys)}"
    return layout.error(line, what, got=_listed(keys), advice=f"choose another key with {option}")


def _txt_records(lines: Lines, layout: _Layout) -> Iterator[Record]:
    for line, content in lines:
        if not layout.require_label:
            if content.strip() or layout.allow_empty:
                yield line, None, content
        elif content.strip():
            label, *text = content.split(None, 1)
            if not text and not layout.allow_empty:
                got, advice = repr(content[:80]), "write lines `label text`, or say what the file is with format"
                raise layout.error(line, "the line does not have both a label and a text.", got=got, advice=advice)
            yield line, label, text[0] if text else ""


def _hint(name: str, choices: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [choice.lower() for choice in choices], n=1)
    spelled = next((choice for choice in choices if near and choice.lower() == near[0]), None)
    return f" Did you mean '{spelled}'?" if spelled else ""


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:20])
    return (shown or "nothing") + (f" and {len(names) - 20} more" if len(names) > 20 else "")


_READERS: dict[str, Callable[[Lines, _Layout], Iterator[Record]]] = {
    "csv": _csv_records,
    "jsonl": _jsonl_records,
    "tsv": _tsv_records,
    "txt": _txt_records,
}

FORMATS = tuple(_READERS)
"""The names of the formats that are understood."""
