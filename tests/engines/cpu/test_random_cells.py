"""Random cells from the whole language, and random shapes: compiled loops and the eager engine agree.

A cell is drawn as a program: each instruction takes values that are there already, so that values are shared, across stages
too. ``CAROUSEL_TEST_NIGHTLY=1000`` runs as many of each instead of a few.
"""

import functools
import os
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from backward import packed
from builds import TRANSFORMS
from carousel import graph as g
from carousel.cells import resolve_cell
from carousel.engines.cpu import engine
from carousel.engines.cpu import run as engine_run
from carousel.engines.cpu.programs import why_not
from carousel.engines.cpu.team import Team
from carousel.errors import ConfigError
from carousel.graph import Cell, Output
from cases import SMALL, random_given
from compiled import ALONE, Sides, assert_close, assert_same_bits, outcome, twins

NIGHTLY = int(os.environ.get("CAROUSEL_TEST_NIGHTLY") or 0)
# float64; deep random expressions cancel more than a cell from a paper does.
CLOSE = 1e-9

V, M, F, S = ("H",), ("N", "E"), ("N", "E", "E"), (1,)

ONE = {
    "sigmoid": g.sigmoid, "tanh": g.tanh, "sin": g.sin, "cos": g.cos, "erf": g.erf, "softplus": g.softplus, "silu": g.silu,
    "gelu": g.gelu, "square": lambda a: g.tanh(a) ** 2, "exp": lambda a: g.exp(g.tanh(a)),
    "log": lambda a: g.log(1.5 + g.tanh(a)), "sqrt": lambda a: g.sqrt(1 + a * a), "power": lambda a: (2 + g.sin(a)) ** -1.5,
    "expm1": lambda a: g.expm1(-g.softplus(a)),
    "negative": lambda a: -a, "one minus": lambda a: 1 - a, "relu": g.relu, "abs": abs, "elu": g.elu, "softsign": g.softsign,
    "clamp": lambda a: g.clamp(a, -0.4, 0.6), "leaky": g.leaky_relu, "sign": g.sign, "stop": g.stop_gradient,
    "remainder": lambda a: g.remainder(a, 0.7), "hard": g.hard_sigmoid, "size": lambda a: a / g.size("H"),
}  # fmt: skip
TWO = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / (1.5 + b * b),
    "maximum": g.maximum, "minimum": g.minimum, "where": lambda a, b: g.where(g.greater(a, b), a, 0.5 * b),
}  # fmt: skip
ALONG = {
    "mean": g.mean, "sum": lambda a, axis: 0.3 * g.sum(a, axis), "max": g.max, "softmax": g.softmax, "logsumexp": g.logsumexp,
    "cumsum": lambda a, axis: 0.3 * g.cumsum(a, axis), "centre": lambda a, axis: a - g.mean(a, axis),
    "norm": lambda a, axis: a / g.sqrt(g.mean(a * a, axis) + 0.1),
}  # fmt: skip
#: What an instruction makes from what, beyond element-wise functions of any shape: the result's shape and the arguments'.
SHAPED = {
    "dense": (V, [V]), "again": (V, [V]), "input": (V, []), "affine": (V, [V, V]), "computed": (V, [V]), "one": (S, []),
    "vector": (V, []), "matrix": (M, []), "time": (S, []), "number": (S, []), "noise": (V, []), "head noise": (M, []),
    "sequence noise": (V, []), "cut": (M, [V]), "join": (V, [M]), "blocks": (M, [M]), "outer": (F, [M, M]),
    "matvec": (M, [F, M]), "vecmat": (M, [M, F]), "narrow": (S, [V]), "wide": (V, [S]),
}  # fmt: skip
WORDS = sorted([*ONE, *TWO, *ALONG, *SHAPED] + 2 * list(SHAPED))
instruction = st.tuples(st.sampled_from(WORDS), st.integers(0, 9), st.integers(0, 9))


