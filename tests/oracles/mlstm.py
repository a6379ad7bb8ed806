r"""mLSTM: M. Beck, K. Poeppel, M. Spanring, A. Auer, O. Prudnikova, M. Kopp, G. Klambauer, J. Brandstetter, S.
Hochreiter, "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, 2024 (the mLSTM, stabilised, recurrent form).

    q = W_q x_t + b_q;  k = W_k x_t / sqrt(E) + b_k;  v = W_v x_t + b_v
    a_i = W_i x_t + b_i;  a_f = W_f x_t + b_f                     one number per head
    m_t = max(log sigma(a_f) + m_{t-1}, a_i)
    i = exp(a_i - m_t)
    f = exp(log sigma(a_f) + m_{t-1} - m_t)
    C_t = f C_{t-1} + i v k^T                                     per head
    n_t = f n_{t-1} + i k
    u = (C_t q) / max(|n_t . q|, exp(-m_t))
    o = sigma(W_o x_t + b_o)
    y_t = o u,  the heads' u one after the other

Conventions: C is (value, key): a row of C belongs to a component of v. The input gate is exponential; for the forget
gate the paper allows sigma or exp, here it is sigma. No gate sees the past. C and n are kept divided by exp(m): the
unstabilised ones are C exp(m) and n exp(m), and with them the bound below the fraction is the paper's 1. As in
the paper, 1 / sqrt(E) scales the product with W_k and not the bias of k. The paper calls y h; y is not carried to the next
step. Left out: the paper's block around the cell. m has a last axis of 1. Option `heads` is N, to be named by the
caller; H = N E, unit e of head n being unit n E + e. The output is y.

Parameters: W_q, W_k, W_v, W_o (H, I), b_q, b_k, b_v, b_o (H), W_i, W_f (N, I), b_i, b_f (N).
States: C (B, N, E, E), n (B, N, E), m (B, N, 1). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import log_logistic, logistic


def run(x, state, p, *, heads):
    T, B, _ = x.shape
    H = p["b_q"].shape[0]
    E = H // heads
    ys = np.zeros((T, B, H))
    states = {name: np.zeros((T, *state[name].shape)) for name in "Cnm"}
    final = {name: state[name].copy() for name in "Cnm"}
    for b in range(B):
        for t in range(T):
            q = p["W_q"] @ x[t, b] + p["b_q"]
            k = p["W_k"] @ x[t, b] / np.sqrt(E) + p["b_k"]
            v = p["W_v"] @ x[t, b] + p["b_v"]
            o = logistic(p["W_o"] @ x[t, b] + p["b_o"])
            a_i = p["W_i"] @ x[t, b] + p["b_i"]
            log_f = log_logistic(p["W_f"] @ x[t, b] + p["b_f"])
            for head in range(heads):
                units = slice(head * E, (head + 1) * E)
                C, n, m = final["C"][b, head], final["n"][b, head], final["m"][b, head, 0]
                m_new = max(log_f[head] + m, a_i[head])
                i = np.exp(a_i[head] - m_new)
                f = np.exp(log_f[head] + m - m_new)
                C = f * C + i * np.outer(v[units], k[units])
                n = f * n + i * k[units]
                u = (C @ q[units]) / max(abs(n @ q[units]), np.exp(-m_new))
                ys[t, b, units] = o[units] * u
                final["C"][b, head] = C
                final["n"][b, head] = n
                final["m"][b, head, 0] = m_new
            for name in "Cnm":
                states[name][t, b] = final[name][b]
    return ys, final, states
