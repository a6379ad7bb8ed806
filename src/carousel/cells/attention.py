"""Decoders that look at a memory: attention inside the cell."""

from __future__ import annotations

from carousel.graph import Cell, Output, glorot, reshape, sigmoid, softmax, sum, tanh, vecmat, where
from carousel.graph.shapes import Sizes
from carousel.graph.symbol import Symbol


class AttentionGRU(Cell):
    r"""A GRU decoder with additive attention and input feeding, as one cell.

    .. math::
        r_t &= \sigma(W_r x_t + U_r h_{t-1} + V_r y_{t-1} + b_r) \\
        z_t &= \sigma(W_z x_t + U_z h_{t-1} + V_z y_{t-1} + b_z) \\
        n_t &= \tanh(W_n x_t + U_n (r_t \odot h_{t-1}) + V_n y_{t-1} + b_n) \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot n_t \\
        e_{ts} &= v_a^\top \tanh(W_a h_t + U_a m_s + b_a), \qquad a_t = \operatorname{softmax}_s(e_t) \\
        y_t &= \tanh(W_y h_t + U_y \textstyle\sum_s a_{ts} m_s + b_y)

    The output is y, which the next step sees (input feeding). The context is the memory m, (S, M), and its mask, (S), 1
    where the memory is real. Scores are Bahdanau's; the place of the attention and the feeding are Luong's.

    Args:
        memory_size: M, features of each slot of the memory.
        attention_size: A.

    References:
        Bahdanau, Cho, Bengio (2015), "Neural Machine Translation by Jointly Learning to Align and Translate",
        arXiv:1409.0473.
        Luong, Pham, Manning (2015), "Effective Approaches to Attention-based Neural Machine Translation",
        arXiv:1508.04025.
    """

    state = ("h", "y")
    context = ("memory", "mask")
    shapes = {"memory": ("S", "M"), "mask": ("S",)}
    reference = "Bahdanau et al. 2015; Luong et al. 2015"
    candidate = "n"
    memory_size: int = 128
    attention_size: int = 64

    def sizes(self, input_size: int, hidden_size: int) -> Sizes:
        """M and A beside I and H; S, the slots, is the memory's."""
        return {"I": input_size, "H": hidden_size, "M": self.memory_size, "A": self.attention_size}

    def step(self, x: Symbol, h: Symbol, y: Symbol, memory: Symbol, mask: Symbol) -> tuple[Output, Symbol, Symbol]:
        """One step."""
        r = sigmoid(self.affine("r", x, h, y))
        z = sigmoid(self.affine("z", x, h, y))
        n = tanh(self.affine("n", x, r * h, y))
        h = (1 - z) * h + z * n
        memory = where(reshape(mask, "S", 1), memory, 0.0)  # what stands in padding is never read
        keys = self.dense("U_a", memory, size="A") + reshape(self.vector("b_a", size="A"), 1, "A")
        query = reshape(self.dense("W_a", h, size="A"), 1, "A")
        v = reshape(self.vector("v_a", size="A", init=glorot()), 1, "A")
        e = reshape(sum(v * tanh(query + keys)), "S")
        a = softmax(where(mask, e, -1e9))
        y = tanh(self.affine("y", h, vecmat(a, memory)))
        return Output(y), h, y
