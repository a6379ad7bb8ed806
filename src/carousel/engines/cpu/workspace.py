"""Memory for one call: pieces of one block, which the next call of the same thread uses again."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

LINE = 64  # bytes of a cache line, and of the widest vector

_kept = threading.local()
_MOST = 2  # both directions of a layer run at once


def reserve(used: int, size: int) -> tuple[int, int]:
    """Room for `size` bytes behind `used` ones: where it begins, and how many are used then."""
    return used, used + -(-size // LINE) * LINE


class Workspace:
    """A block of memory. Nothing in it outlives the call.

    Args:
        size: in bytes.
    """

    def __init__(self, size: int) -> None:
        kept: list[Tensor] = _kept.__dict__.setdefault("blocks", [])
        block = kept.pop() if kept else None
        if block is None or block.numel() < size + LINE:
            block = torch.empty(max(size + LINE, 1 << 16), dtype=torch.uint8)
        self._block: Tensor | None = block
        #: Where it begins, a multiple of `LINE`.
        self.address = -(-int(block.data_ptr()) // LINE) * LINE

    def close(self) -> None:
        """Hand the block back: the next call may take it."""
        if self._block is not None and len(_kept.__dict__.setdefault("blocks", [])) < _MOST:
            _kept.blocks.append(self._block)
        self._block = None
