"""The cells of xLSTM: exponential gates, a normaliser, and for one of them a matrix as memory."""

from __future__ import annotations

from carousel.errors import ConfigError
from carousel.graph import (
    Cell,
    Output,
    constant,
    exp,
    matvec,
    maximum,
    outer,
    reshape,
    sigmoid,
    size,
    softplus,
    sqrt,
    sum,
    tanh,
)
from carousel.graph.shapes import Sizes
from carousel.graph.symbol import Symbol


def _heads(cell: str, heads: int, input_size: int, hidden_size: int) -> Sizes:
    if hidden_size % heads:
        raise ConfigError(f"{cell}: {heads} heads need a hidden size that {heads} divides, got {hidden_size}")
    return {"I": input_size, "H": hidden_size, "N": heads, "E": hidden_size // heads}


class SLSTM(Cell):
    r"""An LSTM with exponential input gate, a normaliser and memory mixing within heads.

    .. math::
        \tilde i_t &= W_i x_t + R_i h_{t-1} + b_i \quad\text{(likewise } \tilde f, \tilde z, \tilde o) \\
        m_t &= \max(\log\sigma(\tilde f_t) + m_{t-1}, \tilde i_t) \\
        i_t &= \exp(\tilde i_t - m_t), \qquad f_t = \exp(\log\sigma(\tilde f_t) + m_{t-1} - m_t) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(\tilde z_t), \qquad n_t = f_t \odot n_{t-1} + i_t \\
        h_t &= \sigma(\tilde o_t) \odot c_t / n_t

    R is block-diagonal with one block for each head. m keeps the exponentials in range and cancels out.

    Args:
        heads: N; it divides the hidden size.
        forget_bias: where b_f starts.

    References:
        Beck et al. (2024), "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517.
    """

    state = ("h", "c", "n", "m")
    reference = "Beck et al. 2024"
    candidate = "z"
    heads: int = 4
    forget_bias: float = 1.0

    def sizes(self, input_size: int, hidden_size: int) -> Sizes:
        """Heads beside I and H."""
        return _heads("SLSTM", self.heads, input_size, hidden_size)

    def step(self, x: Symbol, h: Symbol, c: Symbol, n: Symbol, m: Symbol) -> tuple[Symbol, ...]:
        """One step."""
        log_i = self.affine("i", x) + self.mixed("R_i", h)
        log_f = -softplus(-(self.affine("f", x, b=constant(self.forget_bias)) + self.mixed("R_f", h)))
        z = tanh(self.affine("z", x) + self.mixed("R_z", h))
        o = sigmoid(self.affine("o", x) + self.mixed("R_o", h))
        old = m
        m = maximum(log_f + m, log_i)
        i, f = exp(log_i - m), exp(log_f + old - m)
        c = f * c + i * z
        n = f * n + i
        return o * c / n, c, n, m

    def mixed(self, name: str, h: Symbol) -> Symbol:
        """The state, mixed within each head."""
        return reshape(self.blocks(name, reshape(h, "N", "E")), "H")


class MLSTM(Cell):
    r"""An LSTM whose memory is a matrix, written with keys and values and read with queries.

    .. math::
        q_t &= W_q x_t + b_q, \qquad k_t = W_k x_t/\sqrt{E} + b_k, \qquad v_t = W_v x_t + b_v \\
        m_t &= \max(\log\sigma(\tilde f_t) + m_{t-1}, \tilde i_t) \\
        i_t &= \exp(\tilde i_t - m_t), \qquad f_t = \exp(\log\sigma(\tilde f_t) + m_{t-1} - m_t) \\
        C_t &= f_t C_{t-1} + i_t\, v_t k_t^\top, \qquad n_t = f_t n_{t-1} + i_t k_t \\
        y_t &= \sigma(W_o x_t + b_o) \odot C_t q_t / \max(|n_t^\top q_t|, e^{-m_t})

    Each head has a memory (E, E) and scalar gates :math:`\tilde i, \tilde f`, affine in x. The output is y.

    Args:
        heads: N; it divides the hidden size.
        forget_bias: where b_f starts.

    References:
        Beck et al. (2024), "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517.
    """

    state = ("C", "n", "m")
    shapes = {"C": ("N", "E", "E"), "n": ("N", "E"), "m": ("N", 1)}
    reference = "Beck et al. 2024"
    candidate = "v"
    heads: int = 4
    forget_bias: float = 3.0

    def sizes(self, input_size: int, hidden_size: int) -> Sizes:
        """Heads beside I and H."""
        return _heads("MLSTM", self.heads, input_size, hidden_size)

    def step(self, x: Symbol, C: Symbol, n: Symbol, m: Symbol) -> tuple[Output, Symbol, Symbol, Symbol]:
        """One step."""
        q = reshape(self.affine("q", x), "N", "E")
        k = reshape(self.dense("W_k", x) / sqrt(size("E")) + self.vector("b_k"), "N", "E")
        v = reshape(self.affine("v", x), "N", "E")
        log_i = reshape(self.affine("i", x, size="N"), "N", 1)
        log_f = -softplus(-reshape(self.affine("f", x, size="N", b=constant(self.forget_bias)), "N", 1))
        old = m
        m = maximum(log_f + m, log_i)
        i, f = exp(log_i - m), exp(log_f + old - m)
        C = reshape(f, "N", 1, 1) * C + reshape(i, "N", 1, 1) * outer(v, k)
        n = f * n + i * k
        read = matvec(C, q) / maximum(abs(sum(n * q)), exp(-m))
        y = sigmoid(self.affine("o", x)) * reshape(read, "H")
        return Output(y), C, n, m
