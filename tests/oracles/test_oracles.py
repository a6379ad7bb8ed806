"""The oracles against finite differences, torch, each other, and numbers worked out by hand.

CAROUSEL_TEST_SEED chooses another seed; it is printed with every failure.
"""

import itertools
import math
import os

import numpy as np
import pytest
import torch

from oracles import (
    additive_attention,
    coupled_lstm,
    elman,
    gru,
    gru_reset_after,
    irnn,
    jordan,
    lstm,
    peephole_lstm,
    recurrent,
)

T, B, I, H, O = 4, 2, 3, 4, 2  # noqa: E741

# Central differences: truncation about EPS**2 = 1e-10 of the third derivative, rounding about 1e-16 / EPS = 1e-11 of
# the loss. Measured over 30 seeds and every case: beyond RTOL there remains at most 1.6e-10, in entries near 0; ATOL is
# that times a margin. Another seed may put a relu within EPS of its kink; there the finite difference is wrong, not
# the gradient.
EPS = 1e-5
RTOL = 1e-6
ATOL = 1e-9
# Two float64 paths of the same equations: measured over 12 seeds 1e-14 relative, times a margin.
SAME = {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture
def rng():
    seed = int(os.environ.get("CAROUSEL_TEST_SEED", "1997"))
    print(f"CAROUSEL_TEST_SEED={seed}")  # noqa: T201
    return np.random.default_rng(seed)


def gate_shapes(gates, inputs=I, hidden=H):
    shapes = {}
    for gate in gates:
        shapes |= {f"W_{gate}": (hidden, inputs), f"U_{gate}": (hidden, hidden), f"b_{gate}": (hidden,)}
    return shapes


SIMPLE = gate_shapes("h")
LSTM = gate_shapes("ifgo")
PEEPHOLES = {"p_i": (H,), "p_f": (H,), "p_o": (H,)}
GRU = gate_shapes("rzn")
JORDAN = {"W_h": (H, I), "U_h": (H, O), "b_h": (H,), "W_y": (O, H), "b_y": (O,)}

# module, shapes of its parameters, shapes of its states (rows left out), options
CASES = [
    *((elman, SIMPLE, {"h": H}, {"activation": f}) for f in ("tanh", "relu", "sigmoid", "identity")),
    (irnn, SIMPLE, {"h": H}, {}),
    *(
        (jordan, JORDAN, {"s": O}, {"activation": f, "output_activation": g, "trace": trace})
        for f, g, trace in itertools.product(
            ("tanh", "relu", "sigmoid", "identity"), ("softmax", "sigmoid", "tanh", "identity"), (0.0, 0.6)
        )
    ),
    (lstm, LSTM, {"h": H, "c": H}, {}),
    *((peephole_lstm, LSTM | PEEPHOLES, {"h": H, "c": H}, {"output_gate": which}) for which in ("new", "old")),
    (coupled_lstm, gate_shapes("igo"), {"h": H, "c": H}, {}),
    (gru, GRU, {"h": H}, {}),
    (gru_reset_after, GRU | {"b_hn": (H,)}, {"h": H}, {}),
]
IDS = ["-".join([case[0].__name__.rpartition(".")[2], *map(str, case[3].values())]) for case in CASES]
every_case = pytest.mark.parametrize(("module", "p_shapes", "state_sizes", "options"), CASES, ids=IDS)


def draw(rng, shapes):
    return {name: rng.normal(scale=0.6, size=shape) for name, shape in shapes.items()}


def draw_all(rng, p_shapes, state_sizes):
    x = rng.normal(size=(T, B, I))
    state = draw(rng, {name: (B, size) for name, size in state_sizes.items()})
    return x, state, draw(rng, p_shapes)


def central_differences(loss, array):
    """d loss() / d array, entry by entry; the array is changed in place and restored."""
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + EPS
        above = loss()
        array[index] = kept - EPS
        below = loss()
        array[index] = kept
        gradient[index] = (above - below) / (2 * EPS)
    return gradient


@every_case
def test_the_hand_derived_gradient_is_the_finite_difference_of_run(rng, module, p_shapes, state_sizes, options):
    x, state, p = draw_all(rng, p_shapes, state_sizes)
    outputs, final, _ = module.run(x, state, p, **options)
    d_outputs = rng.normal(size=outputs.shape)
    d_final = {name: rng.normal(size=value.shape) for name, value in final.items()}

    def loss():
        outputs, final, _ = module.run(x, state, p, **options)
        return np.sum(outputs * d_outputs) + sum(np.sum(final[name] * d_final[name]) for name in final)

    dx, d_state, dp = module.gradients(x, state, p, d_outputs, d_final, **options)
    assert d_state.keys() == state.keys()
    assert dp.keys() == p.keys()
    np.testing.assert_allclose(dx, central_differences(loss, x), rtol=RTOL, atol=ATOL, err_msg="x")
    for name in state:
        expected = central_differences(loss, state[name])
        np.testing.assert_allclose(d_state[name], expected, rtol=RTOL, atol=ATOL, err_msg=name)
    for name in p:
        expected = central_differences(loss, p[name])
        assert np.any(np.abs(expected) > 1e-3), f"{name} has no effect on the loss: nothing was checked"
        np.testing.assert_allclose(dp[name], expected, rtol=RTOL, atol=ATOL, err_msg=name)


@every_case
def test_states_and_final_state_are_those_after_each_step(rng, module, p_shapes, state_sizes, options):
    x, state, p = draw_all(rng, p_shapes, state_sizes)
    outputs, final, states = module.run(x, state, p, **options)
    for t in range(T + 1):  # t = 0: no step at all
        head, middle, _ = module.run(x[:t], state, p, **options)
        tail, last, _ = module.run(x[t:], middle, p, **options)
        for name, size in state_sizes.items():
            assert states[name].shape == (T, B, size)
            np.testing.assert_array_equal(middle[name], states[name][t - 1] if t else state[name])
            np.testing.assert_array_equal(last[name], final[name])
        np.testing.assert_array_equal(np.concatenate([head, tail]), outputs)
    if "h" in states:
        np.testing.assert_array_equal(outputs, states["h"])


@every_case
def test_no_argument_is_changed_or_shared(rng, module, p_shapes, state_sizes, options):
    x, state, p = draw_all(rng, p_shapes, state_sizes)
    outputs, final, _ = module.run(x, state, p, **options)
    arguments = [x, outputs, *state.values(), *p.values(), *final.values()]
    before = [array.copy() for array in arguments]
    returned = module.run(x, state, p, **options)
    dx, d_state, dp = module.gradients(x, state, p, outputs, final, **options)
    fresh = [returned[0], *returned[1].values(), *returned[2].values(), dx, *d_state.values(), *dp.values()]
    for array, kept in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    assert all(array.dtype == np.float64 for array in fresh)
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations([*arguments, *fresh], 2))


