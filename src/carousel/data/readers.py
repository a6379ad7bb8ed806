"""Readers of labelled text: TSV, CSV, JSON lines, and lines that start with their label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from carousel.data.files import StrPath, numbered_lines, shown_path
from carousel.data.json_lines import json_label, json_object, json_text
from carousel.data.source import MISSING, Lines, Source, choose_format, parse_number
from carousel.data.tables import table
from carousel.errors import ConfigError, DataError, explain, unknown_name

__all__ = ["FORMATS", "SUFFIXES", "Example", "Layout", "examples_in", "format_of", "labelled_examples", "read_labelled"]

SUFFIXES = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "txt",
}

Label = str | list[str] | None
Record = tuple[int, tuple[Label, ...], str]  # the line, what stands in the fields of the label, the text


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label, and where they stand.

    Args:
        text: the text, without blanks around it.
        label: the label; None if there is none. Several labels are joined by their separator.
        path: the file, as messages show it.
        line: the line of the file where the record starts, counted from 1.
        labels: where an example may have several labels: those it has, none twice; None if nothing is said about them.
        targets: where numbers are to be foretold: one for each column; None if there are none.
    """

    text: str
    label: str | None
    path: str
    line: int
    labels: tuple[str, ...] | None = None
    targets: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What is looked for in a file."""

    source: Source
    text_field: str
    label_fields: tuple[str, ...]
    require_label: bool
    allow_empty: bool
    label_separator: str | None
    numbers: bool


def labelled_examples(
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - the word users know it by
    text_field: str = "text",
    label_field: str = "label",
    require_label: bool = True,
    allow_empty: bool = False,
    label_separator: str | None = None,
    target_fields: Sequence[str] | None = None,
) -> Iterator[Example]:
    """Read texts with their labels from a file, one at a time.

    The same as :func:`read_labelled`, which explains the arguments, for files that do not fit in memory: an error is
    raised when its record is reached.

    Raises:
        ConfigError: at once: an unknown `format`, an impossible `label_separator`, or both it and `target_fields`.
        DataError: while the file is read; see :func:`read_labelled`.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "train.txt")
        ...     size = file.write_text("good|short A moving film\\ngood Fine\\n", encoding="utf-8")
        ...     [(example.labels, example.text) for example in labelled_examples(file, label_separator="|")]
        [(('good', 'short'), 'A moving film'), (('good',), 'Fine')]
    """
    fields = (label_field,) if target_fields is None else tuple(target_fields)
    if format is not None and format not in FORMATS:
        raise ConfigError(unknown_name("format", format, FORMATS))
    if label_separator is not None and (not label_separator or target_fields is not None):
        what = "label_separator is for examples with several labels; numbers stand in columns of their own."
        raise ConfigError(explain(what if label_separator else "label_separator is empty.", advice="leave it out"))
    if not fields:
        raise ConfigError(explain("target_fields is empty.", advice="name the columns of the numbers, or leave it out"))
    layout = Layout(
        Source(shown_path(path)), text_field, fields, require_label, allow_empty, label_separator, target_fields is not None
    )
    return _examples(path, format, layout)


def read_labelled(
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - the word users know it by
    text_field: str = "text",
    label_field: str = "label",
    require_label: bool = True,
    allow_empty: bool = False,
    label_separator: str | None = None,
    target_fields: Sequence[str] | None = None,
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

    With `label_separator`, a record may have several labels: ``a|b``, or a list in JSON. An empty field, an empty list
    and a separator alone are the empty set. With `target_fields`, a record has numbers in place of a label.

    Args:
        path: the file; ``-`` is standard input.
        format: one of `FORMATS`. By default the file's suffix says it (``.gz`` is looked through), and where it does
            not, the first line.
        text_field: the column or key of the text.
        label_field: the column or key of the label.
        require_label: whether every record must have a label. Without it, a missing label is None.
        allow_empty: whether a text may be empty.
        label_separator: what stands between the labels of a record. None: a record has one label.
        target_fields: the columns or keys of the numbers; for txt it has one name, which does not matter.

    Returns:
        The examples in the order of the file; at least one.

    Raises:
        ConfigError: an unknown `format`, an impossible `label_separator`, or both it and `target_fields`.
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
    return list(
        labelled_examples(
            path,
            format=format,
            text_field=text_field,
            label_field=label_field,
            require_label=require_label,
            allow_empty=allow_empty,
            label_separator=label_separator,
            target_fields=target_fields,
        )
    )


def _examples(path: StrPath, format: str | None, layout: Layout) -> Iterator[Example]:  # noqa: A002
    empty = True
    with closing(numbered_lines(path)) as lines:
        chosen, all_lines = (format, lines) if format else _text_format(path, lines, layout)
        for example in examples_in(all_lines, chosen, layout):
            empty = False
            yield example
    if empty:
        advice = "check that this is the right file"
        raise layout.source.error(None, "the file holds no examples.", got="no record", advice=advice)


def _text_format(path: StrPath, lines: Lines, layout: Layout) -> tuple[str, Lines]:
    """The format of a file of texts, and all its lines."""
    return choose_format(path, lines, SUFFIXES, lambda first: format_of(first, layout.text_field))


def examples_in(lines: Lines, format: str, layout: Layout) -> Iterator[Example]:  # noqa: A002
    """The examples that stand in lines of a known format."""
    if format == "txt" and len(layout.label_fields) > 1:
        expected = "one number before the text"
        raise ConfigError(
            explain("target_fields: a txt file has no columns.", got=", ".join(layout.label_fields), expected=expected)
        )
    for record in _READERS[format](lines, layout):
        try:
            example = _example(record, layout)
        except DataError as error:
            layout.source.refuse(error)
        else:
            yield example


def _example(record: Record, layout: Layout) -> Example:
    line, labels, text = record
    text = text.strip()
    if not text and not layout.allow_empty:
        raise layout.source.error(line, "the text is empty.", advice="give the record a text, or remove it")
    shown = layout.source.shown
    if layout.numbers:
        targets = _targets(labels, line, layout)
        joined = None if targets is None else ",".join(str(label).strip() for label in labels)
        return Example(text, joined, shown, line, targets=targets)
    if layout.label_separator is not None:
        several = _several(labels[0], line, layout)
        return Example(text, None if several is None else layout.label_separator.join(several), shown, line, labels=several)
    return Example(text, _one(labels[0], line, layout), shown, line)


def _one(label: Label, line: int, layout: Layout) -> str | None:
    name = None if label is None else str(label).strip()
    if name is not None and name not in MISSING:
        return name
    _check_not_required(name, line, layout)
    return None


def _several(label: Label, line: int, layout: Layout) -> tuple[str, ...] | None:
    separator = layout.label_separator or ""
    if label is None or (isinstance(label, str) and label.strip() in MISSING - {""}):
        _check_not_required(label, line, layout)
        return None
    names = _split(label, separator) if isinstance(label, str) else [name.strip() for name in label]
    for name in names:
        if name in MISSING or separator in name:
            advice = f"write a label before and behind every separator {separator!r}, and no separator in a label"
            raise layout.source.error(line, "one of the labels is not possible.", got=repr(name)[:80], advice=advice)
    return tuple(dict.fromkeys(names))


def _split(label: str, separator: str) -> list[str]:
    if separator.isspace():
        return label.split()
    return [] if label.strip() in ("", separator.strip()) else [name.strip() for name in label.split(separator)]


def _targets(labels: tuple[Label, ...], line: int, layout: Layout) -> tuple[float, ...] | None:
    spelled = [None if label is None else str(label).strip() for label in labels]
    if all(text is None or text in MISSING for text in spelled):
        _check_not_required(spelled[0], line, layout)
        return None
    numbers = []
    for name, text in zip(layout.label_fields, spelled, strict=True):
        number = None if text is None else parse_number(text)
        if number is None:
            got, advice = "nothing" if text is None else repr(text[:80]), "give a finite number, 0.5 or -1e3 say"
            raise layout.source.error(line, f"'{name}' is not a number.", got=got, advice=advice)
        numbers.append(number)
    return tuple(numbers)


def _check_not_required(label: Label, line: int, layout: Layout) -> None:
    if layout.require_label:
        got = "nothing" if label is None else repr(label)
        advice = "give every record a label, or remove it; a class of that name must be called something else"
        raise layout.source.error(line, "the label is missing.", got=got, advice=advice)


def format_of(first_line: str, text_field: str) -> str:
    """The format that a first line is written in, if the text stands in a column or under a key of that name."""
    if first_line.lstrip().startswith("{"):
        try:
            if isinstance(json.loads(first_line), dict):
                return "jsonl"
        except (ValueError, RecursionError):
            pass  # a text that starts with a brace
    for name, delimiter in (("tsv", "\t"), ("csv", ",")):
        columns = [column.strip().strip('"') for column in first_line.split(delimiter)]
        if len(columns) > 1 and text_field in columns:
            return name
    return "txt"


def _tsv_records(lines: Lines, layout: Layout) -> Iterator[Record]:
    return _table_records(lines, "tsv", layout)


def _csv_records(lines: Lines, layout: Layout) -> Iterator[Record]:
    return _table_records(lines, "csv", layout)


def _table_records(lines: Lines, format: str, layout: Layout) -> Iterator[Record]:  # noqa: A002
    header, names, rows = table(lines, format, layout.source)
    if not names:
        return
    text_at = layout.source.column(layout.text_field, "text_field", header, names)
    option = "target_fields" if layout.numbers else "label_field"
    has_label = layout.require_label or set(layout.label_fields) & set(names)
    label_at = [layout.source.column(field, option, header, names) for field in layout.label_fields] if has_label else []
    for line, row in rows:
        yield line, tuple(row[place] for place in label_at) or (None,) * len(layout.label_fields), row[text_at]


def _jsonl_records(lines: Lines, layout: Layout) -> Iterator[Record]:
    advice = f'write one object on each line: {{"{layout.label_fields[0]}": ..., "{layout.text_field}": ...}}'
    required, several, source = layout.require_label, layout.label_separator is not None, layout.source
    for line, content in lines:
        if not content.strip():
            continue
        try:
            record = json_object(line, content, advice, source)
            labels = tuple(
                json_label(line, record, field, required=required, several=several, source=source)
                for field in layout.label_fields
            )
            text = json_text(line, record, layout.text_field, allow_empty=layout.allow_empty, source=source)
        except DataError as error:
            source.refuse(error)
        else:
            yield line, labels, text


def _txt_records(lines: Lines, layout: Layout) -> Iterator[Record]:
    for line, content in lines:
        if not layout.require_label:
            if content.strip() or layout.allow_empty:
                yield line, (None,), content
        elif content.strip():
            label, *text = content.split(None, 1)
            if not text and not layout.allow_empty:
                got, advice = repr(content[:80]), "write lines `label text`, or say what the file is with format"
                what = "the line does not have both a label and a text."
                layout.source.refuse(layout.source.error(line, what, got=got, advice=advice))
            else:
                yield line, (label,), text[0] if text else ""


_READERS: dict[str, Callable[[Lines, Layout], Iterator[Record]]] = {
    "csv": _csv_records,
    "jsonl": _jsonl_records,
    "tsv": _tsv_records,
    "txt": _txt_records,
}

FORMATS = tuple(_READERS)
"""The names of the formats that are understood."""
