"""Ragged batches as packed rows: the rows of every step one after another, the longest sequence first.

Everything over time works on packed rows. Padding is left behind before the first product, so it costs nothing and nothing
in it (a NaN, say) can reach a result or a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from carousel.errors import DTypeError, ShapeError, explain
from carousel.graph.kinds import Role
from carousel.graph.step import Step


@dataclass(frozen=True)
class Packing:
    """How the rows of a batch (T, B) are packed.

    Attributes:
        steps: T.
        batch: B.
        batch_sizes: how many sequences reach each step, never growing; may be shorter than T.
        order: (B,), the sequences from longest to shortest; None where all have T steps and keep their order.
        rows: (sum of lengths,), where each packed row stands in the flattened (T, B); None likewise.
    """

    steps: int
    batch: int
    batch_sizes: tuple[int, ...]
    order: Tensor | None = None
    rows: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """The length of each sequence, (B,), sorted."""
        sizes = torch.tensor(self.batch_sizes, dtype=torch.long)
        return (sizes[None] > torch.arange(self.batch)[:, None]).sum(1)

    def pack(self, x: Tensor) -> Tensor:
        """(T, B, ...) to (sum of lengths, ...)."""
        flat = x.reshape(self.steps * self.batch, *x.shape[2:])
        return flat if self.rows is None else flat.index_select(0, self.rows)

    def unpack(self, packed: Tensor) -> Tensor:
        """(sum of lengths, ...) to (T, B, ...), with zeros where there was padding."""
        if self.rows is not None:
            flat = packed.new_zeros((self.steps * self.batch, *packed.shape[1:]))
            packed = flat.index_copy(0, self.rows, packed)
        return packed.reshape(self.steps, self.batch, *packed.shape[1:])

    def sort(self, state: Tensor) -> Tensor:
        """(B, ...) in the order of the packed rows."""
        return state if self.order is None else state.index_select(0, self.order)

    def unsort(self, state: Tensor) -> Tensor:
        """(B, ...) back in the caller's order."""
        return state if self.order is None else state.new_zeros(state.shape).index_copy(0, self.order, state)

    def clock(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The length of each sequence (B,), and for each packed row its step and its place in the batch, all sorted."""
        step, row = places(torch.tensor(self.batch_sizes, dtype=torch.long))
        return torch.bincount(row, minlength=self.batch).to(device), step.to(device), row.to(device)


def places(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """For each packed row its step, and its place among that step's rows; from how many rows each step has."""
    step = torch.repeat_interleave(torch.arange(len(batch_sizes), device=batch_sizes.device), batch_sizes)
    return step, torch.arange(len(step), device=step.device) - (batch_sizes.cumsum(0) - batch_sizes)[step]


def packing(steps: int, batch: int, lengths: Tensor | None, device: torch.device, who: str) -> Packing:
    """Work out how a batch is packed.

    Args:
        steps: T.
        batch: B.
        lengths: (B,), integers from 0 to T in any order, on any device; None if all have T steps.
        device: where the batch is.
        who: the caller, for messages.

    Raises:
        DTypeError: lengths are not integers.
        ShapeError: there are not B of them, or one is negative or larger than T.
    """
    if lengths is None:
        return Packing(steps, batch, (batch,) * steps)
    counts = check_lengths(lengths, steps, batch, who)
    if all(count == steps for count in counts):
        return Packing(steps, batch, (batch,) * steps)
    host = torch.tensor(counts)
    order = torch.argsort(host, descending=True, stable=True)
    reach = torch.arange(steps)[:, None] < host[order][None]  # (T, B)
    where = torch.arange(steps)[:, None] * batch + order[None]  # (T, B)
    sizes = tuple(count for count in reach.sum(1).tolist() if count)
    return Packing(steps, batch, sizes, order.to(device), where[reach].to(device))


def packed_sequence(sequence: PackedSequence) -> Packing:
    """Say how torch packed a batch: its rows are packed as ours, so only states are sorted and unsorted.

    Args:
        sequence: what torch's `pack_padded_sequence` and its like return, sorted by them or by the caller.
    """
    sizes = tuple(sequence.batch_sizes.tolist())
    return Packing(len(sizes), sizes[0] if sizes else 0, sizes, sequence.sorted_indices)


def check_lengths(lengths: Tensor, steps: int, batch: int, who: str) -> list[int]:
    """Check lengths at the door and return them as numbers."""
    advice: str | None
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths, dtype=torch.long if lengths in ([], ()) else None)  # [] is float32 to torch
        except (TypeError, ValueError, RuntimeError) as problem:
            got = type(lengths).__name__
            raise DTypeError(explain(f"{who}: lengths must be integers.", got=got, expected="int64 (B,)")) from problem
    if lengths.dtype == torch.bool or lengths.is_floating_point() or lengths.is_complex():
        advice = "a mask has its lengths in mask.sum(time axis)" if lengths.dtype == torch.bool else "use lengths.long()"
        raise DTypeError(
            explain(f"{who}: lengths must be integers.", got=str(lengths.dtype), expected="int64 (B,)", advice=advice)
        )
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        advice = None
        if lengths.dim() == 1 and lengths.shape[0] == steps:
            advice = "there is one length for each step: the axes of x look swapped; see batch_first"
        elif sorted(lengths.shape) == sorted((steps, batch)):
            advice = "a mask has its lengths in mask.sum(time axis)"
        raise ShapeError(
            explain(
                f"{who}: there must be one length for each sequence of the batch.",
                got=f"lengths {tuple(lengths.shape)} for a batch (T={steps}, B={batch})",
                expected=f"lengths (B={batch},)",
                advice=advice,
            )
        )
    counts: list[int] = lengths.tolist()
    for row, count in enumerate(counts):
        if not 0 <= count <= steps:
            advice = None
            if count > steps and max(counts) <= batch and min(counts) >= 0:
                advice = "the lengths fit the other axis: T and B look swapped; see batch_first"
            raise ShapeError(
                explain(
                    f"{who}: a length is {'negative' if count < 0 else 'longer than the sequence'}.",
                    got=f"lengths[{row}] = {count}, with T={steps} steps",
                    expected=f"0 to {steps}",
                    advice=advice,
                )
            )
    return counts


def ambient(
    step: Step,
    pack: Packing,
    begun: Tensor | None,
    *,
    backwards: bool,
    words: Tensor | None,
    at: int,
    device: torch.device,
) -> dict[Role, Tensor]:
    """What a cell asks its layer for.

    Args:
        step: the traced cell.
        pack: how its rows are packed.
        begun: (B, 1), the steps that each sequence has behind it, sorted; None for a cell that does not count.
        backwards: whether it runs from the last step to the first.
        words: the seed, (2,), or None for a cell without noise.
        at: the number of the layer and direction, each of which draws its own noise from the seed.
        device: where the batch is.
    """
    found: dict[Role, Tensor] = {}
    if words is not None:
        found[Role.SEED] = torch.stack([words[0], (words[1] + at * 0x9E3779B9) & 0xFFFFFFFF])
    if Role.ROW in step.ambient:
        found[Role.ROW] = pack.sort(torch.arange(pack.batch, device=device))[:, None]
    if begun is not None:
        lengths, time, row = pack.clock(begun.device)
        along = lengths[row] - 1 - time if backwards else time
        found[Role.TIME] = begun[row] + along[:, None]
    return found
