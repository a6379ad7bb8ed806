"""Machine code from modules: it computes what was written, finds the C library, and comes from memory, disk or the compiler."""

import ctypes
import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from llvmlite import ir

from carousel.engines.cpu import cache
from carousel.engines.cpu import compile as compiler
from carousel.engines.cpu.target import CPUS, target
from carousel.errors import KernelUnavailable

HERE = target()
FOREIGN = target("neoverse-v2" if HERE.x86 else "skylake")
UNARY = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_float)
TERNARY = ctypes.CFUNCTYPE(ctypes.c_float, *[ctypes.c_float] * 3)
_fresh = itertools.count()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CAROUSEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "_codes", {})
    monkeypatch.setattr(cache, "_told", False)


def loaded(text):
    return compiler.load(compiler.object_code(text, HERE), HERE)


def constant_module(value):
    """A module whose `answer` returns a whole number."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.IntType(64), []), "answer")
    ir.IRBuilder(function.append_basic_block()).ret(ir.Constant(ir.IntType(64), value))
    return module


def answer(code):
    return ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("answer"))()


def never():
    raise AssertionError("nothing should be built here")


# --- writing code -----------------------------------------------------------------------------------------------------

CHAINS = """
define float @multiply_add(float %a, float %b, float %c) {
  %p = fmul float %a, %b
  %s = fadd float %p, %c
  ret float %s
}
define float @there_and_back(float %a, float %b, float %c) {
  %s = fadd float %a, %b
  %d = fsub float %s, %b
  %e = fadd float %d, %c
  ret float %e
}
define float @divide(float %a, float %b, float %c) {
  %s = fdiv float %a, 3.0
  %d = fmul float %s, %b
  %e = fmul float %d, %c
  ret float %e
}
"""
ORACLES = {
    "multiply_add": lambda a, b, c: a * b + c,
    "there_and_back": lambda a, b, c: ((a + b) - b) + c,
    "divide": lambda a, b, c: a / np.float32(3.0) * b * c,
}


@pytest.mark.parametrize("name", ORACLES)
def test_floating_point_operations_are_neither_fused_nor_reordered(name):
    code = loaded(CHAINS)
    function = TERNARY(code.address(name))
    values = np.random.default_rng(3).uniform(-4, 4, (200, 3)).astype(np.float32) * np.float32([1, 1000, 1])
    got = np.float32([function(*map(float, row)) for row in values])
    assert np.array_equal(got, np.float32([ORACLES[name](*row) for row in values]))
    # The numbers can tell: computed wide and rounded once, most results differ.
    wide = np.float32([ORACLES[name](*row.astype(np.float64)) for row in values])
    assert (got != wide).mean() > 0.2


def test_a_module_object_and_its_text_give_the_same_code():
    module = constant_module(42)
    assert answer(loaded(module)) == answer(loaded(str(module))) == 42


def test_dead_code_and_stack_slots_go():
    text = """
define i64 @f(i64 %x) {
  %slot = alloca i64
  store i64 %x, ptr %slot
  %dead = mul i64 %x, 3
  %y = load i64, ptr %slot
  ret i64 %y
}"""
    tidy = compiler.llvm_text(text, HERE)
    assert "ret i64 %x" in tidy
    assert "alloca" not in tidy
    assert "mul" not in tidy


def test_an_invalid_module_is_refused():
    with pytest.raises(RuntimeError, match="expected"):
        compiler.optimise("define float @f(float %x) { ret", HERE)
    with pytest.raises(RuntimeError, match="dominate"):
        compiler.optimise(
            "define i64 @f(i64 %x) {\n br label %b\nb:\n %y = add i64 %z, 1\n %z = add i64 %x, 1\n ret i64 %y }", HERE
        )


MULTIPLY_ADD = """
declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)
define <4 x float> @f(<4 x float> %a, <4 x float> %b, <4 x float> %c) {
  %r = call <4 x float> @llvm.fma.v4f32(<4 x float> %a, <4 x float> %b, <4 x float> %c)
  ret <4 x float> %r
}"""


@pytest.mark.parametrize("name", CPUS)
def test_every_known_cpus_code_can_be_printed(name):
    cpu = target(name)
    listing = compiler.assembly(MULTIPLY_ADD, cpu)
    fused = "vfmadd" if cpu.x86 else "fmla"
    assert (fused in listing) == cpu.fma
    assert len(compiler.object_code(MULTIPLY_ADD, cpu)) > 100


# --- loading code -----------------------------------------------------------------------------------------------------


def test_the_c_library_is_found():
    code = loaded("""
