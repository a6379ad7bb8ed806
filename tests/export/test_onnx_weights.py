"""Weights from and to ONNX's initialisers, against the operators' documented formulas."""

import numpy as np
import pytest
import torch

from carousel.cells import Elman, PeepholeLSTM, cell_name
from carousel.errors import ConfigError, DTypeError, ShapeError
from carousel.export import from_onnx, to_onnx
from carousel.nn import ClipState, Recurrent, WeightDrop
from export.weight_cases import SAME, B, H, I, T, assert_same_weights, random_arrays, random_layer
from oracles import onnx_rnn

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# The operator, its attributes, whether it has peepholes, the cell and its options.
KINDS = {
    "LSTM": ("LSTM", {}, False, "lstm", {}),
    "LSTM with peepholes": ("LSTM", {}, True, "peephole_lstm", {"output_gate": "new"}),
    "GRU": ("GRU", {}, False, "gru", {}),
    "GRU linear before reset": ("GRU", {"linear_before_reset": 1}, False, "gru_reset_after", {}),
    **{
        f"RNN {theirs}": ("RNN", {"activations": [theirs]}, False, "elman", {"activation": theirs.lower()})
        for theirs in ("Tanh", "Relu", "Sigmoid", "Softplus", "Softsign")
    },
}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)


def node_arrays(rng, case, directions, *, features=I, hidden=H, dtype=np.float64):
    kind, _, peepholes, _, _ = KINDS[case]
    rows = GATES[kind] * hidden
    shapes = [(directions, rows, features), (directions, rows, hidden), (directions, 2 * rows)]
    arrays = random_arrays(rng, *shapes, *([(directions, 3 * hidden)] if peepholes else []), dtype=dtype)
    return dict(zip("WRBP", arrays, strict=False))


def attributes_of(case, directions):
    found = dict(KINDS[case][1])
    if "activations" in found:
        found["activations"] = found["activations"] * directions
    return found


def run_nodes(kind, x, states, nodes, attributes):
    """Nodes on top of each other, their directions side by side: the output (T, B, D H), and the final states (L D, B, H)."""
    finals = []
    for number, arrays in enumerate(nodes):
        D, _, hidden = arrays["R"].shape
        start = [state[number * D : (number + 1) * D] for state in states]
        Y, *after = onnx_rnn.run(kind, x, start[0], start[1] if len(start) > 1 else None, **arrays, **attributes)
        x = Y.transpose(0, 2, 1, 3).reshape(T, B, D * hidden)
        finals.append([part for part in after if part is not None])
    return x, [np.concatenate(parts) for parts in zip(*finals, strict=True)]


def compare(kind, nodes, attributes, layer, rng):
    x = rng.standard_normal((T, B, I))
    places = layer.num_layers * layer.num_directions
    states = [rng.standard_normal((places, B, H)) for _ in layer.cell.state]
    theirs, finals = run_nodes(kind, x, states, nodes, attributes)
    ours, after = layer(torch.tensor(x), tuple(map(torch.tensor, states)))
    torch.testing.assert_close(ours, torch.tensor(theirs), **SAME)
    for part, other in zip(after, finals, strict=True):
        torch.testing.assert_close(part, torch.tensor(other), **SAME)


@every_direction
@pytest.mark.parametrize("case", KINDS)
def test_the_layer_computes_what_onnx_documents(case, direction, seed):
    rng = np.random.default_rng(seed)
    kind, _, _, name, options = KINDS[case]
    attributes = {"direction": direction, **attributes_of(case, DIRECTIONS[direction])}
    arrays = node_arrays(rng, case, DIRECTIONS[direction])
    layer = from_onnx(kind, **arrays, **attributes)
    assert cell_name(layer.cell) == name
    assert options.items() <= layer.cell.options().items()
    compare(kind, [arrays], attributes, layer, rng)


@every_direction
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("case", KINDS)
def test_the_nodes_compute_what_the_layer_does(case, layers, direction, seed):
    kind, _, _, name, options = KINDS[case]
    form = {"bidirectional": direction == "bidirectional", "reverse": direction == "reverse"}
    layer = random_layer(Elman(**options) if name == "elman" else name, num_layers=layers, **form)
    nodes = to_onnx(layer)
    assert [node.kind for node in nodes] == [kind] * layers
    assert all(node.attributes["direction"] == direction for node in nodes)
    arrays = [{key: getattr(node, key) for key in "WRBP"} for node in nodes]
    attributes = {name: value for name, value in nodes[0].attributes.items() if name != "hidden_size"}
    compare(kind, arrays, attributes, layer, np.random.default_rng(seed))


