"""Writers of tagged text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from carousel.data.files import StrPath
from carousel.data.tagged.guess import CONLLU_COLUMNS
from carousel.data.tagged.reading import TAGGED_FORMATS
from carousel.data.tagged.sentence import TaggedSentence
from carousel.errors import ConfigError, DataError, ShapeError, explain, unknown_name
from carousel.files import replacing

__all__ = ["tagged_lines", "write_tagged"]

T = TypeVar("T")

_BREAKS = re.compile("[\t\n\r]")
_BLANKS = re.compile("[ \t\n\r]")


def write_tagged(
    path: StrPath,
    sentences: Iterable[TaggedSentence],
    *,
    tags: Iterable[Sequence[str]] | None = None,
    probabilities: Iterable[Sequence[float]] | None = None,
    format: str | None = None,  # noqa: A002 - the word users know it by
) -> None:
    """Write tagged sentences to a file, whole or not at all: what :func:`read_tagged` read, with other tags in their place.

    Args:
        path: the file; its folder must exist.
        sentences: what to write.
        tags: of each sentence's words; by default its own.
        probabilities: of each word's tag, from 0 to 1: a column more, in CoNLL-U an entry ``Prob=`` of MISC.
        format: one of `TAGGED_FORMATS`; by default what a sentence was read from.

    Raises:
        ConfigError: there is no such format, or it has no place for probabilities.
        ShapeError: there are not a tag or a probability for each word of each sentence.
        DataError: a word or a tag cannot be written in this format.
        OutputError: the file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_tagged(Path(folder, "out"), [TaggedSentence(("a", "film"))], tags=[["DT", "NN"]], format="word/tag")
        ...     Path(folder, "out").read_text()
        'a/DT film/NN\\n'
    """
    if format is not None and format not in TAGGED_FORMATS:
        raise ConfigError(unknown_name("format", format, TAGGED_FORMATS))
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        others, numbers = _beside(tags), _beside(probabilities)
        for sentence in sentences:
            try:
                own, shares = next(others), next(numbers)
            except StopIteration:
                raise ShapeError("write_tagged: there are fewer tags or probabilities than sentences.") from None
            lines = tagged_lines(sentence, own, shares, format=format)
            stream.writelines(line + "\n" for line in lines)
        for name, given, rest in (("tags", tags, others), ("probabilities", probabilities, numbers)):
            if given is not None and next(rest, None) is not None:
                raise ShapeError(f"write_tagged: there are more {name} than sentences.")


def tagged_lines(
    sentence: TaggedSentence,
    tags: Sequence[str] | None = None,
    probabilities: Sequence[float] | None = None,
    *,
    format: str | None = None,  # noqa: A002
) -> Iterator[str]:
    """The lines of one sentence, with the blank line behind rows, without line ends. See :func:`write_tagged`.

    Args:
        sentence: what to write.
        tags: of its words; by default its own.
        probabilities: of each word's tag.
        format: one of `TAGGED_FORMATS`; by default what the sentence was read from.

    Raises:
        ConfigError: the format has no place for probabilities.
        ShapeError: there are not as many tags or probabilities as words.
        DataError: a word or a tag cannot be written in this format.

    Example:
        >>> list(tagged_lines(TaggedSentence(("a", "film")), ["DT", "NN"], [1.0, 0.75], format="columns"))
        ['a\\tDT\\t1.0000', 'film\\tNN\\t0.7500', '']
    """
    chosen = format or sentence.format
    tags = sentence.tags if tags is None else tags
    for name, values in (("tags", tags), ("probabilities", probabilities)):
        if values is not None and len(values) != len(sentence):
            what = f"a sentence of {len(sentence)} words cannot be written with {len(values)} {name}."
            raise ShapeError(explain(what, got=sentence.place or None))
    if probabilities is not None and chosen in ("raw", "word/tag"):
        advice = "write format columns, or JSON"
        raise ConfigError(explain(f"format {chosen} has no place for probabilities.", advice=advice))
    kept = [line for before, line in sentence.kept if before == 0] if chosen in ("raw", "word/tag") else []
    if chosen in ("raw", "word/tag"):
        yield from (line for line in kept if sentence.format in ("raw", "word/tag"))
        yield _one_line(sentence, tags, chosen)
        return
    same = sentence.format == chosen
    rows = _rows(sentence, tags, probabilities, chosen, same)
    at = 0
    for before, line in sentence.kept if same else ():
        yield from rows[at:before]
        at = max(at, before)
        yield line
    yield from rows[at:]
    yield ""


def _one_line(sentence: TaggedSentence, tags: Sequence[str] | None, format: str) -> str:  # noqa: A002
    if format == "word/tag" and tags is None:
        advice = "give tags, or write format raw"
        raise ShapeError(explain("word/tag text needs tags.", got=sentence.place or None, advice=advice))
    blank = sentence.separator if sentence.format in ("raw", "word/tag") and sentence.separator else " "
    _check(sentence, sentence.words, _BLANKS, format)
    if format == "raw" or tags is None:
        return blank.join(sentence.words)
    _check(sentence, tags, re.compile("[ \t\n\r/]"), format)
    return blank.join(f"{word}/{tag}" for word, tag in zip(sentence.words, tags, strict=True))


def _rows(
    sentence: TaggedSentence,
    tags: Sequence[str] | None,
    probabilities: Sequence[float] | None,
    format: str,  # noqa: A002
    same: bool,
) -> list[str]:
    separator = (sentence.separator or "\t") if same and format == "columns" else "\t"
    if same and sentence.columns:
        rows = [list(fields) for fields in sentence.columns]
        place = sentence.column
    elif format == "conllu":
        rows = [[str(at), word, *"_" * (len(CONLLU_COLUMNS) - 2)] for at, word in enumerate(sentence.words, start=1)]
        place = CONLLU_COLUMNS.index("upos")
    else:
        rows, place = [[word] for word in sentence.words], -1
    for at, tag in enumerate(tags or ()):
        if place < 0:
            rows[at].append(tag)
        else:
            rows[at][place] = tag
    for at, probability in enumerate(probabilities if probabilities is not None else ()):
        shown = f"{probability:.4f}"
        if format == "columns":
            rows[at].append(shown)
        else:
            misc = [entry for entry in rows[at][-1].split("|") if entry != "_" and not entry.startswith("Prob=")]
            rows[at][-1] = "|".join([*misc, f"Prob={shown}"])
    forbidden = _BREAKS if separator == "\t" else _BLANKS
    for values in (tags or (), () if same and sentence.columns else sentence.words):
        _check(sentence, values, forbidden, format)  # the other columns are as they stood
    return [separator.join(row) for row in rows]


def _check(sentence: TaggedSentence, values: Sequence[str], forbidden: re.Pattern[str], format: str) -> None:  # noqa: A002
    for value in values:
        if not value or forbidden.search(value):
            got = repr(value)[:80] + (f", {sentence.place}" if sentence.place else "")
            raise DataError(explain(f"this cannot be written in format {format}.", got=got, advice="write another format"))


def _beside(values: Iterable[T] | None) -> Iterator[T | None]:
    return itertools.repeat(None) if values is None else iter(values)
