r"""GRU, reset before the product: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for
Statistical Machine Translation", arXiv:1406.1078, 2014, equations (5) to (8).

    r_t = sigma(W_r x_t + U_r h_{t-1} + b_r)                      (5)
    z_t = sigma(W_z x_t + U_z h_{t-1} + b_z)                      (6)
    n_t = tanh (W_n x_t + U_n (r_t h_{t-1}) + b_n)                (8)
    h_t = z_t h_{t-1} + (1 - z_t) n_t                             (7)

Conventions: z keeps the OLD state (Chung et al. 2014 write the opposite). r multiplies h before U_n does. The
paper has no biases; there is one per gate here. The paper calls the candidate h-tilde and its squashing phi, here
tanh. The output is h. No options.

Parameters, for each of r z n: W (H, I), U (H, H), b (H). State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    H = state["h"].shape[1]
    hs = np.zeros((T, B, H))
    final = state["h"].copy()
    for b in range(B):
        h = state["h"][b]
        for t in range(T):
            r = logistic(p["W_r"] @ x[t, b] + p["U_r"] @ h + p["b_r"])
            z = logistic(p["W_z"] @ x[t, b] + p["U_z"] @ h + p["b_z"])
            n = np.tanh(p["W_n"] @ x[t, b] + p["U_n"] @ (r * h) + p["b_n"])
            h = z * h + (1.0 - z) * n
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}


def gradients(x, state, p, d_outputs, d_final_state):
    _, _, states = run(x, state, p)
    T, B, _ = x.shape
    dx = np.zeros_like(x)
    d_state = {"h": np.zeros_like(state["h"])}
    dp = {name: np.zeros_like(value) for name, value in p.items()}
    for b in range(B):
        dh = d_final_state["h"][b]
        for t in reversed(range(T)):
            h_prev = states["h"][t - 1, b] if t > 0 else state["h"][b]
            r = logistic(p["W_r"] @ x[t, b] + p["U_r"] @ h_prev + p["b_r"])
            z = logistic(p["W_z"] @ x[t, b] + p["U_z"] @ h_prev + p["b_z"])
            n = np.tanh(p["W_n"] @ x[t, b] + p["U_n"] @ (r * h_prev) + p["b_n"])

            dh = dh + d_outputs[t, b]
            da_n = dh * (1.0 - z) * (1.0 - n**2)
            da_z = dh * (h_prev - n) * z * (1.0 - z)
            d_reset = p["U_n"].T @ da_n  # by the product r h_{t-1}
            da_r = d_reset * h_prev * r * (1.0 - r)

            dp["U_r"] += np.outer(da_r, h_prev)
            dp["U_z"] += np.outer(da_z, h_prev)
            dp["U_n"] += np.outer(da_n, r * h_prev)
            for gate, da in (("r", da_r), ("z", da_z), ("n", da_n)):
                dp[f"W_{gate}"] += np.outer(da, x[t, b])
                dp[f"b_{gate}"] += da
                dx[t, b] += p[f"W_{gate}"].T @ da
            dh = dh * z + d_reset * r + p["U_r"].T @ da_r + p["U_z"].T @ da_z
        d_state["h"][b] = dh
    return dx, d_state, dp
