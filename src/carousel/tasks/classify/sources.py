"""What a classifier reads: texts or numeric series, and how each becomes a row of numbers."""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from carousel.errors import CheckpointError, DataError, explain
from carousel.tasks.classify.options import ClassifierOptions

if TYPE_CHECKING:
    from torch import nn

    from carousel.data import Example, Series, Tokenizer, Vocabulary, WordVectors

__all__ = ["SOURCES", "SeriesSource", "Source", "TextSource", "recall_source"]

Walk = Callable[[], Iterable[Any]]
MAX_CHANNELS = 1 << 16
SHOWN_CHARACTERS = 500


class Source(abc.ABC):
    """One kind of input. What it learns from the training data it writes as JSON."""

    kind: ClassVar[str]
    dtype: ClassVar[str]
    mark: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def learn(cls, walk: Walk, options: ClassifierOptions) -> Self:
        """Learn from the training data; `walk` starts at the first record each time that it is called."""

    @abc.abstractmethod
    def encode(self, record: Any) -> Sequence[int] | npt.NDArray[np.float32]:
        """One record as the numbers of its tokens (T,), or as values (T, C)."""

    @abc.abstractmethod
    def tokens(self, record: Any) -> list[str]:
        """A name for each step of a record, for a person."""

    @abc.abstractmethod
    def shown(self, record: Any) -> str:
        """A record in one line, for a person."""

    @abc.abstractmethod
    def said(self) -> str:
        """What was learned, in a few words."""

    @abc.abstractmethod
    def front(self, options: ClassifierOptions) -> tuple[nn.Module, int]:
        """The layer before the recurrent ones, and the features that it gives."""

    @abc.abstractmethod
    def write(self, directory: Path) -> None:
        """Write what was learned as JSON files."""

    @classmethod
    @abc.abstractmethod
    def recall(cls, directory: Path) -> Self:
        """Read what :meth:`write` wrote."""


