r"""GRU decoder with attention: D. Bahdanau, K. Cho, Y. Bengio, "Neural Machine Translation by Jointly Learning to Align
and Translate", ICLR 2015, arXiv:1409.0473 (the GRU and the scores), and M.-T. Luong, H. Pham, C. D. Manning, "Effective
Approaches to Attention-based Neural Machine Translation", EMNLP 2015, arXiv:1508.04025 (the order of a step, the
attentional vector and its input feeding).

    r_t = sigma(W_r x_t + U_r h_{t-1} + V_r y_{t-1} + b_r)
    z_t = sigma(W_z x_t + U_z h_{t-1} + V_z y_{t-1} + b_z)
    n_t = tanh (W_n x_t + U_n (r_t h_{t-1}) + V_n y_{t-1} + b_n)
    h_t = (1 - z_t) h_{t-1} + z_t n_t
    e_s = v_a . tanh(W_a h_t + U_a memory_s + b_a)
    a_s = exp(e_s) / sum_k exp(e_k)
    ctx = sum_s a_s memory_s
    y_t = tanh(W_y h_t + U_y ctx + b_y)

Conventions: z weights the NEW candidate and r multiplies h before U_n does, as in Bahdanau et al.; but they score with
the OLD state and feed ctx to the gates, where here the new state scores and the gates see the last y, as in Luong et
al. (whose network is an LSTM and whose scores are others; they write y h-tilde). The biases are ours. s and k run
over the row's real positions, mask = 1, only; padding is never read. A row without a real position has ctx = 0. The
output is y.

context is a dict of memory (B, S, M) and mask (B, S), 1 where real. Parameters, for each of r z n: W (H, I), U (H, H),
V (H, H), b (H); W_a (A, H), U_a (A, M), b_a, v_a (A); W_y (H, H), U_y (H, M), b_y (H). States: h, y (B, H).
Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic, softmax


def attend(h, memory, mask, p):
    """The context vector of one row at one step: h (H), memory (S, M), mask (S); returns (M)."""
    real = [s for s in range(len(mask)) if mask[s]]
    if not real:
        return np.zeros(memory.shape[1])
    scores = np.zeros(len(real))
    for place, s in enumerate(real):
        scores[place] = p["v_a"] @ np.tanh(p["W_a"] @ h + p["U_a"] @ memory[s] + p["b_a"])
    weights = softmax(scores)
    ctx = np.zeros(memory.shape[1])
    for place, s in enumerate(real):
        ctx += weights[place] * memory[s]
    return ctx


def run(x, state, p, *, context):
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    ys = np.zeros((T, *state["y"].shape))
    final = {"h": state["h"].copy(), "y": state["y"].copy()}
    for b in range(B):
        h, y = state["h"][b], state["y"][b]
        for t in range(T):
            r = logistic(p["W_r"] @ x[t, b] + p["U_r"] @ h + p["V_r"] @ y + p["b_r"])
            z = logistic(p["W_z"] @ x[t, b] + p["U_z"] @ h + p["V_z"] @ y + p["b_z"])
            n = np.tanh(p["W_n"] @ x[t, b] + p["U_n"] @ (r * h) + p["V_n"] @ y + p["b_n"])
            h = (1.0 - z) * h + z * n
            ctx = attend(h, context["memory"][b], context["mask"][b], p)
            y = np.tanh(p["W_y"] @ h + p["U_y"] @ ctx + p["b_y"])
            hs[t, b] = h
            ys[t, b] = y
        final["h"][b] = h
        final["y"][b] = y
    return ys.copy(), final, {"h": hs, "y": ys}
