"""Random small cells composed from the whole language: every way to run and differentiate one gives the same numbers."""

from dataclasses import replace

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from carousel import graph as g
from carousel.graph import Cell, Output
from carousel.graph.differentiate import plan
from carousel.graph.schedule import schedule
from cases import a_call, call_layer, leaves, random_layer
from interpreter import autograd, naive, scheduled

# float64; deep random expressions cancel more than a cell from a paper does.
CLOSE = {"rtol": 1e-9, "atol": 1e-10}

SMOOTH_ONE = {
    "sigmoid": g.sigmoid, "tanh": g.tanh, "sin": g.sin, "cos": g.cos, "erf": g.erf, "softplus": g.softplus, "silu": g.silu,
    "gelu": g.gelu, "square": lambda a: a**2, "exp": lambda a: g.exp(g.tanh(a)), "log": lambda a: g.log(1.5 + g.tanh(a)),
    "sqrt": lambda a: g.sqrt(1 + a * a), "power": lambda a: (2 + g.sin(a)) ** -1.5, "expm1": lambda a: g.expm1(-g.softplus(a)),
    "neg": lambda a: -a, "one_minus": lambda a: 1 - a, "softmax": g.softmax, "cumsum": lambda a: 0.3 * g.cumsum(a),
    "mean": g.mean, "sum": lambda a: 0.2 * g.sum(a), "logsumexp": g.logsumexp, "stop": g.stop_gradient,
}  # fmt: skip
ROUGH_ONE = {
    "relu": g.relu, "abs": abs, "max": g.max, "clamp": lambda a: g.clamp(a, -0.4, 0.6), "elu": g.elu,
    "leaky_relu": g.leaky_relu, "sign": g.sign,
}  # fmt: skip
SMOOTH_TWO = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / (1.5 + b * b),
}  # fmt: skip
ROUGH_TWO = {"maximum": g.maximum, "minimum": g.minimum, "where": lambda a, b: g.where(g.greater(a, b), a, 0.5 * b)}
LEAVES = ["h", "c", "x", "p", "one", "number", "k", "time"]


def trees(one, two):
    """Expressions as nested tuples."""
    leaf = st.sampled_from(LEAVES).map(lambda name: (name,))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(st.sampled_from(sorted(one)), inner),
            st.tuples(st.sampled_from(sorted(two)), inner, inner),
            st.tuples(st.just("dense"), inner),
            st.tuples(st.just("affine"), inner, inner),
        ),
        max_leaves=6,
    )


def cell_of(h_tree, c_tree, output_tree):
    """A cell with two states and a context whose equations are these; products get new names as they come."""

    class Random(Cell):
        state = ("h", "c")
        context = ("k",)

        def step(self, x, h, c, k):
            made = []

            def name():
                made.append(None)
                return f"q{len(made)}"

            # numbers and parameters have no axis of their own sometimes: a product needs one
            def vector(a):
                return a + 0.0 * h

            def build(tree):
                word, *inner = tree
                values = [build(part) for part in inner]
                leaf = {
                    "h": lambda: h,
                    "c": lambda: c,
                    "x": lambda: self.dense("D_x", x),
                    "p": lambda: self.vector("p"),
                    "k": lambda: k,
                    "time": lambda: 0.1 * self.time(),
                    "one": lambda: self.parameter("one", (1,)),
                    "number": lambda: 0.7 + 0.0 * h,
                }
                if word in leaf:
                    return leaf[word]()
                if word == "dense":
                    return self.dense(name(), vector(values[0]))
                if word == "affine":
                    return self.affine(name(), x, vector(values[0]), vector(values[1]))
                function = {**SMOOTH_ONE, **ROUGH_ONE, **SMOOTH_TWO, **ROUGH_TWO}[word]
                along = word in ("mean", "sum", "max", "logsumexp", "softmax", "cumsum")
                return function(vector(values[0])) if along else function(*values)

            new_h = g.tanh(build(h_tree)) * self.vector("gain") + 0.1 * h
            new_c = 0.5 * g.sin(build(c_tree)) + 0.3 * c
            return Output(build(output_tree) + new_h), new_h, new_c

    return Random()


def everything(cell, seed):
    torch.manual_seed(seed)
    layer = random_layer(cell, 2, 3, scale=0.5)
    return layer, a_call(layer, 3, 2)


ANY = trees({**SMOOTH_ONE, **ROUGH_ONE}, {**SMOOTH_TWO, **ROUGH_TWO})
SMOOTH = trees({name: f for name, f in SMOOTH_ONE.items() if name != "stop"}, SMOOTH_TWO)
few = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(few, max_examples=120)
@given(h=ANY, c=ANY, output=ANY, seed=st.integers(0, 2**20))
def test_scheduled_naive_autograd_and_the_eager_engine_agree(h, c, output, seed):
    cell = cell_of(h, c, output)
    step = cell.graph
    layer, call = everything(cell, seed)
    expected = autograd(step, call)
    engine_output, engine_final = call_layer(layer, call)
    for got in (scheduled(step, call), naive(step, call)):
        torch.testing.assert_close(got.output, expected.output, **CLOSE)
        for part in ("final", "inputs", "states", "parameters", "context"):
            found, wanted = getattr(got, part), getattr(expected, part)
            for name in wanted:
                torch.testing.assert_close(found[name], wanted[name], **CLOSE, msg=lambda m, n=name, p=part: f"{p} {n}: {m}")
    torch.testing.assert_close(engine_output, expected.output, **CLOSE)
    for name, part in engine_final.items():
        torch.testing.assert_close(part, expected.final[name], **CLOSE)


@settings(few, max_examples=25)
@given(h=SMOOTH, c=SMOOTH, output=SMOOTH, seed=st.integers(0, 2**20))
def test_smooth_cells_pass_gradcheck(h, c, output, seed):
    cell = cell_of(h, c, output)
    layer, call = everything(cell, seed)
    given = leaves(call.inputs["x"], *call.states.values(), call.context["k"])

    def function(x, h, c, k):
        return call_layer(layer, replace(call, inputs={"x": x}, states={"h": h, "c": c}, context={"k": k}))[0]

    assert gradcheck(function, given, atol=1e-6, rtol=1e-5, fast_mode=True)


@settings(few, max_examples=60)
@given(h=ANY, c=ANY, output=ANY)
def test_schedules_compute_each_node_once_after_what_it_reads(h, c, output):
    both = plan(cell_of(h, c, output).graph)
    for program in (both.forward, both.backward):
        cut = schedule(program)
        done = set(cut.program.known)
        for stages in cut.sections.values():
            for stage in stages:
                nodes = [node for group in stage.groups for node in group.nodes] + list(stage.region)
                for node in nodes:
                    assert node not in done
                    assert all(arg in done for arg in node.args)
                    done.add(node)
        assert set(cut.program.results) <= done
