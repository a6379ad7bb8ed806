r"""Multiplicative LSTM: B. Krause, L. Lu, I. Murray, S. Renals, "Multiplicative LSTM for sequence modelling",
arXiv:1609.07959, 2016.

    m_t = (W_m x_t) (U_m h_{t-1})                                 per unit
    i_t = sigma(W_i x_t + U_i m_t + b_i)
    f_t = sigma(W_f x_t + U_f m_t + b_f)
    g_t = tanh (W_g x_t + U_g m_t + b_g)
    o_t = sigma(W_o x_t + U_o m_t + b_o)
    c_t = f_t c_{t-1} + i_t g_t
    h_t = o_t tanh(c_t)

Conventions: an LSTM that sees m where it would see h. m is as large as h, is not squashed, has no bias and is not
carried to the next step. The paper prints no biases; there is one per gate here. The paper calls the candidate's sum
h-hat. f keeps the old cell state. The output is h. No options.

Parameters: W_m (H, I), U_m (H, H); for each of i f g o: W (H, I), U (H, H), b (H). States: h, c (B, H).
Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    cs = np.zeros((T, *state["c"].shape))
    final = {"h": state["h"].copy(), "c": state["c"].copy()}
    for b in range(B):
        h, c = state["h"][b], state["c"][b]
        for t in range(T):
            m = (p["W_m"] @ x[t, b]) * (p["U_m"] @ h)
            i = logistic(p["W_i"] @ x[t, b] + p["U_i"] @ m + p["b_i"])
            f = logistic(p["W_f"] @ x[t, b] + p["U_f"] @ m + p["b_f"])
            g = np.tanh(p["W_g"] @ x[t, b] + p["U_g"] @ m + p["b_g"])
            o = logistic(p["W_o"] @ x[t, b] + p["U_o"] @ m + p["b_o"])
            c = f * c + i * g
            h = o * np.tanh(c)
            hs[t, b] = h
            cs[t, b] = c
        final["h"][b] = h
        final["c"][b] = c
    return hs.copy(), final, {"h": hs, "c": cs}
