"""Element-wise functions as vector code: their values against wider arithmetic, on all CPUs whose code this machine can run."""

import functools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.engines.cpu import functions
from carousel.engines.cpu.vectors import FLOAT32, FLOAT64
from carousel.errors import ConfigError, KernelUnavailable
from carousel.graph.kinds.elementwise import FUNCTIONS
from vector_code import COUNT, compiled, write

HERE = (None, "haswell", "sandybridge", "nehalem")  # None is this machine
ELSEWHERE = ("neoverse-n1", "apple-m1", "skylake-avx512", "haswell")
REALS = {"float32": FLOAT32, "float64": FLOAT64}
ULP = 4
LONG = np.longdouble
needs_long_doubles = pytest.mark.skipif(np.finfo(LONG).nmant < 63, reason="no 80-bit floats to compare float64 with")


# --- oracles ----------------------------------------------------------------------------------------------------------


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(np.isnan(x), x, np.where(x < 0, e, 1) / (1 + e))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def erf(x):
    """The series of positive terms 2/sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (2n+1)!!."""
    size = np.minimum(np.abs(x), 7)
    term = total = size
    for n in range(1, 200):
        term = term * (2 * size * size / (2 * n + 1))
        total = total + term
    return np.copysign(
        total * np.exp(-size * size) * 2 / np.sqrt(x.dtype.type(math.pi) + x.dtype.type(1.2246467991473532e-16)), x
    )


ORACLES = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": softplus,
    "sin": np.sin,
    "cos": np.cos,
    "erf": erf,
    "sqrt": np.sqrt,
}
SPECIAL = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    math.inf,
    -math.inf,
    math.nan,
    -math.nan,
    0.5,
    -0.5,
    1e-310,
    1e-40,
    -1e-40,
    5e-324,
    1e-45,
    1e30,
    -1e30,
)


@functools.cache
def arguments(real):
    """Special values; bit patterns of all kinds; the ranges where functions bend, densely; the zeros of sin and cos."""
    kind = np.dtype(real.name)
    rng = np.random.default_rng(0)
    if real is FLOAT32:
        patterns = np.arange(0, 2**32, 1999, dtype=np.uint64).astype(np.uint32).view(kind)
        dense = 100_001
    else:
        patterns = rng.integers(0, 2**64, 30_000, dtype=np.uint64).view(kind)
        dense = 10_001
    zeros = (np.arange(1, 660_000, 101) * (np.pi / 2)).astype(kind)
    ends = (760.0, 110.0, 40.0, 9.0, 2.0, 0.4)
    return np.concatenate(
        [np.array(SPECIAL, kind), patterns, *(np.linspace(-end, end, dense).astype(kind) for end in ends), zeros],
    )


@functools.cache
def expected(name, real):
    x = arguments(real)
    if name == "erf":
        x = x[:: 20 if real is FLOAT32 else 4]
    with np.errstate(all="ignore"):
        return x, ORACLES[name](x.astype(np.float64 if real is FLOAT32 else LONG))


