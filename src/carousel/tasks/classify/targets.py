"""What a classifier answers: one label, or several labels or none; each with its coding and its loss."""

from __future__ import annotations

import abc
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from carousel.errors import ConfigError, DataError, explain, unknown_name
from carousel.tasks.classify.options import ClassifierOptions

if TYPE_CHECKING:
    from torch import nn

    from carousel.data import LabelSet

__all__ = ["LABELS_FILE", "TARGETS_FILE", "Numbers", "OneTarget", "SeveralTarget", "Target", "labels_of"]

LABELS_FILE, TARGETS_FILE = "labels.json", "targets.json"
Numbers = npt.NDArray[np.float64]


def labels_of(record: Any) -> tuple[str, ...]:
    """All labels of a record, as text."""
    several = getattr(record, "labels", None)
    if several is not None:
        return tuple(several)
    return () if record.label is None else (record.label,)


class Target(abc.ABC):
    """One kind of answer."""

    kind: ClassVar[Literal["one", "several", "number"]]
    monitor: ClassVar[tuple[str, Literal["max", "min"]]]

    @property
    @abc.abstractmethod
    def names(self) -> tuple[str, ...]:
        """V labels, or the names of D numbers."""

    @classmethod
    @abc.abstractmethod
    def learn(cls, records: Iterable[Any], options: ClassifierOptions) -> Self:
        """Learn from the training data."""

    @abc.abstractmethod
    def encode(self, record: Any) -> Any:
        """What a record should be answered with, for the network."""

    @abc.abstractmethod
    def truth(self, encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What an :class:`~carousel.tasks.evaluation.Evaluation` calls truth."""

    @abc.abstractmethod
    def decode(self, logits: Numbers) -> list[dict[str, Any]]:
        """One plain record for each row of the network's output (N, V)."""

    @abc.abstractmethod
    def head(self, options: ClassifierOptions, encoded: npt.NDArray[Any] | None) -> nn.Module:
        """The loss; `encoded` are the answers of the training data, None for a network that will not be trained."""

    @abc.abstractmethod
    def write(self, directory: Path) -> None:
        """Write what was learned as JSON."""

    @classmethod
    @abc.abstractmethod
    def recall(cls, directory: Path) -> Self:
        """Read what :meth:`write` wrote."""

    def scores(self, logits: Numbers) -> Numbers:
        """The network's output (N, V) as an evaluation wants it."""
        return logits

    def said(self) -> str:
        """How many labels there are, in words."""
        return f"{len(self.names)} label{'s' if len(self.names) != 1 else ''}"

    def new_store(self) -> Any:
        """Something to append what :meth:`encode` gives to."""
        return []

    def weights(self, encoded: npt.NDArray[Any], sampling: str) -> Numbers | None:  # noqa: ARG002 - the others use it
        """How often each record is to be drawn; None for once."""
        if sampling != "plain":
            raise ConfigError(explain("option sampling: numbers cannot be balanced.", got=sampling, expected="plain"))
        return None


@dataclass(frozen=True)
class _Labelled(Target):
    """What answers with labels have in common."""

    labels: LabelSet

    @property
    def names(self) -> tuple[str, ...]:
        """V labels."""
        return self.labels.names

    def write(self, directory: Path) -> None:
        """Write ``labels.json``."""
        self.labels.save(directory / LABELS_FILE)

    @classmethod
    def recall(cls, directory: Path) -> Self:
        """Read what :meth:`write` wrote."""
        from carousel.data import LabelSet

        return cls(LabelSet.load(directory / LABELS_FILE))


@dataclass(frozen=True)
class OneTarget(_Labelled):
    """One label for each record: softmax and cross-entropy.

    Args:
        labels: the labels and their numbers.
    """

    kind: ClassVar[Literal["one"]] = "one"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")

    @classmethod
    def learn(cls, records: Iterable[Any], options: ClassifierOptions) -> Self:  # noqa: ARG003 - the others use it
        """Collect the labels.

        Raises:
            DataError: there is only one.
        """
        from carousel.data import LabelSet

        path = None

        def seen() -> Iterable[str]:
            nonlocal path
            for record in records:
                path = record.path if path is None else path
                yield str(record.label)

        labels = LabelSet(seen())
        if len(labels) < 2:
            what = "the training data hold only one label."
            raise DataError(explain(what, got=repr(labels.decode(0)), expected="at least two labels, or classes"), path=path)
        return cls(labels)

    def encode(self, record: Any) -> int:
        """The label's number.

        Raises:
            DataError: a label that was not seen in training; the message names file, line and the nearest label.
        """
        return self.labels.encode(str(record.label), path=record.path, line=record.line)

    def new_store(self) -> Any:
        """Four bytes a record."""
        return array("i")

    def truth(self, encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N,), integers."""
        return encoded.astype(np.int64)

    def decode(self, logits: Numbers) -> list[dict[str, Any]]:
        """`label` and `probabilities`, label to probability."""
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        rows = (shifted / shifted.sum(axis=1, keepdims=True)).tolist()
        best = logits.argmax(axis=1).tolist()
        return [
            {"label": self.names[at], "probabilities": dict(zip(self.names, row, strict=True))}
            for at, row in zip(best, rows, strict=True)
        ]

    def head(self, options: ClassifierOptions, encoded: npt.NDArray[Any] | None) -> nn.Module:
        """Cross-entropy."""
        from carousel.tasks.classify.network import OneHead

        weights = None
        if encoded is not None and options.class_weights != "none":
            counts = np.bincount(encoded, minlength=len(self.names))
            weights = _class_weights(
                self.names, options.class_weights, len(encoded) / (len(self.names) * np.maximum(counts, 1))
            )
        return OneHead(weights, options.label_smoothing)

    def weights(self, encoded: npt.NDArray[Any], sampling: str) -> Numbers | None:
        """Balanced: in proportion to 1 / records of the same label."""
        if sampling == "plain":
            return None
        return np.asarray(1.0 / np.bincount(encoded)[encoded], np.float64)


@dataclass(frozen=True)
class SeveralTarget(_Labelled):
    """Any number of labels for each record, also none: a sigmoid and a binary cross-entropy for each label.

    Args:
        labels: the labels and their numbers.
    """

    kind: ClassVar[Literal["several"]] = "several"
    # Scores of whole sets stay at 0 for the first epochs.
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("loss", "min")

    @classmethod
    def learn(cls, records: Iterable[Any], options: ClassifierOptions) -> Self:
        """Collect the labels.

        Raises:
            DataError: no record has any.
            ConfigError: an option that only one label can have.
        """
        from carousel.data import LabelSet

        if options.label_smoothing:
            raise ConfigError(explain("option label_smoothing: only for one label.", got=f"{options.label_smoothing}"))
        return cls(LabelSet(label for record in records for label in labels_of(record)))

    def encode(self, record: Any) -> npt.NDArray[np.bool_]:
        """(V,), which labels are there.

        Raises:
            DataError: a label that was not seen in training; the message names file, line and the nearest label.
        """
        row = np.zeros(len(self.names), np.bool_)
        for label in labels_of(record):
            row[self.labels.encode(label, path=record.path, line=record.line)] = True
        return row

    def truth(self, encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, V), bool."""
        return encoded.astype(np.bool_)

    def decode(self, logits: Numbers) -> list[dict[str, Any]]:
        """`labels`, those of a probability above one half, and `probabilities`, label to probability."""
        rows = np.exp(-np.logaddexp(0.0, -logits)).tolist()
        return [
            {
                "labels": [name for name, there in zip(self.names, line, strict=True) if there],
                "probabilities": dict(zip(self.names, row, strict=True)),
            }
            for line, row in zip((logits > 0).tolist(), rows, strict=True)
        ]

    def head(self, options: ClassifierOptions, encoded: npt.NDArray[Any] | None) -> nn.Module:
        """Binary cross-entropy."""
        from carousel.tasks.classify.network import SeveralHead

        weights = None
        if encoded is not None and options.class_weights != "none":
            counts = np.maximum(encoded.sum(axis=0), 1)
            weights = _class_weights(self.names, options.class_weights, np.maximum(len(encoded) - counts, 1) / counts)
        return SeveralHead(weights)

    def weights(self, encoded: npt.NDArray[Any], sampling: str) -> Numbers | None:
        """Balanced: in proportion to 1 / records with its rarest label. To have none counts as a label, too."""
        if sampling == "plain":
            return None
        counts = np.append(encoded.sum(axis=0), (~encoded.any(axis=1)).sum())
        with_none = np.column_stack([encoded, ~encoded.any(axis=1)])
        return np.asarray(1.0 / np.where(with_none, counts, len(encoded) + 1).min(axis=1), np.float64)

    def write(self, directory: Path) -> None:
        """Write ``labels.json`` and ``targets.json``."""
        from carousel.data import write_json

        super().write(directory)
        write_json(directory / TARGETS_FILE, {"kind": self.kind})


def _class_weights(names: tuple[str, ...], wanted: Mapping[str, float] | str, balanced: Numbers) -> list[float]:
    if not isinstance(wanted, Mapping):
        return [float(weight) for weight in balanced]
    for label in wanted:
        if label not in names:
            raise ConfigError(f"option class_weights: {unknown_name('label', label, names)}")
    return [float(wanted.get(name, 1.0)) for name in names]
