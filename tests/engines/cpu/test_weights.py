"""The product on weights kept in bfloat16: the bits of the same product on rounded weights in float32, and its machine code.

The roundings are torch's (`.bfloat16().float()`).
"""

import ctypes
import functools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.engines.cpu.compile import assembly, load, object_code
from carousel.engines.cpu.product import build
from carousel.engines.cpu.target import target
from carousel.engines.cpu.tiling import tiling, vectors_per_panel
from carousel.engines.cpu.vectors import FLOAT32, FLOAT64
from carousel.engines.cpu.weights import stored
from carousel.errors import ConfigError
from machine_code import MULTIPLY, loops, stack_traffic

EXECUTED = [None, "haswell", "sandybridge", "nehalem"]
READ = ["znver5", "icelake-server", "haswell", "znver3", "sandybridge", "nehalem", "neoverse-n1", "neoverse-v2", "apple-m1"]
BF16 = "bfloat16"


def near(x):
    """The nearest bfloat16, as float32."""
    return torch.as_tensor(x).bfloat16().float()


# --- product and pack ---------------------------------------------------------------------------------------------------


def aligned(count, dtype):
    memory = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * np.dtype(dtype).itemsize].view(dtype)


class Code:
    """The product's module for weights of one kind."""

    def __init__(self, cpu, weights):
        self.cpu, self.weights = target(cpu), stored(FLOAT32, weights)
        self.lanes = self.cpu.bits // 32
        self.code = load(object_code(build(self.cpu, FLOAT32, weights), self.cpu), self.cpu)
        self._product = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)(self.code.address("product"))
        self._pack = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(self.code.address("pack"))

    def pack(self, matrices, block):
        units, K = matrices[0].shape
        vectors = len(matrices) * -(-units // self.lanes)
        count = vectors * self.weights.rows(K) * self.lanes * 4
        out = aligned(count + 64, np.uint8)
        out[:] = 0xA5
        bases = np.array([m.ctypes.data for m in matrices], np.int64)
        self._pack(len(matrices), units, K, bases.ctypes.data, *matrices[0].strides, block, out.ctypes.data)
        assert np.all(out[count:] == 0xA5), "written behind the end"
        return out[:count], vectors

    def product(self, a, packed, vectors, start=None):
        wide = vectors * self.lanes
        out = np.full((len(a), wide), np.nan, np.float32) if start is None else start.copy()
        self._product(
            len(a), vectors, a.shape[1], a.ctypes.data, a.strides[0], packed.ctypes.data, out.ctypes.data, wide * 4,
            int(start is not None),
        )  # fmt: skip
        return out


@functools.cache
def code(cpu, weights):
    if not target(cpu).native:
        pytest.skip(f"this machine cannot run code for {cpu}")
    return Code(cpu, weights)


def laid_out(rng, form, gates, units, K):
    """Matrices as they come."""
    if form == "transposed":
        return [rng.standard_normal((K, units)).astype(np.float32).T for _ in range(gates)]
    if form == "strided":
        return list(rng.standard_normal((gates, units, 3, K, 2)).astype(np.float32)[:, :, 1, :, 1])
    return list(rng.standard_normal((gates, units, K)).astype(np.float32))


def unpacked(here, packed, vectors, K):
    """Panels in bfloat16 as float32 (vectors, K, lanes), in NumPy; the zero behind an odd K is checked."""
    width, rows = vectors_per_panel(here.cpu, FLOAT32), here.weights.rows(K)
    halves = packed.view(np.uint16).reshape(-1)
    found = []
    for first in range(0, vectors, width):
        count = min(width, vectors - first)
        panel, halves = np.split(halves, [rows * count * here.lanes * 2])
        steps = panel.reshape(rows, count, here.lanes, 2).transpose(1, 0, 3, 2).reshape(count, rows * 2, here.lanes)
        assert not steps[:, K:].any()
        found.append((steps[:, :K].astype(np.uint32) << 16).view(np.float32))
    assert halves.size == 0
    return np.concatenate(found)


def expected_panels(matrices, lanes, block):
    """The vectors that `pack` writes, in order, from rounded matrices: (vectors, K, lanes)."""
    units, K = matrices[0].shape
    vectors = -(-units // lanes)
    padded = np.zeros((len(matrices), vectors * lanes, K), np.float32)
    for full, matrix in zip(padded, matrices, strict=True):
        full[:units] = near(np.ascontiguousarray(matrix)).numpy()
    order = [
        full[j * lanes : (j + 1) * lanes].T
        for first in range(0, vectors, block)
        for full in padded
        for j in range(first, min(first + block, vectors))
    ]
    return np.array(order)


def check_pack(here, form, gates, units, K, block):
    matrices = laid_out(np.random.default_rng(units * K), form, gates, units, K)
    packed, vectors = here.pack(matrices, block)
    assert np.array_equal(unpacked(here, packed, vectors, K), expected_panels(matrices, here.lanes, block)), (units, K, gates)


FORMS = ["rows", "transposed", "strided"]


@pytest.mark.parametrize("cpu", EXECUTED)
@pytest.mark.parametrize("form", FORMS)
def test_pack_rounds_as_torch_does(cpu, form):
    for units in (1, 7, 16, 33, 64):
        for K in (1, 2, 3, 8, 16, 17, 18, 41):
            for gates, block in [(1, 1), (3, 1), (4, 2), (4, 1 << 40)]:
                check_pack(code(cpu, BF16), form, gates, units, K, block)


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70), st.integers(1, 6), st.sampled_from(FORMS))
def test_pack_of_any_size(gates, units, K, block, form):
    check_pack(code(None, BF16), form, gates, units, K, block)


