"""Word vectors from the text files of word2vec, GloVe and fastText."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carousel.data.files import StrPath, numbered_lines, shown_path
from carousel.data.source import Source, parse_number

__all__ = ["Coverage", "WordVectors", "read_vectors"]

MAX_SIZE = 1 << 16
_SHOWN = 10

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a vocabulary a file of word vectors knows.

    Args:
        wanted: tokens that were asked for.
        found: those of them that have a vector, in any case.
        found_in_lower_case: those of them whose vector is that of their lower-case form.
        wanted_count: how often all wanted tokens occur in the data; None if that is not known.
        found_count: how often those with a vector occur there.
        missing: some tokens without a vector, the most frequent first.
        rows: vectors in the file.
        duplicates: rows of the file whose word stood there before; the first one counts.
    """

    wanted: int
    found: int
    found_in_lower_case: int
    wanted_count: int | None
    found_count: int | None
    missing: tuple[str, ...]
    rows: int
    duplicates: int

    def __str__(self) -> str:
        parts = [f"{self.found:,} of {self.wanted:,} tokens ({_percent(self.found, self.wanted)}) have a vector"]
        if self.wanted_count is not None and self.found_count is not None:
            parts.append(f"{_percent(self.found_count, self.wanted_count)} of all occurrences")
        if self.found_in_lower_case:
            parts.append(f"{self.found_in_lower_case:,} by their lower-case form")
        if self.duplicates:
            parts.append(f"{self.duplicates:,} words stand twice in the file, and the first counts")
        return "; ".join(parts)


@dataclass(frozen=True, eq=False, slots=True)
class WordVectors:
    """The vectors of some tokens.

    Args:
        tokens: the N tokens that have a vector, in the order in which they were asked for.
        matrix: (N, F), float32: their vectors.
        coverage: how many of those that were asked for these are.
    """

    tokens: tuple[str, ...]
    matrix: Vector
    coverage: Coverage


def read_vectors(path: StrPath, wanted: Iterable[str], *, counts: Mapping[str, int] | None = None) -> WordVectors:
    """Read the vectors of some tokens from a text file of word2vec, GloVe or fastText.

    A line holds a word and F numbers between blanks; a word may hold blanks itself, as some of GloVe's do. The first line
    may say how many vectors there are and F, as word2vec does. Gzip is understood. A token that the file does not have,
    but its lower-case form, gets that vector. Only the lines of wanted words are kept in memory, and only their numbers
    are looked at.

    Args:
        path: the file; ``-`` is standard input.
        wanted: the tokens; repetitions are fine.
        counts: how often each token occurs in the data, for the coverage.

    Returns:
        The vectors that were found; perhaps none.

    Raises:
        DataError: the file cannot be read or holds no vectors; a line has another number of fields; a wanted vector
            holds what is not a finite number of float32; the first line says another number of vectors than there are.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "vectors.txt")
        ...     size = file.write_text("3 2\\nthe 0.5 1\\na 2 3\\nfilm -1 0\\n", encoding="utf-8")
        ...     vectors = read_vectors(file, ["The", "film", "carousel"])
        >>> vectors.tokens, vectors.matrix.tolist()
        (('The', 'film'), [[0.5, 1.0], [-1.0, 0.0]])
        >>> print(vectors.coverage)
        2 of 3 tokens (66.7 %) have a vector; 1 by their lower-case form
    """
    tokens = list(dict.fromkeys(wanted))
    words = {*tokens, *(token.lower() for token in tokens)}
    file = _File(Source(shown_path(path)))
    found: dict[str, Vector] = {}
    duplicates = 0
    with closing(numbered_lines(path)) as lines:
        for line, word, numbers in file.rows(lines):
            if word in words:
                if word in found:
                    duplicates += 1
                else:
                    found[word] = file.vector(line, numbers)
    known = [token for token in tokens if token in found or token.lower() in found]
    vectors = [found[token] if token in found else found[token.lower()] for token in known]
    matrix = np.stack(vectors) if vectors else np.empty((0, file.size or 0), np.float32)
    lowered = sum(token not in found for token in known)
    return WordVectors(tuple(known), matrix, _coverage(tokens, known, lowered, counts, file.count, duplicates))