class Drawn:
    """Builds one step from instructions."""

    def __init__(self, cell: Cell, x, values) -> None:
        self.cell, self.x = cell, x
        self.values = {shape: [] for shape in (V, M, F, S)}
        for value in values:
            self.put(value)
        self.count = 0

    def put(self, value) -> None:
        self.values[value.shape].append(value)

    def take(self, shape, index):
        """The values made last come first."""
        there = self.values[shape]
        return there[-1 - index % len(there)]

    def name(self) -> str:
        self.count += 1
        return f"q{self.count}"

    def add(self, word, i, j) -> None:
        """One instruction."""
        if word in SHAPED:
            _, needs = SHAPED[word]
            self.put(self.shaped(word, [self.take(shape, k) for shape, k in zip(needs, (i, j), strict=False)]))
            return
        shape = [V, M, F, V, S][i % 5] if j % 2 else V
        if word in ALONG:
            shape = shape if shape != S else V
            value = self.take(shape, j)
            axis = shape[i % len(shape)]
            made = ALONG[word](value, axis if shape.count(axis) == 1 else None)
            self.put(made if made.shape in self.values else made + 0.0 * value)  # a sum is spread again
        elif word in ONE:
            self.put(ONE[word](self.take(shape, j)))
        else:
            a, b = self.take(shape, i), self.take(S if i == 7 and shape == V else shape, j)
            self.put(TWO[word](a, b))

    def shaped(self, word, args):
        cell = self.cell
        match word:
            case "dense":
                return cell.dense(self.name(), args[0])
            case "again":  # the same matrix each time
                return g.product(cell.parameter("A", ("H", "H")), args[0])
            case "input":
                return cell.dense(self.name(), self.x)
            case "affine":
                return cell.affine(self.name(), self.x, *args)
            case "computed":
                return g.product(g.tanh(cell.parameter(self.name(), ("H", "H"))), args[0])
            case "one":
                return cell.parameter(self.name(), S)
            case "vector":
                return cell.vector(self.name())
            case "matrix":
                return cell.parameter(self.name(), M)
            case "time":
                return 0.1 * cell.time()
            case "number":
                return 0.7 + 0.0 * cell.parameter("number", S)
            case "noise":
                return cell.noise(self.name(), V)
            case "head noise":
                return cell.noise(self.name(), M)
            case "sequence noise":
                return cell.noise(self.name(), V, per="sequence")
            case "cut":
                return g.reshape(args[0], "N", "E")
            case "join":
                return g.reshape(args[0], "H")
            case "blocks":
                return cell.blocks(self.name(), args[0])
            case "outer":
                return 0.3 * g.outer(*args)
            case "matvec":
                return 0.3 * g.matvec(*args)
            case "vecmat":
                return 0.3 * g.vecmat(*args)
            case "narrow":
                return g.sum(args[0]) / g.size("H")
            case "wide":
                return args[0] + 0.0 * cell.vector("wide")
        raise AssertionError(word)


def cell_of(program, ends):
    """A cell with states (h, c, C, m), a context k, and these instructions; `ends` choose what goes where."""

    class Random(Cell):
        state = ("h", "c", "C", "m")
        shapes = {"C": F, "m": S}  # noqa: RUF012 - a plain table, as in the package
        context = ("k",)

        def sizes(self, input_size, hidden_size):
            return {"I": input_size, "H": hidden_size, "N": 2, "E": hidden_size // 2}

        def step(self, x, h, c, C, m, k):
            drawn = Drawn(self, x, [k, c, h, C, m, g.reshape(h, "N", "E")])
            for word, i, j in program:
                drawn.add(word, i, j)
            vector, matrix, one = (drawn.take(shape, end) for shape, end in zip((V, F, S), ends, strict=False))
            new_h = g.tanh(vector) * self.vector("gain") + 0.1 * h
            new_c = 0.5 * g.sin(drawn.take(V, ends[3])) + 0.3 * c if ends[3] < 8 else h  # the plain old state, too
            new_C = 0.4 * g.tanh(matrix) + 0.4 * C
            return Output(drawn.take(V, ends[4]) + new_h), new_h, new_c, new_C, 0.5 * g.tanh(one) + 0.3 * m

    return Random()


@dataclass(frozen=True)
class Drawing:
    """What `packed` wants to know of a cell."""

    cell: Cell
    sizes: tuple = field(default=(3, 4))


def settings_for(count):
    """`count` examples, or as many as the environment says."""
    ignored = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=NIGHTLY or count, suppress_health_check=ignored)


