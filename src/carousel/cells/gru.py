"""Gated recurrent units: the two forms in use, which differ in where the reset gate acts."""

from __future__ import annotations

from carousel.graph import Cell, sigmoid, tanh
from carousel.graph.symbol import Symbol


class GRU(Cell):
    r"""The gated recurrent unit: the reset gate acts before the product.

    .. math::
        r_t &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        z_t &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        n_t &= \tanh(W_n x_t + U_n (r_t \odot h_{t-1}) + b_n) \\
        h_t &= z_t \odot h_{t-1} + (1 - z_t) \odot n_t

    z keeps the old state, as in Cho et al.; Chung et al. (2014) let it take the new.
    Differs from the paper: biases, which it leaves out of its equations.

    References:
        Cho et al. (2014), "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
        Translation", arXiv:1406.1078.
    """

    state = ("h",)
    reference = "Cho et al. 2014"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        r = sigmoid(self.affine("r", x, h))
        z = sigmoid(self.affine("z", x, h))
        n = tanh(self.affine("n", x, r * h))
        return z * h + (1 - z) * n


class GRUResetAfter(Cell):
    r"""The gated recurrent unit as torch and cuDNN compute it: the reset gate acts after the product.

    .. math::
        r_t &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        z_t &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        n_t &= \tanh(W_n x_t + b_n + r_t \odot (U_n h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    b_hn stays apart from b_n because r multiplies it. All products with h start the step together, which is why this form
    is the faster one.

    References:
        Cho et al. (2014), version 1 of arXiv:1406.1078; the form of cuDNN.
    """

    state = ("h",)
    reference = "Cho et al. 2014; cuDNN"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        r = sigmoid(self.affine("r", x, h))
        z = sigmoid(self.affine("z", x, h))
        n = tanh(self.affine("n", x) + r * (self.dense("U_n", h) + self.vector("b_hn")))
        return (1 - z) * n + z * h