@every_direction
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("case", ["LSTM", "LSTM with peepholes", "GRU", "GRU linear before reset", "RNN Tanh", "RNN Relu"])
def test_a_layer_comes_back_bit_by_bit(case, layers, direction):
    _, _, _, name, options = KINDS[case]
    form = {"bidirectional": direction == "bidirectional", "reverse": direction == "reverse"}
    layer = random_layer(Elman(**options) if name == "elman" else name, num_layers=layers, dtype=torch.float32, **form)
    nodes = to_onnx(layer)
    W, R, B, P = ([getattr(node, key) for node in nodes] for key in "WRBP")
    back = from_onnx(nodes[0].kind, W, R, B, P if P[0] is not None else None, **nodes[0].attributes)
    assert_same_weights(layer, back)
    assert repr(back) == repr(layer)


def test_one_node_goes_back_as_its_docstring_says():
    layer = random_layer("gru_reset_after", bidirectional=True)
    [node] = to_onnx(layer)
    assert_same_weights(layer, from_onnx(node.kind, node.W, node.R, node.B, node.P, **node.attributes))


def test_initialisers_come_back_with_merged_biases(seed):
    given = node_arrays(np.random.default_rng(seed), "GRU linear before reset", 2, dtype=np.float32)
    [node] = to_onnx(from_onnx("GRU", **given, linear_before_reset=1))
    assert np.array_equal(node.W, given["W"])
    assert np.array_equal(node.R, given["R"])
    apart = 2 * H  # z r, and then h, which stays apart
    Wb, Rb = given["B"][:, : 3 * H], given["B"][:, 3 * H :]
    assert np.array_equal(node.B[:, :apart], (Wb + Rb)[:, :apart])
    assert np.array_equal(node.B[:, apart : 3 * H], Wb[:, apart:])
    assert not node.B[:, 3 * H : 3 * H + apart].any()
    assert np.array_equal(node.B[:, 3 * H + apart :], Rb[:, apart:])


def test_missing_biases_are_zero(seed):
    rng = np.random.default_rng(seed)
    arrays = node_arrays(rng, "LSTM", 2)
    del arrays["B"]
    compare("LSTM", [arrays], {"direction": "bidirectional"}, from_onnx("LSTM", **arrays), rng)


def test_attributes_as_a_node_keeps_them(seed):
    arrays = node_arrays(np.random.default_rng(seed), "LSTM", 1)
    activations = [b"sigmoid", b"tanh", b"TANH"]
    layer = from_onnx("LSTM", **arrays, direction=b"reverse", activations=activations, hidden_size=H, layout=1)
    assert layer.reverse
    assert layer.batch_first


def test_layers_of_different_sizes(seed):
    rng = np.random.default_rng(seed)
    first = node_arrays(rng, "GRU", 2, hidden=3)
    second = node_arrays(rng, "GRU", 2, features=6, hidden=2)
    layer = from_onnx("GRU", *([first[key], second[key]] for key in "WRB"))
    assert layer.hidden_size == (3, 2)
    x = rng.standard_normal((T, B, I))
    Y, _, _ = onnx_rnn.run("GRU", x, np.zeros((2, B, 3)), None, **first, direction="bidirectional")
    between = Y.transpose(0, 2, 1, 3).reshape(T, B, 6)
    Y, _, _ = onnx_rnn.run("GRU", between, np.zeros((2, B, 2)), None, **second, direction="bidirectional")
    theirs = torch.tensor(Y.transpose(0, 2, 1, 3).reshape(T, B, 4))
    torch.testing.assert_close(layer(torch.tensor(x))[0], theirs, **SAME)


def zeros(*shapes):
    return [np.zeros(shape, np.float32) for shape in shapes]