declare float @sinf(float)
declare ptr @memcpy(ptr, ptr, i64)
@numbers = internal constant [3 x float] [float 0.5, float 1.5, float -2.0]
define float @sine(float %x) {
  %y = call float @sinf(float %x)
  ret float %y
}
define void @copy(ptr %to, i64 %bytes) {
  %done = call ptr @memcpy(ptr %to, ptr @numbers, i64 %bytes)
  ret void
}""")
    assert UNARY(code.address("sine"))(0.75) == pytest.approx(np.sin(0.75), rel=1e-6)
    numbers = (ctypes.c_float * 3)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("copy"))(ctypes.addressof(numbers), 12)
    assert list(numbers) == [0.5, 1.5, -2.0]


def test_two_modules_may_use_the_same_names():
    first, second = loaded(constant_module(1)), loaded(constant_module(2))
    assert (answer(first), answer(second), answer(first)) == (1, 2, 1)


def test_what_cannot_be_found_is_named():
    with pytest.raises(KernelUnavailable, match="'question' cannot be loaded"):
        loaded(constant_module(1)).address("question")
    code = loaded("declare void @nobody_has_this()\ndefine void @f() {\n call void @nobody_has_this()\n ret void }")
    with pytest.raises(KernelUnavailable, match="'f' cannot be loaded"):
        code.address("f")


@pytest.mark.parametrize("garbage", [b"", b"not an object file", b"\x7fELF" + bytes(60)], ids=["empty", "text", "half"])
def test_garbage_is_refused(garbage):
    with pytest.raises(KernelUnavailable, match="cannot be loaded"):
        compiler.load(garbage, HERE).address("answer")


def test_another_cpus_code_is_not_loaded():
    code = compiler.object_code(constant_module(1), FOREIGN)
    with pytest.raises(KernelUnavailable, match=f"'{FOREIGN.cpu}' cannot run on this machine(.|\n)*unset CAROUSEL_CPU"):
        compiler.load(code, FOREIGN)
    with pytest.raises(KernelUnavailable, match="cannot run"):
        compiler.compiled(never, ["x"], FOREIGN)


# --- memory, disk, compiler -------------------------------------------------------------------------------------------


def test_a_module_is_built_once():
    built = []
    first = compiler.compiled(lambda: built.append(1) or constant_module(5), ["graph", "float32"], HERE)
    assert compiler.compiled(never, ["graph", "float32"], HERE) is first
    assert answer(first) == 5
    assert built == [1]


def test_another_key_is_another_module():
    assert answer(compiler.compiled(lambda: constant_module(1), ["a", "bc"], HERE)) == 1
    assert answer(compiler.compiled(lambda: constant_module(2), ["ab", "c"], HERE)) == 2


def test_many_threads_build_once_and_share():
    gate, built = threading.Barrier(8), []

    def one(_):
        gate.wait()
        return compiler.compiled(lambda: built.append(1) or constant_module(5), ["shared"], HERE)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert built == [1]


def test_code_comes_from_disk_in_another_process():
    compiler.compiled(lambda: constant_module(77), ["kept"], HERE)
    script = f"""
import ctypes
from carousel.engines.cpu import cache
from carousel.engines.cpu import compile as compiler
from carousel.engines.cpu.target import target
cache._sources = lambda: {cache._sources()!r}  # as they were when the tests began: someone may be editing them
code = compiler.compiled(lambda: 1 / 0, ["kept"], target())
print(ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("answer"))())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("77\n", "")


def test_processes_that_compile_at_once_agree():
    script = f"""
import ctypes
from carousel.engines.cpu import cache
from carousel.engines.cpu import compile as compiler
from carousel.engines.cpu.target import target
cache._sources = lambda: "some"
text = {str(constant_module(3))!r}
for i in range(20):
    code = compiler.compiled(lambda: text, [f"race {{i}}"], target())
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("answer"))() == 3
assert cache.info().files == 20
"""
    running = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1] for process in running] == [b""] * 2
    assert [process.returncode for process in running] == [0] * 2
    assert {path.suffix for path in cache.info().path.iterdir()} == {".code"}


def test_stored_code_that_cannot_be_loaded_is_compiled_again():
    name = cache.digest(["bad"], HERE)
    cache.write(name, b"right checksum, no code")
    assert answer(compiler.compiled(lambda: constant_module(9), ["bad"], HERE)) == 9
    assert cache.read(name) == compiler.object_code(constant_module(9), HERE)


@pytest.mark.parametrize("place", ["off", ""])
def test_it_works_without_a_cache(monkeypatch, place):
    monkeypatch.setenv("CAROUSEL_CACHE", place)
    assert answer(compiler.compiled(lambda: constant_module(4), [f"no cache {place}"], HERE)) == 4


def test_a_builder_that_fails_leaves_nothing():
    with pytest.raises(AssertionError, match="nothing should be built"):
        compiler.compiled(never, ["fails"], HERE)
    assert answer(compiler.compiled(lambda: constant_module(6), ["fails"], HERE)) == 6
