"""Products of whole matrices by our own kernels: with vectors, or in tiles of bfloat16.

What is multiplied with is packed anew for every product; `outside` says when ours are used. All tensors are on the CPU, of one
floating type, without gradient; those in tiles are float32.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from carousel.engines.cpu import product, threads, tiles, wide
from carousel.engines.cpu.compile import Code, compiled
from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import WORTH_A_THREAD, second_level_cache
from carousel.engines.cpu.tiling import rows_of_a_tile
from carousel.engines.cpu.vectors import REALS, Real
from carousel.engines.cpu.weights import TILES, stored
from carousel.engines.cpu.workspace import LINE, Workspace, reserve

_MOST_ROWS = 128  # of a chunk
_INNER = 1024  # of a block of K: a chunk's part of x and a panel of weights fit the second cache
_BLOCK = 512  # rows of a block of the outer product, at most; measured flat from 128 to 512

__all__ = ["has_tiles", "linear", "outer", "rounded_outer", "tools"]


@functools.cache
def tools(real: Real, weights: str | None = None) -> tuple[int, Any]:
    """The address of `product`, and `pack` as a function, for a type of numbers and one in which weights are stored."""
    code = _products(real, weights)
    words = [ctypes.c_int64] * 3
    pack = ctypes.CFUNCTYPE(None, *words, ctypes.c_void_p, *words, ctypes.c_void_p)(code.address("pack"))
    return code.address("product"), pack


@functools.cache
def _products(real: Real, weights: str | None) -> Code:
    cpu = target()
    if weights == TILES.name:
        return compiled(lambda: tiles.build(cpu), ("tiles",), cpu)
    return compiled(lambda: product.build(cpu, real, weights), ("product", real.name, weights or real.name), cpu)


@functools.cache
def _around(real: Real) -> Code:
    cpu = target()
    return compiled(lambda: wide.build(cpu, real), ("wide", real.name), cpu)


def _real(tensor: Tensor) -> Real:
    return REALS[str(tensor.dtype).removeprefix("torch.")]


def _members(operations: float, parts: int) -> int:
    return max(1, min(threads.default_threads(), int(operations / WORTH_A_THREAD), parts))


@dataclass(frozen=True)
class _Left:
    """The left factor of a product: where it begins, its distances in bytes, and whether its columns lie in one piece."""

    rows: int
    K: int
    address: int
    row: int
    column: int
    turned: bool = False


def _multiply(x: _Left, w: Tensor, b: Tensor | None, out: Tensor, kept: str | None, total: Tensor | None = None) -> Tensor:
    """``x w^T + b``, with weights kept in a type; `total`: where x lies turned, the sums of its rows are added there."""
    real, units, K = _real(w), w.shape[0], x.K
    weights, step, size = stored(real, kept), target().bits // 8, real.size
    multiply, pack = _products(real, kept).address("product_turned" if x.turned else "product"), tools(real, kept)[1]
    vectors, left = divmod(units, step // size)
    if 1 not in w.stride():
        w = w.contiguous()
    strides = w.stride(0) * size, w.stride(1) * size
    tile = tiles.SIDE if kept == TILES.name else rows_of_a_tile(target(), weights)
    block = K if K <= 3 * _INNER // 2 else _INNER
    members = _members(2.0 * x.rows * K * units, -(-x.rows // tile))
    chunk = _chunk(x.rows, members, min(_MOST_ROWS, second_level_cache() // 4 // (block * size)), tile)
    packed, used = reserve(0, vectors * weights.rows(K) * step)
    last, used = reserve(used, weights.rows(K) * step)
    place, used = reserve(used, chunk * step * members)
    workspace = Workspace(used)
    start = workspace.address
    for count, first, to in ((units - left, 0, packed), (left, units - left, last)):
        together = -(-count * size // step)
        for k in range(0, K, block) if count else ():
            matrix = (ctypes.c_int64 * 1)(w.data_ptr() + first * strides[0] + k * strides[1])
            pack(1, count, min(block, K - k), matrix, *strides, together, start + to + k // weights.together * together * step)
    given = (multiply, x.rows, units, K, block, weights.together, x.address, x.row, x.column, x.column if x.turned else x.row)
    sums = (int(x.turned), 0 if total is None else total.data_ptr())
    results = (start + packed, start + last, out.data_ptr(), out.stride(0) * size, 0 if b is None else b.data_ptr())
    words = np.array([*given, *sums, *results, chunk, start + place, chunk * step], dtype=np.int64)
    threads.run([(_around(real).address("linear"), words.ctypes.data)], members)
    workspace.close()
    return out


def _chunk(rows: int, members: int, most: int, tile: int) -> int:
    """Rows of a chunk: whole tiles, and about as many for every member (400 in chunks of 128 would be 256 and 144)."""
    most = max(1, most // tile) * tile
    each = -(-rows // members)
    return min(-(-each // -(-each // most) // tile) * tile, most)


def linear(x: Tensor, w: Tensor, b: Tensor | None, out: Tensor, *, rounded: bool = False) -> Tensor:
    """``x w^T + b`` into `out`.

    Args:
        x: (rows, K), each row in one piece.
        w: (N, K), of any strides.
        b: (N,), in one piece, or None.
        out: (rows, N), each row in one piece.
        rounded: in tiles of bfloat16.
    """
    size = x.element_size()
    left = _Left(x.shape[0], x.shape[1], x.data_ptr(), x.stride(0) * size, size)
    return _multiply(left, w, b, out, TILES.name if rounded else None)


def outer(g: Tensor, x: Tensor, total: Tensor | None) -> Tensor:
    """``g^T x``, and on the way the sum of the rows of `g` into `total`; (rows, N), (rows, I) and (N,) give (N, I)."""
    real, (rows, units), inner = _real(g), g.shape, x.shape[1]
    size, step = real.size, target().bits // 8
    vectors = -(-inner * size // step)
    fits = second_level_cache() // 4 // (vectors * step)
    block = min(rows, max(64, min(_BLOCK, fits // 4 * 4)))
    members = _members(2.0 * rows * inner * units, -(-units * size // (wide.STRIP * step)))
    room = -(-block * (inner * size // step + 1 + wide.STRIP) * step // LINE) * LINE + LINE  # rooms a page apart would collide
    out = g.new_empty((units, inner))
    workspace = Workspace(room * members)
    numbers = (rows, units, inner, g.data_ptr(), g.stride(0) * size, x.data_ptr(), x.stride(0) * size)
    results = (out.data_ptr(), out.stride(0) * size, 0 if total is None else total.data_ptr())
    words = np.array([*numbers, *results, block, workspace.address, room], dtype=np.int64)
    threads.run([(_around(real).address("outer"), words.ctypes.data)], members)
    workspace.close()
    return out


def rounded_outer(g: Tensor, x: Tensor, total: Tensor | None) -> Tensor:
    """As `outer`, in tiles of bfloat16; the sum is that of the numbers before they are rounded."""
    rows, units = g.shape
    left = _Left(units, rows, g.data_ptr(), 4, g.stride(0) * 4, turned=True)
    return _multiply(left, x.mT, None, g.new_empty((units, x.shape[1])), TILES.name, None if total is None else total.zero_())


@functools.cache
def has_tiles() -> bool:
    """Whether this machine has tiles of bfloat16, and the system lets this process use their registers."""
    cpu = target()
    if not (cpu.native and cpu.avx512 and "+amx-bf16" in cpu.features.split(",")):
        return False
    request, tile_data = 0x1023, 18  # Linux: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    try:
        return bool(ctypes.CDLL(None).syscall(158, request, tile_data) == 0)  # arch_prctl
    except (OSError, AttributeError):
        return False
