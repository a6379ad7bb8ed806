"""Key terms without learning: tf-idf and TextRank, over phrases between stop words and punctuation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carousel.tasks.keyterms.documents import Document, Term
from carousel.tasks.keyterms.measures import RankedTerm, rank

__all__ = ["STOP_WORDS", "DocumentCounts", "candidates", "textrank_terms", "tfidf_terms", "word_ranks"]

DAMPING = 0.85
ITERATIONS = 100
PRECISION = 1e-6
WINDOW = 2  # words that stand next to each other are neighbours, as in [1] where its window of 2 is best

_STOP = """
    a about above across after again against all almost along already also although always among an and another any are as
    at away be became because become been before being below between both but by called can cannot could did do does done down
    due during each either enough etc even ever every few first for found four from further gave give given gives go goes had
    has have having he hence her here him his how however i i.e. e.g. if in indeed into is it its itself just last later least
    less like made make makes many may me might more moreover most much must my near neither never new next no nor not now of
    off often on once one only onto or other others our out over own per perhaps rather same second see seem seen several shall
    she should show shown shows since so some still such than that the their them then there therefore these they this those
    three through throughout thus to together too toward towards two under until up upon us use used uses using various very
    via was way we well were what when where whereas whether which while who whole whom whose why will with within without
    would yet you your 's 't n't 'm 'd 'll 're 've
"""
STOP_WORDS = frozenset(_STOP.split())
"""English words that are in no term that is counted."""


@dataclass(frozen=True)
class DocumentCounts:
    """In how many documents words stand.

    Args:
        documents: how many were counted.
        counts: for each word, in small letters, how many of them have it.
    """

    documents: int
    counts: Mapping[str, int]

    @classmethod
    def of(cls, documents: Iterable[Document]) -> DocumentCounts:
        """Count.

        Args:
            documents: any number.
        """
        counts: Counter[str] = Counter()
        number = 0
        for document in documents:
            number += 1
            counts.update(set(document.lowered))
        return cls(number, counts)

    def idf(self, word: str) -> float:
        """How rare a word is: the logarithm of documents by those that have it, both with one more.

        Args:
            word: in small letters.
        """
        return math.log((1 + self.documents) / (1 + self.counts.get(word, 0)))


def candidates(words: Sequence[str], max_words: int) -> dict[Term, list[tuple[int, int]]]:
    """The phrases of a document between stop words and punctuation, as long as they can be, with their places.

    A longer run than `max_words` is none.

    Args:
        words: in small letters.
        max_words: words of the longest phrase.

    Example:
        >>> list(candidates(("a", "hidden", "markov", "model", "of", "speech", "."), 5))
        [('hidden', 'markov', 'model'), ('speech',)]
    """
    found: dict[Term, list[tuple[int, int]]] = {}
    begin = 0
    for at, word in enumerate([*words, "."]):
        if counts_as_word(word):
            continue
        if 0 < at - begin <= max_words:
            found.setdefault(tuple(words[begin:at]), []).append((begin, at))
        begin = at + 1
    return found


def counts_as_word(word: str) -> bool:
    """Whether a word may be part of a term: it has a letter, and is no stop word.

    Args:
        word: in small letters.
    """
    return word not in STOP_WORDS and any(map(str.isalpha, word))


def tfidf_terms(document: Document, counts: DocumentCounts, max_words: int = 6) -> list[RankedTerm]:
    """Terms by the sum of their words' tf-idf: how often a word stands in the document, times how rare it is elsewhere.

    Args:
        document: where terms are looked for.
        counts: in how many other documents words stand.
        max_words: words of the longest term.

    Returns:
        The best first; scores are shares of the best one's.
    """
    often = Counter(document.lowered)
    return _scored(document, max_words, lambda word: often[word] * counts.idf(word))


def textrank_terms(document: Document, max_words: int = 6) -> list[RankedTerm]:
    """Terms by the sum of their words' ranks in the graph of neighbours [1]; see :func:`word_ranks`.

    Differs from [1]: words are all but stop words, where there only nouns and adjectives are; a term is a run of such words,
    not of the third of them that ranks best; terms are not cut to a third, either.

    Args:
        document: where terms are looked for.
        max_words: words of the longest term.

    Returns:
        The best first; scores are shares of the best one's.

    References:
        [1] Mihalcea and Tarau, "TextRank: Bringing Order into Texts", EMNLP 2004.
    """
    ranks = word_ranks(document.lowered)
    return _scored(document, max_words, lambda word: ranks[word])


def word_ranks(words: Sequence[str], window: int = WINDOW) -> dict[str, float]:
    r"""The PageRank of each word in the graph whose edges are words that stand near each other.

    .. math:: r_i = \frac{1 - d}{n} + d \sum_j \frac{w_{ij}}{\sum_k w_{kj}} r_j, \qquad d = 0.85

    Stop words and punctuation are left out before neighbours are looked for; `w` is how often two words are neighbours.

    Args:
        words: of a document, in small letters.
        window: neighbours are fewer than so many words apart.

    Returns:
        Word to rank; the ranks sum to 1.

    Example:
        >>> ranks = word_ranks("tree root leaf root bark root".split())
        >>> max(ranks, key=ranks.get), round(sum(ranks.values()), 6)
        ('root', 1.0)
    """
    kept = [word for word in words if counts_as_word(word)]
    number = {word: at for at, word in enumerate(dict.fromkeys(kept))}
    n = len(number)
    if not n:
        return {}
    weights = np.zeros((n, n))
    for apart in range(1, window):
        for a, b in zip(kept, kept[apart:], strict=False):
            if a != b:
                weights[number[a], number[b]] += 1
                weights[number[b], number[a]] += 1
    sums = weights.sum(0)
    weights = np.where(sums > 0, weights / np.where(sums > 0, sums, 1), 1 / n)  # a word without neighbours leads anywhere
    ranks = np.full(n, 1 / n)
    for _ in range(ITERATIONS):
        before, ranks = ranks, (1 - DAMPING) / n + DAMPING * (weights @ ranks)
        if np.abs(ranks - before).sum() < PRECISION:
            break
    return dict(zip(number, ranks.tolist(), strict=True))


def _scored(document: Document, max_words: int, value: Callable[[str], float]) -> list[RankedTerm]:
    places = candidates(document.lowered, max_words)
    sums = {term: sum(map(value, term)) for term in places}
    best = max(sums.values(), default=0.0) or 1.0
    return rank([RankedTerm(term, sums[term] / best, tuple(places[term])) for term in places])
