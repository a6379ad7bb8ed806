"""How parameters start: the distribution each initialiser promises, the same values for a seed, and mistakes."""

import math

import pytest
import torch

from carousel.errors import ConfigError, ShapeError
from carousel.graph import (
    INITIALISERS,
    chrono,
    constant,
    glorot,
    identity,
    initialiser,
    minus,
    normal,
    ones,
    orthogonal,
    uniform,
    zeros,
)

ERRORS = 5.0  # a mean of n draws is off by more standard errors than this once in 1.7 million


def filled(start, *shape, dtype=torch.float64, generator=None):
    tensor = torch.full(shape, float("nan"), dtype=dtype)
    assert start.fill(torch, tensor, generator) is None
    assert torch.isfinite(tensor).all()
    return tensor


def assert_uniform(values, low, high):
    """Bounds, mean, variance, and the four quarters."""
    values, width = values.flatten().double(), high - low
    count = values.numel()
    assert low <= values.min()
    assert values.max() <= high
    assert values.max() - values.min() > 0.98 * width
    assert abs(values.mean().item() - (low + high) / 2) <= ERRORS * width / math.sqrt(12 * count)
    quarters = torch.histc(values, bins=4, min=low, max=high) / count
    assert ((quarters - 0.25).abs() <= ERRORS * math.sqrt(3 / 16 / count)).all()


@pytest.mark.parametrize(("start", "value"), [(constant(2.5), 2.5), (zeros(), 0.0), (ones(), 1.0), (constant(-1), -1.0)])
def test_constants(start, value):
    assert (filled(start, 3, 4) == value).all()
    assert (filled(start, 5) == value).all()


def test_uniform_has_its_bound_or_torchs():
    assert_uniform(filled(uniform(0.3), 60, 50), -0.3, 0.3)
    assert_uniform(filled(uniform(), 64, 100), -1 / 8, 1 / 8)
    assert_uniform(filled(uniform(), 4096), -1 / 64, 1 / 64)


@pytest.mark.parametrize("std", [0.01, 2.0])
def test_normal_has_its_spread(std):
    values = filled(normal(std), 100, 80)
    count = values.numel()
    assert abs(values.mean().item()) <= ERRORS * std / math.sqrt(count)
    assert abs(values.std().item() - std) <= ERRORS * std / math.sqrt(2 * count)
    within = (values.abs() < std).double().mean().item()
    assert abs(within - 0.6827) <= ERRORS * math.sqrt(0.6827 * 0.3173 / count)


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((30, 90), 120), ((90, 30), 120), ((3, 30, 20), 50), ((8, 4, 5, 5), (8 + 4) * 25), ((2000,), 4000)],
)
def test_glorot_has_the_fans_of_one_gate(shape, fans):
    bound = math.sqrt(6 / fans)
    assert_uniform(filled(glorot(), *shape), -bound, bound)
    assert_uniform(filled(glorot(gain=2.0), *shape), -2 * bound, 2 * bound)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5), (3, 6, 6)])
@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_orthogonal_keeps_lengths(shape, gain):
    found = filled(orthogonal(gain), *shape)
    for matrix in found if found.dim() == 3 else [found]:
        short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        torch.testing.assert_close(short @ short.T, gain**2 * torch.eye(len(short), dtype=torch.float64), rtol=0, atol=1e-12)
    if found.dim() == 3:
        assert not torch.allclose(found[0], found[1])


def test_orthogonal_is_spread_over_all_rotations():
    """Of the Haar measure: each entry has mean 0 and variance 1/n, and both determinants come as often."""
    many = torch.stack([filled(orthogonal(), 4, 4) for _ in range(500)])
    assert (many.mean(0).abs() <= ERRORS * math.sqrt(1 / 4 / 500)).all()
    assert ((many.square().mean(0) - 0.25).abs() <= ERRORS * math.sqrt(0.04 / 500)).all()
    positive = (torch.linalg.det(many) > 0).double().mean().item()
    assert abs(positive - 0.5) <= ERRORS * 0.5 / math.sqrt(500)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("start", [orthogonal(), glorot(), uniform(), normal(), identity(), constant(0.5), chrono(9)])
