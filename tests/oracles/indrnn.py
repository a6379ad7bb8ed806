r"""IndRNN: S. Li, W. Li, C. Cook, C. Zhu, Y. Gao, "Independently Recurrent Neural Network (IndRNN): Building A Longer
and Deeper RNN", CVPR 2018, arXiv:1803.04831.

    h_t = f(W_h x_t + u_h h_{t-1} + b_h)

Conventions: u_h is a vector and its product is per unit: a unit sees its own past and no other's. Option
`activation` is f, relu by default, as in most of the paper, or tanh. The paper's bounds on |u_h| belong to training
and are not part of the equation. The output is h.

Parameters: W_h (H, I), u_h (H), b_h (H). State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import ACTIVATIONS


def run(x, state, p, activation="relu"):
    f, _ = ACTIVATIONS[activation]
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    final = state["h"].copy()
    for b in range(B):
        h = state["h"][b]
        for t in range(T):
            h = f(p["W_h"] @ x[t, b] + p["u_h"] * h + p["b_h"])
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}
