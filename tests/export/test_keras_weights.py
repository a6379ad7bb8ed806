"""Weights from and to Keras's arrays, against its documented formulas."""

import numpy as np
import pytest
import torch

from carousel.cells import Elman, cell_name
from carousel.errors import ConfigError, DTypeError, ShapeError
from carousel.export import from_keras, to_keras
from carousel.nn import Normalise, Recurrent
from export.weight_cases import SAME, B, H, I, T, assert_same_weights, random_arrays, random_layer
from oracles import keras_rnn

# Keras's class and settings, the number of gates, the rows of the bias, the cell and its options.
KINDS = {
    "LSTM": ("LSTM", {}, 4, 1, "lstm", {}),
    "GRU reset after": ("GRU", {}, 3, 2, "gru_reset_after", {}),
    "GRU reset before": ("GRU", {"reset_after": False}, 3, 1, "gru", {}),
    **{
        f"SimpleRNN {theirs}": ("SimpleRNN", {"activation": theirs}, 1, 1, "elman", {"activation": ours})
        for theirs, ours in {
            "tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "linear": "identity", "softplus": "softplus",
            "softsign": "softsign", "elu": "elu", "silu": "silu",
        }.items()
    },
}  # fmt: skip
GATED = ["LSTM", "GRU reset after", "GRU reset before", "SimpleRNN tanh"]
every_form = pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True), (3, True)])


def keras_arrays(rng, case, sizes=(H,), *, bidirectional=False, bias=True, merge_mode="concat", dtype=np.float64):
    """The arrays of layers with these hidden sizes, as get_weights() would give them."""
    _, _, gates, rows, _, _ = KINDS[case]
    arrays, features = [], I
    for hidden in sizes:
        biases = [(2, gates * hidden) if rows == 2 else (gates * hidden,)] if bias else []
        for _ in range(2 if bidirectional else 1):
            arrays += random_arrays(rng, (features, gates * hidden), (hidden, gates * hidden), *biases, dtype=dtype)
        features = 2 * hidden if bidirectional and merge_mode == "concat" else hidden
    return arrays


def compare(case, arrays, layer, rng, **form):
    """Outputs and final states from random inputs and initial states."""
    kind, settings, *_ = KINDS[case]
    x = rng.standard_normal((B, T, I))
    start = layer.initial_state(B)
    one_size = isinstance(layer.hidden_size, int)
    # Keras has a list of states for each layer and direction; ours are stacked over those where all have one size.
    shapes = [[part.shape[1:] for part in start]] * len(start[0]) if one_size else [[s.shape for s in part] for part in start]
    states = [[rng.standard_normal(shape) for shape in each] for each in shapes]
    theirs, finals = keras_rnn.run(kind, x, states, arrays, **settings, **form)
    given = zip(*states, strict=True) if one_size else states
    ours, after = layer(torch.tensor(x), tuple(stacked(part) if one_size else tuple(map(torch.tensor, part)) for part in given))
    torch.testing.assert_close(ours, torch.tensor(theirs), **SAME)
    for found, final in zip(zip(*after, strict=True) if one_size else after, finals, strict=True):
        for part, value in zip(found, final, strict=True):
            torch.testing.assert_close(part, torch.tensor(value), **SAME)


def stacked(arrays):
    return torch.tensor(np.stack(arrays))


@every_form
@pytest.mark.parametrize("case", KINDS)
def test_the_layer_computes_what_keras_documents(case, layers, bidirectional, seed):
    rng = np.random.default_rng(seed)
    kind, settings, _, _, name, options = KINDS[case]
    form = {"num_layers": layers, "bidirectional": bidirectional}
    arrays = keras_arrays(rng, case, (H,) * layers, bidirectional=bidirectional)
    layer = from_keras(kind, arrays, **settings, **form)
    assert cell_name(layer.cell) == name
    assert options.items() <= layer.cell.options().items()
    compare(case, arrays, layer, rng, **form)


@every_form
@pytest.mark.parametrize("case", KINDS)
def test_keras_computes_what_the_layer_does(case, layers, bidirectional, seed):
    _, _, _, _, name, options = KINDS[case]
    cell = Elman(**options) if name == "elman" else name
    layer = random_layer(cell, num_layers=layers, bidirectional=bidirectional, batch_first=True)
    form = {"num_layers": layers, "bidirectional": bidirectional}
    compare(case, to_keras(layer), layer, np.random.default_rng(seed), **form)


