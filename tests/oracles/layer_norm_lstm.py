r"""LSTM with layer normalisation: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", arXiv:1607.06450, 2016
(the LSTM of its supplementary material).

    a = (W_k x_t, k in i f g o)      r = (U_k h_{t-1}, k in i f g o)                        4H numbers each
    z_k = gx_k norm(a)_k + gh_k norm(r)_k + b_k
    i, f, o = sigma(z_i), sigma(z_f), sigma(z_o);  g = tanh(z_g)
    c_t = f c_{t-1} + i g
    h_t = o tanh(gc norm(c_t) + bc)
    norm(v) = (v - mean(v)) / sqrt(mean((v - mean(v))^2) + eps)

Conventions: the four gates' sums are normalised TOGETHER, over all 4H numbers, the input's apart from the state's;
many implementations take each gate alone. The variance divides by the count. What is carried is c_t itself, not its
norm. The paper's two offsets of norm(a) and norm(r) are merged into b, and it prints no eps. Option `eps`, 1e-5. f
keeps the old cell state. The output is h.

Parameters, for each of i f g o: W (H, I), U (H, H), gx (H), gh (H), b (H); and gc, bc (H). States: h, c (B, H).
Outputs: (T, B, H).
"""

import numpy as np

from oracles.functions import logistic

GATES = ("i", "f", "g", "o")


def norm(vectors, eps):
    """The vectors, a dict of them, with the mean and the variance of all their numbers together taken out."""
    numbers = [number for vector in vectors.values() for number in vector]
    mean = sum(numbers) / len(numbers)
    variance = sum((number - mean) ** 2 for number in numbers) / len(numbers)
    return {name: (vector - mean) / np.sqrt(variance + eps) for name, vector in vectors.items()}


def run(x, state, p, eps=1e-5):
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    cs = np.zeros((T, *state["c"].shape))
    final = {"h": state["h"].copy(), "c": state["c"].copy()}
    for b in range(B):
        h, c = state["h"][b], state["c"][b]
        for t in range(T):
            a = norm({k: p[f"W_{k}"] @ x[t, b] for k in GATES}, eps)
            r = norm({k: p[f"U_{k}"] @ h for k in GATES}, eps)
            z = {k: p[f"gx_{k}"] * a[k] + p[f"gh_{k}"] * r[k] + p[f"b_{k}"] for k in GATES}
            i = logistic(z["i"])
            f = logistic(z["f"])
            g = np.tanh(z["g"])
            o = logistic(z["o"])
            c = f * c + i * g
            h = o * np.tanh(p["gc"] * norm({"c": c}, eps)["c"] + p["bc"])
            hs[t, b] = h
            cs[t, b] = c
        final["h"][b] = h
        final["c"][b] = c
    return hs.copy(), final, {"h": hs, "c": cs}
