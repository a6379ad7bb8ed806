r"""GRU, reset after the product: the form of cuDNN and torch.nn.GRU (its documentation page states these equations),
a variant of K. Cho et al., arXiv:1406.1078, 2014, equations (5) to (8), whose reset gate acts before the product.

    r_t = sigma(W_r x_t + U_r h_{t-1} + b_r)
    z_t = sigma(W_z x_t + U_z h_{t-1} + b_z)
    n_t = tanh (W_n x_t + b_n + r_t (U_n h_{t-1} + b_hn))
    h_t = (1 - z_t) n_t + z_t h_{t-1}

Conventions: z keeps the OLD state. r multiplies the product U_n h and the bias b_hn with it, which is why b_hn
cannot be merged into b_n. torch's two biases of r and of z are merged: b_r = b_ir + b_hr, b_z = b_iz + b_hz. The
output is h. No options.

Parameters, for each of r z n: W (H, I), U (H, H), b (H); and b_hn (H). State: h (B, H). Outputs: (T, B, H).
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
            n = np.tanh(p["W_n"] @ x[t, b] + p["b_n"] + r * (p["U_n"] @ h + p["b_hn"]))
            h = (1.0 - z) * n + z * h
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
            q = p["U_n"] @ h_prev + p["b_hn"]
            n = np.tanh(p["W_n"] @ x[t, b] + p["b_n"] + r * q)

            dh = dh + d_outputs[t, b]
            da_n = dh * (1.0 - z) * (1.0 - n**2)
            da_z = dh * (h_prev - n) * z * (1.0 - z)
            da_r = da_n * q * r * (1.0 - r)
            dq = da_n * r

            dp["U_r"] += np.outer(da_r, h_prev)
            dp["U_z"] += np.outer(da_z, h_prev)
            dp["U_n"] += np.outer(dq, h_prev)
            dp["b_hn"] += dq
            for gate, da in (("r", da_r), ("z", da_z), ("n", da_n)):
                dp[f"W_{gate}"] += np.outer(da, x[t, b])
                dp[f"b_{gate}"] += da
                dx[t, b] += p[f"W_{gate}"].T @ da
            dh = dh * z + p["U_r"].T @ da_r + p["U_z"].T @ da_z + p["U_n"].T @ dq
        d_state["h"][b] = dh
    return dx, d_state, dp