@every_form
@pytest.mark.parametrize("case", GATED)
def test_a_layer_comes_back_bit_by_bit(case, layers, bidirectional):
    kind, settings, _, _, name, _ = KINDS[case]
    layer = random_layer(name, num_layers=layers, bidirectional=bidirectional, batch_first=True, dtype=torch.float32)
    back = from_keras(kind, to_keras(layer), num_layers=layers, bidirectional=bidirectional, **settings)
    assert_same_weights(layer, back)
    assert repr(back) == repr(layer)


@pytest.mark.parametrize("case", ["LSTM", "GRU reset before", "SimpleRNN relu"])
def test_arrays_come_back_bit_by_bit(case, seed):
    kind, settings, *_ = KINDS[case]
    arrays = keras_arrays(np.random.default_rng(seed), case, (4, 2), bidirectional=True, dtype=np.float32)
    back = to_keras(from_keras(kind, arrays, num_layers=2, bidirectional=True, **settings))
    assert len(back) == len(arrays)
    for given, found in zip(arrays, back, strict=True):
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        assert np.array_equal(given, found)


def test_a_gru_that_resets_after_comes_back_with_merged_biases(seed):
    given = keras_arrays(np.random.default_rng(seed), "GRU reset after")
    kernel, recurrent, bias = to_keras(from_keras("GRU", given))
    assert np.array_equal(kernel, given[0])
    assert np.array_equal(recurrent, given[1])
    assert np.array_equal(bias[0, : 2 * H], given[2].sum(0)[: 2 * H])  # z r
    assert not bias[1, : 2 * H].any()
    assert np.array_equal(bias[:, 2 * H :], given[2][:, 2 * H :])  # h


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave"])
@pytest.mark.parametrize("case", GATED)
def test_layers_of_different_sizes_without_biases_and_every_merge(case, merge_mode, seed):
    rng = np.random.default_rng(seed)
    kind, settings, *_ = KINDS[case]
    form = {"num_layers": 2, "bidirectional": True, "merge_mode": merge_mode}
    arrays = keras_arrays(rng, case, (2, 3), bidirectional=True, bias=False, merge_mode=merge_mode)
    layer = from_keras(kind, arrays, **settings, **form)
    assert layer.hidden_size == (2, 3)
    compare(case, arrays, layer, rng, **form)


def test_arrays_of_any_memory_layout_are_copied_and_no_random_number_is_drawn(seed):
    plain = keras_arrays(np.random.default_rng(seed), "LSTM", dtype=np.float32)
    odd = [np.asfortranarray(plain[0]), plain[1].astype(">f4"), plain[2][::-1][::-1]]
    for array in odd:
        array.flags.writeable = False
    before = torch.get_rng_state()
    layer = from_keras("LSTM", [odd[0], np.ascontiguousarray(plain[1]), odd[2]])
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(layer, from_keras("LSTM", plain))
    swapped = [array.astype(">f4") for array in plain]
    assert_same_weights(layer, from_keras("LSTM", swapped))
    with torch.no_grad():
        layer.layers[0].b_f.zero_()
    assert odd[2].any()
    exported = to_keras(layer)
    exported[0][:] = 9.0
    assert not (layer.layers[0].W_i == 9.0).any()


def shapes(*given, dtype=np.float32):
    return [np.zeros(shape, dtype) for shape in given]


