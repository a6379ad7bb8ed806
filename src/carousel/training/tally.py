"""Sums over an epoch, without making an accelerator wait at every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from carousel.training.result import Measured

__all__ = ["Tally"]

SMOOTHING = 0.98
_SAVED = {"batches", "items", "tokens", "sums", "_smooth", "_weight"}


class Tally:
    """The running sums of an epoch: loss, metrics, items, tokens.

    On a CPU reading a number is free, so every batch is read at once. Elsewhere reading waits for the device: a batch's
    numbers are sent on their way and read when the next batch is there, so that the device always has work.

    `bad_batch` and `bad_gradient` are the first batch whose loss, and whose watched gradient, is not a finite number, None
    if there was none among those that were read.

    Example:
        >>> tally = Tally()
        >>> tally.add(Measured(torch.tensor(2.0), items=1, tokens=4, sums={"accuracy": 1.0}))
        >>> tally.add(Measured(torch.tensor(1.0), items=3, tokens=9, sums={"accuracy": 1.0}))
        >>> tally.means()
        {'loss': 1.25, 'accuracy': 0.5}
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.batches = 0
        self.items = 0
        self.tokens = 0
        self.sums: dict[str, float] = {}
        self.bad_batch: int | None = None
        self.bad_gradient: int | None = None
        self._waiting: list[tuple[Callable[[list[float]], None], _Sent]] = []
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
        self.flush()
        values = [torch.as_tensor(value, device=loss.device) for value in measured.sums.values()]
        batch, items, names = self.batches, measured.items, list(measured.sums)

        def take(numbers: list[float]) -> None:
            self._count(items, numbers[0], list(zip(names, numbers[1:], strict=True)), batch)

        self._send([loss, *values], take)

    def watch(self, norm: Tensor) -> None:
        """Read the norm of a gradient, that of the newest batch, when its time comes; see `bad_gradient`."""
        self._send([norm], partial(self._note, self.batches))

    def flush(self) -> None:
        """Read what was sent and not yet read."""
        waiting, self._waiting = self._waiting, []
        for take, sent in waiting:
            take(sent.read())

    def means(self) -> dict[str, float]:
        """The means over items so far, the loss first. Empty if there was no item."""
        self.flush()
        if not self.items:
            return {}
        return {name: value / self.items for name, value in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, as plain values."""
        self.flush()
        return {name: dict(value) if name == "sums" else value for name, value in vars(self).items() if name in _SAVED}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the sums of :meth:`state_dict`.

        Raises:
            ValueError: they are none.
        """
        sums = state.get("sums")
        counts = [state.get(name) for name in ("batches", "items", "tokens")]
        floats = [state.get("_smooth"), state.get("_weight"), *(sums.values() if isinstance(sums, dict) else [None])]
        if set(state) != _SAVED or any(type(one) is not int for one in counts) or any(type(one) is not float for one in floats):
            raise ValueError("these are no sums of an epoch")
        self.reset()
        vars(self).update(state, sums=dict(state["sums"]))

    @property
    def smooth_loss(self) -> float | None:
        """The loss, averaged over about the last 50 batches that were read; None before the first."""
        return self._smooth / self._weight if self._weight else None

    def _send(self, values: list[Tensor], take: Callable[[list[float]], None]) -> None:
        together = torch.stack([value.detach().float().reshape(()) for value in values])
        self._waiting.append((take, _Sent(together)))

    def _count(self, items: int, loss: float, sums: list[tuple[str, float]], batch: int | None = None) -> None:
        for name, value in [("loss", loss * items), *sums]:
            self.sums[name] = self.sums.get(name, 0.0) + value
        if math.isfinite(loss):
            self._smooth = SMOOTHING * self._smooth + (1 - SMOOTHING) * loss
            self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        elif self.bad_batch is None:
            self.bad_batch = self.batches if batch is None else batch

    def _note(self, batch: int, numbers: list[float]) -> None:
        if self.bad_gradient is None and not math.isfinite(numbers[0]):
            self.bad_gradient = batch


class _Sent:
    """Numbers on their way from a device to the CPU."""

    def __init__(self, numbers: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._numbers = numbers
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> list[float]:
        """Wait until they are there."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers
