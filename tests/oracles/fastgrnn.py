r"""FastGRNN: A. Kusupati, M. Singh, K. Bhatia, A. Kumar, P. Jain, M. Varma, "FastGRNN: A Fast, Accurate, Stable and
Tiny Kilobyte Sized Gated Recurrent Neural Network", NeurIPS 2018, arXiv:1901.02358.

    a_t = W x_t + U h_{t-1}
    z_t = sigma(a_t + b_z)
    n_t = tanh (a_t + b_n)
    h_t = (sigma(zeta) (1 - z_t) + sigma(nu)) n_t + z_t h_{t-1}

Conventions: z keeps the OLD state. Gate and candidate share W and U. The paper states the two scalars between 0 and
1; here zeta and nu are what the logistic is taken of. The paper calls n h-tilde and b_n b_h. W and U are whole: the
paper's low rank, sparsity and quantisation are left out. The output is h. No options.

Parameters: W (H, I), U (H, H), b_z, b_n (H), zeta, nu (1). State: h (B, H). Outputs: (T, B, H).
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
            a = p["W"] @ x[t, b] + p["U"] @ h
            z = logistic(a + p["b_z"])
            n = np.tanh(a + p["b_n"])
            h = (logistic(p["zeta"]) * (1.0 - z) + logistic(p["nu"])) * n + z * h
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}