WRONG_SHAPES = {
    "W transposed": (
        zeros((1, 5, 16), (1, 16, 4)),
        {},
        r"from_onnx: W has another shape.*\n  got:      W \(1, 5, 16\)\n  expected: \(D, 4H, I\) = \(1, 16, 5\)\n"
        r"  try: .*transpose it",
    ),
    "R transposed": (zeros((1, 16, 5), (1, 4, 16)), {}, r"got:      R \(1, 4, 16\)\n  expected: \(D, 4H, H\) = \(1, 16, 4\)"),
    "axes": (zeros((16, 5), (16, 4)), {}, r"W has another number of axes\.\n  got:      \(16, 5\)\n  expected: \(D, G·H, I\)"),
    "directions": (zeros((2, 16, 5), (1, 16, 4)), {}, r"got:      R \(1, 16, 4\)\n  expected: \(D, 4H, H\) = \(2, 16, 4\)"),
    "direction": (
        zeros((2, 16, 5), (2, 16, 4)),
        {"direction": "forward"},
        r"the first axis of W is the number of directions, D\.\n.*direction='forward'\n  expected: D = 1",
    ),
    "half a bias": (
        zeros((1, 16, 5), (1, 16, 4), (1, 16)),
        {},
        r"B has another shape.*\n  got:      B \(1, 16\)\n  expected: \(D, 8H\) = \(1, 32\)",
    ),
    "peepholes": (
        zeros((1, 16, 5), (1, 16, 4), (1, 32), (1, 16)),
        {},
        r"got:      P \(1, 16\)\n  expected: \(D, 3H\) = \(1, 12\)",
    ),
    "hidden size": (zeros((1, 16, 5), (1, 16, 4)), {"hidden_size": 3}, r"expected: \(D, 4H, H\) = \(1, 12, 3\)"),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_wrong_shapes_name_the_array(case):
    arrays, attributes, message = WRONG_SHAPES[case]
    with pytest.raises(ShapeError, match=message):
        from_onnx("LSTM", *arrays, **attributes)


def test_wrong_lists_of_arrays_are_refused():
    [W, R] = zeros((1, 16, 5), (1, 16, 4))
    with pytest.raises(ShapeError, match=r"one of each for every node\.\n  got:      2 of W, 1 of R"):
        from_onnx("LSTM", [W, W], [R])
    with pytest.raises(ShapeError, match=r"W of layer 1 .*\n.*\n  expected: \(D, 4H, I\) = \(1, 16, 4\)"):
        from_onnx("LSTM", [W, W], [R, R])


WRONG_ATTRIBUTES = {
    "kind": ("Lstm", {}, r"from_onnx: unknown kind of ONNX layer 'Lstm'\. Did you mean 'LSTM'\?\n.*one of GRU, LSTM, RNN"),
    "direction": ("LSTM", {"direction": "backward"}, r"unknown direction 'backward'.*\n.*bidirectional, forward, reverse"),
    "activations": (
        "LSTM",
        {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
        r"no cell here computes what this LSTM does\.\n  got:      activations=\('HardSigmoid', 'Tanh', 'Tanh'\)",
    ),
    "clip": ("LSTM", {"clip": 3.0}, r"no cell here computes a node with clip\.\n  got:      clip=3\.0"),
    "input_forget": ("LSTM", {"input_forget": 1}, r"got:      input_forget=1"),
    "layout": ("LSTM", {"layout": 2}, r"layout is 0 for \(T, B, I\) or 1 for \(B, T, I\)\.\n  got:      2"),
}


@pytest.mark.parametrize("case", WRONG_ATTRIBUTES)
def test_attributes_that_no_cell_computes_are_refused(case):
    kind, attributes, message = WRONG_ATTRIBUTES[case]
    with pytest.raises(ConfigError, match=message):
        from_onnx(kind, *zeros((1, 16, 5), (1, 16, 4)), **attributes)


def test_two_directions_must_have_the_same_activation():
    with pytest.raises(ConfigError, match=r"every direction must have the same activations\.\n  got:      \['Tanh', 'Relu'\]"):
        from_onnx("RNN", *zeros((2, 4, 5), (2, 4, 4)), activations=["Tanh", "Relu"])


def test_peepholes_belong_to_an_lstm():
    with pytest.raises(ConfigError, match=r"no cell here computes what this GRU does\.\n.*peepholes=True"):
        from_onnx("GRU", *zeros((1, 12, 5), (1, 12, 4)), P=zeros((1, 12))[0])


def test_what_is_no_array_of_one_float_dtype_is_refused():
    W, R = zeros((1, 16, 5), (1, 16, 4))
    with pytest.raises(DTypeError, match=r"one dtype\.\n  got:      W float32, R float64"):
        from_onnx("LSTM", W, R.astype(float))
    with pytest.raises(DTypeError, match=r"R of layer 0 must be a NumPy array\.\n  got:      NoneType"):
        from_onnx("LSTM", [W], [None])


REFUSED = {
    "cell": (lambda: Recurrent("coupled_lstm", I, H), r"to_onnx: the cell coupled_lstm has no counterpart in ONNX"),
    "options": (
        lambda: Recurrent(PeepholeLSTM(output_gate="old"), I, H),
        r"got:      PeepholeLSTM\(forget_bias=1\.0, output_gate='old'\)\n  expected: output_gate='new'",
    ),
    "transform": (
        lambda: Recurrent("lstm", I, H, transforms=[WeightDrop(0.5, "U_*"), ClipState(1.0)]),
        r"evaluation too\.\n  got:      ClipState",
    ),
    "learned state": (lambda: Recurrent("lstm", I, H, learn_state=True), r"got:      learn_state=True"),
    "independent": (
        lambda: Recurrent("lstm", I, H, num_layers=2, bidirectional=True, independent=True),
        r"got:      independent=True",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_onnx_cannot_express_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        to_onnx(make())
