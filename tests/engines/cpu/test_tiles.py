"""Products in tiles of bfloat16: against NumPy on rounded numbers, in every shape, from vectors to whole layers."""

import ctypes
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.cells import CELLS
from carousel.engines.cpu import outside, own, tiles
from carousel.engines.cpu.compile import assembly, load, object_code
from carousel.engines.cpu.target import target
from carousel.engines.cpu.weights import TILES
from carousel.nn import Recurrent, linear_cross_entropy

needs_tiles = pytest.mark.skipif(not own.has_tiles(), reason="this CPU has no tiles of bfloat16")
WORD, POINTER = ctypes.c_int64, ctypes.c_void_p


@pytest.fixture
def medium():
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_float32_matmul_precision("medium")
    with outside.rounded_loops():
        yield
    torch.set_float32_matmul_precision(before[0])
    torch.set_num_threads(before[1])


@cache
def functions():
    code = load(object_code(tiles.build(target()), target()), target())
    pack = ctypes.CFUNCTYPE(None, WORD, WORD, WORD, POINTER, WORD, WORD, WORD, POINTER)(code.address("pack"))
    kinds = [WORD, WORD, WORD, POINTER, WORD, POINTER, POINTER, WORD, WORD]
    product = ctypes.CFUNCTYPE(None, *kinds)(code.address("product"))
    turned = ctypes.CFUNCTYPE(None, *kinds, POINTER)(code.address("product_turned"))
    return code, pack, product, turned


