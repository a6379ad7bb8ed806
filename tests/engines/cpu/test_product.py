"""The packed product: against float64 in NumPy, the same bits in any batch, and no stack traffic in any tile."""

import ctypes
import functools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from carousel.engines.cpu.compile import assembly, load, object_code
from carousel.engines.cpu.product import build, tiling, vectors_per_panel, write_tile
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import FLOAT32, FLOAT64
from machine_code import MULTIPLY, loops, stack_traffic

REALS = {"float32": FLOAT32, "float64": FLOAT64}
EXECUTED = [None, "haswell", "sandybridge", "nehalem"]
READ = ["znver5", "icelake-server", "haswell", "znver3", "sandybridge", "nehalem", "neoverse-n1", "neoverse-v2", "apple-m1"]


class Code:
    """A module that runs here."""

    def __init__(self, name, real):
        self.target, self.real = target(name), REALS[real]
        self.lanes = self.target.bits // self.real.bits
        self.width = vectors_per_panel(self.target, self.real)
        self.code = load(object_code(build(self.target, self.real), self.target), self.target)
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 9)
        self._product = call(self.code.address("product"))
        self._pack = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 8)(self.code.address("pack"))

    def product(self, a, packed, out, vectors, accumulate):
        K = a.shape[1]
        strides = a.strides[0], out.strides[0]
        self._product(
            len(a), vectors, K, a.ctypes.data, strides[0], packed.ctypes.data, out.ctypes.data, strides[1], accumulate
        )

    def pack(self, matrices, block, *, guard=64):
        """The panels of equal matrices (units, K) of any strides."""
        units, K = matrices[0].shape
        vectors = len(matrices) * -(-units // self.lanes)
        out = aligned(vectors * K * self.lanes + guard, self.real)
        out[:] = -7
        bases = np.array([m.ctypes.data for m in matrices], np.int64)
        row, column = matrices[0].strides
        self._pack(len(matrices), units, K, bases.ctypes.data, row, column, block, out.ctypes.data)
        assert np.all(out[vectors * K * self.lanes :] == -7), "written behind the end"
        return out[: vectors * K * self.lanes], vectors


@functools.cache
def code(name, real):
    if not target(name).native:
        pytest.skip(f"this machine cannot run code for {name}")
    return Code(name, real)


def aligned(count, real, shift=0):
    """`count` numbers that start `shift` numbers behind a multiple of 64 bytes."""
    memory = np.zeros(count * real.size + 128, np.uint8)
    start = -memory.ctypes.data % 64 + shift * real.size
    return memory[start : start + count * real.size].view(real.name)


def panels(w, width):
    """(vectors, K, lanes) as panels, in NumPy."""
    parts = [w[i : i + width].transpose(1, 0, 2).ravel() for i in range(0, len(w), width)]
    return np.concatenate(parts) if parts else np.zeros(0, w.dtype)


def numbers(rng, *shape, real):
    return rng.standard_normal(shape).astype(real.name)


class Case:
    """Random operands with gaps of NaN between rows; a starts off any alignment."""

    def __init__(self, here, rows, vectors, K, seed=0):
        rng = np.random.default_rng(seed)
        self.here, self.vectors, real = here, vectors, here.real
        self.a = aligned(rows * (K + 3), real, shift=1).reshape(rows, K + 3)
        self.a[:] = np.nan
        self.a = self.a[:, :K]
        self.a[:] = numbers(rng, rows, K, real=real)
        self.w = numbers(rng, vectors, K, here.lanes, real=real)
        self.packed = aligned(self.w.size, real)
        self.packed[:] = panels(self.w, here.width)
        self.start = numbers(rng, rows, vectors * here.lanes, real=real)

    def run(self, accumulate, rows=slice(None)):
        a = self.a[rows]
        wide = (self.vectors + 1) * self.here.lanes
        out = aligned(len(a) * wide, self.here.real).reshape(len(a), wide)
        out[:] = np.nan
        inner = out[:, : self.vectors * self.here.lanes]
        if accumulate:
            inner[:] = self.start[rows]
        self.here.product(a, self.packed, out, self.vectors, accumulate)
        assert np.isnan(out[:, self.vectors * self.here.lanes :]).all(), "written behind a row"
        return inner

    def expected(self, accumulate):
        w = self.w.transpose(1, 0, 2).reshape(self.w.shape[1], self.start.shape[1]).astype(np.float64)
        return self.a.astype(np.float64) @ w + (self.start if accumulate else 0), np.abs(self.a) @ np.abs(w) + np.abs(
            self.start
        )


def check(case):
    for accumulate in (0, 1):
        want, size = case.expected(accumulate)
        got = case.run(accumulate)
        error = np.abs(got - want)
        bound = (case.a.shape[1] + 1) * np.finfo(case.here.real.name).eps * size  # of a sum in any order
        assert (error <= bound).all(), (
            f"accumulate={accumulate}: {np.nanmax(error / np.maximum(bound, 1e-300))} times the bound"
        )
        assert np.isfinite(got).all()


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", EXECUTED)
class TestProduct:
    @pytest.mark.parametrize("rows", [0, 1, 2, 3, 5, 6, 7, 8, 9, 17, 20, 32, 33])
    def test_equals_numpy(self, name, real, rows):
        here = code(name, real)
        for vectors in range(14):
            for K in (0, 1, 3, 4, 17):
                check(Case(here, rows, vectors, K, seed=vectors))
        check(Case(here, rows, 10, 256))

    def test_a_row_has_the_same_bits_in_any_batch(self, name, real):
        case = Case(code(name, real), 33, 13, 37)
        for accumulate in (0, 1):
            alone = np.concatenate([case.run(accumulate, slice(m, m + 1)) for m in range(33)])
            for rows in range(2, 34):
                for first in {0, 33 - rows}:
                    assert np.array_equal(case.run(accumulate, slice(first, first + rows)), alone[first : first + rows])

    def test_a_vector_has_the_same_bits_in_any_panel(self, name, real):
        here = code(name, real)
        case = Case(here, 9, 11, 37)
        for rows in (1, 9):
            whole = case.run(0, slice(rows))
            for first in range(11):
                part = Case(here, 9, 1, 37)
                part.a, part.packed[:] = case.a, panels(case.w[first : first + 1], here.width)
                assert np.array_equal(part.run(0, slice(rows)), whole[:, first * here.lanes : (first + 1) * here.lanes])

    def test_sums_in_order_with_one_rounding_where_the_cpu_can(self, name, real):
        here = code(name, real)
        case = Case(here, 3, 2, 29)
        if here.target.fma and real == "float64":
            pytest.skip("NumPy has no wider type that would stand for one rounding")
        wide, narrow = np.float64, here.real.name
        total = np.zeros((3, 2 * here.lanes), narrow)
        w = case.w.transpose(1, 0, 2).reshape(29, -1)
        for k in range(29):
            if here.target.fma:
                # A product of two floats is exact in float64; their sum is rounded to it first, which changes 1 bit in 2**29.
                total = (case.a[:, k, None].astype(wide) * w[k] + total).astype(narrow)
            else:
                total = case.a[:, k, None] * w[k] + total
        assert np.array_equal(case.run(0), total)

    def test_not_a_number_stays_in_its_row_and_column(self, name, real):
        case = Case(code(name, real), 7, 5, 19)
        case.a[3, 7] = np.nan
        case.packed[:] = panels(case.w, case.here.width)
        got = case.run(0)
        assert np.isnan(got[3]).all()
        assert np.isfinite(np.delete(got, 3, axis=0)).all()

    def test_pack_then_product_is_a_times_w(self, name, real):
        here = code(name, real)
        rng = np.random.default_rng(3)
        W, a = numbers(rng, 4 * here.lanes + 3, 21, real=here.real), numbers(rng, 6, 21, real=here.real)
        packed, vectors = here.pack([W], 99)
        out = aligned(6 * vectors * here.lanes, here.real).reshape(6, -1)
        out[:] = np.nan
        here.product(a, packed, out, vectors, 0)
        want = a.astype(np.float64) @ W.T.astype(np.float64)
        tolerance = 1e-4 if real == "float32" else 1e-12
        np.testing.assert_allclose(out[:, : len(W)], want, rtol=tolerance, atol=tolerance)
        assert (out[:, len(W) :] == 0).all()


@settings(max_examples=60)
@given(
    rows=st.integers(0, 70),
    vectors=st.integers(0, 30),
    K=st.integers(0, 90),
    real=st.sampled_from(sorted(REALS)),
    seed=st.integers(0, 99),
)
def test_product_of_any_size(rows, vectors, K, real, seed):
    check(Case(code(None, real), rows, vectors, K, seed))


# --- packing ------------------------------------------------------------------------------------------------------------


def packed_in_numpy(matrices, lanes, block, width):
    """What `pack` is to do, said slowly."""
    units, K = matrices[0].shape
    vectors = -(-units // lanes)
    padded = [np.zeros((vectors * lanes, K), m.dtype) for m in matrices]
    for full, matrix in zip(padded, matrices, strict=True):
        full[:units] = matrix
    order = []
    for first in range(0, vectors, block):
        for full in padded:
            for j in range(first, min(first + block, vectors)):
                order.append(full[j * lanes : (j + 1) * lanes].T)  # (K, lanes)
    return panels(np.array(order), width)


def laid_out(rng, form, gates, units, K, real):
    """Matrices as they come: as they are, as transposes, as parts of larger ones, with any strides."""
    if form == "transposed":
        return [numbers(rng, K, units, real=real).T for _ in range(gates)]
    if form == "part of a transpose":
        return list(numbers(rng, K, gates * units + 5, real=real).T[: gates * units].reshape(gates, units, K))
    if form == "strided":
        return list(numbers(rng, gates, units, 3, K, 2, real=real)[:, :, 1, :, 1])
    if form == "stacked":
        return list(numbers(rng, gates, units, K, real=real))
    return [numbers(rng, units, K + 5, real=real)[:, 2 : 2 + K] for _ in range(gates)]


FORMS = ["stacked", "apart", "transposed", "part of a transpose", "strided"]


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", EXECUTED)
@pytest.mark.parametrize("form", FORMS)
def test_pack_equals_numpy(name, real, form):
    here = code(name, real)
    rng = np.random.default_rng(5)
    for units in (1, 2, 7, 16, 33, 64, 100):
        for K in (1, 3, 8, 17, 40):
            for gates, block in [(1, 1), (2, 2), (3, 1), (4, 2), (4, 4), (5, 3), (4, 1 << 40)]:
                matrices = laid_out(rng, form, gates, units, K, here.real)
                got, _ = here.pack(matrices, block)
                assert np.array_equal(got, packed_in_numpy(matrices, here.lanes, block, here.width)), (units, K, gates, block)


@settings(max_examples=60)
@given(
    gates=st.integers(1, 5),
    units=st.integers(1, 90),
    K=st.integers(1, 70),
    block=st.integers(1, 9),
    form=st.sampled_from(FORMS),
    real=st.sampled_from(sorted(REALS)),
)
def test_pack_of_any_size(gates, units, K, block, form, real):
    here = code(None, real)
    matrices = laid_out(np.random.default_rng(gates * units), form, gates, units, K, here.real)
    got, _ = here.pack(matrices, block)
    assert np.array_equal(got, packed_in_numpy(matrices, here.lanes, block, here.width))


def test_pack_reads_nothing_beyond_the_matrix():
    """A matrix that ends where the memory ends; what lies behind may not be read, nor come into the result."""
    here = code(None, "float32")
    mmap, getpagesize = __import__("mmap").mmap, __import__("mmap").PAGESIZE
    libc = ctypes.CDLL(None, use_errno=True)
    memory = np.frombuffer(mmap(-1, 3 * getpagesize), np.uint8)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    last = memory.ctypes.data + 2 * getpagesize
    assert libc.mprotect(last, getpagesize, 0) == 0
    try:
        for units, K in [(19, 21), (5, 16), (1, 33), (16, 16)]:
            size = units * K * 4
            matrix = memory[2 * getpagesize - size : 2 * getpagesize].view(np.float32)
            matrix[:] = np.arange(units * K)
            for form in (matrix.reshape(units, K), matrix.reshape(K, units).T):
                got, _ = here.pack([form], 1)
                assert np.array_equal(got, packed_in_numpy([form], here.lanes, 1, here.width))
    finally:
        libc.mprotect(last, getpagesize, 3)


# --- the machine code ---------------------------------------------------------------------------------------------------


_PREFETCH = re.compile(r"^\s+(?:prefetcht\d|prfm)\b")


def wide_tiles(name):
    """Over all numbers of rows: how high the tiles are, and how many lines of the next panel they ask for in a turn."""
    cut = tiling(target(name))
    lines = cut.unroll * cut.vectors * target(name).bits // 512
    found = set()
    for rows in range(2, 200):
        tiles = -(-rows // cut.rows)
        asked = 0 if tiles == 1 or lines < 2 else -(-lines // min(tiles, 3))
        found |= {(rows // tiles, asked), (-(-rows // tiles), asked)}
    return found


@functools.cache
def assembly_of(name, real):
    cpu = target(name)
    return assembly(build(cpu, REALS[real]), cpu)


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", READ)
class TestAssembly:
    def test_no_loop_that_multiplies_touches_the_stack(self, name, real):
        text = assembly_of(name, real)
        cut = tiling(target(name))
        rest = cut.unroll > 1  # then the widest tiles have a second loop, for what is left
        narrow = (cut.rows - 1) * (cut.vectors - 1)
        wanted = len(wide_tiles(name)) * (1 + rest) + narrow + cut.together * cut.vectors + rest
        assert len(loops(text)) == wanted, "the test does not see all the loops"
        assert stack_traffic(text) == []

    def test_tiles_of_rows_share_the_next_panel(self, name, real):
        """In a turn of the loop, each of two or three asks for its part of as many lines as the turn uses."""
        cut, text = tiling(target(name)), assembly_of(name, real)
        lines = cut.unroll * cut.vectors * target(name).bits // 512
        asked = {
            (int(match[1]), sum(bool(_PREFETCH.match(line)) for line in loops(match[0])[0]))
            for match in re.finditer(r"^_?tile_\d+x\d+_later_(\d+):.*?^\.?L?func_end", text, re.MULTILINE | re.DOTALL)
        }
        wanted = {-(-lines // tiles) for tiles in (2, 3)} if lines > 1 else set()
        assert asked == {(count, count) for count in wanted}

    def test_every_loop_multiplies_as_often_as_it_must(self, name, real):
        """The largest loop multiplies once for each sum and step: twice on NEON, whose registers are half of ours."""
        cut = tiling(target(name))
        counts = [sum(bool(MULTIPLY.match(line)) for line in loop) for loop in loops(assembly_of(name, real))]
        halves = 1 if target(name).x86 else 2
        assert max(counts) == max(cut.rows, cut.together) * cut.vectors * cut.unroll * halves

    def test_registers_are_as_wide_as_they_can_be(self, name, real):
        text = "\n".join("\n".join(loop) for loop in loops(assembly_of(name, real)))
        cpu = target(name)
        if cpu.avx512:
            assert "{1to" in text, "broadcasts are read from memory by the multiply-add itself"
            assert not re.search(r"%ymm\d", text)
        if cpu.fma:
            assert not re.search(r"\bv?mulp[sd]|\bfmul\b", text)
        assert re.search({512: r"%zmm", 256: r"%ymm|\b[24][sd]\b", 128: r"%xmm"}[cpu.bits], text)

    def test_nothing_outside_is_called(self, name, real):
        calls = re.findall(r"^\s+(?:callq?|bl)\s+(\S+)", assembly_of(name, real), re.MULTILINE)
        inside = ("_" if "apple" in name else "") + "tile_", ("_" if "apple" in name else "")
        strange = [
            c for c in calls if not c.startswith(inside[0]) and c.removeprefix(inside[1]) not in ("turned", "copied", "plain")
        ]
        assert [c for c in strange if not c.startswith("*")] == []


@pytest.mark.parametrize(
    ("name", "rows", "width"),
    [
        ("haswell", 6, 4),
        ("znver3", 6, 4),
        ("neoverse-n1", 6, 4),
        ("apple-m1", 8, 3),
        ("icelake-server", 8, 4),
        ("nehalem", 8, 3),
    ],
)
def test_a_tile_that_needs_too_many_registers_is_caught(name, rows, width):
    """The check above can fail."""
    module = ir.Module()
    module.triple = target(name).triple
    write_tile(module, target(name), FLOAT32, rows=rows, panels=[width], unroll=2, fetch=False).linkage = ""
    assert stack_traffic(assembly(module, target(name)))


def test_building_twice_gives_the_same_text():
    assert str(build(target("haswell"), FLOAT32)) == str(build(target("haswell"), FLOAT32))
