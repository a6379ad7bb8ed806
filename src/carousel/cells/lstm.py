"""Long short-term memory: a cell whose gates decide what it keeps, adds and shows."""

from __future__ import annotations

from typing import Literal

from carousel.graph import Cell, constant, mean, ones, sigmoid, sqrt, tanh
from carousel.graph.shapes import Sizes
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
    candidate = "g"
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
    candidate = "g"
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
    candidate = "g"
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        i = sigmoid(self.affine("i", x, h, b=constant(-self.forget_bias)))
        f = 1 - i
        c = f * c + i * tanh(self.affine("g", x, h))
        o = sigmoid(self.affine("o", x, h))
        return o * tanh(c), c


class LSTMP(Cell):
    r"""An LSTM whose output is projected to fewer units, which is what it feeds back.

    .. math::
        i_t &= \sigma(W_i x_t + U_i h_{t-1} + b_i) \\
        f_t &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_g x_t + U_g h_{t-1} + b_g) \\
        o_t &= \sigma(W_o x_t + U_o h_{t-1} + b_o) \\
        h_t &= W_p (o_t \odot \tanh(c_t))

    h has P units, c has H. Differs from the paper: no peepholes, no second (non-recurrent) projection.

    Args:
        proj_size: P.
        forget_bias: where b_f starts.

    References:
        Sak, Senior, Beaufays (2014), "Long Short-Term Memory Based Recurrent Neural Network Architectures for Large
        Vocabulary Speech Recognition", arXiv:1402.1128.
    """

    state = ("h", "c")
    shapes = {"h": ("P",)}
    reference = "Sak et al. 2014"
    candidate = "g"
    proj_size: int = 64
    forget_bias: float = 1.0

    def sizes(self, input_size: int, hidden_size: int) -> Sizes:
        """P beside I and H."""
        return {"I": input_size, "H": hidden_size, "P": self.proj_size}

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        i = sigmoid(self.affine("i", x, h))
        f = sigmoid(self.affine("f", x, h, b=constant(self.forget_bias)))
        g = tanh(self.affine("g", x, h))
        o = sigmoid(self.affine("o", x, h))
        c = f * c + i * g
        return self.dense("W_p", o * tanh(c), size="P"), c


class LayerNormLSTM(Cell):
    r"""Both products are normalised, all gates together, and so is the cell state on its way out.

    .. math::
        \hat a_k &= (W_k x_t - \mu_a) / \sigma_a, \qquad \hat r_k = (U_k h_{t-1} - \mu_r) / \sigma_r \\
        z_k &= g^x_k \odot \hat a_k + g^h_k \odot \hat r_k + b_k \qquad k \in \{i, f, g, o\} \\
        c_t &= \sigma(z_f) \odot c_{t-1} + \sigma(z_i) \odot \tanh(z_g) \\
        h_t &= \sigma(z_o) \odot \tanh(g_c \odot \hat c_t + b_c)

    μ and σ² are the mean and variance over the 4H numbers of a product; those of c over its H numbers.

    Args:
        forget_bias: where b_f starts.
        eps: added to the variances.

    References:
        Ba, Kiros, Hinton (2016), "Layer Normalization", arXiv:1607.06450, supplementary equations 20 to 22.
    """

    state = ("h", "c")
    reference = "Ba, Kiros, Hinton 2016"
    candidate = "g"
    forget_bias: float = 1.0
    eps: float = 1e-5

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        a = {k: self.dense(f"W_{k}", x) for k in "ifgo"}
        r = {k: self.dense(f"U_{k}", h) for k in "ifgo"}
        m_a, m_r = self.mean(a), self.mean(r)
        v_a, v_r = self.variance(a, m_a), self.variance(r, m_r)

        def z(k: str, bias: float = 0.0) -> Symbol:
            scaled = self.vector(f"gx_{k}", init=ones()) * (a[k] - m_a) / sqrt(v_a + self.eps)
            return (
                scaled
                + self.vector(f"gh_{k}", init=ones()) * (r[k] - m_r) / sqrt(v_r + self.eps)
                + self.vector(f"b_{k}", init=constant(bias))
            )

        i, f, g, o = sigmoid(z("i")), sigmoid(z("f", self.forget_bias)), tanh(z("g")), sigmoid(z("o"))
        c = f * c + i * g
        m_c = mean(c)
        seen = (c - m_c) / sqrt(mean((c - m_c) ** 2) + self.eps)
        return o * tanh(self.vector("gc", init=ones()) * seen + self.vector("bc")), c

    def mean(self, parts: dict[str, Symbol]) -> Symbol:
        """The mean over all gates."""
        first, *rest = (mean(part) for part in parts.values())
        return sum(rest, first) / len(parts)

    def variance(self, parts: dict[str, Symbol], m: Symbol) -> Symbol:
        """The variance over all gates."""
        return self.mean({k: (part - m) ** 2 for k, part in parts.items()})


class MultiplicativeLSTM(Cell):
    r"""The input chooses the recurrent matrix: the gates see a product of input and state in place of the state.

    .. math::
        m_t &= (W_m x_t) \odot (U_m h_{t-1}) \\
        i_t &= \sigma(W_i x_t + U_i m_t + b_i) \\
        f_t &= \sigma(W_f x_t + U_f m_t + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_g x_t + U_g m_t + b_g) \\
        o_t &= \sigma(W_o x_t + U_o m_t + b_o) \\
        h_t &= o_t \odot \tanh(c_t)

    Args:
        forget_bias: where b_f starts.

    References:
        Krause, Lu, Murray, Renals (2016), "Multiplicative LSTM for Sequence Modelling", arXiv:1609.07959.
    """

    state = ("h", "c")
    reference = "Krause et al. 2016"
    candidate = "g"
    forget_bias: float = 1.0

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        m = self.dense("W_m", x) * self.dense("U_m", h)
        i = sigmoid(self.affine("i", x, m))
        f = sigmoid(self.affine("f", x, m, b=constant(self.forget_bias)))
        c = f * c + i * tanh(self.affine("g", x, m))
        o = sigmoid(self.affine("o", x, m))
        return o * tanh(c), c
