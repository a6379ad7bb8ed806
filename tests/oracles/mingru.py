r"""minGRU: L. Feng, F. Tung, M. O. Ahmed, Y. Bengio, H. Hajimirsadeghi, "Were RNNs All We Needed?",
arXiv:2410.01201, 2024.

    z_t = sigma(W_z x_t + b_z)
    n_t = W_n x_t + b_n
    h_t = (1 - z_t) h_{t-1} + z_t n_t

Conventions: z weights the NEW candidate. Neither the gate nor the candidate sees h, and n is not squashed: this is
the paper's plain form; its log-space form also makes n positive and is another function. The paper calls n h-tilde.
The output is h. No options.

Parameters, for each of z n: W (H, I), b (H). State: h (B, H). Outputs: (T, B, H).
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
            z = logistic(p["W_z"] @ x[t, b] + p["b_z"])
            n = p["W_n"] @ x[t, b] + p["b_n"]
            h = (1.0 - z) * h + z * n
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}
