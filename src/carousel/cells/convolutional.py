"""Recurrence over pictures: the products are convolutions."""

from __future__ import annotations

from typing import Any

from carousel.errors import ConfigError, explain
from carousel.graph import Cell, constant, sigmoid, tanh
from carousel.graph.shapes import Sizes
from carousel.graph.symbol import Symbol


class ConvLSTM(Cell):
    r"""An LSTM over pictures, with peepholes at every place.

    .. math::
        i_t &= \sigma(W_i * x_t + U_i * h_{t-1} + p_i \odot c_{t-1} + b_i) \\
        f_t &= \sigma(W_f * x_t + U_f * h_{t-1} + p_f \odot c_{t-1} + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_g * x_t + U_g * h_{t-1} + b_g) \\
        o_t &= \sigma(W_o * x_t + U_o * h_{t-1} + p_o \odot c_t + b_o) \\
        h_t &= o_t \odot \tanh(c_t)

    Build a layer with ``input_size=(channels, Y, X)``; the hidden size is the number of channels of the state.

    Args:
        kernel_size: height and width of the kernels; odd.
        forget_bias: where b_f starts.

    References:
        Shi et al. (2015), "Convolutional LSTM Network: A Machine Learning Approach for Precipitation Nowcasting",
        arXiv:1506.04214.
    """

    state = ("h", "c")
    shapes = {"x": ("I", "Y", "X"), "h": ("H", "Y", "X"), "c": ("H", "Y", "X")}
    reference = "Shi et al. 2015"
    candidate = "g"
    kernel_size: int = 3
    forget_bias: float = 1.0

    def sizes(self, input_size: Any, hidden_size: int) -> Sizes:
        """Channels, height and width."""
        if not isinstance(input_size, tuple | list) or len(input_size) != 3:
            raise ConfigError(
                explain("ConvLSTM: input_size must be (channels, Y, X).", got=repr(input_size), expected="(1, 64, 64), say")
            )
        if self.kernel_size % 2 == 0:
            raise ConfigError(explain("ConvLSTM: kernel_size must be odd.", got=str(self.kernel_size)))
        channels, height, width = input_size
        return {"I": channels, "Y": height, "X": width, "H": hidden_size, "K": self.kernel_size}

    def input_size(self, features: int) -> tuple[int, int, int]:
        """A picture of 16 by 16."""
        return (features, 16, 16)

    def step(self, x: Symbol, h: Symbol, c: Symbol) -> tuple[Symbol, Symbol]:
        """One step."""
        i = sigmoid(self.gate("i", x, h) + self.peephole("p_i") * c)
        f = sigmoid(self.gate("f", x, h, bias=self.forget_bias) + self.peephole("p_f") * c)
        c = f * c + i * tanh(self.gate("g", x, h))
        o = sigmoid(self.gate("o", x, h) + self.peephole("p_o") * c)
        return o * tanh(c), c

    def gate(self, name: str, x: Symbol, h: Symbol, bias: float = 0.0) -> Symbol:
        """``W * x + U * h + b``."""
        b = self.parameter(f"b_{name}", ("H", 1, 1), init=constant(bias))
        return self.convolution(f"W_{name}", x) + self.convolution(f"U_{name}", h) + b

    def peephole(self, name: str) -> Symbol:
        """A weight for each channel and place."""
        return self.parameter(name, ("H", "Y", "X"))
