"""One run on several processes: each takes its rows of every batch, and all make the same step.

The gradient of a step is that of the whole batch: a sum over items, divided by the number of items, whatever share of
them a process holds. So a run on two processes gives, but for rounding, what one process gives with batches twice as
large. Every number that a decision depends on (losses, metrics, the clock) is the same on all processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.errors import ConfigError, explain
from carousel.training.config import TrainingConfig
from carousel.training.result import Batches, Measured

__all__ = ["Borrowed", "Ranks", "Shares", "measure_share", "process_count"]


def process_count(config: TrainingConfig) -> int:
    """How many processes a run takes, one for each of `trainer.devices`; its batches hold so many times `batch_size`.

    Args:
        config: its `trainer` and `device`.

    Raises:
        ConfigError: `trainer.devices` is not a number of devices or a list of them.

    Example:
        >>> process_count(TrainingConfig(trainer={"devices": 2, "strategy": "ddp"}))
        2
    """
    from carousel.training.device import choose_device

    devices = config.trainer.get("devices", 1)
    if isinstance(devices, list | tuple):
        return len(devices)
    if devices in ("auto", -1, "-1"):
        return torch.cuda.device_count() if choose_device(config.device) == "cuda" else 1
    try:
        count = int(devices)
    except (TypeError, ValueError):
        count = 0
    if count < 1 or isinstance(devices, bool | float):
        advice = "give how many devices to use, such as 2"
        raise ConfigError(explain("trainer.devices must be a number of devices.", got=repr(devices), advice=advice))
    return count


@dataclass(frozen=True)
class Borrowed:
    """Rows of another process, for one that a small batch has none for: they are measured and count nothing.

    Args:
        rows: a batch.
    """

    rows: Any

    def to(self, device: torch.device) -> Borrowed:
        """The same rows on `device`."""
        return Borrowed(self.rows.to(device))


class Shares:
    """The rows of each batch that one process takes: every `world`-th from row `rank` on.

    Args:
        batches: of a caller; each batch has ``part(rank, world)`` and a length.
        rank: the process, counted from 0.
        world: processes.

    Raises:
        ConfigError: while iterating: a batch cannot be divided.
    """

    def __init__(self, batches: Batches, rank: int, world: int) -> None:
        self.batches = batches
        self.rank = rank
        self.world = world
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch, counted from 0."""
        self.batches.set_epoch(epoch)

    def skip(self, count: int) -> None:
        """Begin the next epoch with batch number `count`."""
        self._skip = count

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        skip, self._skip = self._skip, 0
        begin = getattr(self.batches, "skip", None)
        if skip and begin is not None:
            begin(skip)
            skip = 0
        for batch in islice(self.batches, skip, None):
            if not callable(getattr(batch, "part", None)):
                what = "batches of this class cannot be divided among processes."
                advice = "add part(rank, world), which returns every world-th row from row rank on; or train on one device"
                raise ConfigError(explain(what, got=type(batch).__qualname__, advice=advice))
            rows = batch.part(self.rank, self.world)
            yield rows if len(rows) else Borrowed(batch.part(0, self.world))


def measure_share(measure: Callable[[Any], Measured], batch: Any) -> Measured:
    """Measure this process's rows of a batch; what is borrowed counts for nothing."""
    if not isinstance(batch, Borrowed):
        return measure(batch)
    measured = measure(batch.rows)
    return replace(measured, items=0, tokens=0, sums=dict.fromkeys(measured.sums, 0.0))


class Ranks:
    """What the processes of a run tell each other. Every method is called by all of them, in the same order.

    Args:
        rank: this process, counted from 0; 0 is the one that the user started.
        world: processes. With 1 nothing is sent.
        device: where tensors have to be to be sent.
    """

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank = rank
        self.world = world
        self.device = torch.device(device)

    def total(self, measured: Measured) -> Measured:
        """What all processes together measured: the mean loss over all items, and the sums."""
        if self.world == 1:
            return measured
        sums = [float(value) for value in measured.sums.values()]
        own = [float(measured.loss.detach()) * measured.items if measured.items else 0.0, measured.items, measured.tokens]
        numbers = torch.tensor([*own, *sums], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(numbers)
        loss, items, tokens, *totals = numbers.tolist()
        return Measured(
            loss=torch.tensor(loss / items, dtype=torch.float64),
            items=round(items),
            tokens=round(tokens),
            sums=dict(zip(measured.sums, totals, strict=True)),
        )

    def average_gradients(self, parameters: Sequence[Tensor], weight: float) -> None:
        """Replace each gradient by the sum over all processes divided by the sum of their weights.

        A parameter without a gradient on every process keeps none.

        Args:
            parameters: the same on every process.
            weight: of this process: the items that its gradients are a sum over.
        """
        gradients = [parameter.grad for parameter in parameters]
        if self.world == 1:
            torch._foreach_mul_([gradient for gradient in gradients if gradient is not None], 1 / weight)
            return
        there = torch.tensor([weight, *(gradient is not None for gradient in gradients)], dtype=torch.float64)
        flat = [
            torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
        numbers = there.to(self.device)
        torch.distributed.all_reduce(numbers)
        total, *present = numbers.tolist()
        for kind in dict.fromkeys(part.dtype for part in flat):
            places = [place for place, part in enumerate(flat) if part.dtype == kind]
            together = torch.cat([flat[place] for place in places])
            torch.distributed.all_reduce(together)
            together /= total
            sizes = [flat[place].numel() for place in places]
            for place, part in zip(places, torch.split(together, sizes), strict=True):
                if present[place]:
                    parameters[place].grad = part.view_as(parameters[place])

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """The first process's answers to yes-or-no questions."""
        if self.world == 1:
            return wishes
        answers = torch.tensor([float(wish) for wish in wishes], device=self.device)
        torch.distributed.broadcast(answers, src=0)
        return tuple(answer > 0 for answer in answers.tolist())

    def seed_step(self, seed: int, epoch: int, batch: int) -> None:
        """Seed all generators for a batch, on several processes only.

        Each process draws other numbers, and what it draws does not depend on what it drew before, so that nothing of it
        has to be in a checkpoint.
        """
        if self.world > 1:
            words = np.random.SeedSequence([seed, self.rank, epoch, batch]).generate_state(1, np.uint64)
            number = int(words[0])
            torch.manual_seed(number)
            np.random.seed(number % 2**32)
            random.seed(number)
