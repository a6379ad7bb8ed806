"""One long text as batches: rows that go on from batch to batch, cut into windows of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64
from torch import Tensor

from carousel.errors import ConfigError, ShapeError, explain

__all__ = ["IGNORED", "TokenStream", "Window"]

IGNORED = -100
"""The target where there is none, as torch's losses know it."""

# Random windows, as Merity et al. (2018) draw them.
_WHOLE, _HALF, _DEVIATION, _LEAST = 0.95, 0.5, 5.0, 5
_MEAN = _WHOLE + (1 - _WHOLE) * _HALF  # of the length, as a share of the full one


@dataclass(frozen=True, eq=False)
class Window:
    """Some steps of all rows of a stream.

    Args:
        inputs: (B, T), the token before each target.
        targets: (B, T), the tokens to predict; :data:`IGNORED` behind the end of a row.
        first: whether the rows begin here, so that states start anew.
        rate: the share of the learning rate that a window of this length learns with.
        token_count: how many targets there are.
    """

    inputs: Int64[Tensor, "B T"]
    targets: Int64[Tensor, "B T"]
    first: bool
    rate: float
    token_count: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Window:
        """The same window with its tensors on `device`."""
        inputs, targets = (part.to(device, non_blocking=non_blocking) for part in (self.inputs, self.targets))
        return replace(self, inputs=inputs, targets=targets)

    def part(self, rank: int, world: int) -> Window:
        """One process's share: the rows `rank`, `rank` + `world`, ...; the same rows in every window.

        Args:
            rank: the number of the process, from 0.
            world: how many processes there are.

        Raises:
            ConfigError: `rank` is not one of the `world` numbers from 0.
        """
        if not 0 <= rank < world:
            what = "Window.part: there is no such process."
            raise ConfigError(explain(what, got=f"rank {rank} of {world}", expected="0 <= rank < world"))
        targets = self.targets[rank::world]
        count = int((targets != IGNORED).sum())
        return replace(self, inputs=self.inputs[rank::world], targets=targets, token_count=count)

    def __len__(self) -> int:
        return len(self.inputs)