def test_every_initialiser_fills_every_dtype(start, dtype):
    found = filled(start, 6, 6, dtype=dtype)
    assert found.dtype == dtype
    if isinstance(start, orthogonal):
        exact = found.double()
        torch.testing.assert_close(exact @ exact.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=0.02)


def test_identity_is_scaled():
    assert torch.equal(filled(identity(), 4, 4), torch.eye(4, dtype=torch.float64))
    assert torch.equal(filled(identity(0.01), 3, 3), 0.01 * torch.eye(3, dtype=torch.float64))


def test_chrono_is_the_logarithm_of_a_uniform_time():
    assert_uniform(filled(chrono(50), 5000).exp(), 1.0, 49.0)
    assert filled(chrono(2.5), 1000).max() <= math.log(1.5)


@pytest.mark.parametrize("longest", [2, 0, -3, float("nan")])
def test_chrono_needs_more_than_two_steps(longest):
    with pytest.raises(ConfigError, match=r"chrono.*more than 2 steps"):
        chrono(longest)


def test_minus_copies_the_negative_of_the_other():
    tensor, other = torch.empty(4), torch.randn(4)
    minus("b_f").copy(tensor, {"b_f": other, "b_i": tensor})
    assert torch.equal(tensor, -other)
    with pytest.raises(ConfigError, match=r"(?s)parameter 'b_g'.*Did you mean 'b_f'"):
        minus("b_g").copy(tensor, {"b_f": other})
    with pytest.raises(ShapeError, match=r"b_f.*\(5,\), not \(4,\)"):
        minus("b_f").copy(tensor, {"b_f": torch.zeros(5)})
    with pytest.raises(ConfigError, match="init= of a layer"):
        minus("b_f").fill(torch, tensor)


@pytest.mark.parametrize("start", [orthogonal(), glorot(), uniform(), normal(), chrono(9)], ids=str)
def test_the_same_seed_gives_the_same_values(start):
    torch.manual_seed(3)
    first, second = filled(start, 5, 5), filled(start, 5, 5)
    torch.manual_seed(3)
    assert torch.equal(filled(start, 5, 5), first)
    assert not torch.equal(second, first)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    own = [filled(start, 5, 5, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(own[0], own[1])
    assert torch.equal(torch.get_rng_state(), before)  # a generator of one's own leaves torch's alone


@pytest.mark.parametrize(
    ("start", "shape"), [(orthogonal(), (4,)), (orthogonal(), (2, 3, 3, 3)), (identity(), (3, 4)), (identity(), (4,))]
)
def test_shapes_that_do_not_fit(start, shape):
    name = type(start).__name__
    with pytest.raises(ShapeError, match=rf"{name}\(\) fills .*matrices; this parameter has shape"):
        start.fill(torch, torch.empty(shape))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)])
def test_nothing_to_fill_is_no_error(shape):
    for start in (glorot(), uniform(), normal(), constant(1.0), *([orthogonal()] if len(shape) == 2 else [])):
        start.fill(torch, torch.empty(shape))


def test_names_numbers_and_initialisers():
    assert initialiser("glorot") == glorot()
    assert initialiser("orthogonal") == orthogonal(1.0)
    assert initialiser("zeros") == constant(0.0)
    assert initialiser("ones") == constant(1.0)
    assert initialiser(2) == initialiser(2.0) == constant(2.0)
    assert initialiser(uniform(0.1)) == uniform(0.1)
    assert set(INITIALISERS) == {
        "chrono", "constant", "glorot", "identity", "normal", "ones", "orthogonal", "uniform", "zeros",
    }  # fmt: skip


def test_initialisers_compare_hash_and_print():
    assert orthogonal(2.0) == orthogonal(2.0) != orthogonal(1.0)
    assert len({glorot(), glorot(1.0), glorot(2.0)}) == 2
    assert repr(chrono(9)) == "chrono(longest=9)"
    assert eval(repr(identity(0.5)), {"identity": identity}) == identity(0.5)


@pytest.mark.parametrize(("given", "message"), [
    ("orthogonall", "Did you mean 'orthogonal'"),
    ("xyz", "one of chrono, constant"),
    (True, "unknown initialiser 'True'"),
    (None, "unknown initialiser 'None'"),
    ("constant", "needs its number.*1.0"),
    ("chrono", r"needs its number.*chrono\(T\)"),
])  # fmt: skip
def test_what_is_no_initialiser(given, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        initialiser(given)
