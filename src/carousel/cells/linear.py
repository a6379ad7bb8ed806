"""Linear recurrences: the gates see inputs only, so all products leave the time loop."""

from __future__ import annotations

from carousel.graph import Cell, Output, constant, sigmoid, tanh
from carousel.graph.symbol import Symbol


class SRU(Cell):
    r"""The simple recurrent unit: gates that see the input and their own cell, and a highway for the input.

    .. math::
        f_t &= \sigma(W_f x_t + v_f \odot c_{t-1} + b_f) \\
        r_t &= \sigma(W_r x_t + v_r \odot c_{t-1} + b_r) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot (W_c x_t) \\
        y_t &= r_t \odot c_t + (1 - r_t) \odot (W_s x_t)

    The output is y. Differs from the paper: the highway always has its matrix W_s, which the paper uses only where the
    input has another size than the state; no scaling constant.

    References:
        Lei et al. (2018), "Simple Recurrent Units for Highly Parallelizable Recurrence", arXiv:1709.02755.
    """

    state = ("c",)
    reference = "Lei et al. 2018"
    candidate = "u"

    def step(self, x: Symbol, c: Symbol) -> tuple[Output, Symbol]:
        """One step."""
        f = sigmoid(self.affine("f", x) + self.vector("v_f") * c)
        r = sigmoid(self.affine("r", x) + self.vector("v_r") * c)
        u = self.dense("W_c", x)
        c = f * c + (1 - f) * u
        y = r * c + (1 - r) * self.dense("W_s", x)
        return Output(y), c


class QRNN(Cell):
    r"""The quasi-recurrent network with a window of two inputs and a forget and an output gate (fo-pooling).

    .. math::
        z_t &= \tanh(W_z x_t + U_z x_{t-1} + b_z) \\
        f_t &= \sigma(W_f x_t + U_f x_{t-1} + b_f) \\
        o_t &= \sigma(W_o x_t + U_o x_{t-1} + b_o) \\
        c_t &= f_t \odot c_{t-1} + (1 - f_t) \odot z_t \\
        y_t &= o_t \odot c_t

    The output is y; the state p is the last input. Differs from the paper: biases.

    Args:
        forget_bias: where b_f starts.

    References:
        Bradbury, Merity, Xiong, Socher (2017), "Quasi-Recurrent Neural Networks", arXiv:1611.01576.
    """

    state = ("c", "p")
    shapes = {"p": ("I",)}
    reference = "Bradbury et al. 2017"
    candidate = "z"
    forget_bias: float = 1.0

    def step(self, x: Symbol, c: Symbol, p: Symbol) -> tuple[Output, Symbol, Symbol]:
        """One step."""
        z = tanh(self.affine("z", x, p))
        f = sigmoid(self.affine("f", x, p, b=constant(self.forget_bias)))
        o = sigmoid(self.affine("o", x, p))
        c = f * c + (1 - f) * z
        return Output(o * c), c, x


class MinGRU(Cell):
    r"""A GRU without its state in the gates.

    .. math::
        z_t &= \sigma(W_z x_t + b_z) \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot (W_n x_t + b_n)

    References:
        Feng et al. (2024), "Were RNNs All We Needed?", arXiv:2410.01201.
    """

    state = ("h",)
    reference = "Feng et al. 2024"
    candidate = "n"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        z = sigmoid(self.affine("z", x))
        return (1 - z) * h + z * self.affine("n", x)


class MinLSTM(Cell):
    r"""An LSTM without its state in the gates, which are normalised to sum to one.

    .. math::
        f_t &= \sigma(W_f x_t + b_f), \qquad i_t = \sigma(W_i x_t + b_i) \\
        h_t &= \frac{f_t}{f_t + i_t} \odot h_{t-1} + \frac{i_t}{f_t + i_t} \odot (W_n x_t + b_n)

    Args:
        forget_bias: where b_f starts.

    References:
        Feng et al. (2024), "Were RNNs All We Needed?", arXiv:2410.01201.
    """

    state = ("h",)
    reference = "Feng et al. 2024"
    candidate = "n"
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        f = sigmoid(self.affine("f", x, b=constant(self.forget_bias)))
        i = sigmoid(self.affine("i", x))
        n = self.affine("n", x)
        return f / (f + i) * h + i / (f + i) * n
