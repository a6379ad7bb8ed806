"""Noise as vector code: Philox4x32-10's own numbers, and not one byte beyond the last."""

import ctypes
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from carousel.engines.cpu.blocks import Blocks
from carousel.engines.cpu.compile import load, object_code
from carousel.engines.cpu.noise import emit_noise, noise_around
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import FLOAT32, FLOAT64, I64, POINTER, REALS, Vectors
from carousel.graph.kinds.base import Eager
from carousel.graph.kinds.noise import Noise, philox

STREAM, NONE, CANARY = 3, 0xFFFFFFFF, 7e7
word = st.integers(0, 2**32 - 1)


@functools.cache
def compiled(real, by_row, by_step, targets):
    """``f(seed 0, seed 1, row, step, units, target..., first)``."""
    module = ir.Module("noise")
    module.triple = target().triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 5 + [POINTER] * (targets + 1)), "f")
    b = ir.IRBuilder(function.append_basic_block())
    seed, more, row, step, units, *places, first = function.args
    made = emit_noise(
        Blocks(b),
        Vectors(b, target(), real),
        STREAM,
        (seed, more),
        row if by_row else None,
        step if by_step else None,
        units,
        places,
    )
    b.store(b.extract_element(made, ir.Constant(I64, 0)), first)
    b.ret_void()
    code = load(object_code(module, target()), target())
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5, *[ctypes.c_void_p] * (targets + 1))(code.address("f"))
    call.code = code  # lives as long as the function
    return call


def expected(seed, row, step, units):
    """The same with Python's whole numbers: 24 bits of each word."""
    words = [w for quad in range(-(-units // 4)) for w in philox((quad, step, row, STREAM), seed)]
    return [(w >> 8) * 2.0**-24 for w in words[:units]]


@pytest.mark.parametrize("real", [FLOAT32, FLOAT64], ids=REALS)
@pytest.mark.parametrize(("by_row", "by_step"), [(True, True), (True, False), (False, False)])
@settings(max_examples=25)
@given(seed=st.tuples(word, word), row=st.integers(0, 2**20), step=st.integers(0, 2**20), units=st.integers(1, 200))
def test_numbers_and_nothing_beyond_them(real, by_row, by_step, seed, row, step, units):
    dtype = np.dtype(f"f{real.size}")
    places = [np.full(units + 70, CANARY, dtype) for _ in range(2)]
    first = np.zeros(1, dtype)
    wanted = expected(seed, row if by_row else NONE, step if by_step else NONE, units)
    addresses = [place.ctypes.data for place in (*places, first)]
    compiled(real, by_row, by_step, 2)(*seed, row, step, units, *addresses)
    for place in places:
        assert place[:units].tolist() == wanted
        assert (place[units:] == CANARY).all()
    assert first[0] == wanted[0]


def test_a_single_number_needs_no_memory():
    first = np.zeros(1)
    compiled(FLOAT64, True, True, 0)(5, 6, 7, 8, 1, first.ctypes.data)
    assert first.tolist() == expected((5, 6), 7, 8, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("by_row", "by_step"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("axes", [(), (1,), (7,), (3, 5)])
def test_noise_around_a_loop_has_the_eager_numbers(axes, by_row, by_step, dtype):
    kind = Noise(0x9ABCDEF0, tuple("XYZ"[: len(axes)]), by_row, by_step)
    sizes = dict(zip("XYZ", axes, strict=False))
    seed = torch.tensor([0xFFFFFFFF, 0x12345678])
    rows, steps = torch.randint(2**32, (6, 1)), torch.randint(2**32, (6, 1))
    values = [seed, *([rows] if by_row else []), *([steps] if by_step else [])]
    expected = kind.eager(Eager(torch, sizes, dtype, 6, None), *values)
    found = noise_around(kind, values, sizes, dtype)
    assert found.dtype is dtype
    assert torch.equal(found, expected)
