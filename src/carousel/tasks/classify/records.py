"""Labelled and unlabelled records: from files and from lists, in memory or read again each time."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from carousel.errors import DataError, explain
from carousel.tasks.base import PathLike
from carousel.tasks.classify.options import ClassifierOptions

__all__ = ["MEMORY_LIMIT", "LabelledData", "Records", "bare_record", "file_reader", "open_records", "source_kind"]

LabelledData = PathLike | Sequence[tuple[Any, Any]]
"""A file of labelled texts or series, or a list of pairs (text or series, label or labels or numbers)."""

MEMORY_LIMIT = 1024  # MiB
SHARE_OF_FILE = 8  # how many times its size a file takes in memory as records, with room for the network
PACKED = 4  # how many times its size a compressed file holds
LIST = "<list>"


@dataclass(frozen=True)
class Records:
    """Records that can be walked through any number of times.

    Args:
        walk: starts at the first record each time that it is called.
        kept: whether they are in memory; if not, each walk reads the file.
        path: the file, as messages show it.
    """

    walk: Callable[[], Iterable[Any]]
    kept: bool
    path: str

    @classmethod
    def listed(cls, records: list[Any], path: str) -> Records:
        """Records that are in memory."""
        return cls(lambda: records, True, path)

    def part(self, chosen: npt.NDArray[np.bool_]) -> Records:
        """Those that are chosen, in their order.

        Args:
            chosen: (N,).
        """
        if self.kept:
            return Records.listed(list(itertools.compress(self.walk(), chosen)), self.path)
        return Records(lambda: itertools.compress(self.walk(), chosen), False, self.path)


def source_kind(data: Any, options: ClassifierOptions) -> str:
    """Whether data hold texts or series.

    Args:
        data: a file, or a list of pairs or of items.
        options: `source` says it, or `auto` goes by the file's name, the `id_field` or the first item.
    """
    if options.source != "auto":
        return options.source
    if isinstance(data, str | os.PathLike):
        suffixes = [suffix.lower() for suffix in PurePath(data).suffixes if suffix.lower() != ".gz"]
        series = options.format == "ts" or suffixes[-1:] == [".ts"] or options.id_field is not None
        return "series" if series else "text"
    first = next(iter(data), "")
    item = first[0] if isinstance(first, tuple | list) and len(first) == 2 and not _is_number(first[0]) else first
    return "text" if isinstance(item, str) or hasattr(item, "text") else "series"


def open_records(data: Any, options: ClassifierOptions, *, source: str, target: str, what: str) -> tuple[Records, str]:
    """Read labelled data.

    Args:
        data: a file, or a list of pairs.
        options: how files are read.
        source: ``text`` or ``series``.
        target: ``one``, ``several``, ``number``; or ``auto``: it goes by the data and by the separator of labels.
        what: what to call the data in a message.

    Returns:
        The records, and what they are to be answered with.

    Raises:
        DataError: the file cannot be read, the list is empty, or an item is not a pair.
    """
    if isinstance(data, str | os.PathLike):
        target = _file_target(data, options, source) if target == "auto" else target
        walk, shown = file_reader(data, options, source=source, target=target), os.fspath(data)
        if source == "series" or shown == "-" or not _is_large(Path(data), options):
            return Records.listed(list(walk()), shown), target
        return Records(walk, False, shown), target
    pairs = list(data)
    if not pairs:
        raise DataError(explain(f"{what}: the list is empty.", expected="pairs (text, label)"))
    if target == "auto":
        target = _listed_kind(pairs)
    return Records.listed([_of_pair(pair, position, source, target, what) for position, pair in enumerate(pairs)], LIST), target


def _listed_kind(pairs: Sequence[Any]) -> str:
    """What the items of a list are to be answered with, by the first that tells."""
    for pair in pairs:
        if hasattr(pair, "label"):
            return "several" if getattr(pair, "labels", None) is not None else "one" if pair.targets is None else "number"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            return "one"  # an error, as :func:`_of_pair` will say
        answer = pair[1]
        if isinstance(answer, list | tuple | set | frozenset):
            for part in answer:
                return "number" if _is_number(part) else "several"
        else:
            return "number" if isinstance(answer, float) else "one"
    return "several"  # nothing but empty sets


def _of_pair(pair: Any, position: int, source: str, target: str, what: str) -> Any:
    if hasattr(pair, "label"):
        return pair

    def error() -> DataError:
        kind = "a pair of texts (text, label)" if source == "text" else "a pair (numbers of shape (T,) or (T, C), label)"
        return DataError(explain(f"{what}: item {position} is not {kind}.", got=repr(pair)[:200]))

    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise error()
    return _labelled(bare_record(pair[0], source, position, error), pair[1], target, error)


def bare_record(item: Any, source: str, position: int, error: Callable[[], DataError]) -> Any:
    """One item of a list, without its label.

    Args:
        item: a text, or numbers (T,) or (T, C); or what a reader gave.
        source: ``text`` or ``series``.
        position: its place in the list, counted from 0.
        error: what to raise if it is something else.
    """
    from carousel.data import Example, Series

    if source == "text":
        if isinstance(item, Example):
            return item
        if not isinstance(item, str):
            raise error()
        return Example(text=str(item), label=None, path=LIST, line=position + 1)
    if isinstance(item, Series):
        return item
    try:
        values = np.asarray(item, dtype=np.float32)
    except (TypeError, ValueError) as problem:
        raise error() from problem
    if isinstance(item, str) or values.ndim not in (1, 2) or np.isinf(values).any():
        raise error()
    values = values[:, None] if values.ndim == 1 else values
    if not values.shape[1]:
        raise error()
    return Series(values=values, label=None, name=None, path=LIST, line=position + 1)


def _labelled(record: Any, answer: Any, target: str, error: Callable[[], DataError]) -> Any:
    """The record with its label, labels or numbers as text."""
    if target == "one":
        if not isinstance(answer, str):
            raise error()
        return dataclasses.replace(record, label=str(answer))
    parts = list(answer) if isinstance(answer, list | tuple | set | frozenset | np.ndarray) else [answer]
    if target == "number":
        if not all(_is_number(part) for part in parts):
            raise error()
        return dataclasses.replace(record, targets=tuple(map(float, parts)))
    if not all(isinstance(part, str) for part in parts):
        raise error()
    return dataclasses.replace(record, labels=tuple(parts))


def file_reader(
    path: PathLike, options: ClassifierOptions, *, source: str, target: str, labelled: bool = True
) -> Callable[[], Iterable[Any]]:
    """How the records of a file are read: each call starts at the first one.

    Args:
        path: the file; ``-`` is standard input.
        options: how it is written.
        source: ``text`` or ``series``.
        target: ``one``, ``several`` or ``number``.
        labelled: whether every record must have a label, and no text may be empty.
    """
    fields = [name.strip() for name in options.label_field.split(",")] if target == "number" else None
    if source == "series":
        from carousel.data import read_series

        return lambda: read_series(
            path,
            format=options.format,
            id_field=options.id_field or "id",
            label_field=options.label_field,
            require_label=labelled,
            missing="keep",
            target_fields=fields,
        )
    from carousel.data import labelled_examples

    return lambda: labelled_examples(
        path,
        format=options.format,
        text_field=options.text_field,
        label_field=options.label_field,
        require_label=labelled,
        allow_empty=not labelled,
        label_separator=(options.label_separator or "|") if target == "several" else None,
        target_fields=fields,
    )


def _file_target(path: PathLike, options: ClassifierOptions, source: str) -> str:
    """What the records of a file are to be answered with: the separator of labels or the header of a .ts file tells."""
    if source == "text":
        return "one" if options.label_separator is None else "several"
    from carousel.data import numbered_lines

    if os.fspath(path) == "-":
        return "one"
    with closing(numbered_lines(path)) as lines:
        for _, line in lines:
            words = line.lower().split()
            if words[:1] == ["@targetlabel"]:
                return "number" if words[1:2] == ["true"] else "one"
            if (words and not words[0].startswith(("@", "#"))) or words[:1] == ["@data"]:
                break
    return "one"


def _is_large(path: Path, options: ClassifierOptions) -> bool:
    try:
        size = path.stat().st_size * (PACKED if path.suffix.lower() == ".gz" else 1)
    except OSError:
        return False  # the reader says what is wrong with it
    return size * SHARE_OF_FILE > (options.memory_limit or MEMORY_LIMIT) << 20


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
