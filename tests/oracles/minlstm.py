r"""minLSTM: L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs All We Needed?",
arXiv:2410.01201, 2024 (the form whose two gates are normalised to sum to 1).

    f_t = sigma(W_f x_t + b_f)
    i_t = sigma(W_i x_t + b_i)
    n_t = W_n x_t + b_n
    h_t = f_t / (f_t + i_t) h_{t-1} + i_t / (f_t + i_t) n_t

Conventions: f keeps the old state. Neither the gates nor the candidate see h, and n is not squashed: this is the
paper's plain form; its log-space form also makes n positive and is another function. There is no separate cell
state. The paper calls n h-tilde. The output is h. No options.

Parameters, for each of f i n: W (H, I), b (H). State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    final = state["h"].copy()
    for b in range(B):
        h = state["h"][b]
        for t in range(T):
            f = logistic(p["W_f"] @ x[t, b] + p["b_f"])
            i = logistic(p["W_i"] @ x[t, b] + p["b_i"])
            n = p["W_n"] @ x[t, b] + p["b_n"]
            h = f / (f + i) * h + i / (f + i) * n
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}
