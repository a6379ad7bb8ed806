r"""SRU: T. Lei, Y. Zhang, S. I. Wang, H. Dai, Y. Artzi, "Simple Recurrent Units for Highly Parallelizable
Recurrence", EMNLP 2018, arXiv:1709.02755.

    f_t = sigma(W_f x_t + v_f c_{t-1} + b_f)
    c_t = f_t c_{t-1} + (1 - f_t) (W_c x_t)
    r_t = sigma(W_r x_t + v_r c_{t-1} + b_r)
    y_t = r_t c_t + (1 - r_t) (W_s x_t)

Conventions: f keeps the old state. v_f and v_r are vectors, their product is per unit, and both gates see the old
state c_{t-1}. W_c x has neither bias nor squashing. The paper's highway adds x_t itself (times a constant alpha
chosen at the start); here it is projected by W_s, so that I and H may differ. The paper calls y h; y is not carried
to the next step. The output is y. No options.

Parameters: W_f, W_c, W_r, W_s (H, I), v_f, v_r (H), b_f, b_r (H). State: c (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    ys = np.zeros((T, *state["c"].shape))
    cs = np.zeros((T, *state["c"].shape))
    final = state["c"].copy()
    for b in range(B):
        c = state["c"][b]
        for t in range(T):
            f = logistic(p["W_f"] @ x[t, b] + p["v_f"] * c + p["b_f"])
            r = logistic(p["W_r"] @ x[t, b] + p["v_r"] * c + p["b_r"])
            c = f * c + (1.0 - f) * (p["W_c"] @ x[t, b])
            ys[t, b] = r * c + (1.0 - r) * (p["W_s"] @ x[t, b])
            cs[t, b] = c
        final[b] = c
    return ys, {"c": final}, {"c": cs}
