"""Each rule of lowering: only primitive kinds are left, with the values of the kinds' eager forms."""

import numpy as np
import pytest
import torch

from carousel.engines.cpu.functions import EMITTERS
from carousel.engines.cpu.lowering import PRIMITIVES, RULES, lower, unsupported
from carousel.graph import logsumexp, matvec, mean, outer, softmax, tanh, vecmat
from carousel.graph.kinds import Dense, Leaf, Role
from carousel.graph.kinds.base import Eager
from carousel.graph.kinds.elementwise import FUNCTIONS, Elementwise, Function, register
from carousel.graph.node import reachable
from carousel.graph.schedule import schedule
from carousel.graph.symbol import Builder
from loops import execute, looped

SIZES = {"H": 7, "N": 3, "E": 5, "F": 4}
# One rounding each of the same few operations, or of a sum in another order: 4e-16 was measured.
CLOSE = 1e-14

#: By name: the shapes of the arguments, and the value in symbols.
LOWERED = {
    "mean": ([("H",)], lambda a: mean(a)),
    "mean of the outer axis": ([("N", "H")], lambda a: mean(a, "N")),
    "softmax": ([("H",)], lambda a: softmax(a)),
    "softmax of the outer axis": ([("N", "H")], lambda a: softmax(a, "N")),
    "logsumexp": ([("H",)], lambda a: logsumexp(a)),
    "logsumexp of the middle axis": ([("N", "E", "H")], lambda a: logsumexp(a, "E")),
    "matrix of the row times vector": ([("N", "E"), ("E",)], lambda a, b: matvec(a, b)),
    "vector times matrix of the row": ([("N", "E"), ("N",)], lambda a, b: vecmat(b, a)),
    "heads of matrices times heads of vectors": ([("N", "E", "F"), ("N", "F")], lambda a, b: matvec(a, b)),
    "heads of vectors times heads of matrices": ([("N", "E", "F"), ("N", "E")], lambda a, b: vecmat(b, a)),
    "outer product": ([("E",), ("H",)], lambda a, b: outer(a, b)),
    "outer product of heads": ([("N", "E"), ("N", "F")], lambda a, b: outer(a, b)),
    "one after another": ([("N", "E"), ("E",)], lambda a, b: softmax(tanh(matvec(a, b)) - mean(matvec(a, b)))),
}


def symbols(shapes):
    builder = Builder()
    return builder, [builder.wrap(builder.node(Leaf(Role.STATE, f"s{i}", shape))) for i, shape in enumerate(shapes)]


def evaluate(node, values):
    """The plain interpreter: eager forms, one node after another."""
    on, known = Eager(torch, SIZES, torch.float64, 2), dict(values)
    for each in reachable([node], stop=frozenset(values)):
        if each not in known:
            known[each] = each.kind.eager(on, *[known[arg] for arg in each.args])
    return known[node]


def lowered(builder, node):
    known = {}
    nodes = [n for n in reachable([node]) if not isinstance(n.kind, Leaf)]
    lower(builder, nodes, known)
    return known[node]


def random(shape, seed):
    numbers = np.random.default_rng(seed).standard_normal((2, *(SIZES[axis] for axis in shape)))
    return torch.from_numpy(numbers)


@pytest.mark.parametrize("name", LOWERED)
def test_lowered_values_are_those_of_the_eager_forms(name):
    shapes, function = LOWERED[name]
    builder, leaves = symbols(shapes)
    node = function(*leaves).node
    made = lowered(builder, node)
    assert made.shape == node.shape
    assert any(type(n.kind) in RULES for n in reachable([node]))
    assert all(isinstance(n.kind, (*PRIMITIVES, Leaf)) for n in reachable([made]))
    values = {leaf.node: random(leaf.shape, i) for i, leaf in enumerate(leaves)}
    torch.testing.assert_close(evaluate(made, values), evaluate(node, values), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", LOWERED)
def test_compiled_values_are_those_of_the_eager_forms(name):
    shapes, function = LOWERED[name]
    states = {f"s{i}": shape for i, shape in enumerate(shapes)}
    program = looped(lambda **s: (s, {"y": function(*s.values())}), states=states)
    values = {name: random(shape, i) for i, (name, shape) in enumerate(states.items())}
    got, wanted = (execute(program, values, (2, 1), SIZES, eager=eager) for eager in (False, True))
    torch.testing.assert_close(got.emitted["y"], wanted.emitted["y"], rtol=CLOSE, atol=CLOSE)


def test_every_rule_is_tried():
    tried = {type(n.kind) for shapes, f in LOWERED.values() for n in reachable([f(*symbols(shapes)[1]).node])}
    assert set(RULES) <= tried


@pytest.mark.parametrize(("name", "function"), [("softmax", softmax), ("logsumexp", logsumexp)])
@pytest.mark.parametrize(
    "numbers", [[0.0, -np.inf, 1.0], [800.0, 801.0, -900.0], [-np.inf] * 3, [0.0, np.inf, 1.0], [np.nan, 0.0, 1.0]]
)
def test_large_and_infinite_numbers(name, function, numbers):
    """As torch has it: no overflow, -inf gives no share, and nothing but -inf gives NaN shares and a sum of -inf."""
    builder, (a,) = symbols([("N",)])
    value = torch.tensor([numbers] * 2, dtype=torch.float64)
    got = evaluate(lowered(builder, function(a).node), {a.node: value})
    wanted = getattr(torch, name)(value, -1, keepdim=True) if name == "logsumexp" else torch.softmax(value, -1)
    torch.testing.assert_close(got, wanted, rtol=CLOSE, atol=0.0, equal_nan=True)


def test_what_is_lowered_already_stays():
    builder, (a,) = symbols([("H",)])
    node = (tanh(a) * a).node
    assert lowered(builder, node) is node


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_a_function_without_vector_code_is_refused_by_name():
    register(Function("spread_out", lambda a, y, g, s: (g,), lambda t, a, s: a[0]))
    try:
        assert "spread_out" not in EMITTERS
        program = looped(lambda h: ({"h": h.builder.apply(Elementwise("spread_out"), h)}, {}))
        assert "'spread_out'" in unsupported(schedule(program))
        assert "functions.register" in unsupported(schedule(program))
    finally:
        del FUNCTIONS["spread_out"]


def test_every_function_of_the_graph_has_vector_code():
    assert set(EMITTERS) >= set(FUNCTIONS)


def test_a_product_of_several_axes_is_refused():
    program = looped(
        lambda h, W: ({"h": h.builder.apply(Dense(), W, tanh(h))}, {}), states={"h": ("N", "H")}, parameters={"W": ("H", "H")}
    )
    assert "several axes" in unsupported(schedule(program))


def test_what_is_outside_the_loop_is_never_refused():
    """The same product of an input: torch does it for all steps at once."""
    program = looped(
        lambda h, x, W: ({"h": tanh(h) + x.builder.apply(Dense(), W, x)}, {}),
        states={"h": ("N", "H")}, inputs={"x": ("N", "H")}, parameters={"W": ("H", "H")},
    )  # fmt: skip
    assert unsupported(schedule(program)) is None