# --- torch ---


def tensor(array, **kwargs):
    return torch.tensor(np.asarray(array), dtype=torch.float64, **kwargs)


def load(layer, p, gates, suffix="l0", recurrent_biases=None):
    """Copies p into torch's stacked weights. All of b goes to bias_ih; bias_hh is 0 but for `recurrent_biases`."""
    recurrent_biases = recurrent_biases or {}
    zeros = np.zeros_like(p[f"b_{gates[0]}"])
    values = {
        "weight_ih": np.concatenate([p[f"W_{gate}"] for gate in gates]),
        "weight_hh": np.concatenate([p[f"U_{gate}"] for gate in gates]),
        "bias_ih": np.concatenate([p[f"b_{gate}"] for gate in gates]),
        "bias_hh": np.concatenate([recurrent_biases.get(gate, zeros) for gate in gates]),
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(layer, f"{name}_{suffix}").copy_(tensor(value))


def assert_torch_agrees(rng, module, layer, x, state, p, gates, options):
    """Outputs, final state, and the gradients of x, state and every W, U and b."""
    final_order = list(state)
    outputs, final, _ = module.run(x, state, p, **options)
    d_outputs = rng.normal(size=outputs.shape)
    d_final = {name: rng.normal(size=value.shape) for name, value in final.items()}
    dx, d_state, dp = module.gradients(x, state, p, d_outputs, d_final, **options)

    x_t = tensor(x, requires_grad=True)
    state_t = [tensor(state[name][None], requires_grad=True) for name in final_order]
    outputs_t, final_t = layer(x_t, tuple(state_t) if len(state_t) > 1 else state_t[0])
    final_t = final_t if isinstance(final_t, tuple) else (final_t,)
    loss = (outputs_t * tensor(d_outputs)).sum()
    for name, value in zip(final_order, final_t, strict=True):
        loss = loss + (value[0] * tensor(d_final[name])).sum()
    loss.backward()

    np.testing.assert_allclose(outputs, outputs_t.detach().numpy(), **SAME)
    np.testing.assert_allclose(dx, x_t.grad.numpy(), **SAME)
    for name, value, given in zip(final_order, final_t, state_t, strict=True):
        np.testing.assert_allclose(final[name], value[0].detach().numpy(), **SAME)
        np.testing.assert_allclose(d_state[name], given.grad[0].numpy(), **SAME)
    for ours, theirs in (("W", "weight_ih"), ("U", "weight_hh"), ("b", "bias_ih")):
        gradient = np.concatenate([dp[f"{ours}_{gate}"] for gate in gates])
        np.testing.assert_allclose(gradient, getattr(layer, f"{theirs}_l0").grad.numpy(), **SAME)
    return dp


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_elman_is_torch_rnn(rng, activation):
    x, state, p = draw_all(rng, SIMPLE, {"h": H})
    layer = torch.nn.RNN(I, H, nonlinearity=activation, dtype=torch.float64)
    load(layer, p, "h")
    assert_torch_agrees(rng, elman, layer, x, state, p, "h", {"activation": activation})


def test_lstm_is_torch_lstm(rng):
    x, state, p = draw_all(rng, LSTM, {"h": H, "c": H})
    layer = torch.nn.LSTM(I, H, dtype=torch.float64)
    load(layer, p, "ifgo")
    assert_torch_agrees(rng, lstm, layer, x, state, p, "ifgo", {})


def test_gru_reset_after_is_torch_gru(rng):
    x, state, p = draw_all(rng, GRU | {"b_hn": (H,)}, {"h": H})
    layer = torch.nn.GRU(I, H, dtype=torch.float64)
    load(layer, p, "rzn", recurrent_biases={"n": p["b_hn"]})
    dp = assert_torch_agrees(rng, gru_reset_after, layer, x, state, p, "rzn", {})
    np.testing.assert_allclose(dp["b_hn"], layer.bias_hh_l0.grad[2 * H :].numpy(), **SAME)


# --- each other, where one cell is a case of another ---


def assert_same_run(one, other):
    np.testing.assert_allclose(one[0], other[0], **SAME)
    for name in one[1]:
        np.testing.assert_allclose(one[1][name], other[1][name], **SAME)


def test_irnn_is_elman_with_relu(rng):
    x, state, p = draw_all(rng, SIMPLE, {"h": H})
    assert_same_run(irnn.run(x, state, p), elman.run(x, state, p, activation="relu"))


@pytest.mark.parametrize("output_gate", ["new", "old"])
def test_without_peepholes_a_peephole_lstm_is_an_lstm(rng, output_gate):
    x, state, p = draw_all(rng, LSTM, {"h": H, "c": H})
    closed = p | {name: np.zeros(H) for name in PEEPHOLES}
    assert_same_run(peephole_lstm.run(x, state, closed, output_gate=output_gate), lstm.run(x, state, p))


def test_coupled_lstm_is_an_lstm_whose_forget_gate_has_the_input_gates_weights_negated(rng):
    """1 - sigma(a) = sigma(-a)."""
    x, state, p = draw_all(rng, gate_shapes("igo"), {"h": H, "c": H})
    full = p | {"W_f": -p["W_i"], "U_f": -p["U_i"], "b_f": -p["b_i"]}
    assert_same_run(coupled_lstm.run(x, state, p), lstm.run(x, state, full))


def test_the_two_grus_agree_where_the_recurrent_matrix_is_diagonal_and_only_there(rng):
    x, state, p = draw_all(rng, GRU, {"h": H})
    after = p | {"b_hn": np.zeros(H)}
    assert not np.allclose(gru.run(x, state, p)[0], gru_reset_after.run(x, state, after)[0], rtol=0, atol=1e-3)
    p["U_n"] = after["U_n"] = np.diag(np.diag(p["U_n"]))
    assert_same_run(gru.run(x, state, p), gru_reset_after.run(x, state, after))


def test_a_jordan_network_whose_output_layer_copies_is_an_elman_network(rng):
    x, state, p = draw_all(rng, SIMPLE, {"h": H})
    copied = p | {"W_y": np.eye(H), "b_y": np.zeros(H)}
    options = {"activation": "tanh", "output_activation": "identity", "trace": 0.0}
    outputs, final, _ = jordan.run(x, {"s": state["h"]}, copied, **options)
    assert_same_run((outputs, {"h": final["s"]}), elman.run(x, state, p, activation="tanh"))


# --- worked by hand: one unit or two, scalars only ---


def sigma(a):
    return 1 / (1 + math.exp(-a))


@pytest.mark.parametrize("output_gate", ["new", "old"])
def test_peepholes_by_hand(output_gate):
    p = {f"{kind}_{gate}": np.zeros((1, 1)) for kind in "WU" for gate in "ifgo"}
    p |= {"b_i": [0.1], "b_f": [0.2], "b_g": [0.3], "b_o": [0.4], "p_i": [0.5], "p_f": [-0.6], "p_o": [0.7]}
    p = {name: np.asarray(value) for name, value in p.items()}
    state = {"h": np.array([[0.9]]), "c": np.array([[2.0]])}
    outputs, final, _ = peephole_lstm.run(np.zeros((1, 1, 1)), state, p, output_gate=output_gate)
    c = sigma(0.2 - 0.6 * 2.0) * 2.0 + sigma(0.1 + 0.5 * 2.0) * math.tanh(0.3)
    o = sigma(0.4 + 0.7 * (c if output_gate == "new" else 2.0))
    np.testing.assert_allclose(final["c"], [[c]], **SAME)
    np.testing.assert_allclose(outputs, [[[o * math.tanh(c)]]], **SAME)


def test_gru_by_hand_the_reset_gate_acts_on_the_unit_that_is_read():
    """U_n reads unit 1 into unit 0, so unit 0's candidate sees r of unit 1; reset after would show r of unit 0."""
    p = {f"{kind}_{gate}": np.zeros((2, 2)) for kind in "WU" for gate in "rzn"}
    p["U_n"] = np.array([[0.0, 0.8], [0.0, 0.0]])
    p |= {"b_r": np.array([1.0, -1.0]), "b_z": np.array([0.3, -0.2]), "b_n": np.array([0.1, 0.4])}
    outputs, _, _ = gru.run(np.zeros((1, 1, 2)), {"h": np.array([[2.0, 3.0]])}, p)
    z = sigma(0.3), sigma(-0.2)
    n = math.tanh(0.8 * (sigma(-1.0) * 3.0) + 0.1), math.tanh(0.4)
    expected = [z[0] * 2.0 + (1 - z[0]) * n[0], z[1] * 3.0 + (1 - z[1]) * n[1]]
    np.testing.assert_allclose(outputs[0, 0], expected, **SAME)


def test_jordan_by_hand_over_two_steps():
    p = {"W_h": [[0.5]], "U_h": [[-0.7]], "b_h": [0.1], "W_y": [[1.2], [-0.4]], "b_y": [0.2, 0.3]}
    p = {name: np.asarray(value) for name, value in p.items()} | {"U_h": np.array([[-0.7, 0.9]])}
    x, state = np.array([[[1.5]], [[-2.0]]]), {"s": np.array([[0.4, -0.6]])}
    options = {"activation": "tanh", "output_activation": "softmax", "trace": 0.5}
    outputs, final, _ = jordan.run(x, state, p, **options)
    s = [0.4, -0.6]
    for t, x_t in enumerate((1.5, -2.0)):
        u = math.tanh(0.5 * x_t - 0.7 * s[0] + 0.9 * s[1] + 0.1)
        first = sigma((1.2 * u + 0.2) - (-0.4 * u + 0.3))  # a softmax over two is a logistic of the difference
        np.testing.assert_allclose(outputs[t, 0], [first, 1 - first], **SAME)
        s = [0.5 * s[0] + first, 0.5 * s[1] + 1 - first]
    np.testing.assert_allclose(final["s"], [s], **SAME)


# --- attention ---


def test_attention_is_a_masked_softmax_and_reads_no_padding(rng):
    lengths = np.array([5, 3, 0, 1])
    h = rng.normal(size=(4, 5, 3))
    p = draw(rng, {"W": (6, 3), "b": (6,), "v": (6,)})
    real = np.arange(5) < lengths[:, None]
    s, a = additive_attention.run(np.where(real[..., None], h, np.nan), lengths, p)
    scores = torch.tanh(tensor(h) @ tensor(p["W"]).T + tensor(p["b"])) @ tensor(p["v"])
    weights = torch.softmax(scores.masked_fill(~torch.from_numpy(real), -math.inf), dim=1)
    weights = torch.nan_to_num(weights)  # the row of length 0
    np.testing.assert_allclose(a, weights.numpy(), **SAME)
    np.testing.assert_allclose(s, torch.einsum("bt,btf->bf", weights, tensor(h)).numpy(), **SAME)
    np.testing.assert_array_equal(a[~real], 0.0)
    np.testing.assert_array_equal(s[2], 0.0)
    np.testing.assert_allclose(a.sum(axis=1), [1, 1, 0, 1], **SAME)


# --- the layer ---


def draw_layers(rng, directions, layers=2):
    params, states = [], []
    for layer in range(layers):
        inputs = I if layer == 0 else directions * H
        params.append([draw(rng, gate_shapes("ifgo", inputs)) for _ in range(directions)])
        states.append([draw(rng, {"h": (4, H), "c": (4, H)}) for _ in range(directions)])
    return params, states


@pytest.mark.parametrize("directions", [1, 2])
def test_deep_ragged_lstm_is_torch_lstm_on_packed_sequences(rng, directions):
    lengths = np.array([3, 5, 1, 4])
    x = rng.normal(size=(5, 4, I))
    x[np.arange(5)[:, None] >= lengths] = np.nan
    params, states = draw_layers(rng, directions)
    outputs, finals = recurrent.run(lstm, x, lengths, params, states)

    layer = torch.nn.LSTM(I, H, num_layers=2, bidirectional=directions == 2, dtype=torch.float64)
    for level, direction in itertools.product(range(2), range(directions)):
        load(layer, params[level][direction], "ifgo", f"l{level}" + ("_reverse" if direction else ""))
    initial = tuple(
        tensor(np.stack([states[level][d][name] for level in range(2) for d in range(directions)])) for name in "hc"
    )
    packed = torch.nn.utils.rnn.pack_padded_sequence(tensor(x), torch.from_numpy(lengths), enforce_sorted=False)
    with torch.no_grad():
        outputs_t, final_t = layer(packed, initial)
    outputs_t, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs_t)
    np.testing.assert_allclose(outputs, outputs_t.numpy(), **SAME)
    for level, direction in itertools.product(range(2), range(directions)):
        for name, value in zip("hc", final_t, strict=True):
            np.testing.assert_allclose(finals[level][direction][name], value[level * directions + direction].numpy(), **SAME)


