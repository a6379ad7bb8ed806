r"""Clockwork RNN: J. Koutnik, K. Greff, F. Gomez, J. Schmidhuber, "A Clockwork RNN", ICML 2014, arXiv:1402.3511.

    module of unit j: g(j) = j // (H / G), its period 2^g(j), g = 0 .. G - 1
    U'_jk = U_h[j, k] if g(k) >= g(j) else 0
    unit j at step t: h_t = tanh(W_h x_t + U' h_{t-1} + b_h)_j if t mod 2^g(j) = 0, else h_{t-1}

Conventions: modules are ordered from fast to slow; a module reads from itself and from SLOWER modules, whatever U_h
holds below its block diagonal. Steps are counted from 0, where every module is active; option `start` is the count at
the first step given. A module that rests keeps its value and can be read. The periods are the paper's series of
powers of 2; it numbers modules from 1. Its squashing is any, tanh here; its layer of output units is left out; b_h is
written out. Option `modules` is G, to be named by the caller; it divides H. The output is h.

Parameters: W_h (H, I), U_h (H, H), b_h (H). State: h (B, H). Outputs: (T, B, H).
"""

import numpy as np


def run(x, state, p, *, modules, start=0):
    T, B, _ = x.shape
    H = state["h"].shape[1]
    if H % modules:
        raise ValueError(f"{modules} modules do not divide {H} units")
    size = H // modules
    hs = np.zeros((T, *state["h"].shape))
    final = state["h"].copy()
    for b in range(B):
        h = state["h"][b]
        for t in range(T):
            new = h.copy()
            for j in range(H):
                module = j // size
                if (start + t) % 2**module != 0:
                    continue
                a = p["W_h"][j] @ x[t, b] + p["b_h"][j]
                for k in range(H):
                    if k // size >= module:
                        a += p["U_h"][j, k] * h[k]
                new[j] = np.tanh(a)
            h = new
            hs[t, b] = h
        final[b] = h
    return hs.copy(), {"h": final}, {"h": hs}
