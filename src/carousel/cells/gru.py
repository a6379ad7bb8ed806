"""Gated recurrent units: the two forms in use, which differ in where the reset gate acts."""

from __future__ import annotations

from carousel.graph import Cell, exp, relu, sigmoid, tanh, where
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
    candidate = "n"

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
    candidate = "n"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        r = sigmoid(self.affine("r", x, h))
        z = sigmoid(self.affine("z", x, h))
        n = tanh(self.affine("n", x) + r * (self.dense("U_n", h) + self.vector("b_hn")))
        return (1 - z) * n + z * h


class MGU(Cell):
    r"""The minimal gated unit: one gate that both forgets and resets.

    .. math::
        f_t &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        n_t &= \tanh(W_n x_t + U_n (f_t \odot h_{t-1}) + b_n) \\
        h_t &= (1 - f_t) \odot h_{t-1} + f_t \odot n_t

    References:
        Zhou, Wu, Zhang, Zhou (2016), "Minimal Gated Unit for Recurrent Neural Networks", arXiv:1603.09420.
    """

    state = ("h",)
    reference = "Zhou et al. 2016"
    candidate = "n"

    def step(self, x: Symbol, h: Symbol) -> Symbol:
        """One step."""
        f = sigmoid(self.affine("f", x, h))
        n = tanh(self.affine("n", x, f * h))
        return (1 - f) * h + f * n


class GRUD(Cell):
    r"""A GRU for series with gaps: what was not observed fades towards the mean, and so does the state.

    .. math::
        \gamma_x &= \exp(-\max(0, w_x \odot d_t + b_x)), \qquad \gamma_h = \exp(-\max(0, W_d d_t + b_d)) \\
        \hat x_t &= m_t \odot x_t + (1 - m_t) \odot (\gamma_x \odot l_{t-1} + (1 - \gamma_x) \odot \mu) \\
        \hat h &= \gamma_h \odot h_{t-1} \\
        r_t &= \sigma(W_r \hat x_t + U_r \hat h + V_r m_t + b_r) \\
        z_t &= \sigma(W_z \hat x_t + U_z \hat h + V_z m_t + b_z) \\
        n_t &= \tanh(W_n \hat x_t + U_n (r_t \odot \hat h) + V_n m_t + b_n) \\
        h_t &= (1 - z_t) \odot \hat h + z_t \odot n_t

    The inputs are x (anything, NaN too, where it was not observed), the mask m (1 where it was) and d (time since the
    last observation of each feature). The state l is the last observed value; μ is the mean of each feature, set by the
    user (parameter ``mean``, not trained). z takes the new, as in the paper.

    References:
        Che et al. (2018), "Recurrent Neural Networks for Multivariate Time Series with Missing Values",
        arXiv:1606.01865.
    """

    state = ("h", "l")
    inputs = ("x", "m", "d")
    shapes = {"l": ("I",)}
    reference = "Che et al. 2018"
    candidate = "n"

    def step(self, x: Symbol, m: Symbol, d: Symbol, h: Symbol, l: Symbol) -> tuple[Symbol, Symbol]:  # noqa: E741
        """One step."""
        fade_x = exp(-relu(self.vector("w_x", size="I") * d + self.vector("b_x", size="I")))
        fade_h = exp(-relu(self.affine("d", d)))
        mean = self.parameter("mean", ("I",), learned=False)
        seen = where(m, x, fade_x * l + (1 - fade_x) * mean)  # a choice, so that x may be NaN where it is missing
        faded = fade_h * h
        r = sigmoid(self.affine("r", seen, faded, m))
        z = sigmoid(self.affine("z", seen, faded, m))
        n = tanh(self.affine("n", seen, r * faded, m))
        h = (1 - z) * faded + z * n
        return h, where(m, x, l)
