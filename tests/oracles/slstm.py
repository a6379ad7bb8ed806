r"""sLSTM: M. Beck, K. Poeppel, M. Spanring, A. Auer, O. Prudnikova, M. Kopp, G. Klambauer, J. Brandstetter, S.
Hochreiter, "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, 2024 (the sLSTM, stabilised).

    a_k = W_k x_t + R_k h_{t-1} + b_k                             k in i f z o
    m_t = max(log sigma(a_f) + m_{t-1}, a_i)
    i = exp(a_i - m_t)
    f = exp(log sigma(a_f) + m_{t-1} - m_t)
    z = tanh(a_z);  o = sigma(a_o)
    c_t = f c_{t-1} + i z
    n_t = f n_{t-1} + i
    h_t = o c_t / n_t

Conventions: the input gate is exponential; for the forget gate the paper allows sigma or exp, here it is sigma. z is
the candidate, as in the paper. R_k is block-diagonal: a head's gates see that head's h only, unit e of head n being
unit n E + e. m is the stabiliser; c and n are kept divided by exp(m), so the unstabilised ones are c exp(m) and n
exp(m), and h does not depend on m. n must not become 0; the paper starts from c = n = 0, and so may m. Left out: the
paper's block around the cell (convolution, norms, projections). Option `heads` is N, to be named by the caller;
H = N E. The output is h.

Parameters, for each of i f z o: W (H, I), R (N, E, E), b (H). States: h, c, n, m (B, H). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import log_logistic, logistic


def per_head(R, h):
    """R (N, E, E) times h (H), each head with its own block."""
    N, E, _ = R.shape
    product = np.zeros(N * E)
    for head in range(N):
        units = slice(head * E, (head + 1) * E)
        product[units] = R[head] @ h[units]
    return product


def run(x, state, p, *, heads):
    T, B, _ = x.shape
    assert p["R_i"].shape[0] == heads
    states = {name: np.zeros((T, *state[name].shape)) for name in "hcnm"}
    final = {name: state[name].copy() for name in "hcnm"}
    for b in range(B):
        h, c, n, m = (state[name][b] for name in "hcnm")
        for t in range(T):
            a = {k: p[f"W_{k}"] @ x[t, b] + per_head(p[f"R_{k}"], h) + p[f"b_{k}"] for k in "ifzo"}
            log_f = log_logistic(a["f"])
            m_new = np.maximum(log_f + m, a["i"])
            i = np.exp(a["i"] - m_new)
            f = np.exp(log_f + m - m_new)
            z = np.tanh(a["z"])
            o = logistic(a["o"])
            c = f * c + i * z
            n = f * n + i
            h = o * c / n
            m = m_new
            for name, value in zip("hcnm", (h, c, n, m), strict=True):
                states[name][t, b] = value
        for name, value in zip("hcnm", (h, c, n, m), strict=True):
            final[name][b] = value
    return states["h"].copy(), final, states
