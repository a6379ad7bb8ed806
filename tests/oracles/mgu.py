r"""Minimal gated unit: G.-B. Zhou, J. Wu, C.-L. Zhang, Z.-H. Zhou, "Minimal Gated Unit for Recurrent Neural
Networks", arXiv:1603.09420, 2016.

    f_t = sigma(W_f x_t + U_f h_{t-1} + b_f)
    n_t = tanh (W_n x_t + U_n (f_t h_{t-1}) + b_n)
    h_t = (1 - f_t) h_{t-1} + f_t n_t

Conventions: the one gate f resets and updates: f weights the NEW candidate, 1 - f keeps the old state, though f is
called a forget gate. f multiplies h before U_n does. The paper writes one matrix over [h, x] per line and h-tilde
for n; nothing else differs. The output is h. No options.

Parameters, for each of f n: W (H, I), U (H, H), b (H). State: h (B, H). Outputs: (T, B, H).
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
            f = logistic(p["W_f"] @ x[t, b] + p["U_f"] @ h + p["b_f"])
            n = np.tanh(p["W_n"] @ x[t, b] + p["U_n"] @ (f * h) + p["b_n"])
            h = (1.0 - f) * h + f * n
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}
