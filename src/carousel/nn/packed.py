"""torch's packed sequences, made and unmade in one piece: torch's own functions copy step by step, forwards and backwards."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from carousel.engines.packing import packing, places
from carousel.errors import ShapeError, explain

__all__ = ["pack_padded_sequence", "pad_packed_sequence"]


def pack_padded_sequence(
    input: Tensor,  # noqa: A002 - torch's name
    lengths: Tensor | list[int],
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Pack a padded batch; as :func:`torch.nn.utils.rnn.pack_padded_sequence`, to the same values.

    Args:
        input: (T, B, ...), or (B, T, ...) with `batch_first`.
        lengths: (B,), integers from 1 to T, on any device.
        batch_first: whether the batch is the first axis.
        enforce_sorted: whether `lengths` never grow, which is then checked; else sequences are sorted by length.

    Returns:
        The rows of every step one after another, the longest sequence first. Gradients reach `input`.

    Raises:
        DTypeError: lengths are not integers.
        ShapeError: there are not B lengths, one is not in 1 to T, or they are not sorted as said.

    Example:
        >>> packed = pack_padded_sequence(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), [2, 1])
        >>> packed.data.tolist(), packed.batch_sizes.tolist()
        ([1.0, 2.0, 3.0], [2, 1])
    """
    who = "pack_padded_sequence"
    if input.dim() < 2:
        raise ShapeError(explain(f"{who}: there must be axes of time and of batch.", got=f"{tuple(input.shape)}"))
    if batch_first:
        input = input.transpose(0, 1)  # noqa: A001 - torch's name
    T, B = input.shape[0], input.shape[1]
    lengths = torch.as_tensor(lengths)
    pack = packing(T, B, lengths, input.device, who)
    counts: list[int] = lengths.tolist()
    if min(counts, default=1) < 1:
        got, advice = f"lengths[{counts.index(min(counts))}] = {min(counts)}", "leave out what is empty; Recurrent takes it"
        raise ShapeError(explain(f"{who}: a packed sequence has at least one step.", got=got, advice=advice))
    if enforce_sorted and any(a < b for a, b in itertools.pairwise(counts)):
        raise ShapeError(explain(f"{who}: lengths grow.", got=f"{counts[:20]}", advice="enforce_sorted=False sorts them"))
    sizes = torch.tensor(pack.batch_sizes, dtype=torch.long)
    if enforce_sorted:
        return PackedSequence(pack.pack(input), sizes)
    order = torch.arange(B, device=input.device) if pack.order is None else pack.order
    return PackedSequence(pack.pack(input), sizes, order, torch.argsort(order))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """Pad a packed batch; as :func:`torch.nn.utils.rnn.pad_packed_sequence`, to the same values.

    Args:
        sequence: what `pack_padded_sequence` (or torch's) returned.
        batch_first: whether the batch shall be the first axis.
        padding_value: what stands in the padding.
        total_length: T of the result; the longest sequence's if None.

    Returns:
        (T, B, ...) or (B, T, ...), and the lengths (B,) on the CPU, both in the order before packing.

    Raises:
        ShapeError: `total_length` is shorter than the longest sequence.

    Example:
        >>> packed = pack_padded_sequence(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), [2, 1])
        >>> pad_packed_sequence(packed, padding_value=-1.0)
        (tensor([[ 1.,  2.],
                [ 3., -1.]]), tensor([2, 1]))
    """
    data, sizes = sequence.data, sequence.batch_sizes
    steps, B = len(sizes), int(sizes[0])
    T = steps if total_length is None else total_length
    if steps > T:
        raise ShapeError(explain("pad_packed_sequence: too short.", got=f"total_length={T}", expected=f"at least {steps}"))
    step, place = places(sizes)
    lengths = torch.bincount(place, minlength=B)
    step, place = step.to(data.device), place.to(data.device)
    if sequence.sorted_indices is not None:
        place = sequence.sorted_indices[place]
    if sequence.unsorted_indices is not None:
        lengths = lengths[sequence.unsorted_indices.cpu()]
    flat = data.new_full((T * B, *data.shape[1:]), padding_value).index_copy(0, step * B + place, data)
    padded = flat.view(T, B, *data.shape[1:])
    return (padded.transpose(0, 1) if batch_first else padded), lengths