PARAMETERS_ONLY = [
    ("join", 1, 1), ("number", 2, 2), ("wide", 2, 0), ("elu", 8, 8), ("abs", 6, 6), ("computed", 9, 6), ("where", 2, 4),
    ("join", 8, 5), ("dense", 3, 8),
]  # fmt: skip
PATTERNS = [((4, 3, 3, 1), 5), ((3, 3, 3), 3), ((1,), 2), ((9, 9, 2), 9)]


@settings_for(40)
@given(
    program=st.lists(instruction, min_size=1, max_size=14),
    ends=st.tuples(*[st.integers(0, 9)] * 5),
    transform=st.sampled_from([None, None, *TRANSFORMS]),
    hidden=st.sampled_from([2, 6, 8, 18, 34]),
    pattern=st.sampled_from(PATTERNS),
    reverse=st.booleans(),
    team=st.builds(Team, st.integers(2, 3), st.booleans()),
    seed=st.integers(0, 2**20),
)
# Noise that is kept for the way back, and a matrix made of parameters times a vector of parameters alone.
@example([("noise", 9, 5), ("maximum", 9, 0)], (7, 8, 0, 5, 9), None, 6, PATTERNS[1], False, Team(3, columns=True), 1)
@example(PARAMETERS_ONLY, (3, 7, 9, 8, 8), None, 6, PATTERNS[1], False, Team(2, columns=False), 1)
def test_random_cells(program, ends, transform, hidden, pattern, reverse, team, seed):
    torch.manual_seed(seed)
    cell = Drawing(cell_of(program, ends), (3, hidden))
    try:
        run = packed(cell, (TRANSFORMS[transform],) if transform else (), batch_sizes=pattern[0], batch=pattern[1])
    except ConfigError:  # the transform has nothing to act on
        run = packed(cell, batch_sizes=pattern[0], batch=pattern[1])
    assert why_not(run.step) is None
    sides = Sides(run.step)
    expected, known = sides.eager_results(run, reverse=reverse)
    assume(all(value.isfinite().all() and (not value.numel() or value.abs().max() < 1e6) for value in expected.values()))
    alone = sides.compiled_results(run, known, reverse=reverse, team=ALONE)
    assert_close(alone, expected, CLOSE)
    assert_same_bits(sides.compiled_results(run, known, reverse=reverse, team=team), alone)


@settings_for(60)
@given(
    name=st.sampled_from(["lstm", "gru", "indrnn", "layer_norm_lstm", "lstmp", "attention_gru"]),
    hidden=st.integers(1, 70),
    inputs=st.integers(1, 40),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    longest=st.integers(0, 9),
    dense=st.booleans(),
    build=st.sampled_from([{}, {}, {"reverse": True}, {"bidirectional": True}, {"num_layers": 2}]),
    team=st.builds(Team, st.integers(1, 3), st.booleans()),
    seed=st.integers(0, 2**20),
)
def test_random_shapes(name, hidden, inputs, lengths, longest, dense, build, team, seed):
    torch.manual_seed(seed)
    if name in ("lstmp", "attention_gru"):  # their other sizes are options, which stay
        hidden = max(hidden, 3)
    if name == "attention_gru":
        build = {k: v for k, v in build.items() if k != "num_layers"}  # several inputs
    steps = max([longest, *lengths])
    layer, eager = twins(
        resolve_cell(name, SMALL.get(name)), inputs, hidden, scale=min(0.6, 2 / (inputs + hidden) ** 0.5), **build
    )
    values = random_given(eager, steps, len(lengths))
    counts = None if dense else torch.tensor(lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_together", functools.partial(engine_run.run_together, team=team))
        found = outcome(layer, values, counts)
    assert_close(found, outcome(eager, values, counts), CLOSE)