def test_a_row_of_length_zero_keeps_its_initial_state(rng):
    lengths = np.array([0, 5, 0, 2])
    x = rng.normal(size=(5, 4, I))
    params, states = draw_layers(rng, directions=2)
    outputs, finals = recurrent.run(lstm, x, lengths, params, states)
    np.testing.assert_array_equal(outputs[:, [0, 2]], 0.0)
    for level, direction, name in itertools.product(range(2), range(2), "hc"):
        ours, given = finals[level][direction][name], states[level][direction][name]
        np.testing.assert_array_equal(ours[[0, 2]], given[[0, 2]])
        assert np.all(ours[[1, 3]] != given[[1, 3]])
        assert not np.shares_memory(ours, given)


def test_the_layer_passes_options_on_and_takes_a_cells_own_output_size(rng):
    lengths = np.array([4, 2])
    x = rng.normal(size=(T, B, I))
    options = {"activation": "sigmoid", "output_activation": "tanh", "trace": 0.6}
    params = [[draw(rng, JORDAN), draw(rng, JORDAN)]]
    states = [[draw(rng, {"s": (B, O)}), draw(rng, {"s": (B, O)})]]
    outputs, finals = recurrent.run(jordan, x, lengths, params, states, **options)
    assert outputs.shape == (T, B, 2 * O)
    forward, forward_final, _ = jordan.run(x, states[0][0], params[0][0], **options)
    backward, backward_final, _ = jordan.run(x[::-1], states[0][1], params[0][1], **options)
    np.testing.assert_array_equal(outputs[:, 0, :O], forward[:, 0])
    np.testing.assert_array_equal(outputs[:, 0, O:], backward[::-1, 0])
    np.testing.assert_array_equal(finals[0][0]["s"][0], forward_final["s"][0])
    np.testing.assert_array_equal(finals[0][1]["s"][0], backward_final["s"][0])
