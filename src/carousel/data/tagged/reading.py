"""Readers of tagged text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from carousel.data.files import StrPath, numbered_lines, shown_path
from carousel.data.source import Lines, Source
from carousel.data.tagged.guess import BLANKS, CONLLU_COLUMNS, DOCUMENT, GUESSED_FROM, ID, guess_tagged_format, has_tag
from carousel.data.tagged.schemes import TAG_SCHEMES, convert, faults
from carousel.data.tagged.sentence import TaggedSentence
from carousel.errors import ConfigError, DataError, explain, unknown_name

__all__ = ["TAGGED_FORMATS", "read_tagged"]

MAX_WORD = 100_000  # characters; a longer one is a file without line ends, or not text

Column = int | str | None


def read_tagged(
    path: StrPath,
    *,
    format: str | None = None,  # noqa: A002 - the word users know it by
    column: Column = None,
    word_column: Column = None,
    require_tags: bool = True,
    scheme: str | None = None,
    repair: bool = False,
) -> Iterator[TaggedSentence]:
    """Read tagged sentences from a file, one at a time.

    ======== ================================================================================================
    format   a sentence
    ======== ================================================================================================
    columns  rows up to a blank line, between tabs or blanks: CoNLL 2000 and 2003, characters with tags.
             ``-DOCSTART-`` rows are no words
    conllu   CoNLL-U; words of several parts (``1-2``) and empty nodes (``8.1``) are no words
    word/tag a line of ``word/tag`` between blanks; the last slash counts
    raw      a line of words between blanks, without tags
    ======== ================================================================================================

    Gzip, byte order marks and all line ends are understood. An error is raised when its line is reached.

    Args:
        path: the file; ``-`` is standard input.
        format: one of `TAGGED_FORMATS`; by default, see :func:`guess_tagged_format`.
        column: the tags' column: a number counted from 0, from the end if negative, or CoNLL-U's name for it. By default the
            last one, of CoNLL-U `upos`.
        word_column: the words' column. By default the first one, of CoNLL-U `form`.
        require_tags: whether there must be tags; without them, `tags` is None where the column is missing.
        scheme: one of `TAG_SCHEMES`: tags must keep to it.
        repair: whether tags that do not are read as ``conlleval`` does and written as the scheme wants them.

    Yields:
        Sentences of at least one word, in the order of the file; at least one.

    Raises:
        ConfigError: an option is not possible.
        DataError: the file cannot be read, holds no sentence, or a line is not as above; names file and line.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     size = Path(folder, "train.txt").write_text("the DT B-NP\\nfilm NN I-NP\\n\\nruns VBZ B-VP\\n")
        ...     [(sentence.words, sentence.tags) for sentence in read_tagged(Path(folder, "train.txt"))]
        [(('the', 'film'), ('B-NP', 'I-NP')), (('runs',), ('B-VP',))]
    """
    if format is not None and format not in TAGGED_FORMATS:
        raise ConfigError(unknown_name("format", format, TAGGED_FORMATS))
    if scheme is not None and scheme not in TAG_SCHEMES:
        raise ConfigError(unknown_name("scheme", scheme, TAG_SCHEMES))
    for name, value in (("column", column), ("word_column", word_column)):
        if isinstance(value, str) and not _is_number(value) and value.lower() not in CONLLU_COLUMNS:
            raise ConfigError(f"{name}: " + unknown_name("column", value, CONLLU_COLUMNS) + ", or a number")
    if format in _LINES and (column is not None or word_column is not None):
        got = f"format {format}"
        raise ConfigError(explain("column: there are columns only in formats columns and conllu.", got=got))
    if format == "raw" and require_tags:
        advice = "to learn where words end, read without tags and take to_characters"
        raise ConfigError(explain("plain lines have no tags.", got="format raw, require_tags", advice=advice))
    return _checked(path, format, _Wanted(Source(shown_path(path)), column, word_column, require_tags), scheme, repair)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is looked for in a file."""

    source: Source
    column: Column
    word_column: Column
    require_tags: bool


def _checked(path: StrPath, format: str | None, wanted: _Wanted, scheme: str | None, repair: bool) -> Iterator[TaggedSentence]:  # noqa: A002
    empty = True
    with closing(numbered_lines(path)) as lines:
        first = _first_lines(lines)
        chosen = format or guess_tagged_format(path, [line for _, line in first], require_tags=wanted.require_tags)
        for sentence in _READERS[chosen](itertools.chain(first, lines), wanted):
            empty = False
            yield sentence if scheme is None else _kept_to(sentence, scheme, repair, wanted.source)
    if empty:
        advice = "check that this is the right file"
        raise wanted.source.error(None, "the file holds no sentences.", got="no word", advice=advice)


def _first_lines(lines: Lines) -> list[tuple[int, str]]:
    first, full = [], 0
    for number, line in lines:
        first.append((number, line))
        full += bool(line.strip(" \t"))
        if full >= GUESSED_FROM:
            break
    return first