def rounded(x):
    """To the nearest bfloat16, ties to even: the rule, in whole numbers."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    near = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return near.astype(np.uint32).view(np.float32)


def aligned(size):
    raw = np.full(size + 64, 255, np.uint8)  # not-a-number, as old memory may be
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def packed(w, turned):
    _, pack, _, _ = functions()
    w = np.ascontiguousarray(w.T if turned else w)
    (K, units) = w.shape if turned else w.shape[::-1]
    strides = (4, w.strides[0]) if turned else (w.strides[0], 4)
    vectors = -(-units // 16)
    room = aligned(vectors * TILES.rows(K) * 64)
    pack(1, units, K, (WORD * 1)(w.ctypes.data), *strides, vectors, room.ctypes.data)
    return vectors, room


@needs_tiles
@settings(max_examples=60, deadline=None)
@given(
    rows=st.one_of(st.integers(1, 70), st.sampled_from([128, 129, 300])),
    units=st.one_of(st.integers(1, 70), st.just(200)),
    K=st.one_of(st.integers(1, 70), st.sampled_from([511, 512, 513, 1100])),
    weights_turned=st.booleans(),
    left_turned=st.booleans(),
    accumulate=st.booleans(),
)
def test_a_product_is_that_of_rounded_numbers_and_writes_nothing_else(rows, units, K, weights_turned, left_turned, accumulate):
    rng = np.random.default_rng(rows * 7 + units * 3 + K)
    a, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, K), (units, K)))
    vectors, room = packed(w, weights_turned)
    out = np.full((rows, vectors * 16 + 16), 3.0, np.float32)
    _, _, product, turned = functions()
    given_a = np.ascontiguousarray(a.T) if left_turned else a
    numbers = [rows, vectors, K, given_a.ctypes.data, given_a.strides[0], room.ctypes.data, out.ctypes.data, out.strides[0]]
    sums = np.full(rows, 2.0, np.float32)
    if left_turned:
        turned(*numbers, int(accumulate), sums.ctypes.data)
        np.testing.assert_allclose(sums, 2 + a.sum(1, dtype=np.float64), atol=1e-5 * K)
    else:
        product(*numbers, int(accumulate))
    left, right = rounded(a).astype(np.float64), rounded(w).astype(np.float64)
    bound = (np.abs(left) @ np.abs(right).T + 3) * (K + 2) * 2.0**-24
    assert (np.abs(out[:, :units] - left @ right.T - 3.0 * accumulate) <= bound).all()
    assert (out[:, units : vectors * 16] == 3.0 * accumulate).all()
    assert (out[:, vectors * 16 :] == 3.0).all()


@needs_tiles
def test_an_elements_bits_depend_on_its_row_and_the_weights_alone():
    rng = np.random.default_rng(5)
    a, w = rng.standard_normal((70, 600)).astype(np.float32), rng.standard_normal((48, 600)).astype(np.float32)
    vectors, room = packed(w, False)
    _, _, product, turned = functions()
    whole = np.zeros((70, 48), np.float32)
    product(70, vectors, 600, a.ctypes.data, a.strides[0], room.ctypes.data, whole.ctypes.data, whole.strides[0], 0)
    for row in (0, 17, 69):
        one = np.zeros((1, 48), np.float32)
        product(1, vectors, 600, a[row:].ctypes.data, 2400, room.ctypes.data, one.ctypes.data, 192, 0)
        assert (one[0] == whole[row]).all()
    columns, other = np.ascontiguousarray(a.T), np.zeros_like(whole)
    turned(70, vectors, 600, columns.ctypes.data, 280, room.ctypes.data, other.ctypes.data, other.strides[0], 0, None)
    assert (other == whole).all()


@needs_tiles
def test_bad_numbers_reach_their_results_and_no_others():
    rng = np.random.default_rng(6)
    a, w = rng.standard_normal((20, 40)).astype(np.float32), rng.standard_normal((32, 40)).astype(np.float32)
    a[3, 39], a[7, 0], w[5, 20] = np.nan, np.inf, np.nan
    vectors, room = packed(w, False)
    out = np.zeros((20, 32), np.float32)
    functions()[2](20, vectors, 40, a.ctypes.data, 160, room.ctypes.data, out.ctypes.data, 128, 0)
    bad = np.zeros((20, 32), bool)
    bad[3], bad[7], bad[:, 5] = True, True, True
    assert (np.isfinite(out) == ~bad).all()


def test_the_code_for_such_a_cpu_multiplies_in_tiles_and_hands_their_registers_back():
    text = assembly(tiles.build(target("sapphirerapids")), target("sapphirerapids"))
    assert text.count("tdpbf16ps") == 4 + 2 + 2 + 1  # 2 x 2, 1 x 2, 2 x 1 and 1 x 1 tiles
    assert text.count("sttilecfg") == 2
    assert text.count("\tldtilecfg") == 4


@needs_tiles
@pytest.mark.usefixtures("medium")
@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole_lstm", "elman"])
@pytest.mark.parametrize("rows", [1, 20, 37])
def test_a_layer_in_tiles_is_near_the_exact_one_and_has_the_same_bits_for_any_threads(cell, rows):
    torch.manual_seed(0)
    layer = Recurrent(CELLS[cell](), 40, 72)
    x = torch.randn(9, rows, 40, requires_grad=True)
    found = {}
    for name, precision, count in (("exact", "highest", 1), ("one", "medium", 1), ("two", "medium", 2)):
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(count)
        layer.zero_grad()
        x.grad = None
        y = layer(x)[0]
        (y * y).sum().backward()
        found[name] = [y.detach(), x.grad, *(p.grad for p in layer.parameters())]
    for exact, one, two in zip(*found.values(), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(exact, one)
        assert (exact - one).abs().max() <= 0.03 * exact.abs().max()


@needs_tiles
@pytest.mark.usefixtures("medium")
def test_a_softmax_loss_in_tiles_is_near_the_exact_one():
    torch.manual_seed(1)
    tensors = [torch.randn(*shape).requires_grad_() for shape in ((50, 64), (900, 64), (900,))]
    target_ = torch.randint(900, (50,))
    exact = torch.nn.functional.cross_entropy(tensors[0].double() @ tensors[1].double().mT + tensors[2].double(), target_)
    want = torch.autograd.grad(exact, tensors)
    loss = linear_cross_entropy(*tensors, target_)
    assert abs(loss.item() - exact.item()) < 0.01 * exact.item()
    for got, wanted in zip(torch.autograd.grad(loss, tensors), want, strict=True):
        assert (got - wanted).abs().max() <= 0.03 * wanted.abs().max()


@needs_tiles
@pytest.mark.usefixtures("medium")
def test_loops_are_exact_unless_they_were_let_round(monkeypatch):
    torch.manual_seed(0)
    layer, x = Recurrent(CELLS["lstm"](), 8, 24), torch.randn(9, 20, 8)  # products around the loop are small: exact
    rounded = layer(x)[0]
    monkeypatch.setattr(outside, "_loops", False)
    exact = layer(x)[0]
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(layer(x)[0], exact)
    assert not torch.equal(rounded, exact)
