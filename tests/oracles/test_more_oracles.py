"""The forward-only oracles against torch, the older oracles, each other, and numbers worked out by hand.

CAROUSEL_TEST_SEED chooses another seed; it is printed with every failure.
"""

import itertools
import math
import os
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest
import torch

from oracles import (
    additive_attention,
    attention_gru,
    clockwork_rnn,
    conv_lstm,
    coupled_lstm,
    elman,
    fastgrnn,
    gru,
    gru_d,
    indrnn,
    layer_norm_lstm,
    lstm,
    lstmp,
    mgu,
    mingru,
    minlstm,
    mlstm,
    multiplicative_lstm,
    peephole_lstm,
    philox,
    qrnn,
    rhn,
    slstm,
    sru,
)
from oracles.functions import log_logistic, logistic

# Of the picture: Y, X. Of the memory: S positions of M numbers, scored by A. P projected units, N heads of E.
T, B, I, H = 6, 2, 3, 4  # noqa: E741
P, N, E, S, M, A, Y, X = 2, 2, 2, 4, 5, 3, 3, 4

# Two float64 paths of the same equations: measured over 60 seeds at most 6e-15 of 1 + |value|, times a margin.
SAME = {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture
def rng():
    seed = int(os.environ.get("CAROUSEL_TEST_SEED", "1997"))
    print(f"CAROUSEL_TEST_SEED={seed}")  # noqa: T201
    return np.random.default_rng(seed)


@dataclass(frozen=True)
class Case:
    """An oracle with the shapes of its parameters, and of its states and its input without T and B."""

    module: ModuleType
    p: dict
    state: dict
    options: dict = field(default_factory=dict)
    x: tuple = (I,)

    @property
    def name(self):
        return "-".join([self.module.__name__.rpartition(".")[2], *map(str, self.options.values())])


def shapes(gates, **kinds):
    return {f"{kind}_{gate}": shape for gate in gates for kind, shape in kinds.items()}


def gate_shapes(gates, inputs=I):
    return shapes(gates, W=(H, inputs), U=(H, H), b=(H,))


def kernel_shapes(K):
    peepholes = shapes("ifo", p=(H, Y, X))
    return shapes("ifgo", W=(H, I, K, K), U=(H, H, K, K), b=(H, 1, 1)) | peepholes


def rhn_shapes(depth):
    layers = [f"{kind}{layer}" for layer in range(1, depth + 1) for kind in "nt"]
    return shapes("nt", W=(H, I)) | shapes(layers, U=(H, H), b=(H,))


LSTM = gate_shapes("ifgo")
LSTM_STATE = {"h": (H,), "c": (H,)}
LSTMP = Case(lstmp, shapes("ifgo", W=(H, I), U=(H, P), b=(H,)) | {"W_p": (P, H)}, {"h": (P,), "c": (H,)})
MGU = Case(mgu, gate_shapes("fn"), {"h": (H,)})
INDRNN = {"W_h": (H, I), "u_h": (H,), "b_h": (H,)}
SRU = Case(sru, shapes("frcs", W=(H, I)) | shapes("fr", v=(H,), b=(H,)), {"c": (H,)})
QRNN = Case(qrnn, shapes("zfo", W=(H, I), U=(H, I), b=(H,)), {"c": (H,), "p": (I,)})
MINGRU = Case(mingru, shapes("zn", W=(H, I), b=(H,)), {"h": (H,)})
MINLSTM = Case(minlstm, shapes("fin", W=(H, I), b=(H,)), {"h": (H,)})
FASTGRNN = Case(fastgrnn, {"W": (H, I), "U": (H, H), "b_z": (H,), "b_n": (H,), "zeta": (1,), "nu": (1,)}, {"h": (H,)})
NORMED = Case(layer_norm_lstm, LSTM | shapes("ifgo", gx=(H,), gh=(H,)) | {"gc": (H,), "bc": (H,)}, LSTM_STATE, {"eps": 1e-2})
MULTIPLICATIVE = Case(multiplicative_lstm, LSTM | {"W_m": (H, I), "U_m": (H, H)}, LSTM_STATE)
SLSTM = Case(slstm, shapes("ifzo", W=(H, I), R=(N, E, E), b=(H,)), dict.fromkeys("hcnm", (H,)), {"heads": N})
MLSTM = Case(
    mlstm,
    shapes("qkvo", W=(H, I), b=(H,)) | shapes("if", W=(N, I), b=(N,)),
    {"C": (N, E, E), "n": (N, E), "m": (N, 1)},
    {"heads": N},
)
CONV_STATE = {"h": (H, Y, X), "c": (H, Y, X)}
CLOCKWORK = gate_shapes("h")
GRU_D = Case(
    gru_d,
    shapes("rzn", W=(H, I), U=(H, H), V=(H, I), b=(H,)) | {"w_x": (I,), "b_x": (I,), "mean": (I,), "W_d": (H, I), "b_d": (H,)},
    {"h": (H,), "l": (I,)},
)
ATTENTION = Case(
    attention_gru,
    shapes("rzn", W=(H, I), U=(H, H), V=(H, H), b=(H,))
    | {"W_a": (A, H), "U_a": (A, M), "b_a": (A,), "v_a": (A,), "W_y": (H, H), "U_y": (H, M), "b_y": (H,)},
    {"h": (H,), "y": (H,)},
)
CASES = [
    LSTMP,
    MGU,
    *(Case(indrnn, INDRNN, {"h": (H,)}, {"activation": f}) for f in ("relu", "tanh")),
    SRU,
    QRNN,
    MINGRU,
    MINLSTM,
    FASTGRNN,
    *(Case(rhn, rhn_shapes(depth), {"h": (H,)}, {"depth": depth}) for depth in (1, 3)),
    NORMED,
    MULTIPLICATIVE,
    SLSTM,
    MLSTM,
    *(Case(conv_lstm, kernel_shapes(K), CONV_STATE, x=(I, Y, X)) for K in (1, 3)),
    *(Case(clockwork_rnn, CLOCKWORK, {"h": (H,)}, {"modules": G, "start": start}) for G, start in ((2, 0), (4, 3))),
    GRU_D,
    ATTENTION,
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def draw(rng, shapes):
    return {name: rng.normal(scale=0.6, size=shape) for name, shape in shapes.items()}


def draw_case(rng, case):
    """x, state, p, options. Padding of a memory is NaN: it must not be read."""
    p = draw(rng, case.p)
    state = draw(rng, {name: (B, *shape) for name, shape in case.state.items()})
    x = rng.normal(size=(T, B, *case.x))
    options = dict(case.options)
    if case.module is slstm:
        state["n"] = np.exp(state["n"])  # a sum of positive weights
    if case.module is gru_d:
        observed = rng.random(size=x.shape) < 0.6
        observed[:3, :, :2] = np.array([False, True, False])[:, None, None]
        for name in ("w_x", "b_x", "W_d", "b_d"):  # whatever was drawn, the first decays and the second does not
            p[name][0], p[name][1] = np.abs(p[name][0]), -np.abs(p[name][1])
        x = {"x": x, "m": observed.astype(np.float64), "d": rng.exponential(size=x.shape)}
    if case.module is attention_gru:
        mask = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
        memory = np.where(mask[..., None] == 1, rng.normal(size=(B, S, M)), np.nan)
        options["context"] = {"memory": memory, "mask": mask}
    return x, state, p, options


def steps(x, which):
    return {name: value[which] for name, value in x.items()} if isinstance(x, dict) else x[which]


def arrays(nested):
    """The arrays of nested dicts, depth first; anything else is left out."""
    if isinstance(nested, dict):
        return [array for value in nested.values() for array in arrays(value)]
    return [nested] if isinstance(nested, np.ndarray) else []


def assert_same_run(one, other):
    np.testing.assert_allclose(one[0], other[0], **SAME)
    for name in one[1]:
        np.testing.assert_allclose(one[1][name], other[1][name], err_msg=name, **SAME)


def tensor(array):
    return torch.tensor(np.asarray(array), dtype=torch.float64)


# --- what every oracle promises ---


@every_case
def test_chunks_are_the_whole_and_states_are_those_after_each_step(rng, case):
    x, state, p, options = draw_case(rng, case)
    outputs, final, states = case.module.run(x, state, p, **options)
    assert outputs.shape[:2] == (T, B)
    assert final.keys() == states.keys() == state.keys()
    for t in range(T + 1):  # t = 0: no step at all
        later = options | ({"start": options["start"] + t} if "start" in options else {})
        head, middle, _ = case.module.run(steps(x, slice(t)), state, p, **options)
        tail, last, _ = case.module.run(steps(x, slice(t, None)), middle, p, **later)
        for name, shape in case.state.items():
            assert states[name].shape == (T, B, *shape)
            np.testing.assert_array_equal(middle[name], states[name][t - 1] if t else state[name])
            np.testing.assert_array_equal(last[name], final[name])
        np.testing.assert_array_equal(np.concatenate([head, tail]), outputs)


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, "y" if case is ATTENTION else "h") for case in CASES if case not in (SRU, QRNN, MLSTM)],
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_the_output_is_the_state(rng, case, name):
    x, state, p, options = draw_case(rng, case)
    outputs, _, states = case.module.run(x, state, p, **options)
    np.testing.assert_array_equal(outputs, states[name])


