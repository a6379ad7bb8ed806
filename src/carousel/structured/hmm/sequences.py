"""Sequences as users give them: a list of arrays, or one array with lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from carousel.errors import ShapeError, explain

__all__ = ["Joined", "Lengths", "join"]

Lengths = Sequence[int] | np.ndarray | None


@dataclass(frozen=True)
class Joined:
    """All steps of all sequences, one after another.

    Attributes:
        values: (N, ...).
        lengths: of each sequence; they add up to N.
        listed: whether they came as a list.
    """

    values: np.ndarray
    lengths: np.ndarray
    listed: bool

    def split(self, values: np.ndarray) -> Any:
        """Results of each step, as the sequences came: a list of arrays, or one array."""
        if not self.listed:
            return values
        return np.split(values, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


def join(sequences: Any, lengths: Lengths, who: str = "HMM") -> Joined:
    """One array of all steps.

    Args:
        sequences: a list of arrays (T_i, ...), or one array (N, ...).
        lengths: of the sequences in one array; the whole is one by default.
        who: for messages.

    Raises:
        ShapeError: the lengths do not add up, or arrays of a list do not fit each other.
    """
    listed = isinstance(sequences, list | tuple) and lengths is None and not _plain(sequences)
    if listed:
        arrays = [np.asarray(each) for each in sequences]
        if len({each.shape[1:] for each in arrays}) > 1 or any(each.ndim == 0 for each in arrays):
            got = f"shapes {sorted({str(each.shape) for each in arrays})}"
            raise ShapeError(
                explain(f"{who}: sequences do not fit each other.", got=got, expected="(T_i, ...), the rest alike")
            )
        values = np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
        return Joined(values, np.array([len(each) for each in arrays], dtype=np.int64), True)
    values = np.asarray(sequences)
    counts = np.array([len(values)] if lengths is None else lengths, dtype=np.int64)
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(values):
        got = f"{counts.sum()} in lengths, {len(values)} steps"
        raise ShapeError(explain(f"{who}: the lengths do not add up to the steps.", got=got))
    return Joined(values, counts, False)


def _plain(values: Sequence[Any]) -> bool:
    """Whether a list is one sequence of numbers."""
    return bool(values) and all(np.ndim(value) == 0 for value in values)
