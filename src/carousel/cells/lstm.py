"""Long short-term memory: a cell whose gates decide what it keeps, adds and shows."""

from __future__ import annotations

from typing import Literal

from carousel.graph import Cell, constant, sigmoid, tanh
from carousel.graph.symbol import Symbol


class LSTM(Cell):
    r"""Long short-term memory with a forget gate.

    .. math::
        i_t &= \sigma(W_i x_t + U_i h_{t-1} + b_i) \\
        f_t &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        g_t &= \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o_t &= \sigma(W_o x_t + U_o h_{t-1} + b_o) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    Differs from the papers: the first had no forget gate, and squashed g and c by other sigmoids.

    Args:
        forget_bias: where b_f starts; 1 lets a new network remember (Gers et al. 2000, Jozefowicz et al. 2015).

    References:
        Hochreiter & Schmidhuber (1997), "Long Short-Term Memory", Neural Computation 9.
        Gers, Schmidhuber, Cummins (2000), "Learning to Forget", Neural Computation 12.
    """

    state = ("h", "c")
    reference = "Hochreiter & Schmidhuber 1997; Gers et al. 2000"
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        i = sigmoid(self.affine("i", x, h))
        f = sigmoid(self.affine("f", x, h, b=constant(self.forget_bias)))
        g = tanh(self.affine("g", x, h))
        o = sigmoid(self.affine("o", x, h))
        c = f * c + i * g
        return o * tanh(c), c


class PeepholeLSTM(Cell):
    r"""The gates also see the cell state, each unit its own.

    .. math::
        i_t &= \sigma(W_i x_t + U_i h_{t-1} + p_i \odot c_{t-1} + b_i) \\
        f_t &= \sigma(W_f x_t + U_f h_{t-1} + p_f \odot c_{t-1} + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o_t &= \sigma(W_o x_t + U_o h_{t-1} + p_o \odot c_t + b_o) \\
        h_t &= o_t \odot \tanh(c_t)

    Both forms of the output gate are in the literature: it sees the new state (Gers et al. 2002, Graves 2013), or, like
    the others, the old one (``output_gate="old"``).

    Args:
        forget_bias: where b_f starts.
        output_gate: which cell state the output gate sees.

    References:
        Gers & Schmidhuber (2000), "Recurrent Nets that Time and Count", IJCNN.
        Gers, Schraudolph, Schmidhuber (2002), "Learning Precise Timing with LSTM Recurrent Networks", JMLR 3.
    """

    state = ("h", "c")
    reference = "Gers & Schmidhuber 2000"
    forget_bias: float = 1.0
    output_gate: Literal["new", "old"] = "new"

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        old = c
        i = sigmoid(self.affine("i", x, h) + self.vector("p_i") * c)
        f = sigmoid(self.affine("f", x, h, b=constant(self.forget_bias)) + self.vector("p_f") * c)
        c = f * c + i * tanh(self.affine("g", x, h))
        seen = c if self.output_gate == "new" else old
        o = sigmoid(self.affine("o", x, h) + self.vector("p_o") * seen)
        return o * tanh(c), c


class CoupledLSTM(Cell):
    r"""One gate for adding and forgetting: what comes in pushes out as much.

    .. math::
        i_t &= \sigma(W_i x_t + U_i h_{t-1} + b_i) \\
        f_t &= 1 - i_t \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o_t &= \sigma(W_o x_t + U_o h_{t-1} + b_o) \\
        h_t &= o_t \odot \tanh(c_t)

    Differs from the paper: no peepholes, which that study found to change nothing.

    Args:
        forget_bias: b_i starts at minus this, so that f starts where a forget gate with this bias would.

    References:
        Greff et al. (2015), "LSTM: A Search Space Odyssey", arXiv:1503.04069 (variant CIFG).
    """

    state = ("h", "c")
    reference = "Greff et al. 2015"
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        i = sigmoid(self.affine("i", x, h, b=constant(-self.forget_bias)))
        f = 1 - i
        c = f * c + i * tanh(self.affine("g", x, h))
        o = sigmoid(self.affine("o", x, h))
        return o * tanh(c), c
