"""Every function and reduction of the language against torch's own: values and derivatives, at 0, far out, inf and NaN."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.autograd import gradcheck, gradgradcheck

from carousel import graph as g
from carousel.graph import ACTIVATIONS, Cell
from carousel.graph.kinds import FUNCTIONS, Function, register
from carousel.graph.symbol import Symbol
from interpreter import Call, naive_backward, naive_forward

INF, NAN = math.inf, math.nan
NUMBERS = [0.0, -0.0, 0.3, -0.7, 1.0, -1.0, 2.5, -3.0, 3.0, 6.0, 20.5, -40.0, 700.0, -700.0, 1e30, -1e30, INF, -INF, NAN]
POSITIVE = [0.0, 1e-300, 0.3, 1.0, 2.5, 700.0, 1e30, INF, NAN]
# float64: a handful of roundings on each side; the measured worst is gelu's tail, where 1 + erf cancels.
CLOSE = {"rtol": 1e-12, "atol": 1e-14, "equal_nan": True}


def as_torch(x):
    return torch.tensor(x, dtype=torch.float64)


# Ours, torch's, where to compare values, where to compare derivatives.
ONE = {
    "sigmoid": (g.sigmoid, torch.sigmoid, NUMBERS),
    "tanh": (g.tanh, torch.tanh, NUMBERS),
    "relu": (g.relu, torch.relu, NUMBERS),
    "exp": (g.exp, torch.exp, NUMBERS),
    "expm1": (g.expm1, torch.expm1, NUMBERS),
    "log": (g.log, torch.log, POSITIVE),
    "sqrt": (g.sqrt, torch.sqrt, POSITIVE),
    "sin": (g.sin, torch.sin, NUMBERS),
    "cos": (g.cos, torch.cos, NUMBERS),
    "erf": (g.erf, torch.erf, NUMBERS),
    "softplus": (g.softplus, lambda x: F.softplus(x, threshold=1e4), NUMBERS),
    "abs": (abs, torch.abs, NUMBERS),
    "neg": (lambda x: -x, torch.neg, NUMBERS),
    "sign": (g.sign, torch.sign, NUMBERS),
    "stop_gradient": (g.stop_gradient, torch.detach, NUMBERS),
    "silu": (g.silu, F.silu, NUMBERS),
    "gelu": (g.gelu, F.gelu, [x for x in NUMBERS if not math.isinf(x)]),
    "elu": (g.elu, F.elu, NUMBERS),
    "elu 0.5": (lambda x: g.elu(x, 0.5), lambda x: F.elu(x, 0.5), NUMBERS),
    "leaky_relu": (g.leaky_relu, F.leaky_relu, NUMBERS),
    "leaky_relu 0.2": (lambda x: g.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2), NUMBERS),
    # torch's hardsigmoid multiplies by a float32 sixth in its derivative and has no second one.
    "hard_sigmoid": (g.hard_sigmoid, lambda x: F.relu6(x + 3) / 6, NUMBERS),
    "hard_tanh": (g.hard_tanh, F.hardtanh, NUMBERS),
    "softsign": (g.softsign, F.softsign, NUMBERS),
    "clamp": (lambda x: g.clamp(x, -0.5, 2.0), lambda x: x.clamp(-0.5, 2.0), NUMBERS),
    "square": (lambda x: x**2, lambda x: x**2, NUMBERS),
    "cube": (lambda x: x**3, lambda x: x**3, NUMBERS),
    "power 1.5": (lambda x: x**1.5, lambda x: x**1.5, POSITIVE),
    "power -0.5": (lambda x: x**-0.5, lambda x: x**-0.5, POSITIVE),
    "power -1": (lambda x: x**-1, lambda x: x**-1, NUMBERS),
    "power 1": (lambda x: x**1, lambda x: x**1, NUMBERS),
    "power 0.5": (lambda x: x**0.5, lambda x: x**0.5, POSITIVE),
    "reciprocal": (lambda x: 1 / x, lambda x: 1 / x, NUMBERS),
    "from one": (lambda x: 1 - x, lambda x: 1 - x, NUMBERS),
    "affine": (lambda x: 2 * x + 0.5, lambda x: 2 * x + 0.5, NUMBERS),
}
# A kink: torch picks a side (hardtanh 0, clamp 1), we share a tie as torch.maximum does. Slopes are compared beside it.
KINKS = {"hard_sigmoid": (-3.0, 3.0), "hard_tanh": (-1.0, 1.0), "clamp": (-0.5, 2.0)}

TWO = {
    "add": (lambda a, b: a + b, torch.add),
    "sub": (lambda a, b: a - b, torch.sub),
    "mul": (lambda a, b: a * b, torch.mul),
    "div": (lambda a, b: a / b, torch.div),
    "maximum": (g.maximum, torch.maximum),
    "minimum": (g.minimum, torch.minimum),
    "greater": (g.greater, lambda a, b: (a > b).to(a)),
    "equal": (g.equal, lambda a, b: (a == b).to(a)),
    "where": (lambda a, b: g.where(g.greater(a, b), a * a, b), lambda a, b: torch.where(a > b, a * a, b)),
}

ALONG = {
    "sum": (g.sum, lambda x, d: x.sum(d, keepdim=True)),
    "mean": (g.mean, lambda x, d: x.mean(d, keepdim=True)),
    "max": (g.max, lambda x, d: x.amax(d, keepdim=True)),
    "softmax": (g.softmax, lambda x, d: x.softmax(d)),
    "logsumexp": (g.logsumexp, lambda x, d: x.logsumexp(d, keepdim=True)),
    "cumsum": (g.cumsum, lambda x, d: x.cumsum(d)),
}


def step_of(function, count, shape=("H",)):
    """`function` as the new state of a cell whose states are its arguments."""
    names = ("a", "b")[:count]

    class Applied(Cell):
        state = names
        inputs = ()
        shapes = dict.fromkeys(names, shape)

        def step(self, *values):
            return g.Output(function(*values)), *values

    return Applied().graph


def call_of(values, shape):
    """One step of a cell whose states are these values, (B, ...), and which has nothing else."""
    states = dict(zip("ab", values, strict=False))
    sizes = dict(zip(shape, values[0].shape[1:], strict=True))
    return Call({}, states, {}, sizes, (1, len(values[0])), None, {n: torch.zeros_like(v) for n, v in states.items()})


def ours(function, *values, shape=("H",)):
    """Value, and the derived derivative in a given direction, by the naive interpreter: no autograd anywhere."""
    step, call = step_of(function, len(values), shape), call_of(values, shape)
    value, _, steps = naive_forward(step, call)

    def derivative(direction):
        call.d_output = direction[None]
        _, found, *_ = naive_backward(step, call, steps)
        return list(found.values())

    return value[0], derivative


def theirs(function, *values):
    values = [value.clone().requires_grad_() for value in values]
    value = function(*values)

    def derivative(direction):
        if not value.requires_grad:
            return [torch.zeros_like(v) for v in values]
        found = torch.autograd.grad(value, values, direction, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(v) if part is None else part for v, part in zip(values, found, strict=True)]

    return value.detach(), derivative


def eager(function, *values, shape=("H",)):
    """Value by the eager forms, differentiated by autograd."""
    return naive_forward(step_of(function, len(values), shape), call_of(values, shape))[0][0]


def compare(mine, yours, *values, shape=("H",), skip=None):
    value, derivative = ours(mine, *values, shape=shape)
    expected, their_derivative = theirs(yours, *values)
    torch.testing.assert_close(value, expected, **CLOSE)
    direction = torch.ones_like(expected)
    by_graph = derivative(direction)
    by_autograd = theirs(lambda *v: eager(mine, *v, shape=shape), *values)[1](direction)
    for found in (by_graph, by_autograd):
        for one, two in zip(found, their_derivative(direction), strict=True):
            keep = torch.ones_like(two, dtype=torch.bool) if skip is None else ~skip
            torch.testing.assert_close(one[keep], two[keep], **CLOSE)


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one(name):
    mine, yours, numbers = ONE[name]
    x = as_torch(numbers)[None]
    kinks = as_torch(list(KINKS.get(name, ())))
    # Where torch's value is not finite its derivative is a matter of convention (0 * inf): values are compared, slopes not.
    skip = torch.isin(x, kinks) | ~torch.isfinite(yours(x)) | ~torch.isfinite(x)
    compare(mine, yours, x, skip=skip)


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two(name):
    mine, yours = TWO[name]
    numbers = as_torch([0.0, 0.3, -0.7, 2.5, -3.0, 1e30, INF, -INF, NAN])
    a, b = numbers.repeat_interleave(len(numbers))[None], numbers.repeat(len(numbers))[None]
    skip = ~torch.isfinite(yours(a, b)) | ~torch.isfinite(a) | ~torch.isfinite(b)
    compare(mine, yours, a, b, skip=skip)


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize(
    ("shape", "axis", "place"), [(("H",), None, -1), (("N", "E"), None, -1), (("N", "E"), "N", -2), (("N", "E"), "E", -1)]
)
def test_reductions(name, shape, axis, place):
    mine, yours = ALONG[name]
    values = torch.randn(6, *range(3, 3 + len(shape)), dtype=torch.float64)
    values[1] = 0.0  # ties everywhere
    values[2] *= 1e3
    values[3] = values[3].sign() * 700.0  # exp overflows unless the largest is taken out
    extreme = values.clone()
    extreme[4].view(-1)[0], extreme[5].view(-1)[-1] = INF, NAN
    step_value, _ = ours(lambda x: mine(x, axis), extreme, shape=shape)
    torch.testing.assert_close(step_value, yours(extreme, place), **CLOSE)
    compare(lambda x: mine(x, axis), lambda x: yours(x, place), values, shape=shape)
    small = torch.randn(2, *range(2, 2 + len(shape)), dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: eager(lambda s: mine(s, axis), x, shape=shape), small)
    assert gradgradcheck(lambda x: eager(lambda s: mine(s, axis), x, shape=shape), small)


@pytest.mark.parametrize("name", [n for n in ONE if n not in ("stop_gradient", "sign")])
def test_second_derivatives_of_functions_of_one(name):
    mine, yours, numbers = ONE[name]
    at_zero = {0.0} if name.startswith(("sqrt", "power", "elu")) else set()  # infinite there, or a jump
    edges = {-3.0, -1.0, -0.5, 0.0, 1.0, 2.0, 3.0} if name in KINKS else at_zero
    x = as_torch([n for n in numbers if abs(n) < 50 and n not in edges and n != 1e-300])[None]

    def second(function):
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(function(leaf).sum(), leaf, create_graph=True)
        if not first.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(first.sum(), leaf, allow_unused=True)
        return torch.zeros_like(x) if found is None else found

    expected = second(yours)
    keep = torch.isfinite(expected)
    torch.testing.assert_close(second(lambda v: eager(mine, v))[keep], expected[keep], **CLOSE)


def test_a_condition_that_is_not_zero_or_one_has_the_gradient_of_what_it_chose():
    a, b = as_torch([0.5, -2.0, 0.0, 3.0])[None], as_torch([1.0, 2.0, 3.0, 4.0])[None]
    compare(lambda a, b: g.where(a, b, 2 * b), lambda a, b: torch.where(a != 0, b, 2 * b), a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_choice_between_numbers_has_the_dtype_of_what_it_was_chosen_by(dtype):
    value = eager(lambda x: g.where(g.greater(x, 0.0), 0.1, 0.3), torch.ones(1, 2, dtype=dtype))
    assert value.dtype == dtype
    assert torch.equal(value, torch.full((1, 2), 0.1, dtype=dtype))


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_functions_keep_the_dtype(name, dtype):
    assert eager(ONE[name][0], torch.ones(1, 2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("name", TWO)
def test_functions_of_a_symbol_and_a_number(name):
    mine, yours = TWO[name]
    x = as_torch([0.3, -0.7, 2.5])[None]
    two = torch.full_like(x, 2.0)
    compare(lambda a: mine(a, 2.0), lambda a: yours(a, two), x)
    compare(lambda a: mine(2.0, a), lambda a: yours(two, a), x)


def test_values_stretch_over_axes_of_one():
    x = torch.randn(3, 4, dtype=torch.float64)
    compare(lambda a: a * g.sum(a) + g.max(a), lambda a: a * a.sum(-1, keepdim=True) + a.amax(-1, keepdim=True), x)


def test_remainder_follows_its_first_argument_only():
    a, b = as_torch([5.5, -5.5, 0.0, 7.0])[None], as_torch([2.0, 2.0, 3.0, -4.0])[None]
    compare(lambda x: g.remainder(x, 2.0), lambda x: torch.remainder(x, 2.0), a)
    value, derivative = ours(g.remainder, a, b)
    assert torch.equal(value, torch.remainder(a, b))
    assert torch.equal(derivative(torch.ones_like(a))[0], torch.ones_like(a))


LAYOUTS = {
    "outer": (g.outer, lambda a, b: a[..., :, None] * b[..., None, :], (("E",), ("F",))),
    "matvec": (g.matvec, lambda m, v: torch.einsum("bef,bf->be", m, v), (("E", "F"), ("F",))),
    "vecmat": (g.vecmat, lambda v, m: torch.einsum("be,bef->bf", v, m), (("E",), ("E", "F"))),
    "reshape": (lambda x: g.reshape(x, "F", "E"), lambda x: x.reshape(-1, 3, 2), (("E", "F"),)),
    "heads": (g.matvec, lambda m, v: torch.einsum("bnef,bnf->bne", m, v), (("N", "E", "F"), ("N", "F"))),
    "heads outer": (g.outer, lambda a, b: torch.einsum("bne,bnf->bnef", a, b), (("N", "E"), ("N", "F"))),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_products_and_layouts_of_rows(name):
    mine, yours, shapes = LAYOUTS[name]
    sizes = {"E": 2, "F": 3, "N": 4}
    values = [torch.randn(5, *(sizes[a] for a in shape), dtype=torch.float64) for shape in shapes]

    class Applied(Cell):
        state = ("a", "b")[: len(shapes)]
        inputs = ()

        def step(self, *states):
            return g.Output(mine(*states)), *states

    Applied.shapes = dict(zip("ab", shapes, strict=False))
    step, states = Applied().graph, dict(zip("ab", values, strict=False))
    call = Call({}, states, {}, sizes, (1, 5), None, {n: torch.zeros_like(v) for n, v in states.items()})
    value, _, steps = naive_forward(step, call)
    expected, derivative = theirs(yours, *values)
    torch.testing.assert_close(value[0], expected, **CLOSE)
    direction = torch.randn_like(expected)
    call.d_output = direction[None]
    _, found, *_ = naive_backward(step, call, steps)
    for one, two in zip(found.values(), derivative(direction), strict=True):
        torch.testing.assert_close(one, two, **CLOSE)


def test_every_function_and_activation_is_compared_here():
    tested = {name.split()[0] for name in (*ONE, *TWO, *ALONG, *LAYOUTS)} | {"identity", "power", "remainder"}
    tested |= {"product"}  # a learned matrix: in tests/graph/test_differentiate.py, by ClockworkRNN
    public = {name for name in g.__all__ if inspect.isfunction(getattr(g, name)) and takes_symbols(getattr(g, name))}
    assert public <= tested
    assert set(ACTIVATIONS) <= tested
    assert {name for name in FUNCTIONS if not name.startswith("test_")} <= tested


def takes_symbols(function):
    return any("Symbol" in str(p.annotation) for p in inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_run_in_a_layer(name):
    from cases import random_layer

    layer = random_layer(g_cell(name), 3, 4)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    layer(x)[0].sum().backward()
    assert torch.isfinite(x.grad).all()


def g_cell(name):
    class Unit(Cell):
        def step(self, x, h):
            return g.activation(name)(self.affine("h", x, h))

    return Unit


def test_a_function_of_ones_own():
    if "test_cosh" not in FUNCTIONS:
        register(
            Function(
                "test_cosh",
                lambda a, y, d, s: (d * (g.exp(a[0]) - g.exp(-a[0])) / 2,),
                lambda torch, a, s: torch.cosh(a[0]),
            )
        )
    from carousel.graph.kinds import Elementwise

    def cosh(x: Symbol) -> Symbol:
        return x.builder.apply(Elementwise("test_cosh"), x)

    compare(cosh, torch.cosh, as_torch([-2.0, 0.0, 0.5])[None])


def test_a_functions_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'tanh' exists already"):
        register(FUNCTIONS["tanh"])