@every_case
def test_no_argument_is_changed_or_shared(rng, case):
    x, state, p, options = draw_case(rng, case)
    arguments = arrays({"x": x, "state": state, "p": p, "options": options})
    before = [array.copy() for array in arguments]
    outputs, final, states = case.module.run(x, state, p, **options)
    fresh = arrays({"outputs": outputs, "final": final, "states": states})
    for array, kept in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, kept)
    assert all(array.dtype == np.float64 for array in fresh)
    assert not any(np.shares_memory(one, other) for one, other in itertools.combinations([*arguments, *fresh], 2))


@every_case
def test_a_row_alone_is_that_row_in_the_batch(rng, case):
    x, state, p, options = draw_case(rng, case)
    outputs, final, _ = case.module.run(x, state, p, **options)
    for b in range(B):
        row = slice(b, b + 1)
        row_options = options
        if "context" in options:
            row_options = options | {"context": {name: value[row] for name, value in options["context"].items()}}
        row_state = {name: value[row] for name, value in state.items()}
        alone, alone_final, _ = case.module.run(steps(x, (slice(None), row)), row_state, p, **row_options)
        np.testing.assert_array_equal(alone, outputs[:, row])
        for name in final:
            np.testing.assert_array_equal(alone_final[name], final[name][row])


