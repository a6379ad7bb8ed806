"""Products of whole matrices: against float64, the same bits in any cut, and the choice between libraries."""

import ctypes
import json
import math
import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.engines.cpu import outside, own, wide
from carousel.engines.cpu.compile import load, object_code
from carousel.engines.cpu.softmax import softmax
from carousel.engines.cpu.surround import Surround
from carousel.engines.cpu.target import target
from carousel.engines.cpu.vectors import REALS
from carousel.graph.kinds import TotalOuter
from carousel.nn import Recurrent

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache folder of its own, and nothing chosen yet."""
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path))
    tmp_path.chmod(0o700)
    outside.forget()
    yield tmp_path
    outside.forget()


def matrix(rows, columns, dtype, seed, gap=0, turned=False):
    """Random numbers; behind each row a gap of not-a-number."""
    shape = (columns, rows) if turned else (rows, columns)
    whole = torch.full((shape[0], shape[1] + gap), torch.nan, dtype=dtype)
    part = whole[:, : shape[1]]
    part.copy_(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype))
    return part.mT if turned else part


def close(got, want, terms):
    """Within the error of a sum in any order."""
    wanted, size = want
    bound = (terms + 1) * torch.finfo(got.dtype).eps * size
    assert ((got.double() - wanted).abs() <= bound).all()


def sizes(a, b):
    return a.double() @ b.double(), a.double().abs() @ b.double().abs() + 1


edges = st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 48, 49, 64, 65, 100, 131])


@settings(deadline=None, max_examples=60)
@given(
    rows=edges,
    K=edges,
    units=edges,
    dtype=st.sampled_from(list(DTYPES)),
    gap=st.sampled_from([0, 3]),
    turned=st.booleans(),
    bias=st.booleans(),
)
def test_a_linear_map_is_numpys_and_nothing_is_written_behind_a_row(rows, K, units, dtype, gap, turned, bias):
    dtype = DTYPES[dtype]
    x, w = matrix(rows, K, dtype, 0, gap), matrix(units, K, dtype, 1, gap, turned)
    b = matrix(1, units, dtype, 2)[0] if bias else None
    memory = torch.full((rows, units + 4), -7.0, dtype=dtype)
    own.linear(x, w, b, memory[:, :units])
    want, size = sizes(x, w.mT)
    close(memory[:, :units], (want if b is None else want + b.double(), size + (0 if b is None else b.double().abs())), K)
    assert (memory[:, units:] == -7).all()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.sampled_from([1, 2, 5, 64, 65, 300, 700]),
    units=edges,
    inner=edges,
    dtype=st.sampled_from(list(DTYPES)),
    gap=st.sampled_from([0, 5]),
    summed=st.booleans(),
)
def test_an_outer_product_and_its_sums_are_numpys(rows, units, inner, dtype, gap, summed):
    dtype = DTYPES[dtype]
    g, x = matrix(rows, units, dtype, 0, gap), matrix(rows, inner, dtype, 1, gap)
    total = torch.full((units,), torch.nan, dtype=dtype) if summed else None
    close(own.outer(g, x, total), sizes(g.mT, x), rows)
    if summed:
        close(total, (g.double().sum(0), g.double().abs().sum(0)), rows)


@given(st.integers(1, 5000), st.integers(1, 8), st.integers(1, 300), st.sampled_from([8, 16]))
def test_chunks_are_whole_tiles_and_members_have_about_as_many_rows(rows, members, most, tile):
    chunk = own._chunk(rows, members, most, tile)
    assert chunk % tile == 0
    assert chunk <= max(tile, most)
    each = math.ceil(math.ceil(rows / chunk) / members)  # chunks of the first member
    assert each * chunk <= rows / members + each * tile + chunk


def test_blocks_of_a_long_sum_do_not_change_a_bit(monkeypatch):
    x, w = matrix(20, 3000, torch.float32, 0), matrix(50, 3000, torch.float32, 1)
    found = []
    for block in (5000, 1024, 100):
        monkeypatch.setattr(own, "_INNER", block)
        found.append(own.linear(x, w, None, x.new_empty(20, 50)))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    found = []
    for block in (10**6, 64):
        monkeypatch.setattr(own, "_BLOCK", block)
        found.append(own.outer(w.mT, x.mT.contiguous(), None))
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_depend_neither_on_threads_nor_on_other_rows(dtype, threads):
    x, w, g = (matrix(*shape, DTYPES[dtype], i) for i, shape in enumerate([(203, 70), (133, 70), (203, 133)]))
    found = []
    for count in (1, 2, 3):
        threads(count)
        total = x.new_empty(133)
        found.append([own.linear(x, w, w[:, 0], x.new_empty(203, 133)), own.outer(g, x, total), total])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    alone = own.linear(x[5:6], w, w[:, 0], x.new_empty(1, 133))
    assert torch.equal(alone[0], found[0][0][5])


@pytest.mark.parametrize("name", ["haswell", "sandybridge", "nehalem"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_code_for_older_cpus_is_right_too(name, dtype):
    cpu, real = target(name), REALS[dtype]
    if not cpu.native:
        pytest.skip(f"this machine cannot run code for {name}")
    code = load(object_code(wide.build(cpu, real), cpu), cpu)
    rows, units, inner, block = 70, 37, 29, 33
    g, x = matrix(rows, units, DTYPES[dtype], 0, 3), matrix(rows, inner, DTYPES[dtype], 1, 2)
    out, sums = torch.full((units, inner + 3), -7.0, dtype=g.dtype), torch.full((units + 3,), -7.0, dtype=g.dtype)
    room = torch.empty(1 << 20, dtype=torch.uint8)
    size = real.size
    words = [rows, units, inner, g.data_ptr(), g.stride(0) * size, x.data_ptr(), x.stride(0) * size]
    words += [out.data_ptr(), out.stride(0) * size, sums.data_ptr(), block, -(-room.data_ptr() // 64) * 64, 1 << 18]
    words = np.array(words, np.int64)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(code.address("outer"))
    for member in range(2):
        run(words.ctypes.data, member, 2, 0)
    close(out[:, :inner], sizes(g.mT, x), rows)
    close(sums[:units], (g.double().sum(0), g.double().abs().sum(0)), rows)
    assert (out[:, inner:] == -7).all()
    assert (sums[units:] == -7).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("V", [1, 5, 16, 17, 200, 1003])
def test_a_softmax_and_its_gradient_are_torchs(dtype, V):
    rows, dtype = 6, DTYPES[dtype]
    z, bias, scale = matrix(rows, V, dtype, 0) * 9, matrix(1, V, dtype, 1)[0], matrix(1, rows, dtype, 2)[0].abs()
    targets = torch.arange(rows) * 7 % V
    targets[4] = -1
    wide_z = (z + bias).double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(wide_z, targets, ignore_index=-1, label_smoothing=0.1, reduction="none")
    loss.backward(scale.double())
    memory = torch.full((rows, V + 3), -7.0, dtype=dtype)
    memory[:, :V] = z
    stats = softmax(memory[:, :V], bias, targets, scale=scale, hot=0.9, even=0.1 / V)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close((stats.log_sum - 0.9 * stats.hit - 0.1 / V * stats.total).double(), loss.detach(), **tolerance)
    torch.testing.assert_close(memory[:, :V].double(), wide_z.grad, **tolerance)
    assert (memory[:, V:] == -7).all()
    assert not memory[4, :V].any()


@pytest.mark.parametrize("name", ["lstm", "gru_reset_after", "gru", "peephole_lstm", "coupled_lstm"])
def test_weight_gradients_copy_nothing_and_take_the_biases_sums_along(name, monkeypatch):
    layer = Recurrent(name, 6, 5, engine="cpu")
    copied, sums = [], []
    stacked = Surround._stack

    def stack(self, call, values):
        found = stacked(self, call, values)
        if isinstance(call.group.nodes[0].kind, TotalOuter) and found is not None:
            parts = [values[self._slot[node.args[0]]] for node in call.group.nodes]
            copied.append(found.joined.untyped_storage().data_ptr() != parts[0].untyped_storage().data_ptr())
        return found

    monkeypatch.setattr(Surround, "_stack", stack)
    kind = outside.outer
    monkeypatch.setattr(outside, "outer", lambda g, x, *, total=None: sums.append(total is not None) or kind(g, x, total=total))
    layer(torch.randn(4, 3, 6))[0].sum().backward()
    assert copied
    assert not any(copied)
    assert any(sums)


# --- the choice -------------------------------------------------------------------------------------------------------


def large():
    return matrix(130, 130, torch.float32, 0), matrix(140, 130, torch.float32, 1)


@pytest.fixture
def medium():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("fresh", "medium")
@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_products_are_rounded_only_where_that_was_allowed_and_tiles_are_there(monkeypatch, fixed, tiles):
    if tiles and not own.has_tiles():
        pytest.skip("this CPU has no tiles")
    x, w = large()
    exact = x.double() @ w.double().mT
    monkeypatch.setattr(own, "has_tiles", lambda: tiles)
    monkeypatch.setattr(outside, "_fastest", lambda *_: "own")
    with outside.same_bits() if fixed else nullcontext():
        found = outside.linear(x, w, torch.zeros(len(w)))
        turned = outside.outer(x.mT.contiguous(), w.mT.contiguous())
        torch.testing.assert_close(outside.linear(x.double(), w.double()), exact)  # never rounded
    size = x.double().abs() @ w.double().abs().mT
    for result in (found, turned):
        error = (result - exact).abs()
        assert bool((error <= size * (2.0**-7 if tiles else 2.0**-20)).all())  # two roundings to 8 bits
        assert bool((error > size * 2.0**-20).any()) == tiles


@pytest.mark.usefixtures("fresh")
def test_small_products_are_torchs_and_large_ones_are_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(outside, "_fastest", lambda among, _: tried.append(sorted(among)) or "own")
    x, w = large()
    outside.linear(x[:2], w)
    assert not tried
    for _ in range(2):
        torch.testing.assert_close(outside.linear(x, w), x @ w.mT, rtol=1e-4, atol=1e-4)
    assert len(tried) == 1
    assert "own" in tried[0]
    assert "torch" in tried[0]
    outside.linear(x.double(), w.double())
    assert tried[1] == ["own", "torch"]


def test_a_choice_is_kept_on_disk_by_machine(fresh, monkeypatch):
    x, w = large()
    outside.linear(x, w)
    content = json.loads((fresh / outside.FILE).read_text())
    (machine,) = content["machines"]
    assert torch.__version__ in machine
    assert target().cpu in machine
    (key,) = content["machines"][machine]
    content["machines"][machine][key] = "torch"
    content["machines"]["another"] = {key: "own"}
    (fresh / outside.FILE).write_text(json.dumps(content))
    outside.forget()
    monkeypatch.setattr(outside, "_fastest", lambda *_: pytest.fail("measured again"))
    assert torch.equal(outside.linear(x, w), torch.mm(x, w.mT))
    assert outside.choices() == {key: "torch"}


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"format": 1}', '{"format": 1, "machines": {"m": 3}}', '{"format": 99}', "\x00"]
)
def test_a_damaged_file_is_measured_again(fresh, damage):
    x, w = large()
    outside.linear(x, w)
    (fresh / outside.FILE).write_text(damage)
    outside.forget()
    torch.testing.assert_close(outside.linear(x, w), x @ w.mT, rtol=1e-4, atol=1e-4)
    assert json.loads((fresh / outside.FILE).read_text())["format"] == 1


def test_an_unknown_name_in_the_file_is_not_believed(fresh):
    x, w = large()
    outside.linear(x, w)
    path = fresh / outside.FILE
    path.write_text(
        path.read_text().replace('"own"', '"os.system"').replace('"torch"', '"os.system"').replace('"onednn"', '"x"')
    )
    outside.forget()
    assert outside.choices() == {}
    outside.linear(x, w)
    assert set(outside.choices().values()) <= {"own", "torch", "onednn"}


def test_without_a_cache_the_choice_is_in_memory_only(tmp_path, monkeypatch):
    monkeypatch.setenv("CAROUSEL_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    outside.forget()
    outside.linear(*large())
    assert outside.choices()
    assert not list(tmp_path.iterdir())
    outside.forget()


def test_another_is_taken_only_if_it_is_clearly_faster():
    import time

    def takes(seconds):
        return lambda *_: time.sleep(seconds)

    assert outside._fastest({"own": takes(0.004), "torch": takes(0.0039)}, ()) == "own"
    assert outside._fastest({"own": takes(0.008), "torch": takes(0.002)}, ()) == "torch"


def test_an_operator_of_another_meaning_is_not_used(monkeypatch):
    class Wrong:
        @staticmethod
        def _linear_pointwise(x, w, *_):
            return x @ w.mT * 2

    class Changed:
        @staticmethod
        def _linear_pointwise(x):
            return x

    for mkldnn in (Wrong, Changed, object):
        monkeypatch.setattr(torch.ops, "mkldnn", mkldnn, raising=False)
        assert not outside._has_onednn.__wrapped__()


@pytest.mark.usefixtures("fresh")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_nothing_is_measured_after_a_fork(threads):
    threads(2)
    x, w = large()
    want = own.linear(x, w, None, x.new_empty(130, 140))
    child = os.fork()
    if child == 0:
        same = torch.equal(outside.linear(x, w), want) and not outside.choices()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
