"""Numbers as answers, and the list of all kinds of answers."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from carousel.errors import CheckpointError, ConfigError, DataError, explain
from carousel.tasks.classify.options import ClassifierOptions
from carousel.tasks.classify.targets import TARGETS_FILE, Numbers, OneTarget, SeveralTarget, Target

if TYPE_CHECKING:
    from torch import nn

__all__ = ["TARGETS", "NumberTarget", "recall_target"]


@dataclass(frozen=True)
class NumberTarget(Target):
    """Numbers for each record: regression on targets of mean 0 and deviation 1.

    Args:
        targets: the names of D numbers.
        means: D, of the training data.
        deviations: D, above 0.
    """

    kind: ClassVar[Literal["number"]] = "number"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("loss", "min")
    targets: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of D numbers."""
        return self.targets

    @classmethod
    def learn(cls, records: Iterable[Any], options: ClassifierOptions) -> Self:
        """Measure the mean and the deviation of every number.

        Raises:
            DataError: a label is not a finite number, or records differ in how many they have.
            ConfigError: an option that only labels can have.
        """
        for name, plain in (("label_smoothing", 0.0), ("class_weights", "none"), ("sampling", "plain")):
            if (value := getattr(options, name)) != plain:
                raise ConfigError(explain(f"option {name}: only for labels, not for numbers.", got=repr(value)))
        D, rows = None, array("d")
        for record in records:
            row = _numbers(record, D)
            D = len(row)
            rows.extend(row)
        values = np.frombuffer(rows, np.float64).reshape(-1, D or 1)
        means, deviations = values.mean(axis=0), values.std(axis=0)
        deviations[deviations <= 1e-12 * np.abs(means)] = 1.0
        names = tuple(name.strip() for name in options.label_field.split(","))
        if len(names) != values.shape[1] or len(set(names)) != len(names):
            names = tuple(f"{names[0]}.{k + 1}" for k in range(values.shape[1]))
        return cls(names, tuple(means.tolist()), tuple(deviations.tolist()))

    def encode(self, record: Any) -> list[float]:
        """(D,), standardised.

        Raises:
            DataError: a label is not a finite number, or there are not D of them; the message names file and line.
        """
        row = _numbers(record, len(self.targets))
        return [(value - mean) / deviation for value, mean, deviation in zip(row, self.means, self.deviations, strict=True)]

    def truth(self, encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """(N, D), in their own units."""
        return self.scores(encoded.astype(np.float64))

    def scores(self, logits: Numbers) -> Numbers:
        """(N, D), in their own units."""
        return logits * self.deviations + self.means

    def decode(self, logits: Numbers) -> list[dict[str, Any]]:
        """`numbers`, name to number."""
        return [{"numbers": dict(zip(self.targets, row, strict=True))} for row in self.scores(logits).tolist()]

    def said(self) -> str:
        """How many numbers there are, in words."""
        return f"{len(self.targets)} number{'s' if len(self.targets) > 1 else ''} to be met"

    def head(self, options: ClassifierOptions, encoded: npt.NDArray[Any] | None) -> nn.Module:  # noqa: ARG002
        """The mean of the squared, absolute or Huber errors."""
        from carousel.tasks.classify.network import NumberHead

        return NumberHead(options.number_loss, self.deviations)

    def write(self, directory: Path) -> None:
        """Write ``targets.json``."""
        from carousel.data import write_json

        content = {
            "kind": self.kind,
            "names": list(self.targets),
            "means": list(self.means),
            "deviations": list(self.deviations),
        }
        write_json(directory / TARGETS_FILE, content)

    @classmethod
    def recall(cls, directory: Path) -> Self:
        """Read what :meth:`write` wrote."""
        from carousel.data import read_json

        saved = read_json(directory / TARGETS_FILE)
        if not _is_number_description(saved):
            expected = "names, means and deviations, a list of each of one length"
            what = f"{directory / TARGETS_FILE}: not a saved description of numbers."
            raise CheckpointError(explain(what, got=repr(saved)[:200], expected=expected))
        means, deviations = (tuple(map(float, saved[name])) for name in ("means", "deviations"))
        return cls(tuple(saved["names"]), means, deviations)


#: The kinds of answer by name.
TARGETS: dict[str, type[Target]] = {"one": OneTarget, "several": SeveralTarget, "number": NumberTarget}


def recall_target(directory: Path, kind: str) -> Target:
    """Read back what was learned.

    Args:
        directory: the run directory.
        kind: the option `target`; ``auto`` goes by the files that are there.

    Raises:
        DataError: a file cannot be read.
        CheckpointError: a file holds something else.
    """
    from carousel.data import read_json

    if kind == "auto":
        path = directory / TARGETS_FILE
        saved = read_json(path) if path.exists() else {"kind": "one"}
        found = saved.get("kind") if isinstance(saved, dict) else None
        if found not in TARGETS:
            raise CheckpointError(explain(f"{path}: not saved by a classifier.", got=repr(saved)[:200]))
        kind = str(found)
    return TARGETS[kind].recall(directory)


def _numbers(record: Any, count: int | None) -> tuple[float, ...]:
    row: tuple[float, ...] = record.targets or ()
    what = None
    if not row or (count is not None and len(row) != count):
        what, got = "the record has another number of numbers to be met.", str(len(row))
        expected = "at least one" if count is None else f"{count}, as before"
    elif not all(map(math.isfinite, row)):
        what, got, expected = "a number to be met is not finite.", repr(row)[:80], "finite numbers"
    if what is not None:
        raise DataError(explain(what, got=got, expected=expected), path=record.path, line=record.line)
    return row


def _is_number_description(saved: Any) -> bool:
    if not isinstance(saved, dict) or saved.keys() != {"kind", "names", "means", "deviations"}:
        return False
    lists = [saved[name] for name in ("names", "means", "deviations")]
    if not all(isinstance(each, list) and 1 <= len(each) == len(lists[0]) <= 1 << 16 for each in lists):
        return False
    if not all(isinstance(name, str) for name in lists[0]) or len(set(lists[0])) != len(lists[0]):
        return False
    finite = all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in lists[1] + lists[2])
    return finite and all(value > 0 for value in lists[2])
