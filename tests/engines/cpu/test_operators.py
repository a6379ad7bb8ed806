"""Layers under `torch.compile` and `torch.export`: one operator whatever the sizes, the values and gradients of the layer."""

import pytest
import torch

import carousel.nn
from builds import TRANSFORMS
from carousel.engines.cpu import operators
from carousel.errors import KernelUnavailable
from carousel.nn import Recurrent

FEATURES, HIDDEN = 3, 8
SHAPES = [(5, 3), (7, 3), (9, 4), (4, 4), (11, 6)]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled(layer):
    return torch.compile(layer, fullgraph=True, backend="aot_eager")


def results(layer, x, lengths, own):
    output, state = layer(x, lengths=lengths, seed=3)
    parts = [output, *(part for part in state if part.is_floating_point())]
    loss = sum((part * torch.linspace(0.5, 1.5, part.numel()).view_as(part)).sum() for part in parts)
    return [*parts, *torch.autograd.grad(loss, [x, *own])]


LAYERS = {
    "lstm": {"cell": "lstm"},
    "deep, both ways": {"cell": "gru", "num_layers": 2, "bidirectional": True},
    "independent directions": {"cell": "gru", "num_layers": 2, "bidirectional": True, "independent": True, "merge": "sum"},
    "highway": {"cell": "elman", "num_layers": 2, "skip": "highway"},
    "backwards": {"cell": "peephole_lstm", "reverse": True},
    "batch first": {"cell": "layer_norm_lstm", "batch_first": True},
    "learned state": {"cell": "gru", "learn_state": True},
    "noise": {"cell": "lstm", "transforms": (TRANSFORMS["zoneout"],)},
    "steps counted": {"cell": "clockwork_rnn"},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "ragged"])
def test_a_compiled_layer_is_the_layer(options, ragged):
    torch.manual_seed(0)
    layer = Recurrent(input_size=FEATURES, hidden_size=HIDDEN, **options)
    other, own = compiled(layer), list(layer.parameters())
    for T, B in SHAPES[:3]:
        x = torch.randn(*((B, T) if layer.batch_first else (T, B)), FEATURES, requires_grad=True)
        lengths = torch.randint(0, T + 1, (B,)) if ragged else None
        for a, b in zip(results(layer, x, lengths, own), results(other, x, lengths, own), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)


def test_one_operator_and_one_compilation_for_each_axis_that_changes():
    layer = Recurrent("lstm", FEATURES, HIDDEN)
    graphs = []

    def backend(module, _):
        graphs.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])
        return module.forward

    other = torch.compile(layer, fullgraph=True, backend=backend)
    for T, B in SHAPES:
        other(torch.randn(T, B, FEATURES))
    assert len(graphs) == 3, "the first, one for T, one for B"
    assert all(sum("over_time" in target for target in graph) == 1 for graph in graphs)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_the_layers_with_torchs_names_compile_to_one_operator_each(name):
    layer = getattr(carousel.nn, name)(FEATURES, HIDDEN, num_layers=2, bidirectional=True)
    other = compiled(layer)
    for T, B in SHAPES[:3]:
        x = torch.randn(T, B, FEATURES, requires_grad=True)
        expected, found = layer(x)[0], other(x)[0]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for a, b in zip(
            torch.autograd.grad(expected.sum(), [x, *layer.parameters()]),
            torch.autograd.grad(found.sum(), [x, *layer.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


def test_an_exported_layer_runs_for_other_sizes():
    layer = Recurrent("gru", FEATURES, HIDDEN, num_layers=2).eval()
    sizes = {"x": {0: torch.export.Dim("T", max=1000), 1: torch.export.Dim("B", max=64)}}
    with torch.no_grad():
        program = torch.export.export(layer, (torch.randn(5, 3, FEATURES),), dynamic_shapes=sizes).module()
        for T, B in SHAPES:
            x = torch.randn(T, B, FEATURES)
            torch.testing.assert_close(program(x)[0], layer(x)[0], rtol=0, atol=0)


def test_torchs_own_checks_of_an_operator():
    layer = Recurrent("lstm", FEATURES, HIDDEN)
    text = layer._traced.texts[True][0]
    values = layer.layers[0].values()
    tensors = [
        torch.randn(4, 2, FEATURES),
        torch.zeros(2, HIDDEN),
        torch.zeros(2, HIDDEN),
        *(value.detach() for value in values.values()),
    ]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    given = (text, tensors, torch.tensor([2, 4]), None, [], True)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(operators.over_time, given, test_utils=checks, atol=1e-5, rtol=1e-4)


def test_a_cell_that_no_layer_of_this_process_has_is_named():
    with pytest.raises(KernelUnavailable, match="no layer of this process"):
        operators._layer('{"step": "Unheard-0", "sizes": {}, "directions": [], "counted": false}')


def test_equal_equations_have_one_name_and_others_another():
    names = {operators.know(Recurrent("lstm", FEATURES, HIDDEN).cell.graph) for _ in range(2)}
    assert len(names) == 1
    assert operators.know(Recurrent("gru", FEATURES, HIDDEN).cell.graph) not in names
    assert operators.know(Recurrent("coupled_lstm", FEATURES, HIDDEN).cell.graph) not in names
