r"""IRNN: Q. V. Le, N. Jaitly, G. E. Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear
Units", arXiv:1504.00941, 2015.

    h_t = max(0, W_h x_t + U_h h_{t-1} + b_h)

Conventions: the step is Elman's with rectified units; what the paper adds is the start, U_h = identity and b_h =
0, which is the caller's business and not part of the equations. Slope 0 at 0. The output is h. No options.

Parameters: W_h (H, I), U_h (H, H), b_h (H). State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np


def run(x, state, p):
    T, B, _ = x.shape
    H = state["h"].shape[1]
    hs = np.zeros((T, B, H))
    final = state["h"].copy()
    for b in range(B):
        h = state["h"][b]
        for t in range(T):
            a = p["W_h"] @ x[t, b] + p["U_h"] @ h + p["b_h"]
            h = np.maximum(0.0, a)
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
            dh = dh + d_outputs[t, b]
            da = np.where(states["h"][t, b] > 0.0, dh, 0.0)
            dp["W_h"] += np.outer(da, x[t, b])
            dp["U_h"] += np.outer(da, h_prev)
            dp["b_h"] += da
            dx[t, b] = p["W_h"].T @ da
            dh = p["U_h"].T @ da
        d_state["h"][b] = dh
    return dx, d_state, dp
