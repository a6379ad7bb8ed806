r"""LSTM with peepholes: F. A. Gers, J. Schmidhuber, "Recurrent Nets that Time and Count", IJCNN 2000; F. A. Gers,
N. N. Schraudolph, J. Schmidhuber, "Learning Precise Timing with LSTM Recurrent Networks", JMLR 3, 2002 (the forward
pass with peephole connections, and its two-phase order of update).

    i_t = sigma(W_i x_t + U_i h_{t-1} + p_i c_{t-1} + b_i)
    f_t = sigma(W_f x_t + U_f h_{t-1} + p_f c_{t-1} + b_f)
    g_t = tanh (W_g x_t + U_g h_{t-1} + b_g)
    c_t = f_t c_{t-1} + i_t g_t
    o_t = sigma(W_o x_t + U_o h_{t-1} + p_o c + b_o)          c = c_t ("new") or c_{t-1} ("old")
    h_t = o_t tanh(c_t)

Conventions: f keeps the old cell state. A peephole joins a cell to its own gates only: p_i, p_f, p_o are vectors
and the product is per unit. Peepholes see c before tanh and before the output gate. i and f see c_{t-1}; the
candidate has no peephole. Option `output_gate`: "new", as in the papers, o is computed after the cell state and
sees c_t; "old", all gates at once, o sees c_{t-1}. The candidate and the cell state are squashed by tanh, as in
Greff et al. 2015; the papers do without some of this squashing. The output is h. The gradient runs through the
peepholes too; the papers cut it there.

Parameters, for each of i f g o: W (H, I), U (H, H), b (H); for i f o also p (H). States: h, c (B, H).
Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def step(x, h, c, p, output_gate):
    """Gates and new states of one row: i, f, g, o, c_seen (what o looked at), c_new, h_new."""
    i = logistic(p["W_i"] @ x + p["U_i"] @ h + p["p_i"] * c + p["b_i"])
    f = logistic(p["W_f"] @ x + p["U_f"] @ h + p["p_f"] * c + p["b_f"])
    g = np.tanh(p["W_g"] @ x + p["U_g"] @ h + p["b_g"])
    c_new = f * c + i * g
    c_seen = {"new": c_new, "old": c}[output_gate]
    o = logistic(p["W_o"] @ x + p["U_o"] @ h + p["p_o"] * c_seen + p["b_o"])
    h_new = o * np.tanh(c_new)
    return i, f, g, o, c_seen, c_new, h_new


def run(x, state, p, output_gate="new"):
    T, B, _ = x.shape
    H = state["h"].shape[1]
    hs = np.zeros((T, B, H))
    cs = np.zeros((T, B, H))
    final = {"h": state["h"].copy(), "c": state["c"].copy()}
    for b in range(B):
        h, c = state["h"][b], state["c"][b]
        for t in range(T):
            *_, c, h = step(x[t, b], h, c, p, output_gate)
            hs[t, b] = h
            cs[t, b] = c
        final["h"][b] = h
        final["c"][b] = c
    return hs.copy(), final, {"h": hs, "c": cs}


def gradients(x, state, p, d_outputs, d_final_state, output_gate="new"):
    _, _, states = run(x, state, p, output_gate=output_gate)
    T, B, _ = x.shape
    dx = np.zeros_like(x)
    d_state = {name: np.zeros_like(value) for name, value in state.items()}
    dp = {name: np.zeros_like(value) for name, value in p.items()}
    for b in range(B):
        dh = d_final_state["h"][b]
        dc = d_final_state["c"][b]
        for t in reversed(range(T)):
            h_prev = states["h"][t - 1, b] if t > 0 else state["h"][b]
            c_prev = states["c"][t - 1, b] if t > 0 else state["c"][b]
            i, f, g, o, c_seen, c_new, _ = step(x[t, b], h_prev, c_prev, p, output_gate)
            squashed = np.tanh(c_new)

            dh = dh + d_outputs[t, b]
            da_o = dh * squashed * o * (1.0 - o)
            dp["p_o"] += da_o * c_seen
            dc = dc + dh * o * (1.0 - squashed**2)
            if output_gate == "new":
                dc = dc + da_o * p["p_o"]  # before c_t is taken apart: i, f and g feel it as well
            da_i = dc * g * i * (1.0 - i)
            da_f = dc * c_prev * f * (1.0 - f)
            da_g = dc * i * (1.0 - g**2)
            dp["p_i"] += da_i * c_prev
            dp["p_f"] += da_f * c_prev
            dc = dc * f + da_i * p["p_i"] + da_f * p["p_f"]
            if output_gate == "old":
                dc = dc + da_o * p["p_o"]

            dh = np.zeros_like(h_prev)
            for gate, da in (("i", da_i), ("f", da_f), ("g", da_g), ("o", da_o)):
                dp[f"W_{gate}"] += np.outer(da, x[t, b])
                dp[f"U_{gate}"] += np.outer(da, h_prev)
                dp[f"b_{gate}"] += da
                dx[t, b] += p[f"W_{gate}"].T @ da
                dh = dh + p[f"U_{gate}"].T @ da
        d_state["h"][b] = dh
        d_state["c"][b] = dc
    return dx, d_state, dp