def check(found, exact, x, ulp=ULP, sign=True):
    """Within `ulp` of the exact value; infinities, not-a-number and the sign of 0 as there."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(found.dtype)
        finite = np.isfinite(rounded)
        unit = np.spacing(np.abs(np.where(finite, rounded, 1))).astype(exact.dtype)
        error = np.where(finite, np.abs(found.astype(exact.dtype) - np.where(finite, exact, 0)) / unit, 0)
    error[finite & ~np.isfinite(found)] = np.inf
    worst = int(np.argmax(error))
    assert error[worst] <= ulp, f"{error[worst]:.2f} ulp at {x[worst]!r}: {found[worst]!r}, not {exact[worst]!r}"
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    wrong = np.flatnonzero(~finite & ~same)
    assert not len(wrong), f"at {x[wrong[0]]!r}: {found[wrong[0]]!r}, not {rounded[wrong[0]]!r}"
    if sign:
        wrong = np.flatnonzero((found == 0) & (rounded == 0) & (np.signbit(found) != np.signbit(rounded)))
        assert not len(wrong), f"the sign of 0 at {x[wrong[0]]!r}"


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_function_of_the_graph_has_vector_code():
    assert set(FUNCTIONS) <= set(functions.EMITTERS)


def test_a_function_without_vector_code_says_so():
    with pytest.raises(KernelUnavailable, match="'swish' has no vector code") as error:
        functions.emit(None, "swish", [])
    assert "register" in str(error.value)


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(functions, "EMITTERS", dict(functions.EMITTERS))
    functions.register("thrice", lambda v, args, settings: v.mul(args[0], v.const(3.0)))
    x = np.arange(20, dtype=np.float32)
    np.testing.assert_array_equal(compiled.__wrapped__("thrice", None, FLOAT32)(x), 3 * x)
    with pytest.raises(ConfigError, match="has vector code already"):
        functions.register("tanh", lambda v, args, settings: args[0])


# --- functions of one argument ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", HERE)
@pytest.mark.parametrize("name", ORACLES)
def test_float32_is_within_4_ulp_over_the_whole_range(name, cpu):
    x, exact = expected(name, FLOAT32)
    check(compiled(name, cpu, FLOAT32)(x), exact, x)


@needs_long_doubles
@pytest.mark.parametrize("cpu", HERE)
@pytest.mark.parametrize("name", ORACLES)
def test_float64_is_within_4_ulp_over_the_whole_range(name, cpu):
    x, exact = expected(name, FLOAT64)
    check(compiled(name, cpu, FLOAT64)(x), exact, x)


# Where the argument is the value of a function of torch's own, its result is the rule for what has no digits to compare.
SPECIALS = (
    "sigmoid",
    "tanh",
    "relu",
    "exp",
    "expm1",
    "log",
    "sqrt",
    "sin",
    "cos",
    "erf",
    "softplus",
    "abs",
    "sign",
    "neg",
    "stop_gradient",
)


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
@pytest.mark.parametrize("cpu", HERE)
@pytest.mark.parametrize("name", SPECIALS)
def test_infinities_zeros_and_nan_are_as_in_torch(name, cpu, real):
    x = np.array([0, -0.0, np.inf, -np.inf, np.nan], real.name)
    wanted = FUNCTIONS[name].eager(torch, [torch.from_numpy(x)], ()).numpy()
    np.testing.assert_allclose(compiled(name, cpu, real)(x), wanted, rtol=4 * np.finfo(x.dtype).eps)


@pytest.mark.parametrize("cpu", HERE)
@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid"])
def test_a_bounded_function_never_leaves_its_bounds(name, cpu):
    x = arguments(FLOAT32)
    values = compiled(name, cpu, FLOAT32)(x)
    assert np.nanmax(np.abs(values)) == 1
    low = 0 if name == "sigmoid" else -1
    assert np.nanmin(values) == low


@pytest.mark.parametrize("cpu", HERE)
def test_results_too_small_for_a_normal_number_are_kept(cpu):
    x = np.array([-88.0, -100.0, -103.0, -104.5], np.float32)
    for name in ("exp", "sigmoid", "softplus"):
        values = compiled(name, cpu, FLOAT32)(x)
        assert (values[:3] > 0).all(), name
        assert values[3] == 0, name


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=17, max_size=17), st.sampled_from(sorted(FUNCTIONS)), st.integers(1, 16))
def test_a_lane_does_not_depend_on_its_neighbours_or_its_place(values, name, by):
    x = np.array(values, np.float32)
    run = compiled(name, None, FLOAT32, (2.3,) if name == "power" else ())
    args = [np.roll(x, 3 * k) for k in range(COUNT.get(name, 1))]
    here, rolled = run(*args), run(*(np.roll(arg, by) for arg in args))
    np.testing.assert_array_equal(np.roll(here, by).view(np.uint32), rolled.view(np.uint32))


# --- functions of more arguments --------------------------------------------------------------------------------------


@functools.cache
def pairs(real):
    rng = np.random.default_rng(1)
    kind = np.dtype(real.name)
    special = np.array([*SPECIAL, 2, -2, 3, -3, 7, 5.5], kind)
    a, b = (grid.ravel() for grid in np.meshgrid(special, special))
    far = np.exp(rng.uniform(-40, 40, (2, 3000)))
    near = np.round(rng.standard_normal((2, 3000)) * 100)
    signs = rng.choice([-1, 1], (2, 3000))
    odd = rng.standard_normal((2, 3000)) * np.array([[1000.0], [1.0]])
    more = np.concatenate([far * signs, near, odd], 1).astype(kind)
    return np.concatenate([a, more[0]]), np.concatenate([b, more[1]])


def remainder(a, b):
    r = np.fmod(a, b)
    return np.where((r != 0) & (np.signbit(r) != np.signbit(b)), r + b, r)


TWO = {
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "remainder": remainder,  # not torch's: that has NaN where b is denormal
    "greater": lambda a, b: np.where(a > b, a.dtype.type(1), a.dtype.type(0)),
    "equal": lambda a, b: np.where(a == b, a.dtype.type(1), a.dtype.type(0)),
}


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
@pytest.mark.parametrize("cpu", HERE)
@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_arguments_are_exact(name, cpu, real):
    a, b = pairs(real)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(compiled(name, cpu, real)(a, b), TWO[name](a, b))


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
def test_remainder_is_torchs(real):
    a, b = pairs(real)
    kept = (np.abs(b) > 1e-30) | (b == 0)
    a, b = a[kept], b[kept]
    wanted = torch.remainder(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_array_equal(compiled("remainder", None, real)(a, b), wanted)


def test_a_sum_is_taken_from_left_to_right():
    a, b, c, d = np.random.default_rng(2).standard_normal((4, 1000)).astype(np.float32)
    np.testing.assert_array_equal(compiled("add", None, FLOAT32)(a, b, c, d), ((a + b) + c) + d)


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
def test_where_takes_every_condition_but_zero(real):
    condition = np.array([0, -0.0, 1, -1, np.nan, np.inf, 1e-40 if real is FLOAT32 else 1e-310, 0], real.name)
    yes, no = np.full(8, np.nan, real.name), np.arange(8, dtype=real.name)
    values = compiled("where", None, real)(condition, yes, no)
    np.testing.assert_array_equal(np.isnan(values), [False, False, True, True, True, True, True, False])
    assert list(values[[0, 1, 7]]) == [0, 1, 7]


EXPONENTS = (
    0.0,
    1.0,
    2.0,
    3.0,
    4.0,
    5.0,
    12.0,
    -1.0,
    -2.0,
    -3.0,
    -4.0,
    -7.0,
    0.5,
    -0.5,
    1.5,
    0.3,
    -0.7,
    1 / 3,
    1e-3,
    40.0,
    math.inf,
)


@needs_long_doubles
@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
@pytest.mark.parametrize("cpu", HERE)
def test_power_is_within_4_ulp_and_as_torch_at_the_edges(cpu, real):
    rng = np.random.default_rng(3)
    special = np.array([*SPECIAL, 2, -2, 3, -3], real.name)
    x = np.exp(rng.uniform(-80, 80, 3000)) * rng.choice([-1, 1], 3000)
    x = np.concatenate([special, x.astype(real.name), rng.uniform(-3, 3, 3000).astype(real.name)])
    for exponent in EXPONENTS:
        found = compiled("power", cpu, real, (exponent,))(x)
        edges = torch.pow(torch.from_numpy(x), exponent).numpy()
        with np.errstate(all="ignore"):
            exact = np.power(x.astype(LONG), LONG(exponent))
        # torch's power 0.5 of -inf and -0.5 of -0 are those of a square root.
        edge = np.isnan(edges) | ~np.isfinite(x) | (x == 0)
        exact[edge] = edges[edge]
        check(found, exact, x, sign=False)


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_cpus_that_fuse_multiply_and_add_give_the_same_bits(name, real):
    x = arguments(real)[:: 3 if real is FLOAT32 else 1]
    args = [np.roll(x, 7 * k) for k in range(COUNT.get(name, 1))]
    setting = (2.3,) if name == "power" else ()
    one, other = (compiled(name, cpu, real, setting)(*args) for cpu in ("haswell", "skylake-avx512"))
    np.testing.assert_array_equal(one, other)  # equal, or both not-a-number


# --- other CPUs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("real", REALS.values(), ids=REALS)
@pytest.mark.parametrize("cpu", ELSEWHERE)
def test_code_is_written_for_cpus_that_are_not_here(cpu, real):
    for name in FUNCTIONS:
        module, machine = write(name, cpu, real, (1.7,) if name == "power" else ())
        text = machine.emit_assembly(module)
        assert re.search(r"^_?f:", text, re.MULTILINE), name


@pytest.mark.parametrize("cpu", ["neoverse-n1", "skylake-avx512", "haswell", "sandybridge"])
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exp", "expm1", "log", "softplus", "erf"])
def test_the_common_functions_call_nothing(name, cpu):
    module, machine = write(name, cpu, FLOAT32)
    assert not re.search(r"\b(callq?|bl)\s", machine.emit_assembly(module))
