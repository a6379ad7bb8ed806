r"""Keras's recurrent layers from the arrays that ``get_weights()`` gives: the documentation of `keras.layers.LSTMCell`,
`GRUCell`, `SimpleRNNCell` and `Bidirectional`, Keras 3.

kernel k is (I, G H), recurrent_kernel u is (H, G H): they stand to the right of a row, ``x @ k``. H columns each, in order:

    LSTM       i f c o
        i = sigma(x k_i + h u_i + b_i)            f = sigma(x k_f + h u_f + b_f)
        c' = f c + i tanh(x k_c + h u_c + b_c)    o = sigma(x k_o + h u_o + b_o)    h' = o tanh(c')
    GRU        z r h
        z = sigma(x k_z + h u_z + b_z)            r = sigma(x k_r + h u_r + b_r)
        reset_after=False, bias (3H,):            hh = tanh(x k_h + (r h) u_h + b_h)
        reset_after=True, bias (2, 3H), the first row for x, the second for h:
                                                  hh = tanh(x k_h + b0_h + r (h u_h + b1_h))
        h' = z h + (1 - z) hh
    SimpleRNN  h' = activation(x k + h u + b)

Conventions: z keeps the OLD state. Inputs and outputs are (B, T, features); states are in Keras's order, [h, c]. A
Bidirectional has the forward layer's arrays, then the backward layer's; the backward layer runs from the last step, and its
outputs are put back in order before they are merged.
"""

import numpy as np

from oracles.functions import logistic, relu


def elu(a):
    return np.where(a > 0.0, a, np.expm1(np.minimum(a, 0.0)))


ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": relu,
    "sigmoid": logistic,
    "linear": lambda a: a,
    "softplus": lambda a: np.logaddexp(a, 0.0),
    "softsign": lambda a: a / (1.0 + np.abs(a)),
    "elu": elu,
    "silu": lambda a: a * logistic(a),
}
MERGES = {
    "concat": lambda y, back: np.concatenate([y, back], axis=-1),
    "sum": lambda y, back: y + back,
    "ave": lambda y, back: (y + back) / 2.0,
}


def lstm_step(x, states, arrays):
    h, c = states
    H = len(h)
    k, u = arrays[:2]
    b = arrays[2] if len(arrays) == 3 else np.zeros(4 * H)
    i = logistic(x @ k[:, :H] + h @ u[:, :H] + b[:H])
    f = logistic(x @ k[:, H : 2 * H] + h @ u[:, H : 2 * H] + b[H : 2 * H])
    c = f * c + i * np.tanh(x @ k[:, 2 * H : 3 * H] + h @ u[:, 2 * H : 3 * H] + b[2 * H : 3 * H])
    o = logistic(x @ k[:, 3 * H :] + h @ u[:, 3 * H :] + b[3 * H :])
    return [o * np.tanh(c), c]


def gru_step(x, states, arrays, reset_after):
    (h,) = states
    H = len(h)
    k, u = arrays[:2]
    bias = arrays[2] if len(arrays) == 3 else np.zeros(3 * H)
    for_x, for_h = bias if reset_after and bias.ndim == 2 else (bias, np.zeros(3 * H))
    z = logistic(x @ k[:, :H] + for_x[:H] + h @ u[:, :H] + for_h[:H])
    r = logistic(x @ k[:, H : 2 * H] + for_x[H : 2 * H] + h @ u[:, H : 2 * H] + for_h[H : 2 * H])
    if reset_after:
        hh = np.tanh(x @ k[:, 2 * H :] + for_x[2 * H :] + r * (h @ u[:, 2 * H :] + for_h[2 * H :]))
    else:
        hh = np.tanh(x @ k[:, 2 * H :] + for_x[2 * H :] + (r * h) @ u[:, 2 * H :])
    return [z * h + (1.0 - z) * hh]


def simple_step(x, states, arrays, activation):
    (h,) = states
    b = arrays[2] if len(arrays) == 3 else 0.0
    return [ACTIVATIONS[activation](x @ arrays[0] + h @ arrays[1] + b)]


def one_way(kind, x, states, arrays, *, reset_after=True, activation="tanh"):
    """One layer in one direction: outputs (B, T, H) and the states (B, H) after the last step."""
    steps = {
        "LSTM": lambda *a: lstm_step(*a),
        "GRU": lambda *a: gru_step(*a, reset_after),
        "SimpleRNN": lambda *a: simple_step(*a, activation),
    }
    B, T, _ = x.shape
    outputs = np.zeros((B, T, arrays[1].shape[0]))
    finals = [state.copy() for state in states]
    for b in range(B):
        now = [state[b] for state in states]
        for t in range(T):
            now = steps[kind](x[b, t], now, arrays)
            outputs[b, t] = now[0]
        for final, value in zip(finals, now, strict=True):
            final[b] = value
    return outputs, finals


def run(kind, x, states, arrays, *, num_layers=1, bidirectional=False, merge_mode="concat", **settings):
    """Layers on top of each other.

    `states` has, for each layer and direction in the order of their arrays, a list of (B, H); what is returned after the
    outputs is alike.
    """
    places = num_layers * (2 if bidirectional else 1)
    each = len(arrays) // places
    groups = [arrays[at : at + each] for at in range(0, len(arrays), each)]
    finals = []
    for layer in range(num_layers):
        if bidirectional:
            forth, back = groups[2 * layer], groups[2 * layer + 1]
            y, after = one_way(kind, x, states[2 * layer], forth, **settings)
            y_back, after_back = one_way(kind, x[:, ::-1], states[2 * layer + 1], back, **settings)
            x = MERGES[merge_mode](y, y_back[:, ::-1])
            finals += [after, after_back]
        else:
            x, after = one_way(kind, x, states[layer], groups[layer], **settings)
            finals.append(after)
    return x, finals
