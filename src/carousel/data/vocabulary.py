"""Numbers for tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from carousel.data.files import StrPath, write_json
from carousel.data.saved import load_strings, naming, saved_strings
from carousel.errors import CheckpointError, ConfigError, explain

__all__ = ["Vocabulary"]

MAX_COUNTED = 1 << 20


class Vocabulary:
    """A number for each token; 0 is padding and 1 is every token that is not known.

    A token that is spelled ``<pad>`` or ``<unk>`` in the data is an unknown token; it never becomes padding.

    Args:
        tokens: the known tokens in the order of their numbers, which start at 2; none twice.

    Raises:
        ConfigError: a token stands there twice, or is ``<pad>`` or ``<unk>``.

    Example:
        >>> vocabulary = Vocabulary.count([["a", "moving", "film"], ["a", "film", "a"]], min_count=2)
        >>> vocabulary.tokens
        ['<pad>', '<unk>', 'a', 'film']
        >>> vocabulary.encode(["a", "dull", "film"])
        [2, 1, 3]
    """

    PAD = "<pad>"
    UNK = "<unk>"
    PAD_ID = 0
    UNK_ID = 1

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = (self.PAD, self.UNK, *tokens)
        self._ids = {token: number for number, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            twice = next(token for token, count in Counter(self._tokens).items() if count > 1)
            advice = f"give every token once, and neither {self.PAD} nor {self.UNK}"
            raise ConfigError(explain("Vocabulary: a token stands there twice.", got=repr(twice)[:80], advice=advice))
        self._ids[self.PAD] = self.UNK_ID

    @classmethod
    def count(cls, sequences: Iterable[Iterable[str]], *, min_count: int = 1, max_size: int | None = None) -> Vocabulary:
        """Make the vocabulary of some data: the frequent tokens first, equally frequent ones in the order of Unicode.

        More than a million different tokens are not held in memory: whenever there are as many, the rarest half or more is
        forgotten, and what comes again is counted from 0. That changes nothing for tokens that are frequent.

        Args:
            sequences: the texts, each as its tokens.
            min_count: how often a token must occur to be known; at least 1.
            max_size: the most tokens to know, besides padding and unknown; None for all.

        Raises:
            ConfigError: `min_count` or `max_size` is below 1.
        """
        for name, number in (("min_count", min_count), ("max_size", max_size)):
            if number is not None and number < 1:
                message = explain(f"Vocabulary: {name} must be positive.", got=str(number), advice="give at least 1")
                raise ConfigError(message)
        counts: Counter[str] = Counter()
        for sequence in sequences:
            counts.update(sequence)
            if len(counts) > MAX_COUNTED:
                counts = _without_the_rarest(counts)
        del counts[cls.PAD], counts[cls.UNK]
        known = sorted((-count, token) for token, count in counts.items() if count >= min_count)
        return cls([token for _, token in known[:max_size]])

    @property
    def tokens(self) -> list[str]:
        """All tokens in the order of their numbers, padding and unknown included."""
        return list(self._tokens)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The numbers of the tokens."""
        get, unknown = self._ids.get, self.UNK_ID
        return [get(token, unknown) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The tokens of the numbers; ``<pad>`` and ``<unk>`` stand for themselves."""
        return [self._tokens[number] for number in ids]

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and self._ids.get(token, self.UNK_ID) != self.UNK_ID

    def __eq__(self, other: object) -> bool:
        return self._tokens == other._tokens if isinstance(other, Vocabulary) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._tokens)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} tokens, {self.PAD} and {self.UNK} included)"

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as JSON values."""
        return {"tokens": self.tokens}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Vocabulary:
        """The vocabulary that :meth:`to_dict` wrote.

        Raises:
            CheckpointError: `content` is something else.
        """
        tokens = saved_strings("vocabulary", "tokens", content)
        if tokens[:2] != [cls.PAD, cls.UNK]:
            expected = f"{cls.PAD} and {cls.UNK} first"
            message = explain("this is not a saved vocabulary.", got=repr(tokens[:2])[:200], expected=expected)
            raise CheckpointError(message)
        return cls(tokens[2:])

    def save(self, path: StrPath) -> None:
        """Write the vocabulary as JSON, atomically.

        Raises:
            DataError: the file cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: StrPath) -> Vocabulary:
        """Read the vocabulary that :meth:`save` wrote.

        Raises:
            DataError: the file cannot be read or is not JSON.
            CheckpointError: the file holds something else.
        """
        with naming(path):
            return cls.from_dict(load_strings(path, "vocabulary", "tokens"))


def _without_the_rarest(counts: Counter[str]) -> Counter[str]:
    """The tokens that are more frequent than others, at most half of what is held."""
    least = 1
    while len(counts) > MAX_COUNTED // 2:
        counts = Counter({token: count for token, count in counts.items() if count > least})
        least *= 2
    return counts
