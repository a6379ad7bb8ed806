"""Sums over an epoch, without making an accelerator wait at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from carousel.training.result import Measured

__all__ = ["Tally"]

SMOOTHING = 0.98


class Tally:
    """The running sums of an epoch: loss, metrics, items, tokens.

    On a CPU reading a number is free, so every batch is read at once. Elsewhere reading waits for the device: the
    numbers of `every` batches are fetched together.

    Example:
        >>> tally = Tally()
        >>> tally.add(Measured(torch.tensor(2.0), items=1, tokens=4, sums={"accuracy": 1.0}))
        >>> tally.add(Measured(torch.tensor(1.0), items=3, tokens=9, sums={"accuracy": 1.0}))
        >>> tally.means()
        {'loss': 1.25, 'accuracy': 0.5}
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.batches = 0
        self.items = 0
        self.tokens = 0
        self.sums: dict[str, float] = {}
        self.bad_batch: int | None = None
        self._waiting: list[tuple[int, list[str], list[Tensor]]] = []
        self._smooth = 0.0
        self._weight = 0.0

    def add(self, measured: Measured) -> None:
        """Add a batch."""
        self.batches += 1
        self.items += measured.items
        self.tokens += measured.tokens
        loss = measured.loss.detach()
        if loss.device.type == "cpu":
            self._count(measured.items, loss.item(), [(name, float(value)) for name, value in measured.sums.items()])
            return
        values = [torch.as_tensor(value, device=loss.device) for value in measured.sums.values()]
        self._waiting.append((measured.items, list(measured.sums), [loss, *values]))
        if len(self._waiting) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Fetch what still waits on the device."""
        if not self._waiting:
            return
        together = torch.stack([value.detach().float().reshape(()) for _, _, values in self._waiting for value in values])
        numbers = iter(together.tolist())
        waiting, self._waiting = self._waiting, []
        first = self.batches - len(waiting)
        for index, (items, names, _) in enumerate(waiting):
            self._count(items, next(numbers), [(name, next(numbers)) for name in names], batch=first + index + 1)

    def means(self) -> dict[str, float]:
        """The means over items so far, the loss first. Empty if there was no item."""
        self.flush()
        if not self.items:
            return {}
        return {name: value / self.items for name, value in self.sums.items()}

    @property
    def smooth_loss(self) -> float | None:
        """The loss, averaged over about the last 50 batches that were read; None before the first."""
        return self._smooth / self._weight if self._weight else None

    def _count(self, items: int, loss: float, sums: list[tuple[str, float]], batch: int | None = None) -> None:
        for name, value in [("loss", loss * items), *sums]:
            self.sums[name] = self.sums.get(name, 0.0) + value
        if math.isfinite(loss):
            self._smooth = SMOOTHING * self._smooth + (1 - SMOOTHING) * loss
            self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        elif self.bad_batch is None:
            self.bad_batch = self.batches if batch is None else batch
