"""Numbers for tokens and for labels."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from carousel.data.files import StrPath, read_json, shown_path, write_json
from carousel.errors import CheckpointError, ConfigError, DataError, explain

__all__ = ["LabelSet", "Vocabulary"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SHOWN_LABELS = 20


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
        tokens = _strings("vocabulary", "tokens", content)
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
        with _naming(path):
            return cls.from_dict(read_json(path))


class LabelSet:
    """The classes: a number for each label, in sorted order (as numbers, if all labels are whole numbers).

    Args:
        labels: the labels; repetitions are fine.

    Raises:
        DataError: there is no label.

    Example:
        >>> labels = LabelSet(["10", "9", "10"])
        >>> labels.names, labels.encode("10")
        (('9', '10'), 1)
    """

    def __init__(self, labels: Iterable[str]) -> None:
        different = set(labels)
        if not different:
            raise DataError(explain("there are no labels.", advice="give examples with labels"))
        numeric = all(_INTEGER.fullmatch(label) for label in different)
        self.names: tuple[str, ...] = tuple(sorted(different, key=_by_number if numeric else _by_spelling))
        self._ids = {label: number for number, label in enumerate(self.names)}

    def encode(self, label: str, *, path: object = None, line: int | None = None) -> int:
        """The number of a label.

        Args:
            label: the label.
            path: the file it stands in, for the message.
            line: its line there, for the message.

        Raises:
            DataError: the label is not known.
        """
        number = self._ids.get(label)
        if number is None:
            near = difflib.get_close_matches(label, self.names, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            more = len(self.names) - _SHOWN_LABELS
            expected = "one of " + ", ".join(self.names[:_SHOWN_LABELS]) + (f" and {more} more" if more > 0 else "")
            what = f"unknown label '{label[:80]}'.{hint}"
            advice = "correct the label, or train on data that has it"
            raise DataError(explain(what, expected=expected, advice=advice), path=path, line=line)
        return number

    def decode(self, number: int) -> str:
        """The label of a number."""
        return self.names[number]

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, label: object) -> bool:
        return label in self._ids

    def __eq__(self, other: object) -> bool:
        return self.names == other.names if isinstance(other, LabelSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"LabelSet({len(self)} labels)"

    def to_dict(self) -> dict[str, Any]:
        """The labels as JSON values."""
        return {"labels": list(self.names)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelSet:
        """The labels that :meth:`to_dict` wrote.

        Raises:
            CheckpointError: `content` is something else.
        """
        labels = _strings("set of labels", "labels", content)
        if not labels or list((made := cls(labels)).names) != labels:
            expected = "labels in sorted order, at least one"
            raise CheckpointError(explain("this is not a saved set of labels.", got=repr(labels)[:200], expected=expected))
        return made

    def save(self, path: StrPath) -> None:
        """Write the labels as JSON, atomically.

        Raises:
            DataError: the file cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: StrPath) -> LabelSet:
        """Read the labels that :meth:`save` wrote.

        Raises:
            DataError: the file cannot be read or is not JSON.
            CheckpointError: the file holds something else.
        """
        with _naming(path):
            return cls.from_dict(read_json(path))


def _by_number(label: str) -> tuple[int, str]:
    return int(label), label


def _by_spelling(label: str) -> tuple[int, str]:
    return 0, label


def _strings(kind: str, key: str, content: object) -> list[str]:
    """The list under `key`, checked: strings, none empty, none twice."""
    expected = f'{{"{key}": [strings, none empty, none twice]}}'
    if not isinstance(content, Mapping) or content.keys() != {key}:
        got = f"keys {', '.join(map(repr, content))}"[:200] if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(explain(f"this is not a saved {kind}.", got=got, expected=expected))
    strings = content[key]
    if not isinstance(strings, list):
        raise CheckpointError(explain(f"this is not a saved {kind}.", got=type(strings).__name__, expected=expected))
    seen: set[str] = set()
    for number, string in enumerate(strings):
        if not isinstance(string, str) or not string or string in seen:
            got = f"{string!r:.80} at position {number}"
            raise CheckpointError(explain(f"this is not a saved {kind}.", got=got, expected=expected))
        seen.add(string)
    return list(strings)


@contextmanager
def _naming(path: StrPath) -> Iterator[None]:
    """Put the file's name before a message about what it holds."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{shown_path(path)}: {error}") from error
