"""What is counted while a data file is looked through."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carousel.data.readers import Example
from carousel.data.series_values import Series

__all__ = ["FileTally", "Lengths", "OddCharacters", "Repeats"]

_KINDS = {
    "control characters": "[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]",
    "invisible characters": "[\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]",
    "replacement characters (text was damaged before)": "\ufffd",
    "private characters, which no font knows": "[\ue000-\uf8ff]",
    "UTF-8 that was read as Latin-1": "[ÃÂ][\x80-\xbf]|â€|ï»¿",
}
_ODD = re.compile("|".join(f"({pattern})" for pattern in _KINDS.values()))
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long records are.

    Args:
        unit: ``words`` (between blanks), ``characters`` (where most texts are a single word) or ``steps``.
        shortest: the length of the shortest record.
        median: half of the records are at most that long.
        p90: nine of ten are.
        p99: 99 of 100 are.
        longest: the length of the longest record.
        mean: the average length.
    """

    unit: str
    shortest: int
    median: int
    p90: int
    p99: int
    longest: int
    mean: float


@dataclass(frozen=True, slots=True)
class Repeats:
    """Records that stand in a file more than once.

    Args:
        exact: records whose text or series stands there before.
        similar: those, and the ones that differ in case, blanks and the spelling of accents alone.
        contradictions: texts or series, taken as similar, that stand there with different labels.
        lines: pairs of lines: of a record, and of the one it repeats; the first of them.
    """

    exact: int
    similar: int
    contradictions: int
    lines: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class OddCharacters:
    """Characters that should not be in a text.

    Args:
        kind: what they are.
        records: in how many texts they stand.
        line: the line of the first one.
        example: the characters there, as Python writes them.
    """

    kind: str
    records: int
    line: int
    example: str


class FileTally:
    """Counts the records of one file; keeps 36 bytes for each.

    Args:
        limit: how many lines of empty texts are kept.
    """

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.labels: Counter[str] = Counter()
        self.unlabelled = 0
        self.channels: int | None = None
        self.empty: list[int] = []
        self.empty_count = 0
        self._limit = limit
        self._single = 0
        self._words = array("i")
        self._characters = array("i")
        self._exact = array("Q")
        self._similar = array("Q")
        self._label = array("i")
        self._lines = array("i")
        self._numbers: dict[str | None, int] = {}
        self._odd: dict[str, list[object]] = {}

    def add(self, record: Example | Series) -> None:
        """Count one record."""
        self.count += 1
        label = record.label
        names = record.labels if isinstance(record, Example) and record.labels is not None else (label,)
        for name in names:
            if name is None:
                self.unlabelled += 1
            else:
                self.labels[name] += 1
        self._label.append(self._numbers.setdefault(label, len(self._numbers)))
        self._lines.append(record.line)
        if isinstance(record, Example):
            self._add_text(record.text, record.line)
        else:
            self.channels = record.values.shape[1]
            self._words.append(len(record.values))
            self._exact.append(_hash(record.values.tobytes()))

    def _add_text(self, text: str, line: int) -> None:
        words = text.split()
        self._words.append(len(words))
        self._characters.append(len(text))
        self._single += len(words) == 1
        alone = f"\0{line}"  # empty texts are counted as such, not as repeats
        self._exact.append(_hash((text or alone).encode()))
        self._similar.append(_hash((unicodedata.normalize("NFKC", " ".join(words).casefold()) or alone).encode()))
        if not words:
            self.empty_count += 1
            if len(self.empty) < self._limit:
                self.empty.append(line)
        if text.isascii() and text.isprintable():
            return
        for kind, found in {list(_KINDS)[(match.lastindex or 1) - 1]: match.group() for match in _ODD.finditer(text)}.items():
            self._odd.setdefault(kind, [0, line, ascii(found)])[0] += 1  # type: ignore[operator]

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """(N,), what texts that are similar, or series that are equal, have in common."""
        return np.frombuffer(self._similar or self._exact or array("Q", [0]), np.uint64)[: self.count]

    def lengths(self) -> Lengths | None:
        """How long the records are; None if there are none."""
        if not self.count:
            return None
        by_characters = 2 * self._single > self.count
        unit = "steps" if not self._characters else "characters" if by_characters else "words"
        sizes = np.frombuffer(self._characters if unit == "characters" else self._words, np.int32)
        median, p90, p99 = (int(size) for size in np.quantile(sizes, (0.5, 0.9, 0.99), method="inverted_cdf"))
        return Lengths(unit, int(sizes.min()), median, p90, p99, int(sizes.max()), round(float(sizes.mean()), 1))

    def repeats(self) -> Repeats:
        """Which records stand there more than once."""
        if not self.count:
            return Repeats(0, 0, 0, ())
        exact = self.count - len(np.unique(np.frombuffer(self._exact, np.uint64)))
        hashes, labels = self.hashes, np.frombuffer(self._label, np.int32)
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[group] != np.arange(self.count))
        lines = np.frombuffer(self._lines, np.int32)
        pairs = tuple((int(lines[place]), int(lines[first[group[place]]])) for place in again[:_SHOWN])
        different = np.unique(group[labels != labels[first[group]]])
        return Repeats(exact, len(again), len(different), pairs)

    def odd_characters(self) -> tuple[OddCharacters, ...]:
        """What should not be in texts, the most frequent kind first."""
        found = [OddCharacters(kind, *values) for kind, values in self._odd.items()]  # type: ignore[arg-type]
        return tuple(sorted(found, key=lambda odd: -odd.records))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
