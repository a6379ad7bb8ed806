"""Batches of sequences of similar lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from carousel.data.sequences import Row, Sequences, smallest
from carousel.errors import ConfigError, DTypeError, ShapeError, explain

__all__ = ["Batch", "BucketedBatches"]

_POOL = 50  # batches that are sorted together: enough for little padding, few enough for a random order

Integers = npt.NDArray[np.signedinteger[Any]]
Labels = Sequence[int] | Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some sequences of a data set, padded to the longest of them.

    Args:
        inputs: (B, T), token numbers, or (B, T, C), the values of series; padded at the end; T is at least 1.
        lengths: (B,), real steps of each sequence; 0 is possible.
        labels: (B,), the number of each label; (B, V), 1 for each label that is right and else 0; (B, D), target
            numbers; or None.
        index: (B,), the place of each sequence in the data set, counted from 0.
        token_count: the sum of `lengths`.
    """

    inputs: Int64[Tensor, "B T"] | Float32[Tensor, "B T C"]
    lengths: Int64[Tensor, " B"]
    labels: Int64[Tensor, " B"] | Float32[Tensor, "B V"] | None
    index: Int64[Tensor, " B"]
    token_count: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            inputs=self.inputs.to(device, non_blocking=non_blocking),
            lengths=self.lengths.to(device, non_blocking=non_blocking),
            labels=None if self.labels is None else self.labels.to(device, non_blocking=non_blocking),
            index=self.index.to(device, non_blocking=non_blocking),
        )

    def part(self, rank: int, world: int) -> Batch:
        """One process's share: the rows `rank`, `rank` + `world`, ..., padded as the whole batch is.

        The rows stand in order of length, so the shares are of about the same size. A share is empty where the batch
        has too few rows.

        Args:
            rank: the number of the process, from 0.
            world: how many processes there are.

        Raises:
            ConfigError: `rank` is not one of the `world` numbers from 0.
        """
        if not 0 <= rank < world:
            message = explain(
                "Batch.part: there is no such process.", got=f"rank {rank} of {world}", expected="0 <= rank < world"
            )
            raise ConfigError(message)
        rows = slice(rank, None, world)
        lengths = self.lengths[rows]
        return Batch(
            inputs=self.inputs[rows],
            lengths=lengths,
            labels=None if self.labels is None else self.labels[rows],
            index=self.index[rows],
            token_count=int(lengths.sum()),
        )

    def __len__(self) -> int:
        return len(self.lengths)


