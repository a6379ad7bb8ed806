"""Batches as the training library wants to see them, from the middle of an epoch on if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from carousel.training.result import Batches

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["NOTHING_LEFT", "Feed", "start_at"]


class _NothingLeft:
    """Stands for a batch where the epoch has none left and only its validation is to come."""

    def to(self, _device: object) -> _NothingLeft:
        return self


NOTHING_LEFT = _NothingLeft()


class Feed:
    """Batches for the training library: tells them the epoch before they are read.

    Args:
        batches: the batches of a caller.
        epoch: returns the epoch, counted from 0, when an epoch starts to be read.
    """

    def __init__(self, batches: Batches, epoch: Callable[[], int]) -> None:
        self.batches = batches
        self.epoch = epoch
        self._skip: int | None = 0
        self._skipped: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def begin_at(self, batch: int | None, skipped: Callable[[], None]) -> None:
        """Let the next epoch begin in its middle.

        Args:
            batch: how many batches are left out; None for all, and the epoch then is :data:`NOTHING_LEFT`.
            skipped: called when they have been, before the first batch is made.
        """
        self._skip, self._skipped = batch, skipped

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that this runs at the first batch: the library makes its iterators before the epoch is known.
        skip, skipped = self._skip, self._skipped
        self._skip, self._skipped = 0, None
        self.batches.set_epoch(self.epoch())
        rest: Iterator[Any] = iter([NOTHING_LEFT]) if skip is None else _after(self.batches, skip)
        if skipped is not None:
            skipped()
        yield from rest


def _after(batches: Batches, count: int) -> Iterator[Any]:
    """The batches from number `count` on, with nothing left to be done for those before."""
    if not count:
        return iter(batches)
    skip = getattr(batches, "skip", None)
    if skip is not None:
        skip(count)
        return iter(batches)
    rest = iter(batches)
    for _ in islice(rest, count):
        pass
    return rest


def start_at(trainer: Trainer, *, epochs: int = 0, batch: int | None = None) -> None:
    """Set the training library's counters, which we do not keep in checkpoints.

    Args:
        trainer: before it runs, to set the epochs; when it has asked for the first batch of an epoch, to set the batch.
        epochs: how many are done.
        batch: how many batches of the epoch are done; None leaves the counter alone.
    """
    loop = trainer.fit_loop
    if batch is None:
        _set(loop.epoch_progress.total, epochs)
        _set(loop.epoch_progress.current, epochs)
        return
    # With no batch left the library still has to end the epoch: its last batch is then one that is not learned from.
    batch = min(batch, int(trainer.num_training_batches) - 1)
    _set(loop.epoch_loop.batch_progress.current, batch)
    fetcher = loop._data_fetcher
    if fetcher is not None:
        fetcher.fetched = batch


def _set(counter: Any, number: int) -> None:
    counter.ready = counter.started = counter.processed = counter.completed = number
