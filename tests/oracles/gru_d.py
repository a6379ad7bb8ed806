r"""GRU-D: Z. Che, S. Purushotham, K. Cho, D. Sontag, Y. Liu, "Recurrent Neural Networks for Multivariate Time Series
with Missing Values", arXiv:1606.01865, 2016.

    gamma_x = exp(-max(0, w_x d_t + b_x))
    gamma_h = exp(-max(0, W_d d_t + b_d))
    xhat = m_t x_t + (1 - m_t) (gamma_x l_{t-1} + (1 - gamma_x) mean)
    hhat = gamma_h h_{t-1}
    r_t = sigma(W_r xhat + U_r hhat + V_r m_t + b_r)
    z_t = sigma(W_z xhat + U_z hhat + V_z m_t + b_z)
    n_t = tanh (W_n xhat + U_n (r_t hhat) + V_n m_t + b_n)
    h_t = (1 - z_t) hhat + z_t n_t
    l_t = m_t x_t + (1 - m_t) l_{t-1}

Conventions: z weights the NEW candidate, as in the paper. r multiplies hhat before U_n does. w_x is a vector, its
product per feature: the paper's diagonal decay of the inputs; the decay of the state is by a whole matrix. m is 1
where x was observed and 0 elsewhere; there x is multiplied by 0, so it must be a finite number. d is the time since the
feature's last observation, given by the caller. l, the last observed value, is part of the state. mean is the
paper's empirical mean x-tilde, a parameter here. The output is h. No options.

x is a dict of x, m, d (T, B, I). Parameters: w_x, b_x, mean (I), W_d (H, I), b_d (H); for each of r z n: W (H, I),
U (H, H), V (H, I), b (H). States: h (B, H), l (B, I). Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    xs, ms, ds = x["x"], x["m"], x["d"]
    T, B, _ = xs.shape
    hs = np.zeros((T, *state["h"].shape))
    ls = np.zeros((T, *state["l"].shape))
    final = {"h": state["h"].copy(), "l": state["l"].copy()}
    for b in range(B):
        h, last = state["h"][b], state["l"][b]
        for t in range(T):
            m = ms[t, b]
            gamma_x = np.exp(-np.maximum(0.0, p["w_x"] * ds[t, b] + p["b_x"]))
            gamma_h = np.exp(-np.maximum(0.0, p["W_d"] @ ds[t, b] + p["b_d"]))
            xhat = m * xs[t, b] + (1.0 - m) * (gamma_x * last + (1.0 - gamma_x) * p["mean"])
            hhat = gamma_h * h
            r = logistic(p["W_r"] @ xhat + p["U_r"] @ hhat + p["V_r"] @ m + p["b_r"])
            z = logistic(p["W_z"] @ xhat + p["U_z"] @ hhat + p["V_z"] @ m + p["b_z"])
            n = np.tanh(p["W_n"] @ xhat + p["U_n"] @ (r * hhat) + p["V_n"] @ m + p["b_n"])
            h = (1.0 - z) * hhat + z * n
            last = m * xs[t, b] + (1.0 - m) * last
            hs[t, b] = h
            ls[t, b] = last
        final["h"][b] = h
        final["l"][b] = last
    return hs.copy(), final, {"h": hs, "l": ls}
