r"""LSTM with a recurrent projection layer: H. Sak, A. Senior, F. Beaufays, "Long Short-Term Memory Based Recurrent
Neural Network Architectures for Large Vocabulary Speech Recognition", arXiv:1402.1128, 2014 (the LSTMP of section
2).

    i_t = sigma(W_i x_t + U_i h_{t-1} + b_i)
    f_t = sigma(W_f x_t + U_f h_{t-1} + b_f)
    g_t = tanh (W_g x_t + U_g h_{t-1} + b_g)
    o_t = sigma(W_o x_t + U_o h_{t-1} + b_o)
    c_t = f_t c_{t-1} + i_t g_t
    h_t = W_p (o_t tanh(c_t))

Conventions: h is the projected vector, the paper's r, of size P; its m = o tanh(c) is not kept. W_p has no bias.
The paper's peepholes, its second projection (which does not recur) and the layer of output units above are left
out: what remains is torch.nn.LSTM with proj_size = P. The output is h. No options.

Parameters, for each of i f g o: W (H, I), U (H, P), b (H); and W_p (P, H). States: h (B, P), c (B, H).
Outputs: (T, B, P).
"""

import numpy as np

from oracles.functions import logistic


def run(x, state, p):
    T, B, _ = x.shape
    hs = np.zeros((T, *state["h"].shape))
    cs = np.zeros((T, *state["c"].shape))
    final = {"h": state["h"].copy(), "c": state["c"].copy()}
    for b in range(B):
        h, c = state["h"][b], state["c"][b]
        for t in range(T):
            i = logistic(p["W_i"] @ x[t, b] + p["U_i"] @ h + p["b_i"])
            f = logistic(p["W_f"] @ x[t, b] + p["U_f"] @ h + p["b_f"])
            g = np.tanh(p["W_g"] @ x[t, b] + p["U_g"] @ h + p["b_g"])
            o = logistic(p["W_o"] @ x[t, b] + p["U_o"] @ h + p["b_o"])
            c = f * c + i * g
            h = p["W_p"] @ (o * np.tanh(c))
            hs[t, b] = h
            cs[t, b] = c
        final["h"][b] = h
        final["c"][b] = c
    return hs.copy(), final, {"h": hs, "c": cs}
