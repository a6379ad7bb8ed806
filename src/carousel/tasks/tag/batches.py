"""Tagged sentences as batches of similar lengths; what belongs to a word's form is worked out once for each of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carousel.data import Batch, BucketedBatches, Sequences
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks.tag.words import TokenNumbers

__all__ = ["TagBatch", "TagBatches"]


@dataclass(frozen=True, eq=False)
class TagBatch:
    """Some sentences, padded to the longest of them. U different forms occur in them.

    Args:
        lengths: (B,), tokens of each sentence; 0 is possible.
        index: (B,), the place of each sentence in the data.
        forms: (B, T), which of the U forms each token is; 0 in the padding.
        words: (U,), numbers of words.
        rare: (U,), bool, whether the word was seen once in training.
        affixes: (U, A), numbers of affixes and shapes.
        characters: (U, W), numbers of characters, padded with 0; W is 0 if they are not read.
        character_counts: (U,), characters of each form.
        pairs: (B, T, 2), numbers of pairs of neighbours, or (B, T, 0).
        columns: (B, T, C), numbers of further columns.
        tags: (B, T), numbers of tags, below 0 where training has not seen the tag; or None.
        token_count: the sum of `lengths`.
    """

    lengths: Tensor
    index: Tensor
    forms: Tensor
    words: Tensor
    rare: Tensor
    affixes: Tensor
    characters: Tensor
    character_counts: Tensor
    pairs: Tensor
    columns: Tensor
    tags: Tensor | None
    token_count: int

    @property
    def mask(self) -> Tensor:
        """(B, T), bool, True where there is a token."""
        return torch.arange(self.forms.shape[1], device=self.forms.device) < self.lengths[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TagBatch:
        """The same batch with its tensors on `device`."""
        if torch.device(device) == self.lengths.device:
            return self
        moved: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                moved[item.name] = value.to(device, non_blocking=non_blocking)
        return replace(self, **moved)

    def part(self, rank: int, world: int) -> TagBatch:
        """One process's share: the rows `rank`, `rank` + `world`, ..., padded as the whole batch is.

        Args:
            rank: the number of the process, from 0.
            world: how many processes there are.

        Raises:
            ConfigError: `rank` is not one of the `world` numbers from 0.
        """
        if not 0 <= rank < world:
            what = "TagBatch.part: there is no such process."
            raise ConfigError(explain(what, got=f"rank {rank} of {world}", expected="0 <= rank < world"))
        rows = slice(rank, None, world)
        lengths = self.lengths[rows]
        return replace(
            self,
            lengths=lengths,
            index=self.index[rows],
            forms=self.forms[rows],
            pairs=self.pairs[rows],
            columns=self.columns[rows],
            tags=None if self.tags is None else self.tags[rows],
            token_count=int(lengths.sum()),
        )

    def __len__(self) -> int:
        return len(self.lengths)


class TagBatches:
    """Sentences as batches, in the order of :class:`carousel.data.BucketedBatches`.

    Args:
        numbers: the sentences.
        tags: (S,), the numbers of their tags; None if they have none.
        batch_size: sentences in a batch.
        shuffle: whether the order is random; else the longest come first.
        seed: what the random order starts from.
    """

    def __init__(
        self,
        numbers: TokenNumbers,
        tags: npt.NDArray[np.int64] | None,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
    ) -> None:
        self.numbers = numbers
        self.tags = tags
        places = Sequences(np.arange(len(numbers.forms)), numbers.lengths)
        self._order = BucketedBatches(places, None, batch_size=batch_size, shuffle=shuffle, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch, counted from 0."""
        self._order.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """Let the next iteration, and only that one, leave out its first batches.

        Args:
            batches: how many.
        """
        self._order.skip(batches)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[TagBatch]:
        return map(self._batch, self._order)

    def _batch(self, batch: Batch) -> TagBatch:
        numbers = self.numbers
        B, T = batch.inputs.shape
        mask = np.arange(T) < batch.lengths.numpy()[:, None]
        places = batch.inputs.numpy()[mask]
        different, form = np.unique(numbers.forms[places], return_inverse=True)
        forms = np.zeros((B, T), np.int64)
        forms[mask] = form

        def spread(values: npt.NDArray[np.int64]) -> Tensor:
            found = np.zeros((B, T, *values.shape[1:]), np.int64)
            found[mask] = values[places]
            return torch.from_numpy(found)

        characters, counts = self._characters(different)
        return TagBatch(
            lengths=batch.lengths,
            index=batch.index,
            forms=torch.from_numpy(forms),
            words=torch.from_numpy(numbers.words[different]),
            rare=torch.from_numpy(numbers.rare[different]),
            affixes=torch.from_numpy(numbers.affixes[different]),
            characters=characters,
            character_counts=counts,
            pairs=spread(numbers.pairs),
            columns=spread(numbers.columns),
            tags=None if self.tags is None else spread(self.tags),
            token_count=batch.token_count,
        )

    def _characters(self, forms: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        numbers = self.numbers
        if len(numbers.starts) < 2 or not len(forms):
            return torch.zeros((len(forms), 0), dtype=torch.int64), torch.zeros(len(forms), dtype=torch.int64)
        starts = numbers.starts[forms]
        counts = numbers.starts[forms + 1] - starts
        places = np.arange(int(counts.max()))
        real = places < counts[:, None]
        found = np.zeros(real.shape, np.int64)
        found[real] = numbers.characters[(starts[:, None] + places)[real]]
        return torch.from_numpy(found), torch.from_numpy(counts)