WRONG_SHAPES = {
    "transposed kernel": (
        ("LSTM", shapes((16, 5), (4, 16), (16,))),
        r"from_keras: kernel has another shape than the other arrays ask for\.\n  got:      kernel \(16, 5\)\n"
        r"  expected: \(I, 4H\) = \(5, 16\)\n  try:      its last two axes stand the other way round: transpose it",
    ),
    "transposed recurrent kernel": (
        ("LSTM", shapes((5, 16), (16, 4), (16,))),
        r"got:      recurrent_kernel \(16, 4\)\n  expected: \(H, 4H\) = \(4, 16\)\n  try:      its last two axes",
    ),
    "another number of gates": (
        ("LSTM", shapes((5, 12), (4, 12), (12,))),
        r"got:      recurrent_kernel \(4, 12\)\n  expected: \(H, 4H\) = \(4, 16\)$",
    ),
    "axes": (("LSTM", shapes((5, 16, 1), (4, 16), (16,))), r"kernel has another number of axes\.\n  got:      \(5, 16, 1\)"),
    "bias": (("LSTM", shapes((5, 16), (4, 16), (4,))), r"got:      bias \(4,\)\n  expected: \(4H\) = \(16,\)$"),
    "bias of the other form": (
        ("GRU", shapes((5, 12), (4, 12), (12,))),
        r"got:      bias \(12,\)\n  expected: \(2, 3H\) = \(2, 12\)\n  try:      a bias of this shape is that of a GRU with "
        r"reset_after=False",
    ),
    "number": (
        ("LSTM", shapes((5, 16), (4, 16), (16,), (5, 16))),
        r"got:      4 arrays\n  expected: 3, or 2 without biases\n  try:      set num_layers and bidirectional",
    ),
    "none": (("LSTM", []), r"got:      0 arrays"),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
def test_wrong_shapes_name_the_array(case):
    arguments, message = WRONG_SHAPES[case]
    with pytest.raises(ShapeError, match=message):
        from_keras(*arguments)


def test_wrong_shapes_in_deep_and_bidirectional_layers_say_where():
    first = shapes((5, 16), (4, 16), (16,))
    with pytest.raises(ShapeError, match=r"from_keras: kernel \(layer 1\) .*\n.*\n  expected: \(I, 4H\) = \(4, 16\)"):
        from_keras("LSTM", [*first, *first], num_layers=2)
    second = shapes((5, 16), (4, 16), (12,))
    with pytest.raises(ShapeError, match=r"from_keras: bias \(backward\) has another shape"):
        from_keras("LSTM", [*first, *second], bidirectional=True)


WRONG_SETTINGS = {
    "kind": (("lstm", {}), r"from_keras: unknown kind of Keras layer 'lstm'\. Did you mean 'LSTM'\?\n.*GRU, LSTM, SimpleRNN"),
    "activation": (
        ("LSTM", {"activation": "relu"}),
        r"no cell here computes what this LSTM does\.\n  got:      activation='relu'\n  expected: activation='tanh'",
    ),
    "merge mode": (("LSTM", {"merge_mode": "mean"}), r"unknown merge_mode 'mean'.*\n  expected: one of ave, concat, sum"),
    "layers": (("LSTM", {"num_layers": 0}), r"num_layers must be a whole number, 1 or more\.\n  got:      0"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_settings_that_no_cell_computes_are_refused(case):
    (kind, settings), message = WRONG_SETTINGS[case]
    with pytest.raises(ConfigError, match=message):
        from_keras(kind, shapes((5, 16), (4, 16), (16,)), **settings)


def test_what_is_no_array_of_floats_is_refused():
    good = shapes((5, 16), (4, 16), (16,))
    for bad, message in [
        (torch.zeros(5, 16), r"kernel must be a NumPy array\.\n  got:      a tensor"),
        ([[0.0]], r"kernel must be a NumPy array\.\n  got:      list"),
        (np.zeros((5, 16), int), r"kernel must hold floating point numbers\.\n  got:      int64"),
        (np.zeros((5, 16)), r"one dtype\.\n  got:      kernel float64, recurrent_kernel float32"),
    ]:
        with pytest.raises(DTypeError, match=message):
            from_keras("LSTM", [bad, *good[1:]])
    with pytest.raises(DTypeError, match="arrays must be a list of NumPy arrays"):
        from_keras("LSTM", good[0])


REFUSED = {
    "cell": (
        lambda: Recurrent("mgu", I, H),
        r"to_keras: the cell mgu has no counterpart in Keras\.\n.*\n  expected: one of lstm,",
    ),
    "options": (
        lambda: Recurrent(Elman(activation="gelu"), I, H),
        r"Elman\(activation='gelu'\)\n  expected: activation='tanh'; or",
    ),
    "transform": (lambda: Recurrent("lstm", I, H, transforms=[Normalise("layer")]), r"evaluation too\.\n  got:      Normalise"),
    "reverse": (lambda: Recurrent("lstm", I, H, reverse=True), r"got:      reverse=True"),
    "skip": (lambda: Recurrent("lstm", H, H, num_layers=2, skip="highway"), r"got:      skip='highway'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_keras_cannot_express_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        to_keras(make())


def test_a_dtype_that_numpy_lacks_is_refused():
    with pytest.raises(DTypeError, match=r"NumPy has no bfloat16\.\n.*\n  try:      convert layer\.float\(\)"):
        to_keras(Recurrent("lstm", I, H).to(torch.bfloat16))