@every_case
def test_every_parameter_input_and_state_matters(rng, case):
    x, state, p, options = draw_case(rng, case)
    before = case.module.run(x, state, p, **options)
    for array in arrays({"x": x, "state": state, "p": p, "options": options}):
        if options.get("context", {}).get("mask") is array:
            continue  # not a number to be moved a little
        kept = array.copy()
        array += 0.1
        after = case.module.run(x, state, p, **options)
        array[...] = kept
        moved = max(np.max(np.abs(one - other)) for one, other in zip(arrays(before[1]), arrays(after[1]), strict=True))
        moved = max(moved, np.max(np.abs(before[0] - after[0])))
        assert moved > 1e-6


# --- torch ---


def test_lstmp_is_torch_lstm_with_a_projection(rng):
    x, state, p, _ = draw_case(rng, LSTMP)
    layer = torch.nn.LSTM(I, H, proj_size=P, bias=True, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(tensor(np.concatenate([p[f"W_{gate}"] for gate in "ifgo"])))
        layer.weight_hh_l0.copy_(tensor(np.concatenate([p[f"U_{gate}"] for gate in "ifgo"])))
        layer.bias_ih_l0.copy_(tensor(np.concatenate([p[f"b_{gate}"] for gate in "ifgo"])))
        layer.bias_hh_l0.zero_()
        layer.weight_hr_l0.copy_(tensor(p["W_p"]))
        outputs, (h, c) = layer(tensor(x), (tensor(state["h"])[None], tensor(state["c"])[None]))
    theirs = outputs.numpy(), {"h": h[0].numpy(), "c": c[0].numpy()}
    assert_same_run(theirs, lstmp.run(x, state, p))


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_layer_norm_lstm_is_torch_layer_norm_over_the_four_gates_together(rng, eps):
    x, state, p, _ = draw_case(rng, NORMED)
    stacked = {kind: tensor(np.concatenate([p[f"{kind}_{gate}"] for gate in "ifgo"])) for kind in ("W", "U", "gx", "gh", "b")}
    h, c = tensor(state["h"]), tensor(state["c"])
    outputs = []
    for t in range(T):
        a = torch.nn.functional.layer_norm(tensor(x[t]) @ stacked["W"].T, (4 * H,), stacked["gx"], stacked["b"], eps)
        r = torch.nn.functional.layer_norm(h @ stacked["U"].T, (4 * H,), stacked["gh"], None, eps)
        i, f, g, o = (a + r).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        normed = torch.nn.functional.layer_norm(c, (H,), tensor(p["gc"]), tensor(p["bc"]), eps)
        h = torch.sigmoid(o) * torch.tanh(normed)
        outputs.append(h.numpy())
    theirs = np.stack(outputs), {"h": h.numpy(), "c": c.numpy()}
    assert_same_run(theirs, layer_norm_lstm.run(x, state, p, eps=eps))


def test_layer_norm_lstm_has_eps_1e_5_unless_told(rng):
    x, state, p, _ = draw_case(rng, NORMED)
    np.testing.assert_array_equal(layer_norm_lstm.run(x, state, p)[0], layer_norm_lstm.run(x, state, p, eps=1e-5)[0])
    assert np.any(layer_norm_lstm.run(x, state, p)[0] != layer_norm_lstm.run(x, state, p, eps=1e-4)[0])


@pytest.mark.parametrize("K", [1, 3, 5])
def test_the_convolution_is_torch_conv2d_with_same_padding(rng, K):
    kernel, picture = rng.normal(size=(H, I, K, K)), rng.normal(size=(I, Y, X))
    theirs = torch.nn.functional.conv2d(tensor(picture)[None], tensor(kernel), padding="same")[0]
    np.testing.assert_allclose(conv_lstm.correlate(kernel, picture), theirs.numpy(), **SAME)


def test_conv_lstm_is_a_step_of_torch_convolutions(rng):
    x, state, p, _ = draw_case(rng, Case(conv_lstm, kernel_shapes(3), CONV_STATE, x=(I, Y, X)))
    p_t = {name: tensor(value) for name, value in p.items()}
    h, c = tensor(state["h"]), tensor(state["c"])

    def sums(gate, t):
        both = torch.cat([tensor(x[t]), h], dim=1)
        kernel = torch.cat([p_t[f"W_{gate}"], p_t[f"U_{gate}"]], dim=1)
        return torch.nn.functional.conv2d(both, kernel, p_t[f"b_{gate}"].flatten(), padding=1)

    for t in range(T):
        a = {gate: sums(gate, t) for gate in "ifgo"}
        i, f = torch.sigmoid(a["i"] + c * p_t["p_i"]), torch.sigmoid(a["f"] + c * p_t["p_f"])
        c = f * c + i * torch.tanh(a["g"])
        h = torch.sigmoid(a["o"] + c * p_t["p_o"]) * torch.tanh(c)
    _, final, _ = conv_lstm.run(x, state, p)
    np.testing.assert_allclose(final["h"], h.numpy(), **SAME)
    np.testing.assert_allclose(final["c"], c.numpy(), **SAME)


# --- the older oracles, where one cell is a case of another ---


def negated(p, gate):
    """1 - sigma(a) = sigma(-a): what turns a gate round."""
    return {name: -value for name, value in p.items() if name.endswith(f"_{gate}")}


def test_conv_lstm_with_a_one_by_one_kernel_is_a_peephole_lstm_at_every_place(rng):
    x, state, p, _ = draw_case(rng, Case(conv_lstm, kernel_shapes(1), CONV_STATE, x=(I, Y, X)))
    outputs, final, _ = conv_lstm.run(x, state, p)
    for y, column in itertools.product(range(Y), range(X)):
        here = {name: value[..., 0, 0] for name, value in p.items() if not name.startswith("p_")}
        here |= {name: value[:, y, column] for name, value in p.items() if name.startswith("p_")}
        state_here = {name: value[..., y, column] for name, value in state.items()}
        theirs = peephole_lstm.run(x[..., y, column], state_here, here, output_gate="new")
        assert_same_run((outputs[..., y, column], {name: value[..., y, column] for name, value in final.items()}), theirs)


def test_mgu_is_a_gru_whose_reset_gate_is_its_update_gate(rng):
    x, state, p, _ = draw_case(rng, MGU)
    reset = {name.replace("_f", "_r"): value for name, value in p.items() if name.endswith("_f")}
    update = {name.replace("_f", "_z"): value for name, value in negated(p, "f").items()}
    assert_same_run(mgu.run(x, state, p), gru.run(x, state, p | reset | update))


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_indrnn_is_elman_with_a_diagonal_recurrent_matrix(rng, activation):
    x, state, p, options = draw_case(rng, Case(indrnn, INDRNN, {"h": (H,)}, {"activation": activation}))
    diagonal = p | {"U_h": np.diag(p["u_h"])}
    assert_same_run(indrnn.run(x, state, p, **options), elman.run(x, state, diagonal, activation=activation))


def test_indrnn_is_rectified_unless_told(rng):
    x, state, p, _ = draw_case(rng, Case(indrnn, INDRNN, {"h": (H,)}))
    np.testing.assert_array_equal(indrnn.run(x, state, p)[0], indrnn.run(x, state, p, activation="relu")[0])


def test_sru_without_peepholes_keeps_what_a_mingru_keeps(rng):
    x, state, p, _ = draw_case(rng, SRU)
    p |= {"v_f": np.zeros(H), "v_r": np.zeros(H)}
    outputs, final, states = sru.run(x, state, p)
    inner = {"W_z": -p["W_f"], "b_z": -p["b_f"], "W_n": p["W_c"], "b_n": np.zeros(H)}
    cs, theirs, _ = mingru.run(x, {"h": state["c"]}, inner)
    assert_same_run((states["c"], {"h": final["c"]}), (cs, theirs))
    r = logistic(x @ p["W_r"].T + p["b_r"])
    np.testing.assert_allclose(outputs, r * cs + (1 - r) * (x @ p["W_s"].T), **SAME)


def test_qrnn_keeps_what_a_coupled_lstm_over_pairs_of_inputs_keeps_when_nothing_else_recurs(rng):
    x, state, p, _ = draw_case(rng, QRNN)
    pairs = np.concatenate([x, np.concatenate([state["p"][None], x[:-1]])], axis=2)
    inner = {f"U_{gate}": np.zeros((H, H)) for gate in "igo"}
    for ours, theirs, sign in (("z", "g", 1), ("f", "i", -1), ("o", "o", 1)):
        inner[f"W_{theirs}"] = sign * np.concatenate([p[f"W_{ours}"], p[f"U_{ours}"]], axis=1)
        inner[f"b_{theirs}"] = sign * p[f"b_{ours}"]
    hs, _, states = coupled_lstm.run(pairs, {"h": np.zeros((B, H)), "c": state["c"]}, inner)
    outputs, final, own = qrnn.run(x, state, p)
    np.testing.assert_allclose(own["c"], states["c"], **SAME)
    np.testing.assert_allclose(outputs * np.tanh(states["c"]), hs * states["c"], **SAME)  # o c, and o tanh(c)
    np.testing.assert_array_equal(own["p"], x)
    np.testing.assert_array_equal(final["p"], x[-1])


def weighted_sum(keep, new, start):
    """h_t = keep_t h_{t-1} + new_t, written without the recurrence: everything that entered, times what kept it."""
    return np.stack(
        [
            np.prod(keep[: t + 1], axis=0) * start + sum(np.prod(keep[s + 1 : t + 1], axis=0) * new[s] for s in range(t + 1))
            for t in range(len(keep))
        ]
    )


def test_mingru_is_a_weighted_sum_of_its_inputs(rng):
    x, state, p, _ = draw_case(rng, MINGRU)
    z = 1 / (1 + np.exp(-(x @ p["W_z"].T + p["b_z"])))
    expected = weighted_sum(1 - z, z * (x @ p["W_n"].T + p["b_n"]), state["h"])
    np.testing.assert_allclose(mingru.run(x, state, p)[0], expected, **SAME)


def test_minlstm_is_a_weighted_sum_of_its_inputs(rng):
    x, state, p, _ = draw_case(rng, MINLSTM)
    f, i = (1 / (1 + np.exp(-(x @ p[f"W_{gate}"].T + p[f"b_{gate}"]))) for gate in "fi")
    expected = weighted_sum(f / (f + i), i / (f + i) * (x @ p["W_n"].T + p["b_n"]), state["h"])
    np.testing.assert_allclose(minlstm.run(x, state, p)[0], expected, **SAME)


def test_minlstm_whose_gates_sum_to_one_is_a_mingru(rng):
    x, state, p, _ = draw_case(rng, MINGRU)
    gates = {"W_i": p["W_z"], "b_i": p["b_z"], "W_f": -p["W_z"], "b_f": -p["b_z"]}
    assert_same_run(mingru.run(x, state, p), minlstm.run(x, state, p | gates))


def test_fastgrnn_with_zeta_at_1_and_nu_at_0_is_a_gru_that_never_resets(rng):
    x, state, p, _ = draw_case(rng, FASTGRNN)
    p |= {"zeta": np.array([50.0]), "nu": np.array([-800.0])}  # where the logistic is 1 and 0 to the last bit
    full = {"W_r": np.zeros((H, I)), "U_r": np.zeros((H, H)), "b_r": np.full(H, 50.0)}
    full |= {name: p[name] for name in ("b_z", "b_n")}
    full |= {"W_z": p["W"], "U_z": p["U"], "W_n": p["W"], "U_n": p["U"]}
    assert_same_run(fastgrnn.run(x, state, p), gru.run(x, state, full))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_rhn_is_a_gru_that_never_resets_taken_once_per_layer(rng, depth):
    x, state, p, _ = draw_case(rng, Case(rhn, rhn_shapes(depth), {"h": (H,)}))
    outputs, _, _ = rhn.run(x, state, p, depth=depth)
    s = {"h": state["h"]}
    for t in range(T):
        for layer in range(1, depth + 1):
            full = {"W_r": np.zeros((H, I)), "U_r": np.zeros((H, H)), "b_r": np.full(H, 50.0)}
            full |= {"W_n": p["W_n"], "U_n": p[f"U_n{layer}"], "b_n": p[f"b_n{layer}"]}
            full |= {"W_z": -p["W_t"], "U_z": -p[f"U_t{layer}"], "b_z": -p[f"b_t{layer}"]}
            inputs = x[t : t + 1] if layer == 1 else np.zeros((1, B, I))
            _, s, _ = gru.run(inputs, s, full)
        np.testing.assert_allclose(outputs[t], s["h"], **SAME)


def test_multiplicative_lstm_is_an_lstm_whose_recurrent_matrices_depend_on_the_input(rng):
    """U_k ((W_m x) (U_m h)) = (U_k diag(W_m x) U_m) h."""
    x, state, p, _ = draw_case(rng, MULTIPLICATIVE)
    outputs, _, states = multiplicative_lstm.run(x, state, p)
    for b in range(B):
        s = {name: value[b : b + 1] for name, value in state.items()}
        for t in range(T):
            turned = np.diag(p["W_m"] @ x[t, b]) @ p["U_m"]
            inner = p | {f"U_{gate}": p[f"U_{gate}"] @ turned for gate in "ifgo"}
            _, s, _ = lstm.run(x[t : t + 1, b : b + 1], s, inner)
            np.testing.assert_allclose(outputs[t, b], s["h"][0], **SAME)
            np.testing.assert_allclose(states["c"][t, b], s["c"][0], **SAME)


def test_clockwork_with_one_module_is_elman(rng):
    x, state, p, _ = draw_case(rng, Case(clockwork_rnn, CLOCKWORK, {"h": (H,)}))
    assert_same_run(clockwork_rnn.run(x, state, p, modules=1), elman.run(x, state, p, activation="tanh"))


@pytest.mark.parametrize("modules", [2, 4])
def test_the_slowest_clockwork_module_is_elman_on_every_so_many_steps(rng, modules):
    x, state, p, _ = draw_case(rng, Case(clockwork_rnn, CLOCKWORK, {"h": (H,)}))
    x = rng.normal(size=(20, B, I))
    outputs, _, _ = clockwork_rnn.run(x, state, p, modules=modules)
    units, period = slice(H - H // modules, H), 2 ** (modules - 1)
    inner = {"W_h": p["W_h"][units], "U_h": p["U_h"][units, units], "b_h": p["b_h"][units]}
    alone, _, _ = elman.run(x[::period], {"h": state["h"][:, units]}, inner, activation="tanh")
    np.testing.assert_allclose(outputs[..., units], np.repeat(alone, period, axis=0)[:20], **SAME)


def test_what_a_slow_clockwork_module_would_read_from_a_faster_one_is_never_read(rng):
    x, state, p, _ = draw_case(rng, Case(clockwork_rnn, CLOCKWORK, {"h": (H,)}))
    expected = clockwork_rnn.run(x, state, p, modules=2)
    p["U_h"][2:, :2] = np.nan
    assert_same_run(clockwork_rnn.run(x, state, p, modules=2), expected)


def test_gru_d_fully_observed_with_no_decay_is_a_gru_with_an_extra_constant_input(rng):
    x, state, p, _ = draw_case(rng, GRU_D)
    p["b_d"] = -np.abs(p["b_d"])  # and d = 0: max(0, .) = 0
    x |= {"m": np.ones((T, B, I)), "d": np.zeros((T, B, I))}
    outputs, final, states = gru_d.run(x, state, p)
    full = {f"W_{gate}": np.concatenate([p[f"W_{gate}"], p[f"V_{gate}"]], axis=1) for gate in "rzn"}
    full |= {name: p[name] for gate in "rzn" for name in (f"U_{gate}", f"b_{gate}")}
    full |= negated(full, "z")
    theirs = gru.run(np.concatenate([x["x"], x["m"]], axis=2), {"h": state["h"]}, full)
    assert_same_run((outputs, {"h": final["h"]}), theirs)
    np.testing.assert_array_equal(states["l"], x["x"])


def test_gru_d_is_a_gru_on_filled_in_inputs_from_a_decayed_state(rng):
    x, state, p, _ = draw_case(rng, GRU_D)
    filled = np.concatenate([state["l"][None], x["x"]])
    for t, b, i in np.ndindex(T, B, I):
        if x["m"][t, b, i] == 0:
            filled[t + 1, b, i] = filled[t, b, i]
    outputs, final, states = gru_d.run(x, state, p)
    np.testing.assert_array_equal(states["l"], filled[1:])
    np.testing.assert_array_equal(final["l"], filled[-1])

    gamma_x = np.minimum(1, np.exp(-(x["d"] * p["w_x"] + p["b_x"])))
    gamma_h = np.minimum(1, np.exp(-(x["d"] @ p["W_d"].T + p["b_d"])))
    assert np.any(gamma_x < 1)
    assert np.any(gamma_x[x["m"] == 0] == 1)
    assert np.any(gamma_h < 1)
    assert np.any(gamma_h == 1)
    guess = gamma_x * filled[:-1] + (1 - gamma_x) * p["mean"]
    inputs = np.concatenate([np.where(x["m"] == 1, x["x"], guess), x["m"]], axis=2)
    full = {f"W_{gate}": np.concatenate([p[f"W_{gate}"], p[f"V_{gate}"]], axis=1) for gate in "rzn"}
    full |= {name: p[name] for gate in "rzn" for name in (f"U_{gate}", f"b_{gate}")}
    full |= negated(full, "z")
    h = state["h"]
    for t in range(T):
        _, after, _ = gru.run(inputs[t : t + 1], {"h": gamma_h[t] * h}, full)
        h = after["h"]
        np.testing.assert_allclose(outputs[t], h, **SAME)


def test_attention_gru_is_a_gru_fed_its_last_output_and_a_word_attention_over_the_memory(rng):
    x, state, p, options = draw_case(rng, ATTENTION)
    memory, mask = options["context"]["memory"], options["context"]["mask"]
    outputs, _, states = attention_gru.run(x, state, p, **options)
    full = {f"W_{gate}": np.concatenate([p[f"W_{gate}"], p[f"V_{gate}"]], axis=1) for gate in "rzn"}
    full |= {name: p[name] for gate in "rzn" for name in (f"U_{gate}", f"b_{gate}")}
    full |= negated(full, "z")
    h, y = state["h"], state["y"]
    for t in range(T):
        _, after, _ = gru.run(np.concatenate([x[t], y], axis=1)[None], {"h": h}, full)
        h = after["h"]
        np.testing.assert_allclose(states["h"][t], h, **SAME)
        y = np.zeros((B, H))
        for b in range(B):
            real = memory[b][mask[b] == 1]
            scoring = {"W": p["U_a"], "b": p["b_a"] + p["W_a"] @ h[b], "v": p["v_a"]}
            ctx, _ = additive_attention.run(real[None], np.array([len(real)]), scoring)
            y[b] = np.tanh(p["W_y"] @ h[b] + p["U_y"] @ ctx[0] + p["b_y"])
        np.testing.assert_allclose(outputs[t], y, **SAME)


def test_attention_over_one_position_is_that_position(rng):
    _, state, p, _ = draw_case(rng, ATTENTION)
    memory = rng.normal(size=(1, M))
    np.testing.assert_allclose(attention_gru.attend(state["h"][0], memory, np.ones(1), p), memory[0], **SAME)


def test_attention_does_not_mind_the_order_of_the_memory(rng):
    x, state, p, options = draw_case(rng, ATTENTION)
    order = np.array([2, 0, 3, 1])
    turned = {name: value[:, order] for name, value in options["context"].items()}
    assert_same_run(attention_gru.run(x, state, p, **options), attention_gru.run(x, state, p, context=turned))


def test_attention_over_nothing_real_is_zero(rng):
    _, state, p, _ = draw_case(rng, ATTENTION)
    memory = np.full((S, M), np.nan)
    np.testing.assert_array_equal(attention_gru.attend(state["h"][0], memory, np.zeros(S), p), np.zeros(M))


# --- the xLSTM cells against their unstabilised equations ---


def test_log_logistic_is_the_logarithm_and_does_not_underflow():
    a = np.linspace(-30, 30, 13)
    np.testing.assert_allclose(log_logistic(a), np.log(1 / (1 + np.exp(-a))), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(log_logistic(np.array([-1000.0, 1000.0])), [-1000.0, 0.0])


def test_slstm_is_its_unstabilised_equations(rng):
    x, state, p, options = draw_case(rng, SLSTM)
    dense = {}
    for gate in "ifzo":
        dense[gate] = np.zeros((H, H))
        for head in range(N):
            dense[gate][head * E : (head + 1) * E, head * E : (head + 1) * E] = p[f"R_{gate}"][head]
    outputs, _, states = slstm.run(x, state, p, **options)
    h, m = state["h"], state["m"]
    c, n = state["c"] * np.exp(m), state["n"] * np.exp(m)
    for t in range(T):
        a = {k: x[t] @ p[f"W_{k}"].T + h @ dense[k].T + p[f"b_{k}"] for k in "ifzo"}
        sigma_f = 1 / (1 + np.exp(-a["f"]))
        c = sigma_f * c + np.exp(a["i"]) * np.tanh(a["z"])
        n = sigma_f * n + np.exp(a["i"])
        h = 1 / (1 + np.exp(-a["o"])) * c / n
        m = np.log(np.maximum(sigma_f * np.exp(m), np.exp(a["i"])))
        np.testing.assert_allclose(outputs[t], h, **SAME)
        np.testing.assert_allclose(states["m"][t], m, **SAME)
        np.testing.assert_allclose(states["c"][t] * np.exp(m), c, **SAME)
        np.testing.assert_allclose(states["n"][t] * np.exp(m), n, **SAME)


def test_slstm_forgets_everything_for_an_input_whose_gate_would_overflow(rng):
    x, state, p, options = draw_case(rng, SLSTM)
    p["b_i"] = np.full(H, 1000.0)
    p |= {f"R_{gate}": np.zeros((N, E, E)) for gate in "zo"}
    outputs, _, _ = slstm.run(x[:1], state, p, **options)
    z, o = np.tanh(x[:1] @ p["W_z"].T + p["b_z"]), logistic(x[:1] @ p["W_o"].T + p["b_o"])
    np.testing.assert_allclose(outputs, o * z, **SAME)


def test_mlstm_is_its_unstabilised_equations(rng):
    x, state, p, options = draw_case(rng, MLSTM)
    k = (x @ p["W_k"].T * E**-0.5 + p["b_k"]).reshape(T, B, N, E)
    v = (x @ p["W_v"].T + p["b_v"]).reshape(T, B, N, E)
    i = np.exp(x @ p["W_i"].T + p["b_i"])
    f, o = (1 / (1 + np.exp(-(x @ p[f"W_{name}"].T + p[f"b_{name}"]))) for name in "fo")
    m = np.exp(state["m"][..., 0])
    ms, Cs, ns = [m], [state["C"] * m[..., None, None]], [state["n"] * m[..., None]]
    for t in range(T):
        kept, new = f[t][..., None], i[t][..., None]
        ms.append(np.maximum(f[t] * ms[-1], i[t]))
        Cs.append(kept[..., None] * Cs[-1] + new[..., None] * np.einsum("bnv,bnk->bnvk", v[t], k[t]))
        ns.append(kept * ns[-1] + new * k[t])
    m, C, n = (np.stack(after[1:]) for after in (ms, Cs, ns))

    q = (x @ p["W_q"].T + p["b_q"]).reshape(T, B, N, E)
    scale = 1 / np.median(np.abs(np.sum(n * q, axis=3)))  # both sides of the maximum are to be seen
    q = scale * q
    u = np.einsum("tbnvk,tbnk->tbnv", C, q) / np.maximum(np.abs(np.sum(n * q, axis=3)), 1)[..., None]

    p |= {"W_q": scale * p["W_q"], "b_q": scale * p["b_q"]}
    outputs, _, states = mlstm.run(x, state, p, **options)
    np.testing.assert_allclose(outputs, o * u.reshape(T, B, H), **SAME)
    np.testing.assert_allclose(states["m"][..., 0], np.log(m), **SAME)
    np.testing.assert_allclose(states["C"] * m[..., None, None], C, **SAME)
    np.testing.assert_allclose(states["n"] * m[..., None], n, **SAME)


def test_mlstm_returns_the_one_value_it_kept_when_the_input_gate_would_overflow(rng):
    """C = v k^T and n = k, so that u = v (k . q) / |k . q|."""
    x, state, p, options = draw_case(rng, MLSTM)
    p["b_i"] = np.full(N, 1000.0)
    outputs, _, _ = mlstm.run(x[:1], state, p, **options)
    q, v = ((x[0] @ p[f"W_{name}"].T + p[f"b_{name}"]).reshape(B, N, E) for name in "qv")
    k = (x[0] @ p["W_k"].T * E**-0.5 + p["b_k"]).reshape(B, N, E)
    sign = np.sign(np.sum(k * q, axis=2, keepdims=True))
    o = logistic(x[0] @ p["W_o"].T + p["b_o"])
    np.testing.assert_allclose(outputs[0], o * (v * sign).reshape(B, H), **SAME)


# --- worked by hand: scalars only ---


def sigma(a):
    return 1 / (1 + math.exp(-a))


def of_scalars(**values):
    return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}


def test_sru_by_hand_over_two_steps():
    p = of_scalars(W_f=[[0.5]], v_f=[0.7], b_f=[0.1], W_r=[[-0.4]], v_r=[0.9], b_r=[0.2], W_c=[[1.3]], W_s=[[-0.8]])
    x, c = (1.5, -2.0), 0.6
    outputs, final, _ = sru.run(np.reshape(x, (2, 1, 1)), {"c": np.array([[c]])}, p)
    for t, x_t in enumerate(x):
        f, r = sigma(0.5 * x_t + 0.7 * c + 0.1), sigma(-0.4 * x_t + 0.9 * c + 0.2)
        c = f * c + (1 - f) * 1.3 * x_t
        np.testing.assert_allclose(outputs[t], [[r * c + (1 - r) * -0.8 * x_t]], **SAME)
    np.testing.assert_allclose(final["c"], [[c]], **SAME)


def test_fastgrnn_by_hand_over_two_steps():
    p = of_scalars(W=[[0.5]], U=[[-0.7]], b_z=[0.3], b_n=[-0.2], zeta=[0.9], nu=[-1.1])
    x, h = (1.5, -2.0), 0.6
    outputs, _, _ = fastgrnn.run(np.reshape(x, (2, 1, 1)), {"h": np.array([[h]])}, p)
    for t, x_t in enumerate(x):
        z, n = sigma(0.5 * x_t - 0.7 * h + 0.3), math.tanh(0.5 * x_t - 0.7 * h - 0.2)
        h = (sigma(0.9) * (1 - z) + sigma(-1.1)) * n + z * h
        np.testing.assert_allclose(outputs[t], [[h]], **SAME)


def test_clockwork_by_hand_from_the_step_counted_5():
    """Unit 0 moves at every step and reads unit 1; unit 1 moves at step 6 only and does not read unit 0."""
    p = of_scalars(W_h=[[0.5], [-0.3]], U_h=[[0.8, 0.6], [9.0, -0.7]], b_h=[0.1, 0.2])
    x = (1.5, -2.0, 0.4)
    outputs, _, _ = clockwork_rnn.run(np.reshape(x, (3, 1, 1)), {"h": np.array([[0.9, -0.4]])}, p, modules=2, start=5)
    fast5 = math.tanh(0.5 * 1.5 + 0.8 * 0.9 + 0.6 * -0.4 + 0.1)
    fast6 = math.tanh(0.5 * -2.0 + 0.8 * fast5 + 0.6 * -0.4 + 0.1)
    slow6 = math.tanh(-0.3 * -2.0 - 0.7 * -0.4 + 0.2)
    fast7 = math.tanh(0.5 * 0.4 + 0.8 * fast6 + 0.6 * slow6 + 0.1)
    np.testing.assert_allclose(outputs[:, 0], [[fast5, -0.4], [fast6, slow6], [fast7, slow6]], **SAME)


def test_clockwork_refuses_modules_of_unequal_size(rng):
    x, state, p, _ = draw_case(rng, Case(clockwork_rnn, CLOCKWORK, {"h": (H,)}))
    with pytest.raises(ValueError, match="3 modules do not divide 4 units"):
        clockwork_rnn.run(x, state, p, modules=3)


# --- random numbers: the known answers of Random123 (tests/kat_vectors) ---


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        (7, "00000000 00000000 00000000 00000000 00000000 00000000   5f6fb709 0d893f64 4f121f81 4f730a48"),
        (7, "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff   5207ddc2 45165e59 4d8ee751 8c52f662"),
        (7, "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0   4dfccaba 190a87f0 c47362ba b6b5242a"),
        (10, "00000000 00000000 00000000 00000000 00000000 00000000   6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (10, "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff   408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (10, "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0   d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers(rounds, words):
    """Counter, key, answer."""
    words = [int(word, 16) for word in words.split()]
    assert philox.philox4x32(words[:4], words[4:6], rounds=rounds) == tuple(words[6:])
    if rounds == 10:
        assert philox.philox4x32(np.array(words[:4], dtype=np.uint32), words[4:6]) == tuple(words[6:])
