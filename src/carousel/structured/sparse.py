"""Indicator features of many tokens: rows of which numbers are 1, and their products with dense matrices."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Indicators", "stack"]


@dataclass(frozen=True)
class Indicators:
    """An (N, F) matrix of zeros and ones, by the places of its ones.

    Attributes:
        places: (nnz,), int64: the columns, row after row.
        first: (N + 1,), int64: where each row's begin.
        size: F.
    """

    places: Tensor
    first: Tensor
    size: int

    @property
    def rows(self) -> int:
        """N."""
        return self.first.shape[0] - 1

    def __matmul__(self, matrix: Tensor) -> Tensor:
        """Times (F, K): (N, K), without a gradient."""
        with torch.no_grad():
            return torch.nn.functional.embedding_bag(self.places, matrix, self.first, mode="sum", include_last_offset=True)

    @functools.cached_property
    def turned(self) -> Indicators:
        """The transpose."""
        counts = torch.bincount(self.places, minlength=self.size)
        first = torch.zeros(self.size + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=first[1:])
        tokens = torch.repeat_interleave(torch.arange(self.rows), self.first[1:] - self.first[:-1])
        return Indicators(tokens[torch.argsort(self.places, stable=True)], first, self.rows)

    def part(self, begin: int, end: int) -> Indicators:
        """Some rows."""
        start, stop = int(self.first[begin]), int(self.first[end])
        return Indicators(self.places[start:stop], self.first[begin : end + 1] - start, self.size)


def stack(rows: Sequence[Sequence[int]], size: int) -> Indicators:
    """Of the columns of each row.

    Args:
        rows: for each the places of its ones.
        size: F.
    """
    counts = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    first = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(counts, out=first[1:])
    places = np.fromiter((place for row in rows for place in row), dtype=np.int64, count=int(first[-1]))
    return Indicators(torch.from_numpy(places), torch.from_numpy(first), size)