class TokenStream:
    r"""A text as contiguous rows, for truncated backpropagation through time.

    The text is cut into `batch_size` rows that follow each other; a batch is the next window of all of them, so that
    states can be carried from batch to batch. Every token is a target exactly once an epoch: the input of the first one
    is `start`, that of any other the token before it, across the borders of windows and rows too. Rows differ by at most
    one token, so at most `batch_size` - 1 places of the last window are empty.

    With `random`, the lengths of windows are drawn as in [1], anew in every epoch: about `window` (with probability
    0.95) or half of it, with a deviation of 5 steps and not below 5; `rate` is then length over `window`. Differs from
    [1]: lengths are stretched a little (under one half of a window over a whole row) so that every epoch has as many
    windows, the last of which is not left over. They depend on `seed` and the epoch alone, on every machine.

    Args:
        numbers: (N,), the numbers of the tokens, N at least 1. Not copied; do not change it.
        batch_size: rows; fewer if there are fewer tokens.
        window: T, steps of a window.
        start: the number of the token that stands before the text.
        random: whether lengths are drawn.
        seed: what they are drawn from.

    Raises:
        ConfigError: a size is below 1, or `seed` below 0.
        ShapeError: `numbers` is not a row of integers, or empty.

    Example:
        >>> stream = TokenStream(np.array([5, 6, 7, 8, 9]), batch_size=2, window=2, start=1)
        >>> [(w.inputs.tolist(), w.targets.tolist()) for w in stream]
        [([[1, 5], [7, 8]], [[5, 6], [8, 9]]), ([[6], [1]], [[7], [-100]])]

    References:
        [1] Merity, Keskar, Socher (2018), "Regularizing and Optimizing LSTM Language Models", arXiv:1708.02182.
    """

    def __init__(
        self,
        numbers: npt.NDArray[np.integer],
        *,
        batch_size: int,
        window: int,
        start: int,
        random: bool = False,
        seed: int = 0,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("window", window, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(
                    explain(f"TokenStream: {name} is too small.", got=str(value), advice=f"give at least {least}")
                )
        if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
            got = f"shape {numbers.shape}, type {numbers.dtype}"
            raise ShapeError(
                explain("TokenStream: `numbers` must be a row of integers.", got=got, expected="(N,), N at least 1")
            )
        self.batch_size = min(batch_size, len(numbers))
        self.window = window
        self.start = start
        self.random = random
        self.seed = seed
        self.epoch = 0
        self._numbers = numbers
        short, more = divmod(len(numbers), self.batch_size)
        self._sizes = np.full(self.batch_size, short, np.int64)
        self._sizes[:more] += 1
        self._begins = np.cumsum(self._sizes) - self._sizes
        self._steps = int(self._sizes[0])
        mean = max(1.0, window * _MEAN) if random else window
        self._count = max(1, round(self._steps / mean)) if random else -(-self._steps // window)
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the lengths of an epoch, counted from 0."""
        self.epoch = epoch

    def skip(self, windows: int) -> None:
        """Let the next iteration, and only that one, leave out its first windows. They are not built.

        Args:
            windows: how many; from 0 to all of them.

        Raises:
            ConfigError: fewer than 0, or more than there are.
        """
        if not 0 <= windows <= len(self):
            what = "TokenStream: there are not so many windows to skip."
            raise ConfigError(explain(what, got=str(windows), expected=f"0 to {len(self)}"))
        self._skip = windows

    @property
    def token_count(self) -> int:
        """The targets of an epoch: N."""
        return len(self._numbers)

    def __len__(self) -> int:
        """The number of windows, the same in every epoch."""
        return self._count

    def __iter__(self) -> Iterator[Window]:
        skip, self._skip = self._skip, 0
        return self._windows(skip, self.epoch)

    def _windows(self, skip: int, epoch: int) -> Iterator[Window]:
        borders = self._borders(epoch)
        for begin, end in zip(borders[skip:-1], borders[skip + 1 :], strict=True):
            yield self._cut(begin, end)

    def _borders(self, epoch: int) -> list[int]:
        if not self.random:
            return [*range(0, self._steps, self.window), self._steps]
        # Raw words of the generator: unlike its distributions, NumPy keeps these the same for ever.
        generator = np.random.PCG64(np.random.SeedSequence([self.seed, epoch]))
        shares = ((generator.random_raw(3 * self._count) >> np.uint64(11)) + 0.5) * 2.0**-53  # within (0, 1)
        whole, radius, angle = shares.reshape(3, self._count)
        normal = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
        means = np.where(whole < _WHOLE, float(self.window), self.window * _HALF)
        lengths = np.maximum(_LEAST, np.trunc(means + _DEVIATION * normal))
        ends = np.cumsum(lengths)
        inner = np.rint(ends[:-1] * (self._steps / ends[-1])).astype(np.int64)
        # Where windows are stretched beyond reason (a text of a few steps), none may be empty.
        places = np.arange(1, self._count)
        inner = np.minimum(np.maximum.accumulate(np.maximum(inner - places, 0)) + places, self._steps - self._count + places)
        return [0, *inner.tolist(), self._steps]

    def _cut(self, begin: int, end: int) -> Window:
        steps = np.arange(begin, end)
        there = steps < self._sizes[:, None]  # (B, T)
        places = np.where(there, self._begins[:, None] + steps, 0)
        targets = np.where(there, self._numbers[places], IGNORED).astype(np.int64)
        inputs = np.where(places > 0, self._numbers[places - 1], self.start).astype(np.int64)
        return Window(
            inputs=torch.from_numpy(inputs),
            targets=torch.from_numpy(targets),
            first=begin == 0,
            rate=(end - begin) / self.window if self.random else 1.0,
            token_count=int(there.sum()),
        )
