"""A hidden Markov model as a tagger of words: counts of tags and words, and classes for words that are rare or new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carousel.errors import DataError, NotFittedError, explain
from carousel.files import write_json

if TYPE_CHECKING:
    from carousel.structured import HMM

__all__ = ["HMMTagger"]

CLASSES_FILE = "words.json"
LONGEST_SUFFIX = 4
ENOUGH = 10  # rare words that a class must hold
SMOOTHING = 0.01  # counts added to each start, transition and symbol


class HMMTagger:
    """Tags words by a hidden Markov model with supervised counts: tags are its states, words its symbols.

    Words seen once in training are counted as classes instead, by their shape and ending, as long an ending as enough of
    them share; so are words that training has not seen. What is rare behaves like what is new [1].

    Example:
        >>> model = HMMTagger().fit([["the", "cat"], ["the", "dog"]], [["D", "N"], ["D", "N"]])
        >>> model.predict([["the", "cow"]])
        [['D', 'N']]

    References:
        [1] Brants (2000), "TnT: a Statistical Part-of-Speech Tagger".
    """

    def __init__(self) -> None:
        self.classes_: list[str] = []
        self._numbers: dict[str, int] = {}
        self._model: HMM | None = None

    def fit(self, X: Sequence[Sequence[str]], y: Sequence[Sequence[str]]) -> HMMTagger:
        """Count.

        Args:
            X: words of each sentence.
            y: their tags.

        Raises:
            DataError: there is no word, or a sentence has not a tag for each word.
        """
        from carousel.structured import HMM, Categorical

        if [len(words) for words in X] != [len(tags) for tags in y] or not any(X):
            raise DataError(explain("HMMTagger: a tag for each word of at least one sentence.", got=f"{len(X)} and {len(y)}"))
        counts = Counter(word for words in X for word in words)
        rare = [word for word, count in counts.items() if count == 1]
        held = Counter(name for word in rare for name in _classes(word))
        names = [f"w {word}" for word, count in counts.items() if count > 1]
        names += [name for name, count in held.items() if count >= ENOUGH or name == ""] or [""]
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.classes_ = sorted({tag for tags in y for tag in tags})
        states = {tag: number for number, tag in enumerate(self.classes_)}
        model = HMM(len(self.classes_), Categorical(len(self._numbers)), smoothing=SMOOTHING)
        self._model = model.fit(
            [self._symbols(words) for words in X if words],
            [np.array([states[tag] for tag in tags]) for tags in y if tags],
        )
        return self

    def predict(self, X: Sequence[Sequence[str]]) -> list[list[str]]:
        """The best tags of each sentence.

        Args:
            X: words of each sentence.

        Raises:
            NotFittedError: nothing was learned.
        """
        model = self._learned()
        real = [words for words in X if words]
        paths = iter(model.predict([self._symbols(words) for words in real]) if real else ())
        return [[self.classes_[state] for state in next(paths)] if words else [] for words in X]

    def save(self, directory: Path) -> None:
        """Write the model: what :class:`carousel.structured.HMM` writes, and the symbols of words.

        Args:
            directory: where.

        Raises:
            NotFittedError: nothing was learned.
            OutputError: it cannot be written.
        """
        self._learned().save(directory)
        write_json(directory / CLASSES_FILE, {"tags": self.classes_, "symbols": list(self._numbers)})

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned."""
        return self._learned().num_parameters

    def _learned(self) -> HMM:
        if self._model is None:
            raise NotFittedError(explain("This HMMTagger has not learned anything yet.", advice="call fit"))
        return self._model

    def _symbols(self, words: Sequence[str]) -> np.ndarray:
        return np.array([self._symbol(word) for word in words], dtype=np.int64)

    def _symbol(self, word: str) -> int:
        own = self._numbers.get(f"w {word}")
        if own is not None:
            return own
        return next((self._numbers[name] for name in _classes(word) if name in self._numbers), -1)


def _classes(word: str) -> Iterator[str]:
    """Classes that a word may stand for, the narrowest first; the last one holds all."""
    from carousel.structured import word_shape

    shape = word_shape(word)[:6]
    for length in range(min(LONGEST_SUFFIX, len(word)), 0, -1):
        yield f"c {shape} {word[-length:].lower()}"
    yield f"c {shape}"
    yield ""
