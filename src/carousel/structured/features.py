"""What is written of a token for a linear model: its word, shape and affixes, and those of its neighbours."""

from __future__ import annotations

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from carousel.errors import CheckpointError, ConfigError, NotFittedError, explain
from carousel.structured.sparse import Indicators, stack

__all__ = ["FeatureIndex", "TokenFeatures", "word_shape"]

Token = str | Sequence[str]


def word_shape(word: str) -> str:
    """The kinds of a word's characters, each run once: X upper case, x lower, d digit, others as they are.

    Args:
        word: any string.

    Example:
        >>> word_shape("Boeing-747s")
        'Xx-dx'
    """
    kinds = ("X" if c.isupper() else "d" if c.isdigit() else "x" if c.isalpha() else c for c in word)
    return "".join(kind for kind, _ in itertools.groupby(kinds))


@dataclass(frozen=True)
class TokenFeatures:
    """Writes each token of a sentence as strings, one for each indicator that is 1.

    A token is a word, or a row of columns whose first is the word (CoNLL's part of speech, say, is the second).

    Args:
        window: so many neighbours on each side are written too.
        affixes: prefixes and suffixes up to this length, of the token itself.
        shape: the kinds of its characters, and whether it has a digit, a hyphen, or is all capitals.
        pairs: each two neighbours together, of the word and of each column, and three of each column.
        lower: words are written in lower case; shapes see them as they are.

    Raises:
        ConfigError: a number is negative.

    Example:
        >>> TokenFeatures(window=1, affixes=0, shape=False, pairs=False)(["The", "cat"])
        [['bias', 'w[0]=the', 'w[1]=cat', 'bos'], ['bias', 'w[-1]=the', 'w[0]=cat', 'eos']]
    """

    window: int = 2
    affixes: int = 3
    shape: bool = True
    pairs: bool = True
    lower: bool = True

    def __post_init__(self) -> None:
        if self.window < 0 or self.affixes < 0:
            got = f"window={self.window}, affixes={self.affixes}"
            raise ConfigError(explain("TokenFeatures: sizes must not be negative.", got=got))

    def __call__(self, sentence: Sequence[Token]) -> list[list[str]]:
        """The strings of each token.

        Args:
            sentence: its tokens.
        """
        columns = _columns(sentence)
        words = [word.lower() if self.lower else word for word in columns[0]] if columns else []
        shown = [("w", words), *((f"c{i}", list(column)) for i, column in enumerate(columns[1:], 1))]
        found = []
        for t, word in enumerate(columns[0] if columns else ()):
            strings = ["bias"]
            for name, values in shown:
                near = range(max(0, t - self.window), min(len(values), t + self.window + 1))
                strings += [f"{name}[{i - t}]={values[i]}" for i in near]
                if self.pairs:
                    strings += self._together(name, values, t)
            if t == 0:
                strings.append("bos")
            if t == len(words) - 1:
                strings.append("eos")
            for n in range(1, min(self.affixes, len(word)) + 1):
                strings += [f"prefix={words[t][:n]}", f"suffix={words[t][-n:]}"]
            if self.shape:
                strings += _shape(word)
            found.append(strings)
        return found

    def _together(self, name: str, values: Sequence[str], t: int) -> Iterator[str]:
        reach = min(self.window, 1) if name == "w" else self.window
        for i in range(max(0, t - reach), min(len(values), t + reach + 1) - 1):
            yield f"{name}[{i - t},{i - t + 1}]={values[i]}|{values[i + 1]}"
        if name != "w":
            for i in range(max(0, t - self.window), min(len(values), t + self.window + 1) - 2):
                yield f"{name}[{i - t}..{i - t + 2}]={values[i]}|{values[i + 1]}|{values[i + 2]}"


def _columns(sentence: Sequence[Token]) -> list[tuple[str, ...]]:
    rows = [(token,) if isinstance(token, str) else tuple(token) for token in sentence]
    return list(zip(*rows, strict=True))


_DIGIT = re.compile(r"\d")


def _shape(word: str) -> Iterator[str]:
    yield f"shape={word_shape(word)}"
    if _DIGIT.search(word):
        yield "digit"
    if "-" in word:
        yield "hyphen"
    if word.isupper():
        yield "capitals"


@dataclass
class FeatureIndex:
    """Numbers for strings: those of training, the most frequent first; or hashes, without anything kept.

    Args:
        min_count: strings that come less often in training are left out.
        hash_bits: numbers are hashes of so many bits; 0: each string has its own.
        numbers: those that strings have already.

    Raises:
        ConfigError: a number is not possible.
    """

    min_count: int = 1
    hash_bits: int = 0
    numbers: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.min_count < 1 or not 0 <= self.hash_bits <= 30:
            got, expected = f"min_count={self.min_count}, hash_bits={self.hash_bits}", "1 or more; 0 to 30"
            raise ConfigError(explain("FeatureIndex: not possible.", got=got, expected=expected))

    @property
    def size(self) -> int:
        """F."""
        return 1 << self.hash_bits if self.hash_bits else len(self.numbers)

    def learn(self, tokens: Iterable[Iterable[str]]) -> FeatureIndex:
        """Give numbers to strings. Hashes need no learning.

        Args:
            tokens: the strings of each token.
        """
        if not self.hash_bits:
            counts = Counter(itertools.chain.from_iterable(tokens))
            # What is looked up most lies side by side.
            kept = sorted((s for s, n in counts.items() if n >= self.min_count), key=lambda s: (-counts[s], s))
            self.numbers = {string: number for number, string in enumerate(kept)}
        return self

    def encode(self, tokens: Iterable[Iterable[str]]) -> Indicators:
        """The rows of a matrix of indicators. Strings that have no number are left out.

        Args:
            tokens: the strings of each token.

        Raises:
            NotFittedError: nothing was learned.
        """
        if self.hash_bits:
            mask = self.size - 1
            return stack([[zlib.crc32(s.encode()) & mask for s in strings] for strings in tokens], self.size)
        if not self.numbers:
            raise NotFittedError(explain("This FeatureIndex has not learned anything yet.", advice="call learn"))
        numbers = self.numbers
        return stack([[numbers[s] for s in strings if s in numbers] for strings in tokens], self.size)

    def to_dict(self) -> dict[str, object]:
        """As JSON values."""
        return {"min_count": self.min_count, "hash_bits": self.hash_bits, "strings": list(self.numbers)}

    @classmethod
    def from_dict(cls, content: object) -> FeatureIndex:
        """From what :meth:`to_dict` gave.

        Args:
            content: JSON values.

        Raises:
            CheckpointError: it is something else.
        """
        keys = {"min_count", "hash_bits", "strings"}
        if not isinstance(content, dict) or content.keys() != keys or not isinstance(content["strings"], list):
            raise CheckpointError(explain("this is not a saved index of features.", expected=f"keys {sorted(keys)}"))
        strings, sizes = content["strings"], (content["min_count"], content["hash_bits"])
        if not all(isinstance(s, str) for s in strings) or len(set(strings)) != len(strings):
            raise CheckpointError(explain("this is not a saved index of features.", expected="strings, none twice"))
        if not all(isinstance(n, int) and not isinstance(n, bool) for n in sizes):
            raise CheckpointError(explain("this is not a saved index of features.", got=f"{sizes}"[:80], expected="integers"))
        try:
            return cls(*sizes, {string: number for number, string in enumerate(strings)})
        except ConfigError as error:
            raise CheckpointError(str(error)) from error
