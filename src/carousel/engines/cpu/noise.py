"""Philox4x32-10 as vector code: the same numbers as `carousel.graph.kinds.noise`, a vector of quads at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from carousel.engines.cpu.blocks import Blocks
from carousel.engines.cpu.vectors import I32, I64, Value, Vectors
from carousel.graph.kinds.noise import MULTIPLIERS, NONE, WEYL, Noise, philox
from carousel.graph.shapes import Sizes, concrete


def noise_around(kind: Noise, values: Sequence[Tensor], sizes: Sizes, dtype: torch.dtype) -> Tensor:
    """Noise that is drawn once, outside of a loop: the eager form's numbers, with 64-bit products instead of halves.

    Args:
        kind: which noise.
        values: as for the eager form: the seed (2,), then rows and steps where it has them.
        sizes: the size of each axis letter.
        dtype: of the result.
    """
    axes = concrete(kind.axes, sizes)
    units = math.prod(axes)
    seed = [int(word) for word in values[0].tolist()]
    quads = np.arange((units + 3) // 4, dtype=np.uint64)
    row = values[1].long().numpy().astype(np.uint64) if kind.by_row else NONE
    step = values[-1].long().numpy().astype(np.uint64) if kind.by_step else NONE
    words = philox((quads, step, row, kind.stream), (seed[0], seed[1]), _multiply)
    rows = (values[-1].shape[0],) if kind.by_row or kind.by_step else ()
    numbers = np.stack([np.broadcast_to(word, (*rows, len(quads))) for word in words], -1)
    uniform = (numbers.reshape(*rows, -1)[..., :units] >> 8).astype(np.float32) * np.float32(2.0**-24)
    return torch.from_numpy(uniform.reshape((*rows, *axes))).to(dtype)


def _multiply(a: int, b: Any) -> tuple[Any, Any]:
    product = np.uint64(a) * np.uint64(b) if isinstance(b, int) else np.uint64(a) * b
    return product >> np.uint64(32), product & np.uint64(0xFFFFFFFF)


def emit_noise(
    blocks: Blocks,
    vectors: Vectors,
    stream: int,
    key: tuple[Value, Value],
    row: Value | None,
    step: Value | None,
    units: Value,
    targets: Sequence[Value],
) -> Value:
    """Fill memory with uniform noise in [0, 1).

    A counter gives four units, so lane q of a vector of counters gives the units 4q to 4q + 3: the four words are
    interleaved before they are stored.

    Args:
        blocks: for control flow.
        vectors: for arithmetic.
        stream: tells noises of one cell apart.
        key: the seed's two words, 64 bits wide.
        row: the row's number, or None.
        step: the step's number, or None.
        units: how many numbers.
        targets: where they go; nothing is written beyond the last number.

    Returns:
        The first number, in every lane.
    """
    b, lanes, real = blocks.builder, vectors.lanes, vectors.real
    words = ir.VectorType(I32, lanes)

    def splat(scalar: Value) -> Value:
        return vectors.splat(b.trunc(scalar, I32))

    def const(number: int) -> Value:
        return ir.Constant(words, [ir.Constant(I32, number)] * lanes)

    k0, k1 = splat(key[0]), splat(key[1])
    c2 = splat(row) if row is not None else const(NONE)
    c1 = splat(step) if step is not None else const(NONE)
    c3 = const(stream)
    order = ir.Constant(words, [ir.Constant(I32, lane) for lane in range(lanes)])

    def uniform(c0: Value) -> list[Value]:
        found = _philox(b, lanes, [c0, c1, c2, c3], k0, k1)
        small = [b.sitofp(b.lshr(word, const(8)), vectors.type) for word in found]  # 24 bits: exact in any float
        return [vectors.mul(value, vectors.const(2.0**-24)) for value in small]

    quads = blocks.share(units, 4)
    with blocks.loop(blocks.number(0), quads, lanes) as turn:
        numbers = _interleave(b, vectors, uniform(b.add(splat(turn.index), order)))
        for i, vector in enumerate(numbers):
            begin = blocks.plus(blocks.times(turn.index, 4), i * lanes)
            left = blocks.minus(units, begin)  # below 0 where a vector has no number that counts
            if real.bits < 64:
                left = b.trunc(left, real.whole)
            mask = b.icmp_signed("<", vectors.iota(), vectors.splat(left))
            for target in targets:
                vectors.store(vector, blocks.at(target, blocks.times(begin, real.size)), mask)
    if targets:
        return vectors.splat(b.load(targets[0], typ=real.type))
    first = uniform(const(0))[0]
    return vectors.splat(b.extract_element(first, ir.Constant(I32, 0)))


def _philox(b: ir.IRBuilder, lanes: int, counter: list[Value], k0: Value, k1: Value) -> list[Value]:
    wide = ir.VectorType(I64, lanes)
    words = ir.VectorType(I32, lanes)

    def const(number: int) -> Value:
        return ir.Constant(words, [ir.Constant(I32, number)] * lanes)

    def multiply(number: int, word: Value) -> tuple[Value, Value]:
        factor = ir.Constant(wide, [ir.Constant(I64, number)] * lanes)
        product = b.mul(b.zext(word, wide), factor)
        shift = ir.Constant(wide, [ir.Constant(I64, 32)] * lanes)
        return b.trunc(b.lshr(product, shift), words), b.trunc(product, words)

    c0, c1, c2, c3 = counter
    for _ in range(10):
        high0, low0 = multiply(MULTIPLIERS[0], c0)
        high1, low1 = multiply(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = b.xor(b.xor(high1, c1), k0), low1, b.xor(b.xor(high0, c3), k1), low0
        k0, k1 = b.add(k0, const(WEYL[0])), b.add(k1, const(WEYL[1]))
    return [c0, c1, c2, c3]


def _interleave(b: ir.IRBuilder, vectors: Vectors, four: Sequence[Value]) -> list[Value]:
    """Four vectors as four others: lane 0 of each, lane 1 of each, and so on."""
    lanes = vectors.lanes

    def mixed(x: Value, y: Value, order: list[int]) -> Value:
        mask = ir.Constant(ir.VectorType(I32, len(order)), [ir.Constant(I32, i) for i in order])
        return b.shuffle_vector(x, y, mask)

    pair = [i for lane in range(lanes) for i in (lane, lane + lanes)]
    first, second = mixed(four[0], four[1], pair), mixed(four[2], four[3], pair)  # a0 b0 a1 b1 ..., c0 d0 c1 d1 ...
    made = []
    for part in range(4):
        order = []
        for lane in range(part * lanes // 4, (part + 1) * lanes // 4):
            order += [2 * lane, 2 * lane + 1, 2 * lanes + 2 * lane, 2 * lanes + 2 * lane + 1]
        made.append(mixed(first, second, order))
    return made
