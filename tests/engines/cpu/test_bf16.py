"""Weights kept in bfloat16: what the rounded weights give in float32, to the bit, and only where no gradient is asked.

The roundings are torch's (`.bfloat16().float()`), the sums those of the same kernels on float32 weights.
"""

import copy
import pickle
import re

import pytest
import torch

from carousel.cells import CELLS
from carousel.engines.cpu import run as engine_run
from carousel.engines.cpu.programs import programs
from carousel.engines.cpu.run import run_together
from carousel.engines.cpu.team import Team
from carousel.errors import ConfigError
from carousel.graph.shapes import concrete
from carousel.nn import GRU, LSTM, Recurrent
from cases import random_given, random_layer, small
from compiled import ALONE, TEAMS, assert_same_bits, given_call

BF16 = "bfloat16"


def near(x):
    """The nearest bfloat16, as float32."""
    return torch.as_tensor(x).bfloat16().float()


class Rounding:
    """An executor whose matrices are rounded when they are packed."""

    def __init__(self, executor):
        self._executor = executor

    def value(self, begun, node):
        return near(self._executor.value(begun, node))


@pytest.fixture
def rounded_packing(monkeypatch):
    """Have float32 panels hold rounded weights, while it is switched on."""
    pack, state = engine_run.Call._pack, {"on": False}

    def rounding(call, packing):
        kept = call.executor
        call.executor = Rounding(kept) if state["on"] else kept
        pack(call, packing)
        call.executor = kept

    monkeypatch.setattr(engine_run.Call, "_pack", rounding)
    return state


def results(layer, given, lengths=None):
    with torch.no_grad():
        output, final = given_call(layer, given, lengths)
    return {"output": output, **{f"state {i}": part for i, part in enumerate(final)}}


COMPILED = [name for name in CELLS if name != "conv_lstm"]
SIZES = {"small": (4, 5, 3), "wide": (34, 3, 14)}  # H, T, B; a tile has fewer rows than 14


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", COMPILED)
def test_every_cell(name, size, rounded_packing):
    H, T, B = SIZES[size]
    layer = random_layer(small(name).cell, 3, H, dtype=torch.float32, scale=0.4, engine="cpu")
    given = random_given(layer, T, B, dtype=torch.float32)
    lengths = torch.arange(B) % (T + 1)
    plain = results(layer, given, lengths)
    rounded_packing["on"] = True
    expected = results(layer, given, lengths)
    rounded_packing["on"] = False
    layer.inference_weights = BF16
    assert_same_bits(results(layer, given, lengths), expected)
    multiplies = bool(
        programs(layer._graphs[True]).alone.compiled(trajectory=False, fuse=False, dtype=torch.float32).loop.products
    )
    assert multiplies == any(not torch.equal(expected[key], plain[key]) for key in plain), "what was rounded does not show"


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_it_is_the_recurrent_matrices_that_are_rounded(name):
    layer = random_layer(name, 17, 40, dtype=torch.float32, scale=0.2, num_layers=2, bidirectional=True, engine="cpu")
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for key, parameter in other.named_parameters():
            if re.search(r"\.U_\w$", key):
                parameter.copy_(near(parameter))
    given = random_given(layer, 6, 3, dtype=torch.float32)
    full = results(layer, given)
    layer.inference_weights = BF16
    got = results(layer, given)
    assert_same_bits(got, results(other, given))
    error = (got["output"] - full["output"]).abs().max()
    assert 0 < error < 0.05


@pytest.mark.parametrize("team", [None, *TEAMS])
@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_whoever_shares_the_work(name, team):
    """By rows and by columns, fused and not."""
    layer = random_layer(small(name).cell, 5, 90, dtype=torch.float32, engine="cpu")
    graph, module = layer._graphs[True], layer.layers[0]
    executor = programs(graph).alone
    T, B = 4, 11
    given = {graph.parameters[key].node: value.detach() for key, value in module.values().items()}
    given[graph.inputs["x"]] = torch.randn(T * B, 5)
    states = {key: torch.rand(B, *concrete(node.shape, module.sizes)) for key, node in graph.states.items()}
    with torch.no_grad():
        runs = []
        for split in (ALONE, TEAMS.get(team, Team(1, columns=True))):
            begun = executor.begin(given, states, [B] * T, module.sizes)
            (run,) = run_together([(executor, begun)], split, weights=BF16)
            runs.append({"output": run.emitted["output"], **run.carried})
    assert_same_bits(runs[1], runs[0])


@pytest.mark.parametrize("make", [LSTM, GRU])
def test_torch_layers(make):
    layer = make(5, 33, num_layers=2, bidirectional=True)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for key, parameter in other.named_parameters():
            if "weight_hh" in key:
                parameter.copy_(near(parameter))
        x = torch.randn(7, 3, 5)
        full = layer(x)[0]
        layer.inference_weights = BF16
        assert torch.equal(layer(x)[0], other(x)[0])
        assert not torch.equal(layer(x)[0], full)


def test_never_where_gradients_are_asked():
    layer = random_layer("lstm", 5, 33, dtype=torch.float32, engine="cpu")
    half = copy.deepcopy(layer)
    half.inference_weights = BF16
    x = torch.randn(6, 2, 5)
    with torch.no_grad():
        assert not torch.equal(half(x)[0], layer(x)[0])
    found = []
    for one, keep_every in ((layer, None), (half, None), (half, 2)):
        one.keep_every = keep_every
        one.zero_grad()
        output, _ = one(x)
        output.sum().backward()
        found.append({"output": output.detach(), **{n: p.grad.clone() for n, p in one.named_parameters()}})
    assert_same_bits(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    assert torch.equal(found[2]["output"], found[0]["output"])
    # Where torch asks for more than values, the eager engine runs, on the weights as they are.
    with torch.no_grad():
        mapped = torch.func.vmap(lambda one: half(one)[0], in_dims=1, out_dims=1)(x[:, :, None])[:, :, 0]
        torch.testing.assert_close(mapped, layer(x)[0], rtol=0, atol=1e-6)


def test_parameters_stay_and_the_setting_is_copied():
    layer = random_layer("gru", 5, 33, dtype=torch.float32, engine="cpu")
    assert layer.inference_weights is None
    layer.inference_weights = BF16
    before, x = copy.deepcopy(layer.state_dict()), torch.randn(6, 2, 5)
    with torch.inference_mode():
        output = layer(x)[0]
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert other.inference_weights == BF16
            assert torch.equal(other(x)[0], output)
        layer.inference_weights = None
        assert not torch.equal(layer(x)[0], output)
    assert_same_bits(layer.state_dict(), before)


@pytest.mark.parametrize("value", ["float16", "bf16", 3, ["bfloat16"], torch.bfloat16, "float64"])
def test_a_type_that_there_is_not(value):
    layer = Recurrent("lstm", 3, 4, engine="cpu")
    with pytest.raises(ConfigError, match=re.escape(str(value))):
        layer.inference_weights = value
    assert layer.inference_weights is None


def test_a_layer_that_cannot():
    with pytest.raises(ConfigError, match="only the engine 'cpu'"):
        Recurrent("lstm", 3, 4, engine="eager").inference_weights = BF16
    with pytest.raises(ConfigError, match="float64"):
        Recurrent("lstm", 3, 4, dtype=torch.float64, engine="cpu").inference_weights = BF16
    layer = Recurrent("lstm", 3, 4, engine="cpu")
    layer.inference_weights = BF16
    layer.double()
    with torch.no_grad(), pytest.raises(ConfigError, match="float64"):
        layer(torch.randn(2, 2, 3, dtype=torch.float64))