class _File:
    """A file of vectors, while it is read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.size: int | None = None  # F
        self.declared: int | None = None
        self.count = 0

    def rows(self, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
        """The line, the word and the text of the numbers of each vector."""
        line = 0
        for line, content in lines:
            row = (content.replace("\t", " ") if "\t" in content else content).rstrip(" ")
            if not row:
                continue
            if self.size is None and self._take_header(line, row):
                continue
            word, numbers = self._split(line, row)
            self.count += 1
            yield line, word, numbers
        if not self.count:
            raise self.source.error(None, "the file holds no vectors.", advice="check that this is the right file")
        if self.declared is not None and self.count != self.declared:
            got, advice = f"{self.count:,}, when the first line says {self.declared:,}", "check that the file is whole"
            raise self.source.error(line, "the file holds another number of vectors.", got=got, advice=advice)

    def _take_header(self, line: int, row: str) -> bool:
        """Learn F from the first line. Whether it is word2vec's, which holds two whole numbers and no vector."""
        fields = row.count(" ")
        first, _, second = row.partition(" ")
        header = fields == 1 and all(text.isascii() and text.isdigit() and len(text) < 10 for text in (first, second))
        size = int(second) if header else fields
        if not 0 < size <= MAX_SIZE:
            got, advice = f"{size} numbers", "a line is a word and its numbers, between blanks"
            raise self.source.error(line, "this is not a file of word vectors.", got=got, advice=advice)
        self.size, self.declared = size, int(first) if header else None
        return header

    def _split(self, line: int, row: str) -> tuple[str, str]:
        size, blanks = self.size or 0, row.count(" ")
        if blanks == size:
            word, _, numbers = row.partition(" ")
            return word, numbers
        if blanks < size:
            got = f"{blanks} numbers where there are {size}"
            advice = "a line is a word and its numbers, between blanks"
            raise self.source.error(line, "the vector is too short.", got=got, advice=advice)
        word, *numbers_of = row.rsplit(" ", size)
        if parse_number(word.rpartition(" ")[2]) is not None:  # a word with a blank in it, or a number too many
            got, advice = f"{blanks} numbers where there are {size}", "give all vectors the same length"
            raise self.source.error(line, "the vector is too long.", got=got, advice=advice)
        return word, " ".join(numbers_of)

    def vector(self, line: int, numbers: str) -> Vector:
        """The numbers of a line."""
        values = [parse_number(text) for text in numbers.split(" ")]
        if None not in values:
            with np.errstate(over="ignore"):
                vector = np.array(values, np.float32)
            if np.isfinite(vector).all():
                return vector
        bad = next(text for text, value in zip(numbers.split(" "), values, strict=True) if value is None or abs(value) > 3.4e38)
        advice = "give finite numbers only, below 3.4e38"
        raise self.source.error(line, "the vector holds what is not a number.", got=repr(bad[:80]), advice=advice)


def _coverage(
    tokens: list[str], known: list[str], lowered: int, counts: Mapping[str, int] | None, rows: int, duplicates: int
) -> Coverage:
    there = set(known)
    missing = [token for token in tokens if token not in there]
    if counts is not None:
        missing.sort(key=lambda token: -counts.get(token, 0))
    return Coverage(
        wanted=len(tokens),
        found=len(known),
        found_in_lower_case=lowered,
        wanted_count=None if counts is None else sum(counts.get(token, 0) for token in tokens),
        found_count=None if counts is None else sum(counts.get(token, 0) for token in known),
        missing=tuple(missing[:_SHOWN]),
        rows=rows,
        duplicates=duplicates,
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"
