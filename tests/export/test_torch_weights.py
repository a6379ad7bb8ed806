"""Weights from and to torch's modules."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import carousel.nn
from carousel import Cell, tanh
from carousel.errors import ConfigError, DTypeError
from carousel.export import from_torch, to_torch
from carousel.nn import ClipState, Recurrent, VariationalDropout, Zoneout
from export.weight_cases import SAME, B, H, I, T, assert_same_weights, random_layer, random_state

# torch's class, its arguments, the cell that it is, the cell's options.
KINDS = {
    "lstm": ("LSTM", {}, "lstm", {}),
    "lstmp": ("LSTM", {"proj_size": 2}, "lstmp", {"proj_size": 2}),
    "gru_reset_after": ("GRU", {}, "gru_reset_after", {}),
    "elman tanh": ("RNN", {"nonlinearity": "tanh"}, "elman", {"activation": "tanh"}),
    "elman relu": ("RNN", {"nonlinearity": "relu"}, "elman", {"activation": "relu"}),
}
every_kind = pytest.mark.parametrize("case", KINDS)
every_form = pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (1, True), (3, True)])


def cell_of(case):
    _, _, name, options = KINDS[case]
    return carousel.cells.resolve_cell(name, options)


def run_both(module, layer, state=None):
    x = torch.randn(T, B, I, dtype=torch.float64)
    hx = None if state is None else tuple(state) if len(state) > 1 else state[0]
    theirs, their_state = module(x, hx)
    ours, our_state = layer(x, state)
    torch.testing.assert_close(ours, theirs, **SAME)
    for part, other in zip(our_state, (their_state,) if isinstance(their_state, torch.Tensor) else their_state, strict=True):
        torch.testing.assert_close(part, other, **SAME)


@every_form
@every_kind
def test_a_module_and_the_layer_made_of_it_give_the_same_outputs(case, layers, bidirectional):
    kind, arguments, name, options = KINDS[case]
    module = getattr(torch.nn, kind)(I, H, layers, bidirectional=bidirectional, dtype=torch.float64, **arguments)
    layer = from_torch(module)
    assert carousel.cells.cell_name(layer.cell) == name
    assert options.items() <= layer.cell.options().items()
    run_both(module, layer)
    run_both(module, layer, random_state(layer))


@every_form
@every_kind
def test_a_layer_and_the_module_made_of_it_give_the_same_outputs(case, layers, bidirectional):
    layer = random_layer(cell_of(case), num_layers=layers, bidirectional=bidirectional)
    module = to_torch(layer)
    assert type(module) is getattr(torch.nn, KINDS[case][0])
    run_both(module, layer, random_state(layer))


@every_form
@every_kind
def test_a_layer_comes_back_bit_by_bit(case, layers, bidirectional):
    settings = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": True, "dropout": 0.3 * (layers > 1)}
    layer = random_layer(cell_of(case), **settings, dtype=torch.float32)
    back = from_torch(to_torch(layer))
    assert_same_weights(layer, back)
    assert repr(back) == repr(layer)


@every_kind
def test_a_module_comes_back_with_merged_biases(case):
    kind, arguments, _, _ = KINDS[case]
    module = getattr(torch.nn, kind)(I, H, 2, bidirectional=True, **arguments)
    back = to_torch(from_torch(module))
    assert back.state_dict().keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        if "weight" in name:
            assert torch.equal(back.state_dict()[name], tensor), name
    apart = 2 * H if kind == "GRU" else back.bias_hh_l0.numel()  # r z, and then n, which stays apart
    for side in ("l0", "l1_reverse"):
        get = module.get_parameter
        total = get(f"bias_ih_{side}") + get(f"bias_hh_{side}")
        assert torch.equal(back.get_parameter(f"bias_ih_{side}")[:apart], total[:apart])
        assert not back.get_parameter(f"bias_hh_{side}")[:apart].any()
        assert torch.equal(back.get_parameter(f"bias_hh_{side}")[apart:], get(f"bias_hh_{side}")[apart:])
        assert torch.equal(back.get_parameter(f"bias_ih_{side}")[apart:], get(f"bias_ih_{side}")[apart:])


@every_kind
def test_a_module_without_biases_has_zeros_here(case):
    kind, arguments, _, _ = KINDS[case]
    module = getattr(torch.nn, kind)(I, H, bias=False, dtype=torch.float64, **arguments)
    layer = from_torch(module)
    assert not any(value.any() for name, value in layer.layers[0].named_parameters() if name.startswith("b_"))
    run_both(module, layer)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_our_own_layers_in_torchs_place_are_taken_too(kind):
    module = getattr(carousel.nn, kind)(I, H, 2, bidirectional=True, dtype=torch.float64)
    run_both(module, from_torch(module))


def test_an_irnn_is_an_rnn_with_relu():
    layer = random_layer("irnn")
    module = to_torch(layer)
    assert module.nonlinearity == "relu"
    run_both(module, layer)


def test_lengths_here_and_a_packed_sequence_there_give_the_same():
    module = torch.nn.LSTM(I, H, 2, bidirectional=True, batch_first=True, dtype=torch.float64)
    x, lengths = torch.randn(B, T, I, dtype=torch.float64), torch.tensor([3, 7, 1])
    packed, _ = module(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    theirs, _ = pad_packed_sequence(packed, batch_first=True)
    torch.testing.assert_close(from_torch(module)(x, lengths=lengths)[0], theirs, **SAME)


def test_mode_dtype_and_settings_stay_and_weights_are_copies():
    module = torch.nn.GRU(I, H, 2, batch_first=True, dropout=0.25, dtype=torch.bfloat16).eval()
    layer = from_torch(module)
    assert (layer.batch_first, layer.dropout, layer.training) == (True, 0.25, False)
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.bfloat16}
    before = [value.clone() for value in module.parameters()]
    with torch.no_grad():
        for value in layer.parameters():
            value.fill_(9.0)
    assert all(map(torch.equal, module.parameters(), before))
    made = to_torch(layer)
    assert (made.batch_first, made.dropout, made.training) == (True, 0.25, False)
    assert all(value.requires_grad for value in [*layer.parameters(), *made.parameters()])


def test_converting_draws_no_random_numbers():
    layer = random_layer("lstm")
    before = torch.get_rng_state()
    from_torch(to_torch(layer))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_parametrised_weight_is_read_as_it_is_used():
    module = torch.nn.GRU(I, H, dtype=torch.float64)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    with torch.no_grad():
        module.parametrizations.weight_hh_l0.original0.mul_(2.0)
    run_both(module, from_torch(module))


def test_what_acts_in_training_only_is_left_behind():
    layer = random_layer("lstm", transforms=[VariationalDropout(0.2, 0.3)], dropout=0.5).eval()
    run_both(to_torch(layer), layer)


class Own(Cell):
    def step(self, x, h):
        return tanh(self.affine("h", x, h))


REFUSED = {
    "cell": (
        lambda: Recurrent("gru", I, H),
        r"to_torch: the cell gru has no counterpart in torch\.\n  got:      GRU\(\)\n"
        r"  expected: one of lstm, lstmp, gru_reset_after, elman, irnn",
    ),
    "own cell": (lambda: Recurrent(Own, I, H), r"the cell Own has no counterpart in torch"),
    "options": (
        lambda: Recurrent(carousel.cells.Elman(activation="sigmoid"), I, H),
        r"with these options the cell elman has no counterpart in torch\.\n  got:      Elman\(activation='sigmoid'\)\n"
        r"  expected: activation='tanh'; or activation='relu'",
    ),
    "transform": (
        lambda: Recurrent("lstm", I, H, transforms=[VariationalDropout(0.1), Zoneout(0.1)]),
        r"changes what it computes in evaluation too\.\n  got:      Zoneout",
    ),
    "clip": (lambda: Recurrent("lstm", I, H, transforms=[ClipState(3.0)]), r"evaluation too\.\n  got:      ClipState"),
    "skip": (lambda: Recurrent("lstm", H, H, num_layers=2, skip="residual"), r"got:      skip='residual'"),
    "independent": (
        lambda: Recurrent("lstm", I, H, num_layers=2, bidirectional=True, independent=True),
        r"got:      independent=True",
    ),
    "learn_state": (
        lambda: Recurrent("lstm", I, H, learn_state=True),
        r"learn_state=True\n.*\n  try:      give layer\.initial",
    ),
    "merge": (lambda: Recurrent("lstm", I, H, bidirectional=True, merge="sum"), r"merge='sum'\n  expected: merge='concat'"),
    "reverse": (
        lambda: Recurrent("lstm", I, H, reverse=True),
        r"reverse cannot be expressed there\.\n  got:      reverse=True",
    ),
    "sizes": (lambda: Recurrent("lstm", I, (4, 3), num_layers=2), r"hidden_size=\(4, 3\)\n  expected: one size for all layers"),
    "projection": (
        lambda: Recurrent(carousel.cells.LSTMP(proj_size=4), I, H),
        r"fewer units only\.\n  got:      proj_size=4, hidden_size=4",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_torch_cannot_express_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        to_torch(make())


def test_settings_without_effect_are_no_obstacle():
    to_torch(Recurrent("lstm", H, H, skip="residual", independent=True, merge="sum", dropout=0.1))


def test_other_objects_are_refused():
    with pytest.raises(DTypeError, match=r"from_torch: this is no recurrent module\.\n  got:      LSTMCell\n"):
        from_torch(torch.nn.LSTMCell(I, H))
    with pytest.raises(DTypeError, match=r"to_torch: this is no layer to take weights from\.\n  got:      LSTM\n"):
        to_torch(carousel.nn.LSTM(I, H))
