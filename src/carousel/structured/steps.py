"""Which steps of a batch are real, laid one after another: what every algorithm here runs over."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Steps", "dense", "follow_on", "pack"]


@dataclass(frozen=True)
class Steps:
    """The real steps of a batch, row after row. There are P of them.

    Attributes:
        batch: B.
        length: T.
        first: (B + 1,), int64: where each row's steps begin.
        flat: (P,), int64: which of the scores' steps each is, counted along their rows.
        stored: (P,), int64: where its scores stand among all steps' in memory.
    """

    batch: int
    length: int
    first: Tensor
    flat: Tensor
    stored: Tensor

    @property
    def count(self) -> int:
        """P."""
        return self.flat.shape[0]

    def to(self, device: torch.device) -> Steps:
        """The same on another device."""
        if device == self.first.device:
            return self
        return Steps(self.batch, self.length, self.first.to(device), self.flat.to(device), self.stored.to(device))

    @functools.cached_property
    def counts(self) -> Tensor:
        """(B,): how many real steps each row has."""
        return self.first[1:] - self.first[:-1]

    @functools.cached_property
    def rows(self) -> Tensor:
        """(P,): the row of each step."""
        return torch.repeat_interleave(torch.arange(self.batch, device=self.first.device), self.counts)

    @functools.cached_property
    def follows(self) -> Tensor:
        """(P,), bool: whether the step has one before it in its row."""
        yes = self.first.new_ones(self.count, dtype=torch.bool)
        yes[self.first[:-1][self.counts > 0]] = False
        return yes


def dense(unary: Tensor) -> tuple[Tensor, bool]:
    """The scores (B, T, K), each step's side by side in memory, and whether steps lie time-major there. Copied only if
    needed."""
    if unary.is_contiguous():
        return unary, False
    if unary.transpose(0, 1).is_contiguous():
        return unary, True
    return unary.contiguous(), False


def pack(mask: Tensor | None, batch: int, length: int, time_major: bool = False) -> Steps:
    """The steps that `mask` leaves.

    Args:
        mask: (B, T), bool, True where data is real; None: everywhere.
        batch: B.
        length: T.
        time_major: whether scores are stored so.
    """
    if mask is None:
        # A tracer sees through a cache, and warns of it.
        made = _all_steps.__wrapped__ if torch.compiler.is_compiling() else _all_steps
        return made(batch, length, time_major)
    flat = mask.reshape(-1).nonzero().view(-1)
    first = torch.zeros(batch + 1, dtype=torch.int64, device=mask.device)
    torch.cumsum(mask.sum(1), 0, out=first[1:])
    return Steps(batch, length, first, flat, _turned(flat, batch, length) if time_major else flat)


def follow_on(lengths: Tensor) -> Steps:
    """The steps of rows whose scores stand one after another, without padding: scores are (1, P, K).

    Args:
        lengths: (B,), int64.
    """
    first = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=first[1:])
    flat = torch.arange(int(first[-1]))
    return Steps(len(lengths), int(lengths.max()) if len(lengths) else 0, first, flat, flat)


@functools.lru_cache(maxsize=32)
def _all_steps(batch: int, length: int, time_major: bool) -> Steps:
    with torch.inference_mode(False):
        flat = torch.arange(batch * length)
        first = torch.arange(batch + 1) * length
        return Steps(batch, length, first, flat, _turned(flat, batch, length) if time_major else flat)


def _turned(flat: Tensor, batch: int, length: int) -> Tensor:
    return flat % max(length, 1) * batch + flat // max(length, 1)
