"""What a data file holds, and what may be wrong with it, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from carousel.data.field_guess import SAMPLE, Guess, guess
from carousel.data.file_tally import FileTally, Lengths, OddCharacters, Repeats
from carousel.data.files import StrPath, numbered_lines, shown_path
from carousel.data.readers import Example, Layout, examples_in
from carousel.data.series import series_in
from carousel.data.series_values import Series, SeriesLayout
from carousel.data.source import Lines, Source
from carousel.errors import DataError

__all__ = ["FileReport", "Problem", "describe_file"]

PROBLEM_LIMIT = 20
_FEW = 5  # examples of a label


@dataclass(frozen=True, slots=True)
class Problem:
    """A record that a reader would refuse.

    Args:
        line: the line of the file, counted from 1; None if the whole file is meant.
        message: what is wrong, with the name of the file and the line.
    """

    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class FileReport:
    """What a data file holds.

    Args:
        path: the file, as messages show it.
        kind: ``text`` or ``series``.
        format: one of `FORMATS` or of `SERIES_FORMATS`.
        text_field: the column or key that the texts were found in; None where there are no columns.
        label_field: the column or key that the labels were found in; None where there are none.
        guessed: those of the two that are not what was asked for: a reader must be told of them.
        records: texts or series that can be read.
        labels: how many records have each label, the most frequent first.
        unlabelled: records without a label.
        lengths: how long the records are.
        channels: numbers at each step of the series; None for texts.
        empty: lines of empty texts; the first of them.
        empty_count: how many texts are empty.
        repeats: records whose text or series stands in the file before.
        odd_characters: what is in the texts that should not be: the kind, in how many of them, and the first line.
        other: the file it was compared with, or None.
        overlap: records of this file whose text or series is in the other file, too.
        new_labels: labels of this file that the other does not have.
        problems: what a reader refuses: bytes that are not UTF-8, records of the wrong shape; the first of them.
        problem_count: how many there are.
    """

    path: str
    kind: str
    format: str
    text_field: str | None
    label_field: str | None
    guessed: tuple[str, ...]
    records: int
    labels: dict[str, int]
    unlabelled: int
    lengths: Lengths | None
    channels: int | None
    empty: tuple[int, ...]
    empty_count: int
    repeats: Repeats
    odd_characters: tuple[OddCharacters, ...]
    other: str | None
    overlap: int
    new_labels: tuple[str, ...]
    problems: tuple[Problem, ...]
    problem_count: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to look at before training, a sentence each; nothing for a file in good order."""
        return tuple(_warnings(self))


def describe_file(
    path: StrPath,
    *,
    other: StrPath | None = None,
    format: str | None = None,  # noqa: A002 - the word users know it by
    text_field: str = "text",
    label_field: str = "label",
    id_field: str = "id",
    label_separator: str | None = None,
    problem_limit: int = PROBLEM_LIMIT,
) -> FileReport:
    """Look through a data file: what is in it, and all that is wrong, not only the first thing.

    Whether it holds texts or series is seen from its suffix and its first lines. Where a named column is missing, one
    that looks like it is taken, and the report says so. The file is read once, and need not fit in memory: 36 bytes are
    kept for each record.

    Args:
        path: the file; ``-`` is standard input.
        other: a file of the same kind to compare with: the training data for validation data, say.
        format: one of `FORMATS` or `SERIES_FORMATS`; None goes by suffix and first line.
        text_field: the column or key of the text.
        label_field: the column or key of the label.
        id_field: the column of the name of a table's series.
        label_separator: what stands between the labels of a record; None: a record has one label.
        problem_limit: how many problems, and lines of empty texts, are listed; all are counted.

    Returns:
        What was found.

    Raises:
        DataError: a file cannot be read at all.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "train.csv")
        ...     size = file.write_bytes(b"class,text\\ngood,fine\\nbad,fine\\nbad,caf\\xe9\\n")
        ...     report = describe_file(file)
        >>> report.labels, report.label_field, report.repeats.contradictions
        ({'bad': 2, 'good': 1}, 'class', 1)
        >>> [problem.line for problem in report.problems]
        [4]
    """
    problems = _Problems(problem_limit)
    search = _Search(format, text_field, label_field, id_field, label_separator)
    seen, tally = search.through(path, problems)
    overlap = 0
    new_labels: tuple[str, ...] = ()
    if other is not None:
        _, theirs = search.through(other, _Problems(0))
        overlap = int(np.isin(tally.hashes, theirs.hashes).sum())
        new_labels = tuple(sorted(tally.labels.keys() - theirs.labels.keys()))
    return FileReport(
        path=shown_path(path),
        kind="text" if seen.text else "series",
        format=seen.format,
        text_field=seen.text_field,
        label_field=seen.label_field,
        guessed=seen.guessed,
        records=tally.count,
        labels=dict(sorted(tally.labels.items(), key=lambda item: (-item[1], item[0]))),
        unlabelled=tally.unlabelled,
        lengths=tally.lengths(),
        channels=tally.channels,
        empty=tuple(tally.empty),
        empty_count=tally.empty_count,
        repeats=tally.repeats(),
        odd_characters=tally.odd_characters(),
        other=None if other is None else shown_path(other),
        overlap=overlap,
        new_labels=new_labels,
        problems=tuple(sorted(problems.listed, key=lambda problem: problem.line or 0)),
        problem_count=problems.count,
    )