def _kept_to(sentence: TaggedSentence, scheme: str, repair: bool, source: Source) -> TaggedSentence:
    if sentence.tags is None:
        return sentence
    try:
        wrong = faults(sentence.tags, scheme)
    except DataError:
        at = next(at for at, tag in enumerate(sentence.tags) if not _is_tag(tag, scheme))
        got = f"{sentence.tags[at][:80]!r} at word {at + 1}, {sentence.words[at][:40]!r}"
        advice = "say what scheme the tags are in, or that they mark no spans"
        raise source.error(sentence.line_of(at), f"not a tag of scheme {scheme}.", got=got, advice=advice) from None
    if not wrong:
        return sentence
    if repair:
        return replace(sentence, tags=tuple(convert(sentence.tags, scheme, scheme)))
    at = wrong[0]
    before = sentence.tags[at - 1] if at else "the beginning of the sentence"
    got = f"{sentence.tags[at]} behind {before}, at word {at + 1}, {sentence.words[at][:40]!r}"
    advice = f"correct the tags, have them repaired (read as conlleval does), or name another scheme: {', '.join(TAG_SCHEMES)}"
    raise source.error(sentence.line_of(at), f"the tags do not keep to scheme {scheme}.", got=got, advice=advice)


def _is_tag(tag: str, scheme: str) -> bool:
    try:
        faults([tag], scheme)
    except DataError:
        return False
    return True


def _rows(lines: Lines, wanted: _Wanted) -> Iterator[TaggedSentence]:
    """CoNLL's column files."""
    lines, first, tabs, width = _measured(lines)
    if first is None:
        return
    source = wanted.source
    words_at = _place(wanted.word_column, 0, width, "word_column", source, first)
    tags_at = _tag_place(wanted, width - 1, width, words_at, first)
    block = _Block(source.shown, "columns", tags_at, "\t" if tabs else " ")
    for number, line in lines:
        if not line.strip(" \t"):
            yield from block.end()
            continue
        if line.lstrip(" \t").startswith(DOCUMENT):
            yield from block.finish()
            block.keep(line)
            continue
        fields = tuple(line.split("\t") if tabs else BLANKS.split(line.strip(" \t")))
        if len(fields) != width:
            if line.startswith("#") and not block.rows:
                block.keep(line)
                continue
            got = f"{len(fields)}, in {line[:80]!r}"
            advice = "write as many columns in each row, a blank line behind each sentence; or say what the file is with format"
            raise source.error(number, f"the rows before have {width} columns, this one has not.", got=got, advice=advice)
        block.add(number, line, fields, fields[words_at], fields[tags_at].strip(" ") if tags_at >= 0 else None, source)
    yield from block.finish()


def _conllu(lines: Lines, wanted: _Wanted) -> Iterator[TaggedSentence]:
    source, width = wanted.source, len(CONLLU_COLUMNS)
    words_at = _place(wanted.word_column, 1, width, "word_column", source, None)
    tags_at = _place(wanted.column, 3, width, "column", source, None)
    block = _Block(source.shown, "conllu", tags_at, "\t")
    for number, line in lines:
        if not line.strip(" \t"):
            yield from block.end()
            continue
        if line.startswith("#"):
            block.keep(line)
            continue
        fields = tuple(line.split("\t"))
        found = ID.fullmatch(fields[0])
        if len(fields) != width or found is None:
            got = f"{len(fields)} fields, in {line[:80]!r}"
            expected = f"{width} fields between tabs: {' '.join(CONLLU_COLUMNS).upper()}"
            raise source.error(number, "the line is not one of CoNLL-U.", got=got, advice=f"write {expected}")
        if found.group(2):
            block.keep(line)
            continue
        if int(fields[0][:9]) != len(block.rows) + 1:
            got, advice = f"{fields[0][:20]} behind {len(block.rows)}", "count words from 1; a blank line ends a sentence"
            raise source.error(number, "the words are not numbered one after the other.", got=got, advice=advice)
        tag: str | None = fields[tags_at]
        if tag == "_" and tags_at == CONLLU_COLUMNS.index("upos"):  # the other columns may be empty
            if wanted.require_tags:
                raise source.error(number, "the word has no UPOS.", got="_", advice="name another column")
            tag = None
        block.add(number, line, fields, fields[words_at], tag, source)
    yield from block.finish()


def _pairs(lines: Lines, wanted: _Wanted) -> Iterator[TaggedSentence]:
    """Text of word/tag."""
    kept: list[str] = []
    for number, line in lines:
        text = line.strip(" \t")
        if not text:
            kept.append(line)
            continue
        pairs = []
        for at, item in enumerate(BLANKS.split(text), start=1):
            if not has_tag(item):
                got, advice = f"{item[:80]!r}, item {at}", "write word/tag; the last slash is what counts"
                raise wanted.source.error(number, "this is no word with a tag.", got=got, advice=advice)
            word, _, tag = item.rpartition("/")
            pairs.append((word, tag))
        words, tags = zip(*pairs, strict=True)
        yield _line(words, tags, number, text, "word/tag", kept, wanted.source)


