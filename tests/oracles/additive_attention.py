r"""Word attention: Z. Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016,
equations (5) to (7).

    u_t = tanh(W h_t + b)                                         (5)
    a_t = exp(u_t . v) / sum_k exp(u_k . v)                       (6)
    s   = sum_t a_t h_t                                           (7)

Conventions: v is the paper's word context vector u_w. t and k run over the row's real steps, t < lengths[b],
only; a padded step is never read and gets a = 0. A row of length 0 has a = 0 and s = 0. The annotations h are
summed, not the u.

h is (B, T, F), lengths (B,) integers, p holds W (A, F), b (A), v (A). Returns s (B, F) and a (B, T).
"""

import numpy as np

from oracles.functions import softmax


def run(h, lengths, p):
    B, T, F = h.shape
    s = np.zeros((B, F))
    a = np.zeros((B, T))
    for b in range(B):
        n = int(lengths[b])
        if n == 0:
            continue
        scores = np.zeros(n)
        for t in range(n):
            u = np.tanh(p["W"] @ h[b, t] + p["b"])
            scores[t] = u @ p["v"]
        a[b, :n] = softmax(scores)
        for t in range(n):
            s[b] += a[b, t] * h[b, t]
    return s, a
