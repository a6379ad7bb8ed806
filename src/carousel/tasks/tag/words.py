"""What is known of tokens: numbers of words, of their characters, affixes and shapes, of pairs, of further columns."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carousel.data import Vocabulary
from carousel.errors import CheckpointError, explain

if TYPE_CHECKING:
    from carousel.data.tagged import TaggedSentence
    from carousel.tasks.tag.options import TaggerOptions

__all__ = ["EDGE", "MAX_CHARACTERS", "TokenNumbers", "WordIndex"]

Integers = npt.NDArray[np.int64]

MAX_CHARACTERS = 64  # of a word that are read: as many from its beginning as from its end
MIN_AFFIX = 2  # affixes seen less often are unknown
EDGE = "\u2402"  # stands before the first and behind the last token of a sentence in pairs
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class TokenNumbers:
    """Sentences as numbers: S tokens of F different forms.

    Args:
        forms: (S,), the form of each token.
        lengths: (N,), tokens of each sentence.
        words: (F,), the word's number.
        rare: (F,), whether the word was seen once in training.
        affixes: (F, A), numbers of affixes and shape.
        characters: the numbers of all forms' characters, one form behind the other.
        starts: (F + 1,), where each form's characters begin.
        pairs: (S, 2), of the token with the one before and the one behind, or (S, 0).
        columns: (S, C), numbers of further columns.
    """

    forms: Integers
    lengths: Integers
    words: Integers
    rare: npt.NDArray[np.bool_]
    affixes: Integers
    characters: Integers
    starts: Integers
    pairs: Integers
    columns: Integers


@dataclass(frozen=True)
class WordIndex:
    """Vocabularies of everything that is embedded.

    Args:
        words: normalised words.
        characters: characters; None if they are not read.
        affixes: for each length from 1 the prefixes, then for each the suffixes, then the shapes if they are read.
        pairs: two neighbours, with a blank between; None if they are not read.
        columns: for each further column its values.
        lowercase: whether words are looked up in small letters.
        zero_digits: whether digits are looked up as 0.
        longest: letters of the longest affix.
        shape: whether shapes are read.
    """

    words: Vocabulary
    characters: Vocabulary | None
    affixes: tuple[Vocabulary, ...]
    pairs: Vocabulary | None
    columns: tuple[Vocabulary, ...]
    lowercase: bool
    zero_digits: bool
    longest: int
    shape: bool

    @classmethod
    def learn(cls, sentences: Sequence[TaggedSentence], columns: Sequence[int], options: TaggerOptions) -> WordIndex:
        """Count what occurs in the training data.

        Args:
            sentences: the training data.
            columns: the places of further columns in a row.
            options: what is read.
        """
        seen = Counter(word for sentence in sentences for word in sentence.words)
        norm = _normaliser(options.lowercase, options.zero_digits)
        words: Counter[str] = Counter()
        for word, count in seen.items():
            words[norm(word)] += count

        def known(parts: Callable[[str], Iterable[str]], least: int) -> Vocabulary:
            counts: Counter[str] = Counter()
            for word, count in seen.items():
                for part in parts(word):
                    counts[part] += count
            return _vocabulary(counts, least)

        digits = _normaliser(False, options.zero_digits)
        affixes = [known(cut, MIN_AFFIX) for cut in _cuts(options.affixes, options.shape)]
        pairs: Counter[str] = Counter()
        if options.reads_bigrams:
            for sentence in sentences:
                pairs.update(_pairs([norm(word) for word in sentence.words]))
        values = [Counter(row[place] for sentence in sentences for row in sentence.columns) for place in columns]
        return cls(
            words=_vocabulary(words, options.min_count, options.max_vocab),
            characters=None if options.reads_characters == "none" else known(digits, 1),
            affixes=tuple(affixes),
            pairs=_vocabulary(pairs, MIN_AFFIX) if options.reads_bigrams else None,
            columns=tuple(_vocabulary(counts, 1) for counts in values),
            lowercase=options.lowercase,
            zero_digits=options.zero_digits,
            longest=options.affixes,
            shape=options.shape,
        )

    def encode(
        self, sentences: Sequence[TaggedSentence], columns: Sequence[int] = (), *, training: bool = False
    ) -> TokenNumbers:
        """Sentences as numbers.

        Args:
            sentences: tagged or not.
            columns: the places of further columns in a row.
            training: whether these are the data that were learned from: only then words are rare.
        """
        places: dict[str, int] = {}
        forms = [places.setdefault(word, len(places)) for sentence in sentences for word in sentence.words]
        norm, digits = _normaliser(self.lowercase, self.zero_digits), _normaliser(False, self.zero_digits)
        normal = [norm(form) for form in places]
        words = np.array(self.words.encode(normal), np.int64)
        rare = np.zeros(len(places), np.bool_)
        if training:
            counts = np.bincount(words[forms], minlength=len(self.words)) if forms else np.zeros(len(self.words))
            rare = counts[words] == 1
        parts = [vocabulary.encode(next(iter(cut(form))) for form in places) for vocabulary, cut in self._cut()]
        letters: list[int] = []
        starts = [0]
        if self.characters is not None:
            for form in places:
                text = digits(form)
                if len(text) > MAX_CHARACTERS:
                    text = text[: MAX_CHARACTERS // 2] + text[-MAX_CHARACTERS // 2 :]
                letters += self.characters.encode(text)
                starts.append(len(letters))
        pairs: list[int] = []
        if self.pairs is not None:
            of_form = dict(zip(places, normal, strict=True))
            for sentence in sentences:
                found = self.pairs.encode(_pairs([of_form[word] for word in sentence.words]))
                pairs += [number for two in itertools.pairwise(found) for number in two]
        values = [
            vocabulary.encode(row[place] for sentence in sentences for row in sentence.columns)
            for vocabulary, place in zip(self.columns, columns, strict=True)
        ]
        return TokenNumbers(
            forms=np.array(forms, np.int64),
            lengths=np.array([len(sentence.words) for sentence in sentences], np.int64),
            words=words,
            rare=rare,
            affixes=np.array(parts, np.int64).reshape(len(self.affixes), len(places)).T,
            characters=np.array(letters, np.int64),
            starts=np.array(starts, np.int64),
            pairs=np.array(pairs, np.int64).reshape(len(forms), 0 if self.pairs is None else 2),
            columns=np.array(values, np.int64).reshape(len(self.columns), len(forms)).T,
        )

    def __contains__(self, word: object) -> bool:
        """Whether a word is known, as it is looked up."""
        return isinstance(word, str) and _normaliser(self.lowercase, self.zero_digits)(word) in self.words

    def write(self, directory: Path) -> None:
        """Write all of it as JSON files."""
        for name, vocabulary in self._named():
            vocabulary.save(directory / f"{name}.json")

    @classmethod
    def recall(cls, directory: Path, options: TaggerOptions) -> WordIndex:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        characters = options.reads_characters != "none"
        affixes = len(_cuts(options.affixes, options.shape))
        for name, there in (("characters", characters), ("pairs", options.reads_bigrams)):
            if there and not (directory / f"{name}.json").is_file():
                raise CheckpointError(explain(f"{directory / name}.json: is missing.", advice="copy the whole run directory"))
        return cls(
            words=Vocabulary.load(directory / "vocabulary.json"),
            characters=Vocabulary.load(directory / "characters.json") if characters else None,
            affixes=tuple(Vocabulary.load(directory / f"affixes_{number}.json") for number in range(affixes)),
            pairs=Vocabulary.load(directory / "pairs.json") if options.reads_bigrams else None,
            columns=tuple(
                Vocabulary.load(directory / f"column_{number}.json") for number in range(len(options.feature_columns))
            ),
            lowercase=options.lowercase,
            zero_digits=options.zero_digits,
            longest=options.affixes,
            shape=options.shape,
        )

    def _named(self) -> Iterator[tuple[str, Vocabulary]]:
        yield "vocabulary", self.words
        if self.characters is not None:
            yield "characters", self.characters
        yield from ((f"affixes_{number}", vocabulary) for number, vocabulary in enumerate(self.affixes))
        if self.pairs is not None:
            yield "pairs", self.pairs
        yield from ((f"column_{number}", vocabulary) for number, vocabulary in enumerate(self.columns))

    def _cut(self) -> Iterator[tuple[Vocabulary, Callable[[str], Iterable[str]]]]:
        return zip(self.affixes, _cuts(self.longest, self.shape), strict=True)


def _cuts(longest: int, shape: bool) -> list[Callable[[str], Iterable[str]]]:
    """What takes each affix, and the shape, from a word; each gives one text."""
    found: list[Callable[[str], Iterable[str]]] = []
    found += [lambda word, n=n: (word[:n].lower(),) for n in range(1, longest + 1)]  # type: ignore[misc]
    found += [lambda word, n=n: (word[-n:].lower(),) for n in range(1, longest + 1)]  # type: ignore[misc]
    if not shape:
        return found
    from carousel.structured import word_shape  # imports the tensor library

    return [*found, lambda word: (word_shape(word),)]


def _pairs(words: Sequence[str]) -> list[str]:
    """One more than there are words: the pair at each border."""
    return [f"{a} {b}" for a, b in zip([EDGE, *words], [*words, EDGE], strict=True)] if words else []


def _normaliser(lowercase: bool, zero_digits: bool) -> Callable[[str], str]:
    def norm(word: str) -> str:
        if zero_digits:
            word = _DIGIT.sub("0", word)
        return word.lower() if lowercase else word

    return norm


def _vocabulary(counts: Counter[str], least: int, most: int | None = None) -> Vocabulary:
    """The frequent ones first, as :meth:`carousel.data.Vocabulary.count` orders them."""
    for name in (Vocabulary.PAD, Vocabulary.UNK, ""):
        counts.pop(name, None)
    known = sorted((-count, token) for token, count in counts.items() if count >= least)
    return Vocabulary([token for _, token in known[:most]])
