"""What counting says of each word of a document, in steps that can be embedded."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carousel.errors import CheckpointError, explain
from carousel.tasks.keyterms.counting import DocumentCounts
from carousel.tasks.keyterms.documents import Document

__all__ = ["STATISTICS", "WordStatistics"]

#: The columns of :meth:`WordStatistics.rows`.
STATISTICS = ("in the document", "documents", "tf-idf", "first place", "place", "share in terms")

STATISTICS_FILE = "statistics.json"
# So many that the file stays below a megabyte: a run directory without weights may hold no larger one.
MAX_WORDS = 30_000
MAX_LETTERS = 40
MAX_COUNT = 1 << 53
OFTEN = 5  # more often in a document is the same
DOUBLINGS = 9
STEPS = 10  # of what lies between 0 and 1
PRIOR = (0.2, 2.0)  # a new word has been in terms in 0.2 of 2 documents


@dataclass(frozen=True)
class WordStatistics:
    """Words counted in documents with key terms.

    Args:
        counts: in how many documents words stand; the 30,000 most frequent of up to 40 letters are kept.
        in_terms: for each word, in how many documents it is part of a term.
    """

    counts: DocumentCounts
    in_terms: Mapping[str, int]

    @classmethod
    def learn(cls, documents: Sequence[Document]) -> WordStatistics:
        """Count.

        Args:
            documents: the training data.
        """
        counts = DocumentCounts.of(documents)
        inside: Counter[str] = Counter()
        for document in documents:
            inside.update(_inside(document))
        short = (word for word in counts.counts if len(word) <= MAX_LETTERS)
        kept = sorted(short, key=lambda word: (-counts.counts[word], word))[:MAX_WORDS]
        return cls(
            DocumentCounts(counts.documents, {word: counts.counts[word] for word in kept}),
            {word: inside[word] for word in kept},
        )

    def rows(self, document: Document, *, learned: bool = False) -> tuple[tuple[str, ...], ...]:
        """For each word of a document one value in each of the columns of `STATISTICS`.

        Args:
            document: any document.
            learned: whether it is one of those that were counted: then it is left out of the counts. A network that saw of
                a word in training that it is in a term because it is in this very one, would trust this column too much.

        Returns:
            As many rows as words.
        """
        words = document.lowered
        here = Counter(words)
        inside = _inside(document) if learned else frozenset()
        first: dict[str, int] = {}
        for at, word in enumerate(words):
            first.setdefault(word, at)
        known: dict[str, tuple[str, ...]] = {}
        corpus = max(0, self.counts.documents - learned)
        value = {word: here[word] * math.log((1 + corpus) / (1 + self._others(word, learned))) for word in here}
        ranked = sorted(value.values())
        for word, often in here.items():
            documents = self._others(word, learned)
            share = (max(0, self.in_terms.get(word, 0) - (word in inside)) + PRIOR[0]) / (documents + PRIOR[1])
            known[word] = (
                str(min(often, OFTEN)),
                str(_doublings(documents)),
                str(STEPS * bisect.bisect_left(ranked, value[word]) // len(ranked)),
                str(_doublings(first[word] + 1)),
                str(min(STEPS - 1, int(STEPS * share))) if documents else "new",
            )
        return tuple((*known[word][:4], str(_doublings(at + 1)), known[word][4]) for at, word in enumerate(words))

    def _others(self, word: str, learned: bool) -> int:
        """In how many other documents a word stands."""
        return max(0, self.counts.counts.get(word, 0) - learned)

    def write(self, directory: Path) -> None:
        """Write all of it as JSON."""
        from carousel.data import write_json

        words = list(self.counts.counts)
        content = {
            "documents": self.counts.documents,
            "words": words,
            "counts": [self.counts.counts[word] for word in words],
            "in_terms": [self.in_terms[word] for word in words],
        }
        write_json(directory / STATISTICS_FILE, content)

    @classmethod
    def recall(cls, directory: Path) -> WordStatistics:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: the file cannot be read.
            CheckpointError: the file holds something else.
        """
        from carousel.data import read_json

        path = directory / STATISTICS_FILE
        saved: Any = read_json(path)
        good = isinstance(saved, dict) and saved.keys() == {"documents", "words", "counts", "in_terms"}
        if good:
            words, counts, inside = (saved[key] for key in ("words", "counts", "in_terms"))
            good = (
                _is_count(saved["documents"])
                and all(isinstance(each, list) for each in (words, counts, inside))
                and len(words) == len(counts) == len(inside)
                and all(isinstance(word, str) and word for word in words)
                and len(set(words)) == len(words)
                and all(map(_is_count, [*counts, *inside]))
            )
        if not good:
            raise CheckpointError(explain(f"{path}: not saved counts of words.", got=repr(saved)[:200]))
        return cls(
            DocumentCounts(saved["documents"], dict(zip(words, counts, strict=True))), dict(zip(words, inside, strict=True))
        )


def _inside(document: Document) -> frozenset[str]:
    """The words that are part of a term somewhere in the document."""
    words = document.lowered
    return frozenset(word for begin, end in document.spans for word in words[begin:end])


def _doublings(number: int) -> int:
    return min(DOUBLINGS, number.bit_length())


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_COUNT
