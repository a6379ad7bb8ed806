r"""LSTM with coupled input and forget gate (CIFG): K. Greff, R. K. Srivastava, J. Koutnik, B. R. Steunebrink, J.
Schmidhuber, "LSTM: A Search Space Odyssey", arXiv:1503.04069, 2015 (the forward pass of the vanilla LSTM, with
the CIFG variant f_t = 1 - i_t).

    i_t = sigma(W_i x_t + U_i h_{t-1} + b_i)
    g_t = tanh (W_g x_t + U_g h_{t-1} + b_g)
    o_t = sigma(W_o x_t + U_o h_{t-1} + b_o)
    c_t = (1 - i_t) c_{t-1} + i_t g_t
    h_t = o_t tanh(c_t)

Conventions: i admits the new candidate and 1 - i keeps the old cell state: the input gate is the one that is
learned. The paper's peepholes (its variant keeps them) are left out, so no gate sees c. The paper calls the
candidate z. The output is h. No options.

Parameters, for each of i g o: W (H, I), U (H, H), b (H). States: h, c (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    H = state["h"].shape[1]
    hs = np.zeros((T, B, H))
    cs = np.zeros((T, B, H))
    final = {"h": state["h"].copy(), "c": state["c"].copy()}
    for b in range(B):
        h, c = state["h"][b], state["c"][b]
        for t in range(T):
            i = logistic(p["W_i"] @ x[t, b] + p["U_i"] @ h + p["b_i"])
            g = np.tanh(p["W_g"] @ x[t, b] + p["U_g"] @ h + p["b_g"])
            o = logistic(p["W_o"] @ x[t, b] + p["U_o"] @ h + p["b_o"])
            c = (1.0 - i) * c + i * g
            h = o * np.tanh(c)
            hs[t, b] = h
            cs[t, b] = c
        final["h"][b] = h
        final["c"][b] = c
    return hs.copy(), final, {"h": hs, "c": cs}


def gradients(x, state, p, d_outputs, d_final_state):
    _, _, states = run(x, state, p)
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
            i = logistic(p["W_i"] @ x[t, b] + p["U_i"] @ h_prev + p["b_i"])
            g = np.tanh(p["W_g"] @ x[t, b] + p["U_g"] @ h_prev + p["b_g"])
            o = logistic(p["W_o"] @ x[t, b] + p["U_o"] @ h_prev + p["b_o"])
            squashed = np.tanh(states["c"][t, b])

            dh = dh + d_outputs[t, b]
            dc = dc + dh * o * (1.0 - squashed**2)
            da = {
                "o": dh * squashed * o * (1.0 - o),
                "i": dc * (g - c_prev) * i * (1.0 - i),
                "g": dc * i * (1.0 - g**2),
            }

            dh = np.zeros_like(h_prev)
            for gate in ("i", "g", "o"):
                dp[f"W_{gate}"] += np.outer(da[gate], x[t, b])
                dp[f"U_{gate}"] += np.outer(da[gate], h_prev)
                dp[f"b_{gate}"] += da[gate]
                dx[t, b] += p[f"W_{gate}"].T @ da[gate]
                dh = dh + p[f"U_{gate}"].T @ da[gate]
            dc = dc * (1.0 - i)
        d_state["h"][b] = dh
        d_state["c"][b] = dc
    return dx, d_state, dp
