r"""Jordan network: M. I. Jordan, "Serial Order: A Parallel Distributed Processing Approach", ICS Report 8604, UC San
Diego, 1986 (plan and state units; the state units' recurrence, with weight mu on themselves and 1 from the
outputs).

    u_t = f(W_h x_t + U_h s_{t-1} + b_h)
    y_t = g(W_y u_t + b_y)
    s_t = trace * s_{t-1} + y_t

Conventions: the output is y. The paper writes s_t = mu s_{t-1} + y_{t-1}, the state that step t reads; here s_t
is the state that step t leaves, so that step t reads s_{t-1}: one index apart, the same network. `trace` is mu
and weights the old state; the new output enters with weight 1, not 1 - mu. What is fed back is y after g. No
teacher forcing. softmax runs over the O outputs. Options, all to be named by the caller: `activation` f in tanh,
relu, sigmoid, identity; `output_activation` g in softmax, sigmoid, tanh, identity (the paper's units are
logistic); `trace`, a constant and not learned.

Parameters: W_h (H, I), U_h (H, O), b_h (H), W_y (O, H), b_y (O). State: s (B, O). Outputs: (T, B, O).
"""

import numpy as np

from oracles.functions import ACTIVATIONS, OUTPUT_ACTIVATIONS


def run(x, state, p, *, activation, output_activation, trace):
    f, _ = ACTIVATIONS[activation]
    g, _ = OUTPUT_ACTIVATIONS[output_activation]
    T, B, _ = x.shape
    O = state["s"].shape[1]  # noqa: E741
    ys = np.zeros((T, B, O))
    ss = np.zeros((T, B, O))
    final = state["s"].copy()
    for b in range(B):
        s = state["s"][b]
        for t in range(T):
            u = f(p["W_h"] @ x[t, b] + p["U_h"] @ s + p["b_h"])
            y = g(p["W_y"] @ u + p["b_y"])
            s = trace * s + y
            ys[t, b] = y
            ss[t, b] = s
        final[b] = s
    return ys, {"s": final}, {"s": ss}


def gradients(x, state, p, d_outputs, d_final_state, *, activation, output_activation, trace):
    f, f_back = ACTIVATIONS[activation]
    g, g_back = OUTPUT_ACTIVATIONS[output_activation]
    _, _, states = run(x, state, p, activation=activation, output_activation=output_activation, trace=trace)
    T, B, _ = x.shape
    dx = np.zeros_like(x)
    d_state = {"s": np.zeros_like(state["s"])}
    dp = {name: np.zeros_like(value) for name, value in p.items()}
    for b in range(B):
        ds = d_final_state["s"][b]
        for t in reversed(range(T)):
            s_prev = states["s"][t - 1, b] if t > 0 else state["s"][b]
            u = f(p["W_h"] @ x[t, b] + p["U_h"] @ s_prev + p["b_h"])
            y = g(p["W_y"] @ u + p["b_y"])

            dy = d_outputs[t, b] + ds
            da_y = g_back(y, dy)
            dp["W_y"] += np.outer(da_y, u)
            dp["b_y"] += da_y

            du = p["W_y"].T @ da_y
            da_u = f_back(u, du)
            dp["W_h"] += np.outer(da_u, x[t, b])
            dp["U_h"] += np.outer(da_u, s_prev)
            dp["b_h"] += da_u

            dx[t, b] = p["W_h"].T @ da_u
            ds = trace * ds + p["U_h"].T @ da_u
        d_state["s"][b] = ds
    return dx, d_state, dp
