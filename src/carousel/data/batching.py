"""Batches of sequences of similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64
from torch import Tensor

from carousel.errors import ConfigError, ShapeError, explain

__all__ = ["Batch", "BucketedBatches"]

_POOL = 50  # batches that are sorted together: enough for little padding, few enough for a random order

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some sequences of a data set, padded to the longest of them.

    Args:
        tokens: (B, T), padded at the end; T is at least 1.
        lengths: (B,), real tokens of each sequence; 0 is possible.
        labels: (B,), or None.
        index: (B,), the place of each sequence in the data set, counted from 0.
        token_count: the sum of `lengths`.
    """

    tokens: Int64[Tensor, "B T"]
    lengths: Int64[Tensor, " B"]
    labels: Int64[Tensor, " B"] | None
    index: Int64[Tensor, " B"]
    token_count: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=non_blocking),
            lengths=self.lengths.to(device, non_blocking=non_blocking),
            labels=None if self.labels is None else self.labels.to(device, non_blocking=non_blocking),
            index=self.index.to(device, non_blocking=non_blocking),
        )

    def __len__(self) -> int:
        return len(self.lengths)


class BucketedBatches:
    """A data set as batches of similar lengths; every sequence once per epoch.

    With `shuffle`, the data set is put in a random order, cut into pools of 50 batches, each pool is sorted by length
    and cut into batches, and all batches are put in a random order. The order depends on `seed` and the epoch alone,
    on every machine. Without it, the longest sequences come first, so that too little memory shows at once;
    `Batch.index` tells how to put results back in order.

    Args:
        sequences: the numbers of the tokens of each sequence; a sequence may be empty. Copied.
        labels: the number of each sequence's label, or None. Copied.
        batch_size: sequences in a batch; the last batches may have fewer.
        shuffle: whether the order is random.
        seed: what the random order starts from; 0 or more.
        pad: the number that stands for padding.

    Raises:
        ConfigError: `batch_size` is below 1 or `seed` below 0.
        ShapeError: there are not as many labels as sequences.

    Example:
        >>> batches = BucketedBatches([[5], [6, 7, 8], [9, 4]], [0, 1, 0], batch_size=2, shuffle=False)
        >>> [batch.tokens.tolist() for batch in batches]
        [[[6, 7, 8], [9, 4, 0]], [[5]]]
        >>> [batch.index.tolist() for batch in batches]
        [[1, 2], [0]]
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int]],
        labels: Sequence[int] | None = None,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        pad: int = 0,
    ) -> None:
        for name, number, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
            if number < least:
                what = f"BucketedBatches: {name} is too small."
                raise ConfigError(explain(what, got=str(number), advice=f"give at least {least}"))
        if labels is not None and len(labels) != len(sequences):
            what = "BucketedBatches: `labels` and `sequences` differ in number."
            got = f"{len(labels)} labels, {len(sequences)} sequences"
            raise ShapeError(explain(what, got=got, advice="give every sequence one label"))
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.pad = pad
        self.epoch = 0
        self._lengths: Integers = np.fromiter(map(len, sequences), np.int64, len(sequences))
        self._starts: Integers = np.cumsum(self._lengths) - self._lengths
        numbers = (number for sequence in sequences for number in sequence)
        self._tokens: Integers = np.fromiter(numbers, np.int64, int(self._lengths.sum()))
        self._labels: Integers | None = None if labels is None else np.array(labels, np.int64)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0. Without `shuffle` all orders are the same."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches, the same in every epoch."""
        return -(-len(self._lengths) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._shuffled() if self.shuffle else self._cut(np.argsort(-self._lengths, kind="stable")):
            yield self._batch(rows)

    def _shuffled(self) -> list[Integers]:
        # Raw words of the generator, sorted: unlike its distributions, NumPy keeps these the same for ever.
        generator = np.random.PCG64(np.random.SeedSequence([self.seed, self.epoch]))
        order = np.argsort(generator.random_raw(len(self._lengths)), kind="stable")
        size = _POOL * self.batch_size
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        batches = [rows for pool in pools for rows in self._cut(pool[np.argsort(self._lengths[pool], kind="stable")])]
        return [batches[place] for place in np.argsort(generator.random_raw(len(batches)), kind="stable")]

    def _cut(self, order: Integers) -> list[Integers]:
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _batch(self, rows: Integers) -> Batch:
        lengths = self._lengths[rows]
        steps = np.arange(max(1, int(lengths.max())))
        real = steps < lengths[:, None]  # (B, T)
        tokens = np.full(real.shape, self.pad, np.int64)
        tokens[real] = self._tokens[(self._starts[rows][:, None] + steps)[real]]
        return Batch(
            tokens=torch.from_numpy(tokens),
            lengths=torch.from_numpy(lengths),
            labels=None if self._labels is None else torch.from_numpy(self._labels[rows]),
            index=torch.from_numpy(rows.copy()),
            token_count=int(lengths.sum()),
        )