def _plain(lines: Lines, wanted: _Wanted) -> Iterator[TaggedSentence]:
    kept: list[str] = []
    for number, line in lines:
        text = line.strip(" \t")
        if not text:
            kept.append(line)
            continue
        yield _line(tuple(BLANKS.split(text)), None, number, text, "raw", kept, wanted.source)


def _line(
    words: tuple[str, ...],
    tags: tuple[str, ...] | None,
    number: int,
    text: str,
    format: str,  # noqa: A002
    kept: list[str],
    source: Source,
) -> TaggedSentence:
    blank = BLANKS.search(text)
    before = tuple((0, line) for line in kept)
    kept.clear()
    return TaggedSentence(words, tags, (), source.shown, number, format, -1, blank.group() if blank else " ", before)


class _Block:
    """The rows of a sentence while it is read."""

    def __init__(self, shown: str, format: str, column: int, separator: str) -> None:  # noqa: A002
        self.shown, self.format, self.column, self.separator = shown, format, column, separator
        self.rows: list[tuple[str, ...]] = []
        self.words: list[str] = []
        self.tags: list[str | None] = []
        self.kept: list[tuple[int, str]] = []
        self.line = 0

    def keep(self, line: str) -> None:
        self.kept.append((len(self.rows), line))

    def add(self, number: int, line: str, fields: tuple[str, ...], word: str, tag: str | None, source: Source) -> None:
        for name, value in (("word", word), ("tag", tag)):
            if value == "":
                advice = "give the row a word and a tag; a blank line ends a sentence"
                raise source.error(number, f"the {name} is empty.", got=repr(line[:80]), advice=advice)
        if len(word) > MAX_WORD:
            raise source.error(number, "the word is too long.", got=f"{len(word):,} characters", advice="check the file")
        self.line = self.line or number
        self.rows.append(fields)
        self.words.append(word)
        self.tags.append(tag)

    def end(self) -> Iterator[TaggedSentence]:
        """At a blank line: the sentence, or if there is none yet, what is kept goes on to the next."""
        if self.rows:
            yield from self.finish()
        elif self.kept and self.kept[-1][1]:
            self.keep("")

    def finish(self) -> Iterator[TaggedSentence]:
        if self.rows:
            tags = tuple(tag for tag in self.tags if tag is not None)
            yield TaggedSentence(
                words=tuple(self.words),
                tags=tags if len(tags) == len(self.words) else None,
                columns=tuple(self.rows),
                path=self.shown,
                line=self.line,
                format=self.format,
                column=self.column,
                separator=self.separator,
                kept=tuple(self.kept),
            )
            self.rows, self.words, self.tags, self.kept, self.line = [], [], [], [], 0


def _measured(lines: Lines) -> tuple[Lines, int | None, bool, int]:
    """The lines; of the first that is surely a row its number, whether it has tabs, and how many columns."""
    seen = []
    for number, line in lines:
        seen.append((number, line))
        if line.strip(" \t") and not line.lstrip(" \t").startswith((DOCUMENT, "#")):
            break
    rows = [(number, line) for number, line in seen if line.strip(" \t") and not line.lstrip(" \t").startswith(DOCUMENT)]
    first, row = rows[-1] if rows else (None, "")
    tabs = "\t" in row.strip(" \t")
    width = len(row.split("\t") if tabs else BLANKS.split(row.strip(" \t")))
    return itertools.chain(seen, lines), first, tabs, width


def _place(column: Column, default: int, width: int, option: str, source: Source, line: int | None) -> int:
    """The number of a column, counted from 0."""
    if column is None:
        return default
    got, advice = f"{width} columns", f"choose another one with {option}: 0 is the first, -1 the last"
    if isinstance(column, str) and not _is_number(column):
        if width == len(CONLLU_COLUMNS):
            return CONLLU_COLUMNS.index(column.lower())
        raise source.error(line, f"column '{column}' is one of CoNLL-U.", got=got, advice=advice)
    place = int(column)
    if -width <= place < width:
        return place % width
    raise source.error(line, f"column {place} is missing.", got=got, advice=advice)


def _tag_place(wanted: _Wanted, default: int, width: int, words_at: int, line: int | None) -> int:
    """The number of the tags' column, -1 without one."""
    try:
        place = _place(wanted.column, default, width, "column", wanted.source, line)
    except DataError:
        if wanted.require_tags:
            raise
        return -1
    if place != words_at:
        return place
    if not wanted.require_tags:
        return -1
    advice = "write the tag behind the word, or choose another column"
    raise wanted.source.error(line, "the column of the tags is missing.", got=f"{width} columns", advice=advice)


def _is_number(text: str) -> bool:
    return re.fullmatch("-?[0-9]{1,6}", text) is not None


_READERS: dict[str, Callable[[Lines, _Wanted], Iterator[TaggedSentence]]] = {
    "columns": _rows,
    "conllu": _conllu,
    "raw": _plain,
    "word/tag": _pairs,
}
_LINES = ("raw", "word/tag")

TAGGED_FORMATS = tuple(_READERS)
"""The names of the formats that are understood."""
