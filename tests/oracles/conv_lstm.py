r"""Convolutional LSTM: X. Shi, Z. Chen, H. Wang, D.-Y. Yeung, W.-K. Wong, W.-C. Woo, "Convolutional LSTM Network: A
Machine Learning Approach for Precipitation Nowcasting", NeurIPS 2015, arXiv:1506.04214.

    i_t = sigma(W_i * x_t + U_i * h_{t-1} + p_i c_{t-1} + b_i)
    f_t = sigma(W_f * x_t + U_f * h_{t-1} + p_f c_{t-1} + b_f)
    g_t = tanh (W_g * x_t + U_g * h_{t-1} + b_g)
    c_t = f_t c_{t-1} + i_t g_t
    o_t = sigma(W_o * x_t + U_o * h_{t-1} + p_o c_t + b_o)
    h_t = o_t tanh(c_t)

    (W * x)[h, y, x] = sum over i, dy, dx of W[h, i, dy, dx] x[i, y + dy - K // 2, x + dx - K // 2]

Conventions: * is cross-correlation (the kernel is not flipped), K is odd, and what lies outside the picture is 0, so
that its size stays. i and f see the old cell state, o the new one. Peepholes are per unit and per place, biases per
unit. f keeps the old cell state. The paper does not name the candidate; we call it g. The output is h. No options.

x is (T, B, I, Y, X). Parameters, for each of i f g o: W (H, I, K, K), U (H, H, K, K), b (H, 1, 1); for i f o also p
(H, Y, X). States: h, c (B, H, Y, X). Outputs: (T, B, H, Y, X).
"""

import numpy as np

from oracles.functions import logistic


def correlate(kernel, picture):
    """kernel (H, I, K, K), picture (I, Y, X); returns (H, Y, X)."""
    _, Y, X = picture.shape
    K = kernel.shape[2]
    result = np.zeros((kernel.shape[0], Y, X))
    for y in range(Y):
        for x in range(X):
            for dy in range(K):
                for dx in range(K):
                    row, column = y + dy - K // 2, x + dx - K // 2
                    if 0 <= row < Y and 0 <= column < X:
                        result[:, y, x] += kernel[:, :, dy, dx] @ picture[:, row, column]
    return result


def run(x, state, p):
    T, B = x.shape[:2]
    hs = np.zeros((T, *state["h"].shape))
    cs = np.zeros((T, *state["c"].shape))
    final = {"h": state["h"].copy(), "c": state["c"].copy()}
    for b in range(B):
        h, c = state["h"][b], state["c"][b]
        for t in range(T):
            a = {k: correlate(p[f"W_{k}"], x[t, b]) + correlate(p[f"U_{k}"], h) + p[f"b_{k}"] for k in "ifgo"}
            i = logistic(a["i"] + p["p_i"] * c)
            f = logistic(a["f"] + p["p_f"] * c)
            g = np.tanh(a["g"])
            c = f * c + i * g
            o = logistic(a["o"] + p["p_o"] * c)
            h = o * np.tanh(c)
            hs[t, b] = h
            cs[t, b] = c
        final["h"][b] = h
        final["c"][b] = c
    return hs.copy(), final, {"h": hs, "c": cs}