@dataclass(frozen=True)
class TextSource(Source):
    """Texts: tokens, and their numbers.

    Args:
        tokenizer: text to tokens.
        vocabulary: tokens to numbers.
        features: of the word vectors that the embedding started from; None if there were none.
        coverage: how much of the training data those vectors know, in words.
        vectors: the vectors themselves, known only to the run that reads them: later they are weights.
    """

    kind: ClassVar[str] = "text"
    dtype: ClassVar[str] = "int32"
    mark: ClassVar[str] = "vocabulary.json"

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    features: int | None = None
    coverage: str = ""
    vectors: WordVectors | None = field(default=None, compare=False, repr=False)

    @classmethod
    def learn(cls, walk: Walk, options: ClassifierOptions) -> Self:
        """Choose the unit, learn subwords, count the vocabulary, read the word vectors."""
        from carousel.data import Tokenizer, Vocabulary, read_vectors

        def texts() -> Iterable[str]:
            return (record.text for record in walk())

        tokenizer = Tokenizer(options.unit, lowercase=options.lowercase, vocab_size=options.vocab_size).resolve(texts())
        if tokenizer.unit == "subword":
            tokenizer = tokenizer.learn(texts())
        vocabulary = Vocabulary.count(
            (tokenizer.tokenize(text) for text in texts()), min_count=options.min_count, max_size=options.max_vocab
        )
        if options.vectors is None:
            return cls(tokenizer, vocabulary)
        vectors = read_vectors(options.vectors, vocabulary.tokens[2:])
        return cls(tokenizer, vocabulary, int(vectors.matrix.shape[1]), str(vectors.coverage), vectors)

    def encode(self, record: Example) -> list[int]:
        """The numbers of the text's tokens."""
        return self.vocabulary.encode(self.tokenizer.tokenize(record.text))

    def tokens(self, record: Example) -> list[str]:
        """The tokens."""
        return self.tokenizer.tokenize(record.text)

    def shown(self, record: Example) -> str:
        """The text, cut if it is long."""
        return record.text if len(record.text) <= SHOWN_CHARACTERS else record.text[: SHOWN_CHARACTERS - 1] + "…"

    def said(self) -> str:
        """How many tokens are known."""
        return f"{len(self.vocabulary)} tokens known" + (f", {self.coverage}" if self.coverage else "")

    def front(self, options: ClassifierOptions) -> tuple[nn.Module, int]:
        """An embedding, with the word vectors in it if they were read just now."""
        from carousel.tasks.classify.network import TokenEmbedding

        features = self.features or options.embedding_size
        scale, drop = options.embedding_scale, options.word_dropout
        embedding = TokenEmbedding(len(self.vocabulary), features, word_dropout=drop, scale=scale)
        if self.vectors is not None:
            embedding.start_from(self.vocabulary.encode(self.vectors.tokens), self.vectors.matrix)
        embedding.weight.requires_grad_(not options.freeze_vectors)
        return embedding, features

    def write(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and ``vocabulary.json``; with word vectors also ``vectors.json``."""
        from carousel.data import write_json

        self.vocabulary.save(directory / "vocabulary.json")
        write_json(directory / "tokenizer.json", self.tokenizer.to_dict())
        if self.features is not None:
            write_json(directory / "vectors.json", {"features": self.features, "coverage": self.coverage})

    @classmethod
    def recall(cls, directory: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        from carousel.data import Tokenizer, Vocabulary, read_json

        tokenizer = Tokenizer.from_dict(read_json(directory / "tokenizer.json"))
        vocabulary = Vocabulary.load(directory / "vocabulary.json")
        path = directory / "vectors.json"
        if not path.is_file():
            return cls(tokenizer, vocabulary)
        saved = read_json(path)
        good = isinstance(saved, dict) and saved.keys() == {"features", "coverage"} and isinstance(saved["coverage"], str)
        if not good or type(saved["features"]) is not int or not 1 <= saved["features"] <= MAX_CHANNELS:
            raise CheckpointError(explain(f"{path}: not saved by a classifier.", got=repr(saved)[:200]))
        return cls(tokenizer, vocabulary, saved["features"], saved["coverage"])


@dataclass(frozen=True)
class SeriesSource(Source):
    """Numeric series: each channel is brought to mean 0 and deviation 1 of the training data.

    A missing value becomes 0, the mean. Each channel that misses values in the training data gets a mask channel beside
    it, 1 where the value is there and 0 where it is missing; with ``missing="refuse"`` missing values are errors.

    Args:
        means: C, of the values that are there.
        deviations: C, above 0; 1 for a channel that never changes.
        masked: C, whether a channel has a mask channel.
        refuse: whether missing values are errors.
    """

    kind: ClassVar[str] = "series"
    dtype: ClassVar[str] = "float32"
    mark: ClassVar[str] = "series.json"

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    masked: tuple[bool, ...]
    refuse: bool = False

    @classmethod
    def learn(cls, walk: Walk, options: ClassifierOptions) -> Self:
        """Measure the mean and the deviation of every channel, and which of them miss values."""
        refuse = options.missing == "refuse"
        C: int | None = None
        count = total = squares = missing = np.zeros(0)
        for record in walk():
            if C is None:
                C = record.values.shape[1]
                count, total, squares, missing = (np.zeros(C) for _ in range(4))
            _check_channels(record, C)
            there = ~np.isnan(record.values)
            if refuse:
                _refuse_missing(record, there)
            count += there.sum(0)
            missing += (~there).sum(0)
            total += np.where(there, record.values, 0.0).sum(0, dtype=np.float64)
        if C is None:
            raise DataError("there is no series to learn from.")
        means = total / np.maximum(count, 1)
        for record in walk():
            squares += np.nan_to_num((record.values - means) ** 2).sum(0, dtype=np.float64)
        deviations = np.sqrt(squares / np.maximum(count, 1))
        flat = deviations <= 1e-12 * np.abs(means)  # never changes, or by rounding only
        deviations[flat | (deviations == 0)] = 1.0
        return cls(tuple(means.tolist()), tuple(deviations.tolist()), tuple((missing > 0).tolist()), refuse)

    def encode(self, record: Series) -> npt.NDArray[np.float32]:
        """(T, C + masks), standardised."""
        _check_channels(record, len(self.means))
        there = ~np.isnan(record.values)
        if self.refuse:
            _refuse_missing(record, there)
        values = (record.values.astype(np.float64) - self.means) / self.deviations
        values = np.where(there, values, 0.0)
        return np.concatenate([values, there[:, np.array(self.masked)]], axis=1, dtype=np.float32)

    def tokens(self, record: Series) -> list[str]:
        """The numbers of the steps, from 1."""
        return [str(step + 1) for step in range(len(record.values))]

    def shown(self, record: Series) -> str:
        """Its name if it has one, and its size."""
        T, C = record.values.shape
        size = f"{T} steps of {C} channel{'s' if C > 1 else ''}"
        return f"{record.name}: {size}" if record.name else size

    def said(self) -> str:
        """How many channels there are."""
        C, masks = len(self.means), sum(self.masked)
        return f"{C} channel{'s' if C > 1 else ''}" + (f", {masks} with missing values" if masks else "")

    def front(self, options: ClassifierOptions) -> tuple[nn.Module, int]:
        """Nothing, or a linear layer."""
        from torch import nn

        from carousel.nn import Linear

        size = len(self.means) + sum(self.masked)
        if options.project:
            return Linear(size, options.embedding_size), options.embedding_size
        return nn.Identity(), size

    def write(self, directory: Path) -> None:
        """Write ``series.json``."""
        from carousel.data import write_json

        content = {
            "means": list(self.means),
            "deviations": list(self.deviations),
            "masked": list(self.masked),
            "refuse": self.refuse,
        }
        write_json(directory / self.mark, content)

    @classmethod
    def recall(cls, directory: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: the file cannot be read.
            CheckpointError: the file holds something else.
        """
        from carousel.data import read_json

        path = directory / cls.mark
        saved = read_json(path)
        if not _is_series_description(saved):
            expected = "means, deviations and masked, a list of each of one length, and refuse"
            raise CheckpointError(
                explain(f"{path}: not a saved description of series.", got=repr(saved)[:200], expected=expected)
            )
        means, deviations = (tuple(map(float, saved[name])) for name in ("means", "deviations"))
        return cls(means, deviations, tuple(saved["masked"]), saved["refuse"])


#: The kinds of input by name.
SOURCES: dict[str, type[Source]] = {"text": TextSource, "series": SeriesSource}


def recall_source(directory: Path, kind: str) -> Source:
    """Read back what was learned.

    Args:
        directory: the run directory.
        kind: the option `source`; ``auto`` goes by the files that are there.

    Raises:
        DataError: a file cannot be read.
        CheckpointError: a file holds something else.
    """
    if kind == "auto":
        kind = "series" if (directory / SeriesSource.mark).exists() else "text"
    return SOURCES[kind].recall(directory)


def _check_channels(record: Series, channels: int) -> None:
    if record.values.shape[1] != channels:
        raise DataError(
            explain(
                "the series has another number of channels.", got=str(record.values.shape[1]), expected=f"{channels}, as before"
            ),
            path=record.path,
            line=record.line,
        )


def _refuse_missing(record: Series, there: npt.NDArray[np.bool_]) -> None:
    if not there.all():
        step, channel = (int(at) + 1 for at in np.argwhere(~there)[0])
        what = f"a value is missing: step {step}, channel {channel}."
        raise DataError(explain(what, advice="fill it in, or train with missing=mask"), path=record.path, line=record.line)


def _is_series_description(saved: Any) -> bool:
    if not isinstance(saved, dict) or saved.keys() != {"means", "deviations", "masked", "refuse"}:
        return False
    lists = [saved[name] for name in ("means", "deviations", "masked")]
    if not all(isinstance(each, list) and len(each) == len(lists[0]) for each in lists) or type(saved["refuse"]) is not bool:
        return False
    numbers = all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in lists[0] + lists[1])
    positive = numbers and all(value > 0 for value in lists[1])
    return positive and 1 <= len(lists[0]) <= MAX_CHANNELS and all(type(value) is bool for value in lists[2])
