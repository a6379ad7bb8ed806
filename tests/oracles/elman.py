r"""Simple recurrent network: J. L. Elman, "Finding Structure in Time", Cognitive Science 14(2), 1990.

The paper draws the network (Figure 2) and prints no formula; in symbols:

    h_t = f(W_h x_t + U_h h_{t-1} + b_h)

Conventions: the context units hold an exact copy of the last hidden vector (recurrent copy weights fixed at 1).
The output is h itself; the paper's layer of output units above it is not part of the cell. Option `activation` is
f, one of tanh, relu, sigmoid, identity; the paper's units are logistic, our default is tanh. Elman did not carry
the gradient back through the context units; here it is carried (full BPTT). relu has slope 0 at 0.

Parameters: W_h (H, I), U_h (H, H), b_h (H). State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import ACTIVATIONS


def run(x, state, p, activation="tanh"):
    f, _ = ACTIVATIONS[activation]
    T, B, _ = x.shape
    H = state["h"].shape[1]
    hs = np.zeros((T, B, H))
    final = state["h"].copy()
    for b in range(B):
        h = state["h"][b]
        for t in range(T):
            h = f(p["W_h"] @ x[t, b] + p["U_h"] @ h + p["b_h"])
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}


def gradients(x, state, p, d_outputs, d_final_state, activation="tanh"):
    _, back = ACTIVATIONS[activation]
    _, _, states = run(x, state, p, activation=activation)
    T, B, _ = x.shape
    dx = np.zeros_like(x)
    d_state = {"h": np.zeros_like(state["h"])}
    dp = {name: np.zeros_like(value) for name, value in p.items()}
    for b in range(B):
        dh = d_final_state["h"][b]
        for t in reversed(range(T)):
            h_prev = states["h"][t - 1, b] if t > 0 else state["h"][b]
            dh = dh + d_outputs[t, b]
            da = back(states["h"][t, b], dh)
            dp["W_h"] += np.outer(da, x[t, b])
            dp["U_h"] += np.outer(da, h_prev)
            dp["b_h"] += da
            dx[t, b] = p["W_h"].T @ da
            dh = p["U_h"].T @ da
        d_state["h"][b] = dh
    return dx, d_state, dp
