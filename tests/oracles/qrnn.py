r"""QRNN, window 2, fo-pooling: J. Bradbury, S. Merity, C. Xiong, R. Socher, "Quasi-Recurrent Neural Networks", ICLR
2017, arXiv:1611.01576.

    z_t = tanh (W_z x_t + U_z x_{t-1} + b_z)
    f_t = sigma(W_f x_t + U_f x_{t-1} + b_f)
    o_t = sigma(W_o x_t + U_o x_{t-1} + b_o)
    c_t = f_t c_{t-1} + (1 - f_t) z_t
    y_t = o_t c_t

Conventions: f keeps the old state. U meets the last input, not the last output: nothing but c recurs. The input
before the first is part of the state, p = x_{t-1}; the paper's masked convolution takes 0 there. The paper prints no
biases; there is one per gate here. c is not squashed. The paper calls y h; y is not carried to the next step. The
output is y. No options.

Parameters, for each of z f o: W (H, I), U (H, I), b (H). States: c (B, H), p (B, I). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    ys = np.zeros((T, *state["c"].shape))
    cs = np.zeros((T, *state["c"].shape))
    ps = np.zeros((T, *state["p"].shape))
    final = {"c": state["c"].copy(), "p": state["p"].copy()}
    for b in range(B):
        c, past = state["c"][b], state["p"][b]
        for t in range(T):
            z = np.tanh(p["W_z"] @ x[t, b] + p["U_z"] @ past + p["b_z"])
            f = logistic(p["W_f"] @ x[t, b] + p["U_f"] @ past + p["b_f"])
            o = logistic(p["W_o"] @ x[t, b] + p["U_o"] @ past + p["b_o"])
            c = f * c + (1.0 - f) * z
            past = x[t, b]
            ys[t, b] = o * c
            cs[t, b] = c
            ps[t, b] = past
        final["c"][b] = c
        final["p"][b] = past
    return ys, final, {"c": cs, "p": ps}
