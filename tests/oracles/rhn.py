r"""Recurrent highway network: J. G. Zilly, R. K. Srivastava, J. Koutnik, J. Schmidhuber, "Recurrent Highway
Networks", ICML 2017, arXiv:1607.03474, with the carry gate coupled, c = 1 - t.

    s_0 = h_{t-1}
    for l = 1 .. depth:
        n_l = tanh ([l = 1] W_n x_t + U_nl s_{l-1} + b_nl)
        t_l = sigma([l = 1] W_t x_t + U_tl s_{l-1} + b_tl)
        s_l = n_l t_l + s_{l-1} (1 - t_l)
    h_t = s_depth

Conventions: the transform gate t weights the NEW candidate. x enters at the first layer only. The paper calls n h and
the last s y. Option `depth`, to be named by the caller. The output is h.

Parameters: W_n, W_t (H, I); for l = 1 .. depth, the number being part of the name: U_n1, U_t1 (H, H), b_n1, b_t1
(H), ... State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p, *, depth):
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    final = state["h"].copy()
    for b in range(B):
        s = state["h"][b]
        for t in range(T):
            for l in range(1, depth + 1):  # noqa: E741
                a_n = p[f"U_n{l}"] @ s + p[f"b_n{l}"]
                a_t = p[f"U_t{l}"] @ s + p[f"b_t{l}"]
                if l == 1:
                    a_n = a_n + p["W_n"] @ x[t, b]
                    a_t = a_t + p["W_t"] @ x[t, b]
                n = np.tanh(a_n)
                transform = logistic(a_t)
                s = n * transform + s * (1.0 - transform)
            hs[t, b] = s
        final[b] = s
    return hs.copy(), {"h": final}, {"h": hs}
