"""Each form of a pass over a row, run alone: against NumPy in float64, at sizes around whole vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from carousel.engines.cpu.passes import Piece
from carousel.engines.cpu.team import Team
from carousel.graph import cumsum, maximum, reshape, sigmoid, sqrt, tanh
from carousel.graph import max as largest
from carousel.graph import mean as mean_of
from carousel.graph import sum as sum_of
from carousel.graph.kinds import CumulativeSum, Noise, Role
from carousel.graph.kinds.base import Eager
from carousel.graph.kinds.reductions import Stretch
from carousel.graph.shapes import concrete
from loops import SIZES, execute, loop_of, looped, of_function

WIDTHS = [1, 2, 15, 16, 17, 33]
# Relative to 1 + the largest number: 5e-7 and 4e-16 were measured, of a sum of 165 terms.
CLOSE = {torch.float32: 4e-6, torch.float64: 1e-14}
VECTOR, MATRIX, CUBE = ("H",), ("E", "H"), ("N", "E", "H")
TALL = ("H", "E")


def total(axis):
    return lambda x: x.sum(axis, keepdims=True)


#: By name: the state's shape, the function in symbols, the function of an array (B, *shape) in NumPy, the form it must take.
PASSES = {
    "element-wise": (VECTOR, lambda h: tanh(h) * 2 + 1, lambda x: np.tanh(x) * 2 + 1, Piece.NEST),
    "element-wise over two axes": (MATRIX, lambda h: h * h - 0.5, lambda x: x * x - 0.5, Piece.NEST),
    "element-wise over three axes": (CUBE, lambda h: sigmoid(h), lambda x: 1 / (1 + np.exp(-x)), Piece.NEST),
    "sum of a vector": (VECTOR, lambda h: sum_of(h), total(-1), Piece.NEST),
    "largest of a vector": (VECTOR, lambda h: largest(h), lambda x: x.max(-1, keepdims=True), Piece.NEST),
    "two sums at once": (VECTOR, lambda h: sum_of(h) * sum_of(h * h), lambda x: total(-1)(x) * total(-1)(x * x), Piece.NEST),
    "sum along the inner axis": (MATRIX, lambda h: sum_of(h, "H"), total(-1), Piece.NEST),
    "largest along the inner axis": (CUBE, lambda h: largest(h, "H"), lambda x: x.max(-1, keepdims=True), Piece.NEST),
    "sum along the outer axis": (MATRIX, lambda h: sum_of(h, "E"), total(-2), Piece.ACROSS),
    "sum along the outermost of three": (CUBE, lambda h: sum_of(h * h, "N"), lambda x: total(-3)(x * x), Piece.ACROSS),
    "sum along the middle of three": (CUBE, lambda h: sum_of(h, "E"), total(-2), Piece.ACROSS),
    "largest along the outer axis": (TALL, lambda h: largest(h, "H"), lambda x: x.max(-2, keepdims=True), Piece.ACROSS),
    "a sum of sums": (MATRIX, lambda h: sum_of(sum_of(h, "E"), "H"), lambda x: total(-1)(total(-2)(x)), Piece.NEST),
    "centred": (VECTOR, lambda h: h - mean_of(h), lambda x: x - x.mean(-1, keepdims=True), Piece.NEST),
    "centred along the outer axis": (
        MATRIX,
        lambda h: h - mean_of(h, "E"),
        lambda x: x - x.mean(-2, keepdims=True),
        Piece.NEST,
    ),
    "normed": (
        VECTOR,
        lambda h: h / sqrt(sum_of(h * h) + 1e-5),
        lambda x: x / np.sqrt(total(-1)(x * x) + 1e-5),
        Piece.SCALARS,
    ),
    "running sum": (VECTOR, lambda h: cumsum(h), lambda x: x.cumsum(-1), Piece.SCAN),
    "running sum from the end": (
        VECTOR,
        lambda h: h.builder.apply(CumulativeSum("H", -1, reverse=True), h),
        lambda x: x[..., ::-1].cumsum(-1)[..., ::-1],
        Piece.SCAN,
    ),
    "running sum from the end of the outer axis": (
        MATRIX,
        lambda h: h.builder.apply(CumulativeSum("E", -2, reverse=True), h),
        lambda x: x[:, ::-1].cumsum(-2)[:, ::-1],
        Piece.SCAN,
    ),
    "running sum along the outer axis": (MATRIX, lambda h: cumsum(h, "E"), lambda x: x.cumsum(-2), Piece.SCAN),
    "running sum of what is computed": (
        MATRIX,
        lambda h: tanh(cumsum(h * h)),
        lambda x: np.tanh((x * x).cumsum(-1)),
        Piece.SCAN,
    ),
    "against its largest": (
        VECTOR,
        lambda h: maximum(h, 0.5 * largest(h)),
        lambda x: np.maximum(x, 0.5 * x.max(-1, keepdims=True)),
        Piece.NEST,
    ),
}


def rows(shape, width, batch=3, seed=0):
    sizes = {**SIZES, "H": width}
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, *concrete(shape, sizes))))


def close(got, wanted, dtype):
    wanted = torch.from_numpy(np.array(wanted, order="C", copy=True))
    assert got.shape == wanted.shape
    assert torch.allclose(got.double(), wanted, rtol=0, atol=CLOSE[dtype] * (1 + wanted.abs().max().item()))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_equals_numpy(name, dtype):
    shape, function, oracle, piece = PASSES[name]
    program = of_function(function, shape)
    assert piece in {pass_.piece for phase in loop_of(program).phases for pass_ in phase.passes}
    for width in WIDTHS:
        h = rows(shape, width).to(dtype)
        run = execute(program, {"h": h}, (3,), {"H": width}, dtype=dtype)
        close(run.emitted["y"], oracle(h.double().numpy()), dtype)
        assert torch.equal(run.carried["h"], h)


def test_infinities_and_nan_come_through_the_largest():
    program = of_function(lambda h: largest(h))
    h = rows(VECTOR, 33, batch=4)
    h[0], h[1, 5], h[2, 32], h[3, 0] = -torch.inf, torch.inf, torch.nan, torch.nan
    got = execute(program, {"h": h}, (4,), {"H": 33}).emitted["y"][:, 0]
    assert got[:2].tolist() == [-np.inf, np.inf]
    assert torch.isnan(got[2:]).all()


def test_a_view_is_read_with_its_own_axes():
    """(N·E) seen as (N, E), summed along either axis, and seen as a vector again."""

    def step(h):
        heads = reshape(h, "N", "E")
        return {"h": h}, {
            "sum": sum_of(heads, "E"),
            "across": sum_of(tanh(heads), "N"),
            "back": reshape(tanh(heads) * sum_of(heads, "N"), "H"),
        }

    for n, e in [(3, 5), (2, 16), (5, 17), (1, 7), (7, 1)]:
        h = rows(VECTOR, n * e)
        run = execute(looped(step), {"h": h}, (3,), {"H": n * e, "N": n, "E": e})
        heads = h.numpy().reshape(3, n, e)
        close(run.emitted["sum"], heads.sum(2, keepdims=True), torch.float64)
        close(run.emitted["across"], np.tanh(heads).sum(1, keepdims=True), torch.float64)
        back = (np.tanh(heads) * heads.sum(1, keepdims=True)).reshape(3, n * e)
        close(run.emitted["back"], back, torch.float64)


def test_single_numbers_are_states_and_are_emitted():
    """A number for each row, carried from step to step, stored, and kept of all steps."""

    def step(h, n):
        new = 0.5 * n + mean_of(h)
        return {"h": tanh(h + new), "n": new}, {"n": new, "twice": 2 * new, "h": h * new}

    program = looped(step, states={"h": VECTOR, "n": (1,)})
    for width in WIDTHS:
        h, n = rows(VECTOR, width), rows((1,), width, seed=1)
        run = execute(program, {"h": h, "n": n}, (3, 2), {"H": width})
        at, count, wanted = h.numpy().copy(), n.numpy().copy(), []
        for size in (3, 2):
            count[:size] = 0.5 * count[:size] + at[:size].mean(1, keepdims=True)
            wanted.append(count[:size].copy())
            at[:size] = np.tanh(at[:size] + count[:size])
        close(run.emitted["n"], np.concatenate(wanted), torch.float64)
        close(run.emitted["twice"], 2 * np.concatenate(wanted), torch.float64)
        close(run.carried["h"], at, torch.float64)
        close(run.carried["n"], count, torch.float64)


def test_values_of_every_place_meet():
    """An input of the step, a context of the row, a parameter, single ones of each, and the whole numbers of step and row."""

    def step(h, x, one, c, w, number, time, row):
        return {"h": tanh(h)}, {"y": h + x * c + w * one + number + Number_(time) * h + Number_(row)}

    def Number_(symbol):  # noqa: N802 - as the kind
        from carousel.graph.kinds import Number

        return symbol.builder.apply(Number(), symbol)

    program = looped(
        step,
        inputs={"x": VECTOR, "one": (1,)},
        context={"c": VECTOR},
        parameters={"w": VECTOR, "number": (1,)},
        ambient=(Role.TIME, Role.ROW),
    )
    for width in (1, 16, 17):
        wide, single = (rows((axis,), width, batch=5, seed=i) for i, axis in enumerate(("H", 1)))
        values = {"h": wide[:3], "x": wide * 2, "one": single, "c": wide[1:4], "w": wide[4], "number": single[3]}
        values |= {"time": torch.tensor([[0], [0], [0], [1], [1]]), "row": torch.tensor([[7], [0], [3]])}
        for reverse in (False, True):
            got = execute(program, values, (3, 2), {"H": width}, reverse=reverse)
            wanted = execute(program, values, (3, 2), {"H": width}, reverse=reverse, eager=True)
            close(got.emitted["y"], wanted.emitted["y"].numpy(), torch.float64)


def test_a_state_that_becomes_a_number_or_is_stretched():
    """What is handed on may be a constant, another state, or a value with fewer axes."""

    def step(h, c):
        return {"h": 0.25, "c": h.builder.apply(Stretch(("E", "H")), sum_of(c, "E"))}, {"y": h + 1}

    program = looped(step, states={"h": VECTOR, "c": MATRIX})
    for width in (1, 16, 33):
        h, c = rows(VECTOR, width), rows(MATRIX, width, seed=2)
        run = execute(program, {"h": h, "c": c}, (3,), {"H": width})
        assert torch.equal(run.carried["h"], torch.full_like(h, 0.25))
        close(run.carried["c"], np.broadcast_to(c.numpy().sum(1, keepdims=True), c.shape), torch.float64)


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize(("by_row", "by_step"), [(False, False), (True, False), (False, True), (True, True)])
def test_noise_has_the_bits_of_the_graph(by_row, by_step, dtype):
    """Drawn in the loop; by its definition, in integers."""
    roles = [Role.SEED] + [Role.ROW] * by_row + [Role.TIME] * by_step

    def step(h, seed, row=None, time=None):
        args = [symbol for symbol in (seed, row, time) if symbol is not None]
        noise, one = (h.builder.apply(Noise(stream, axes, by_row, by_step), *args) for stream, axes in ((7, MATRIX), (9, (1,))))
        return {"h": h + noise}, {"y": noise + 0 * h, "one": one + 0 * sum_of(reshape(h, "D"))}

    program = looped(step, states={"h": MATRIX}, ambient=roles)
    batch = (3, 2)
    seed, row, time = torch.tensor([2**31 + 5, 77]), torch.tensor([[4], [0], [2**31]]), torch.tensor([[0]] * 3 + [[1]] * 2)
    for width in (1, 3, 13, 16, 17):
        sizes = {**SIZES, "H": width, "D": 5 * width}
        values = {"h": torch.zeros(3, 5, width), "seed": seed, "row": row, "time": time}
        run = execute(program, values, batch, sizes, dtype=dtype)
        on = Eager(torch, sizes, dtype, 3, None)
        packed = [seed] + [torch.cat([row, row[:2]])] * by_row + [time] * by_step
        for name, kind in (("y", Noise(7, MATRIX, by_row, by_step)), ("one", Noise(9, (1,), by_row, by_step))):
            wanted = kind.eager(on, *packed)
            assert torch.equal(run.emitted[name].flatten(1), wanted.expand(5, *wanted.shape[-len(kind.axes) :]).flatten(1))


@settings(max_examples=25)
@given(
    width=st.integers(1, 70),
    batch=st.integers(1, 20),
    members=st.integers(1, 3),
    columns=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_width_batch_and_team(width, batch, members, columns, seed):
    """A norm over the row, a running sum and sums both ways in one step."""
    h = rows(MATRIX, width, batch, seed)
    run = execute(MIXED, {"h": h}, (batch,), {"H": width}, team=Team(members, columns))
    x = h.numpy()
    wanted = np.tanh(x - x.sum(2, keepdims=True) + (x * x).cumsum(-1)) / (1 + x.max(1, keepdims=True))
    close(run.emitted["y"] * (1 + h.amax(1, keepdim=True)), wanted * (1 + x.max(1, keepdims=True)), torch.float64)


MIXED = of_function(lambda h: tanh(h - sum_of(h, "H") + cumsum(h * h)) / (1 + largest(h, "E")), MATRIX)