class BucketedBatches:
    """A data set as batches of similar lengths; every sequence once per epoch.

    With `shuffle`, the data set is put in a random order, cut into pools of 50 batches, each pool is sorted by length
    and cut into batches, and all batches are put in a random order. The order depends on `seed` and the epoch alone,
    on every machine. Without it, the longest sequences come first, so that too little memory shows at once;
    `Batch.index` tells how to put results back in order.

    With `weights`, an epoch is as many sequences, each drawn from the whole data set in proportion to its weight: some
    come twice, some not at all. The draw, too, depends on `seed` and the epoch alone.

    Args:
        sequences: the token numbers of each sequence, or arrays (T, C) of numbers; a sequence may be empty. Copied,
            unless they are :class:`Sequences` already.
        labels: the number of each sequence's label; or (N, V), booleans or numbers; or (N,), floating: target numbers,
            given as (B, 1); or None. Copied.
        batch_size: sequences in a batch; the last batches may have fewer.
        shuffle: whether the order is random.
        seed: what the random order starts from; 0 or more.
        pad: the token number that stands for padding. Series are padded with 0.
        weights: (N,), how often each sequence is drawn, relative to the others; needs `shuffle`. Copied.

    Raises:
        ConfigError: `batch_size` is below 1 or `seed` below 0; `weights` without `shuffle`; a weight is negative or
            not finite, or all are 0.
        ShapeError: there are not as many labels or weights as sequences, or rows differ in their channels.
        DTypeError: labels that are no numbers.

    Example:
        >>> batches = BucketedBatches([[5], [6, 7, 8], [9, 4]], [0, 1, 0], batch_size=2, shuffle=False)
        >>> [batch.inputs.tolist() for batch in batches]
        [[[6, 7, 8], [9, 4, 0]], [[5]]]
        >>> [batch.index.tolist() for batch in batches]
        [[1, 2], [0]]
    """

    def __init__(
        self,
        sequences: Sequence[Row] | Sequences,
        labels: Labels | None = None,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        pad: int = 0,
        weights: Sequence[float] | npt.NDArray[Any] | None = None,
    ) -> None:
        for name, number, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
            if number < least:
                what = f"BucketedBatches: {name} is too small."
                raise ConfigError(explain(what, got=str(number), advice=f"give at least {least}"))
        for what, given in (("label", labels), ("weight", weights)):
            if given is not None and len(given) != len(sequences):
                got = f"{len(given)} {what}s, {len(sequences)} sequences"
                message = f"BucketedBatches: `{what}s` and `sequences` differ in number."
                raise ShapeError(explain(message, got=got, advice=f"give every sequence one {what}"))
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.pad = pad
        self.epoch = 0
        self._rows = sequences if isinstance(sequences, Sequences) else _in_memory(sequences)
        self._labels = None if labels is None else _checked_labels(labels)
        self._cumulated = None if weights is None else _cumulated(weights, shuffle)
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0. Without `shuffle` all orders are the same."""
        self.epoch = epoch

    def skip(self, batches: int) -> None:
        """Let the next iteration, and only that one, leave out its first batches. They are not built.

        Args:
            batches: how many; from 0 to all of them.

        Raises:
            ConfigError: fewer than 0, or more than there are.
        """
        if not 0 <= batches <= len(self):
            message = explain(
                "BucketedBatches: there are not so many batches to skip.", got=str(batches), expected=f"0 to {len(self)}"
            )
            raise ConfigError(message)
        self._skip = batches

    def __len__(self) -> int:
        """The number of batches, the same in every epoch."""
        return -(-len(self._rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        skip, self._skip = self._skip, 0
        return self._batches(skip, self.epoch)

    def _batches(self, skip: int, epoch: int) -> Iterator[Batch]:
        order, places = self._shuffled(epoch) if self.shuffle else self._longest_first()
        for place in places[skip:]:
            yield self._batch(order[place * self.batch_size : (place + 1) * self.batch_size])

    def _longest_first(self) -> tuple[Integers, Integers]:
        return np.argsort(-self._rows.lengths, kind="stable"), np.arange(len(self))

    def _shuffled(self, epoch: int) -> tuple[Integers, Integers]:
        """The rows in order, to be cut into batches, and the order of those."""
        # Raw words of the generator, sorted: unlike its distributions, NumPy keeps these the same for ever.
        generator = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        words = generator.random_raw(len(self._rows))
        if self._cumulated is None:
            order = _order(words)
        else:
            shares = (words >> np.uint64(11)) * 2.0**-53  # from 0 to below 1, each exactly
            order = np.searchsorted(self._cumulated, shares * self._cumulated[-1], side="right")
            # Rounding can reach the end; the last that may be drawn is the first with the full sum.
            np.minimum(order, np.searchsorted(self._cumulated, self._cumulated[-1]), out=order)
        del words
        offsets, size = self._rows.offsets, _POOL * self.batch_size
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool[:] = pool[np.argsort(offsets[pool + 1] - offsets[pool], kind="stable")]
        return order, _order(generator.random_raw(len(self)))

    def _batch(self, rows: Integers) -> Batch:
        values, starts, ends = self._rows.values, self._rows.offsets[rows], self._rows.offsets[rows + 1]
        lengths = ends - starts
        steps = max(1, int(lengths.max()))  # T
        if self._rows.channels is None:
            inputs = np.full((len(rows), steps), self.pad, np.int64)
            places = np.arange(steps)
            real = places < lengths[:, None]  # (B, T)
            inputs[real] = values[(starts[:, None] + places)[real]]
        else:  # a row of many numbers is faster copied than gathered
            inputs = np.zeros((len(rows), steps, self._rows.channels), np.float32)
            for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
                inputs[row, : end - start] = values[start:end]
        return Batch(
            inputs=torch.from_numpy(inputs),
            lengths=torch.from_numpy(lengths.astype(np.int64)),
            labels=None if self._labels is None else self._label_tensor(rows),
            index=torch.from_numpy(rows.astype(np.int64)),
            token_count=int(lengths.sum()),
        )

    def _label_tensor(self, rows: Integers) -> Tensor:
        labels = self._labels[rows]  # type: ignore[index]
        return torch.from_numpy(labels.astype(np.int64 if labels.ndim == 1 else np.float32))


def _order(words: npt.NDArray[np.uint64]) -> Integers:
    """(N,), where the words would stand if they were sorted. They are overwritten: nothing else as large is needed beside.

    The last bits of each word, which hardly ever decide, give way to its place.
    """
    last = np.uint64((1 << max(len(words) - 1, 1).bit_length()) - 1)
    np.bitwise_and(words, ~last, out=words)
    np.bitwise_or(words, np.arange(len(words), dtype=np.min_scalar_type(len(words))), out=words)
    words.sort()
    np.bitwise_and(words, last, out=words)
    return words.astype(smallest(len(words)))


def _in_memory(sequences: Sequence[Row]) -> Sequences:
    values = len(sequences) > 0 and np.ndim(sequences[0]) == 2
    return Sequences.build(sequences, dtype=np.float32 if values else np.int64, memory_limit=None)


def _checked_labels(labels: Labels) -> npt.NDArray[Any]:
    """A copy: (N,) integers, or (N, V) booleans or float32."""
    numbers = np.array(labels)
    if not len(numbers):
        return numbers.astype(np.int64)
    if numbers.ndim not in (1, 2) or numbers.dtype.kind not in "biuf":
        got = f"shape {numbers.shape}, type {numbers.dtype}"
        raise DTypeError(explain("BucketedBatches: `labels` are not labels.", got=got, expected="numbers, (N,) or (N, V)"))
    if numbers.ndim == 1 and numbers.dtype.kind == "f":
        numbers = numbers[:, None]
    if numbers.ndim == 1:
        return numbers.astype(np.min_scalar_type(int(numbers.max())) if numbers.min() >= 0 else np.int64)
    return numbers if numbers.dtype.kind == "b" else numbers.astype(np.float32)


def _cumulated(weights: Sequence[float] | npt.NDArray[Any], shuffle: bool) -> npt.NDArray[np.float64]:
    numbers = np.asarray(weights, np.float64)
    if not shuffle:
        raise ConfigError(
            explain("BucketedBatches: weights need a random order.", got="shuffle=False", advice="leave one of them out")
        )
    if numbers.ndim != 1 or not np.isfinite(numbers).all() or (numbers < 0).any() or (len(numbers) and not numbers.any()):
        what, expected = "BucketedBatches: these weights are not possible.", "(N,), finite, none negative, not all 0"
        bad = numbers[~(np.isfinite(numbers) & (numbers >= 0))]
        raise ConfigError(explain(what, got=str(bad[0] if bad.size else numbers)[:80], expected=expected))
    return np.cumsum(numbers)