class _Problems:
    """Keeps the first problems and counts all of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self.listed: list[Problem] = []

    def __call__(self, error: DataError) -> None:
        self.count += 1
        if len(self.listed) < self.limit:
            self.listed.append(Problem(error.line, str(error)))


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for, in one file or two."""

    format: str | None
    text_field: str
    label_field: str
    id_field: str
    label_separator: str | None

    def through(self, path: StrPath, problems: _Problems) -> tuple[Guess, FileTally]:
        """Count what stands in a file."""
        tally = FileTally(problems.limit)
        with closing(numbered_lines(path, problems=problems)) as lines:
            first = list(islice(lines, SAMPLE))
            seen = guess(path, self.format, [line for _, line in first], self.text_field, self.label_field, self.id_field)
            try:
                for record in self._records(seen, chain(first, lines), Source(shown_path(path), problems)):
                    tally.add(record)
            except DataError as error:
                if error.line is None:
                    raise
                problems(error)  # a file that breaks off
        return seen, tally

    def _records(self, seen: Guess, lines: Lines, source: Source) -> Iterator[Example] | Iterator[Series]:
        label = seen.label_field or self.label_field
        if seen.text:
            layout = Layout(
                source=source,
                text_field=seen.text_field or self.text_field,
                label_fields=(label,),
                require_label=seen.format == "txt" and seen.label_field is not None,
                allow_empty=True,
                label_separator=self.label_separator,
                numbers=False,
            )
            return examples_in(lines, seen.format, layout)
        series_layout = SeriesLayout(source, self.id_field, (label,), False, "refuse", False, None, None)
        return series_in(lines, seen.format, series_layout)


def _warnings(report: FileReport) -> Iterator[str]:
    def many(count: int, one: str) -> str:
        return f"{count:,} {one}{'' if count == 1 else 's'}"

    thing = "text" if report.kind == "text" else "series"
    if report.problem_count:
        yield f"{many(report.problem_count, 'problem')} that a reader refuses."
    if not report.records:
        yield "There is no record that can be read."
        return
    for name in report.guessed:
        yield f"A column that was not asked for is taken: '{name}'; say so with text_field or label_field."
    if report.unlabelled:
        yield f"{report.unlabelled:,} of {report.records:,} records have no label."
    if len(report.labels) == 1:
        yield f"All labels are the same: '{next(iter(report.labels))}'."
    if rare := [label for label, count in report.labels.items() if count < _FEW]:
        yield f"{many(len(rare), 'label')} with fewer than {_FEW} examples: {', '.join(rare[:10])}."
    if report.empty_count:
        place = f"; the first on line {report.empty[0]}" if report.empty else ""
        yield f"{many(report.empty_count, 'text')} without any word{place}."
    repeats = report.repeats
    if repeats.similar:
        line, before = repeats.lines[0]
        yield f"{many(repeats.similar, 'record')} that stand there before, line {line} on line {before}, say."
    if repeats.contradictions:
        yield f"{repeats.contradictions:,} times the same {thing} has different labels."
    for odd in report.odd_characters:
        yield f"{odd.records:,} texts hold {odd.kind}; the first, {odd.example}, on line {odd.line}."
    if report.overlap:
        yield f"{report.overlap:,} of {report.records:,} records are also in {report.other}: results on it would be too good."
    if report.new_labels:
        yield f"{many(len(report.new_labels), 'label')} that {report.other} does not have: {', '.join(report.new_labels[:10])}."