def test_pack_rounds_what_is_special():
    """Ties, infinity, what becomes infinite, what is too small for full precision, both zeros; not-a-number stays one."""
    words = [0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x00000001, 0x00018000, 0x80000000, 0]
    words += [0x7F800001, 0xFFFFFFFF, 0x7FC00000]
    matrix = np.array(words * 3, np.uint32).view(np.float32)
    for form in (
        matrix.reshape(-1, 1),
        matrix.reshape(1, -1),
        np.tile(matrix[:, None], 16).T.copy(),
        np.tile(matrix, (20, 1)).T,
    ):
        here = code(None, BF16)
        packed, vectors = here.pack([form], 1)
        got, want = unpacked(here, packed, vectors, form.shape[1]), expected_panels([form], here.lanes, 1)
        assert np.array_equal(np.isnan(got), np.isnan(want))
        assert np.array_equal(np.nan_to_num(got).view(np.uint32), np.nan_to_num(want).view(np.uint32))


def check_product(cpu, rows, units, K, seed=0):
    """Against the float32 kernels on rounded weights."""
    rng = np.random.default_rng(seed)
    half, full = code(cpu, BF16), code(cpu, None)
    W = rng.standard_normal((units, K)).astype(np.float32)
    a = np.full((rows, K + 3), np.nan, np.float32)  # what lies behind a row is not read
    a[:, :K] = rng.standard_normal((rows, K))
    a = a[:, :K]
    packed, vectors = half.pack([W], 1 << 40)
    plain, _ = full.pack([near(W).numpy()], 1 << 40)
    start = rng.standard_normal((rows, vectors * half.lanes)).astype(np.float32)
    for begin in (None, start):
        got, want = half.product(a, packed, vectors, begin), full.product(a, plain, vectors, begin)
        assert np.array_equal(got, want), (rows, units, K)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("cpu", EXECUTED)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 6, 7, 8, 9, 16, 17, 33])
def test_product_has_the_bits_of_rounded_weights(cpu, rows):
    lanes = code(cpu, BF16).lanes
    for vectors in range(1, 15):
        for K in (1, 2, 3, 4, 5, 17):
            check_product(cpu, rows, vectors * lanes - 3, K)
    check_product(cpu, rows, 30 * lanes, 130)


@settings(max_examples=40)
@given(st.integers(0, 40), st.integers(1, 300), st.integers(1, 90), st.integers(0, 99))
def test_product_of_any_size(rows, units, K, seed):
    check_product(None, rows, units, K, seed)


@functools.cache
def assembly_of(cpu):
    return assembly(build(target(cpu), FLOAT32, BF16), target(cpu))


@pytest.mark.parametrize("cpu", READ)
class TestAssembly:
    def test_no_loop_that_multiplies_touches_the_stack(self, cpu):
        text, here = assembly_of(cpu), target(cpu)
        cut = tiling(here, 2)
        tiles = len(re.findall(r"^_?tile_\w+:", text, re.MULTILINE))
        assert tiles >= cut.together * cut.vectors + (cut.rows - 1) * cut.vectors
        assert len(loops(text)) == 2 * tiles, "the test does not see all the loops"  # pairs of steps, and what is left
        assert stack_traffic(text) == []

    def test_a_turn_multiplies_as_often_as_it_must(self, cpu):
        here, cut = target(cpu), tiling(target(cpu), 2)
        counts = [sum(bool(MULTIPLY.match(line)) for line in loop) for loop in loops(assembly_of(cpu))]
        parts = 1 if here.x86 else 2  # NEON's registers are half of ours
        assert max(counts) == parts * max(cut.rows * cut.vectors * cut.unroll, cut.together * cut.vectors * (cut.unroll // 2))

    def test_weights_are_widened_by_one_instruction_each(self, cpu):
        """In the largest tile's loop: a shift for one step's vectors, a mask for the other's, and nothing that spreads them."""
        here, cut = target(cpu), tiling(target(cpu), 2)
        if not (here.fma and here.x86):
            pytest.skip("instructions are counted for AVX2 and AVX-512")
        name = f"tile_{cut.rows}x{cut.vectors}"
        (body,) = re.findall(rf"^{name}:.*?^\.Lfunc_end", assembly_of(cpu), re.MULTILINE | re.DOTALL)
        loop = max(loops(body), key=len)
        pairs = cut.vectors * cut.unroll // 2
        assert sum("vpslld" in line for line in loop) == pairs
        assert sum(bool(re.search(r"vp(and[dq]?|blendw)\s|vandps", line)) for line in loop) == pairs
        assert not any("vpmovzx" in line or "vdpbf16" in line for line in loop)

    def test_nothing_outside_is_called(self, cpu):
        calls = re.findall(r"^\s+(?:callq?|bl)\s+_?(\S+)", assembly_of(cpu), re.MULTILINE)
        assert [c for c in calls if not c.startswith(("tile_", "*")) and c not in ("turned", "copied", "plain")] == []


@pytest.mark.parametrize(("real", "name"), [(FLOAT64, BF16), (FLOAT32, "float64"), (FLOAT64, "float32"), (FLOAT32, "float16")])
def test_weights_that_do_not_fit_the_numbers(real, name):
    with pytest.raises(ConfigError, match=name):
        build(target(), real, name)
