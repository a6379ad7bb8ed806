"""The same weights give the same numbers as torch's own layers: outputs, final states, all gradients."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cases import random_layer, random_state

STEPS, BATCH, INPUTS, HIDDEN = 9, 5, 3, 4
LENGTHS = torch.tensor([4, 9, 1, 7, 6])
# The promise is 1e-5 in float32; in float64, 1e-12: both sides round a few dozen times per step, 1e-14 was measured.
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.float64: {"rtol": 1e-12, "atol": 1e-12}}

TORCH = {
    "lstm": (torch.nn.LSTM, {}, "ifgo"),
    "gru_reset_after": (torch.nn.GRU, {}, "rzn"),
    "elman": (torch.nn.RNN, {"nonlinearity": "tanh"}, "h"),
    "irnn": (torch.nn.RNN, {"nonlinearity": "relu"}, "h"),
}


def twin(name, layer):
    """torch's layer with the same weights, each merged bias cut in two unequal parts."""
    kind, options, gates = TORCH[name]
    settings = {"num_layers": layer.num_layers, "bidirectional": layer.bidirectional, "dtype": next(layer.parameters()).dtype}
    other = kind(INPUTS, HIDDEN, **settings, **options)
    with torch.no_grad():
        for at, ours in sides(layer):
            get = ours.get_parameter
            other.get_parameter(f"weight_ih_{at}").copy_(torch.cat([get(f"W_{g}") for g in gates]))
            other.get_parameter(f"weight_hh_{at}").copy_(torch.cat([get(f"U_{g}") for g in gates]))
            ih, hh = other.get_parameter(f"bias_ih_{at}"), other.get_parameter(f"bias_hh_{at}")
            for ih_part, hh_part, g in zip(ih.chunk(len(gates)), hh.chunk(len(gates)), gates, strict=True):
                apart = name == "gru_reset_after" and g == "n"
                hh_part.copy_(get("b_hn") if apart else torch.randn_like(hh_part))
                ih_part.copy_(get(f"b_{g}") - (0 if apart else hh_part))
    return other


def sides(layer):
    """torch's suffix and our parameters, for each layer and direction."""
    for number, parameters in enumerate(layer.layers):
        yield f"l{number}", parameters
    if layer.bidirectional:
        for number, parameters in enumerate(layer.layers_reverse):
            yield f"l{number}_reverse", parameters


def their_gradients(name, layer, other):
    """torch's gradients by our names."""
    gates = TORCH[name][2]
    for at, ours in sides(layer):
        for kind, letter in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
            chunks = other.get_parameter(f"{kind}_{at}").grad.chunk(len(gates))
            for g, chunk in zip(gates, chunks, strict=True):
                yield f"{letter}_{g} {at}", ours.get_parameter(f"{letter}_{g}").grad, chunk
        if name == "gru_reset_after":
            yield f"b_hn {at}", ours.b_hn.grad, other.get_parameter(f"bias_hh_{at}").grad.chunk(3)[2]


def run_theirs(other, x, state, lengths):
    state = state if len(state) > 1 else state[0]
    if lengths is None:
        output, final = other(x, state)
    else:
        packed, final = other(pack_padded_sequence(x, lengths, enforce_sorted=False), state)
        output, _ = pad_packed_sequence(packed, total_length=len(x))
    return output, final if isinstance(final, tuple) else (final,)


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_outputs_final_states_and_all_gradients(name, num_layers, bidirectional, lengths, dtype):
    # Larger random weights make three Elman layers chaotic: float32's roundings then grow beyond 1e-5 in either library.
    layer = random_layer(name, INPUTS, HIDDEN, dtype=dtype, num_layers=num_layers, bidirectional=bidirectional, scale=0.4)
    other = twin(name, layer)
    x, state = torch.randn(STEPS, BATCH, INPUTS, dtype=dtype), random_state(layer, BATCH)
    directions, results = None, []
    for run in (
        lambda x, state: layer(x, state, lengths),
        lambda x, state: run_theirs(other, x, state, lengths),
    ):
        x_leaf = x.clone().requires_grad_()
        state_leaves = [part.clone().requires_grad_() for part in state]
        output, final = run(x_leaf, tuple(state_leaves))
        directions = directions or [torch.randn_like(part) for part in (output, *final)]
        torch.autograd.backward([output, *final], directions)
        results.append([output, *final, x_leaf.grad, *(leaf.grad for leaf in state_leaves)])
    labels = ["output", *(f"final {s}" for s in layer.cell.state), "d_x", *(f"d_{s}0" for s in layer.cell.state)]
    for label, ours, theirs in zip(labels, *results, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE[dtype], msg=lambda m, part=label: f"{part}: {m}")
    for label, ours, theirs in their_gradients(name, layer, other):
        torch.testing.assert_close(ours, theirs, **CLOSE[dtype], msg=lambda m, part=label: f"d_{part}: {m}")
