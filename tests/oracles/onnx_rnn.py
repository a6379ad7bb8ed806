r"""ONNX's recurrent operators, from the operator documentation of LSTM, GRU and RNN (version 22).

W is (D, G H, I), R is (D, G H, H), B is (D, 2 G H): W's biases and then R's. H rows each, in order:

    LSTM  i o f c, peepholes P (D, 3 H): i o f
        it = sigma(Xt Wi^T + Ht-1 Ri^T + Pi . Ct-1 + Wbi + Rbi)
        ft = sigma(Xt Wf^T + Ht-1 Rf^T + Pf . Ct-1 + Wbf + Rbf)
        ct = tanh (Xt Wc^T + Ht-1 Rc^T + Wbc + Rbc)
        Ct = ft . Ct-1 + it . ct
        ot = sigma(Xt Wo^T + Ht-1 Ro^T + Po . Ct + Wbo + Rbo)
        Ht = ot . tanh(Ct)
    GRU   z r h
        zt = sigma(Xt Wz^T + Ht-1 Rz^T + Wbz + Rbz)
        rt = sigma(Xt Wr^T + Ht-1 Rr^T + Wbr + Rbr)
        ht = tanh(Xt Wh^T + (rt . Ht-1) Rh^T + Rbh + Wbh)         linear_before_reset = 0
        ht = tanh(Xt Wh^T + (rt . (Ht-1 Rh^T + Rbh)) + Wbh)       linear_before_reset = 1
        Ht = (1 - zt) . ht + zt . Ht-1
    RNN   i
        Ht = f(Xt Wi^T + Ht-1 Ri^T + Wbi + Rbi)

Conventions: z keeps the OLD state; the output gate's peephole sees the NEW cell. X is (T, B, I), Y is (T, D, B, H), initial and
final states are (D, B, H). With direction "reverse" a node runs from the last step; Y is in the order of X all the same. With
"bidirectional" the first direction runs forwards, the second backwards.
"""

import numpy as np

from oracles.functions import logistic, relu

ACTIVATIONS = {
    "Tanh": np.tanh,
    "Relu": relu,
    "Sigmoid": logistic,
    "Softplus": lambda a: np.logaddexp(a, 0.0),
    "Softsign": lambda a: a / (1.0 + np.abs(a)),
}
LETTERS = {"LSTM": "iofc", "GRU": "zrh", "RNN": "i"}


def cut(rows, letters):
    """The block of each gate."""
    H = len(rows) // len(letters)
    return {letter: rows[at * H : (at + 1) * H] for at, letter in enumerate(letters)}


def lstm_step(x, h, c, w, r, wb, rb, p):
    i = logistic(w["i"] @ x + r["i"] @ h + p["i"] * c + wb["i"] + rb["i"])
    f = logistic(w["f"] @ x + r["f"] @ h + p["f"] * c + wb["f"] + rb["f"])
    g = np.tanh(w["c"] @ x + r["c"] @ h + wb["c"] + rb["c"])
    c = f * c + i * g
    o = logistic(w["o"] @ x + r["o"] @ h + p["o"] * c + wb["o"] + rb["o"])
    return o * np.tanh(c), c


def gru_step(x, h, w, r, wb, rb, linear_before_reset):
    z = logistic(w["z"] @ x + r["z"] @ h + wb["z"] + rb["z"])
    reset = logistic(w["r"] @ x + r["r"] @ h + wb["r"] + rb["r"])
    if linear_before_reset:
        hidden = np.tanh(w["h"] @ x + reset * (r["h"] @ h + rb["h"]) + wb["h"])
    else:
        hidden = np.tanh(w["h"] @ x + r["h"] @ (reset * h) + rb["h"] + wb["h"])
    return (1.0 - z) * hidden + z * h


def run(
    kind, X, initial_h, initial_c, W, R, B=None, P=None, *, direction="forward", linear_before_reset=0, activations=("Tanh",)
):
    """One node: Y (T, D, B, H), Y_h and, for an LSTM, Y_c (D, B, H). `activations` is looked at for an RNN alone."""
    T, batch, _ = X.shape
    D, _, H = R.shape
    G = len(LETTERS[kind])
    Y, Y_h = np.zeros((T, D, batch, H)), initial_h.copy()
    Y_c = None if initial_c is None else initial_c.copy()
    for d in range(D):
        w, r = cut(W[d], LETTERS[kind]), cut(R[d], LETTERS[kind])
        bias = np.zeros(2 * G * H) if B is None else B[d]
        wb, rb = cut(bias[: G * H], LETTERS[kind]), cut(bias[G * H :], LETTERS[kind])
        p = cut(np.zeros(3 * H) if P is None else P[d], "iof")
        backwards = direction == "reverse" or d == 1
        for b in range(batch):
            h, c = initial_h[d, b], None if initial_c is None else initial_c[d, b]
            for t in reversed(range(T)) if backwards else range(T):
                if kind == "LSTM":
                    h, c = lstm_step(X[t, b], h, c, w, r, wb, rb, p)
                elif kind == "GRU":
                    h = gru_step(X[t, b], h, w, r, wb, rb, linear_before_reset)
                else:
                    h = ACTIVATIONS[activations[d]](w["i"] @ X[t, b] + r["i"] @ h + wb["i"] + rb["i"])
                Y[t, d, b] = h
            Y_h[d, b] = h
            if Y_c is not None:
                Y_c[d, b] = c
    return Y, Y_h, Y_c
