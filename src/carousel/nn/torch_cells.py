"""`LSTMCell`, `GRUCell` and `RNNCell`: torch.nn's single steps, line for line.

Where they differ, each on purpose: errors are those of :mod:`carousel.errors`, as in :mod:`carousel.nn.torch_layers`; `bias`
must be a bool (torch takes ``RNNCell(10, 20, "relu")`` for a cell with bias, and runs tanh); an unknown nonlinearity is an
error when the cell is built, not when it runs; sizes must be positive.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from carousel.engines import Choice
from carousel.errors import ShapeError, explain
from carousel.nn.stacked import StackedCell, check_dtype, check_features, check_flag, check_size, start_as_torch
from carousel.nn.torch_layers import simple_cell


class TorchCell(nn.Module):
    """What torch's single steps share. Its subclasses say which cell they are, in torch's signature, and nothing else.

    Args:
        cell: what runs.
        input_size: I.
        hidden_size: H.
        bias: whether there are biases.
        device: where the parameters are made.
        dtype: their type.
    """

    weight_ih: Tensor

    def __init__(self, cell: StackedCell, input_size: int, hidden_size: int, bias: bool, device: Any, dtype: Any) -> None:
        super().__init__()
        who = type(self).__name__
        check_size(who, "input_size", input_size)
        check_size(who, "hidden_size", hidden_size)
        check_flag(who, "bias", bias)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._cell = cell
        shapes = cell.shapes(input_size, hidden_size, bias)
        for name in cell.layout:  # a bias that is not there is None, as in torch
            made = nn.Parameter(torch.empty(shapes[name], device=device, dtype=dtype)) if name in shapes else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start all parameters anew, as torch does: uniform in ±1/sqrt(H)."""
        start_as_torch(self, self.hidden_size)

    @property
    def engine(self) -> Choice:
        """The engine that runs this cell, and why."""
        return self._cell.engine

    def forward(self, input: Tensor, hx: Any = None) -> Any:  # noqa: A002 - torch's name
        """Run one step.

        Args:
            input: (B, I), or (I,) for one sequence alone; of the parameters' dtype and device. Not changed.
            hx: the states before, (B, H), or (H,) for one sequence alone: one tensor, for `LSTMCell` a pair (h, c); zeros if
                None.

        Returns:
            The states after, like `hx`.

        Raises:
            ShapeError: an axis of the input or of a state is wrong.
            DTypeError: the input is not of the parameters' dtype, or a state not of the input's.

        Gradients:
            Exact for the input, the states and all parameters, of any order.
        """
        who = f"{type(self).__name__}.forward"
        alone = input.dim() == 1
        if input.dim() not in (1, 2):
            raise ShapeError(
                explain(
                    f"{who}: the input must have 1 or 2 axes.",
                    got=str(tuple(input.shape)),
                    expected=f"({self.input_size},) or (B, {self.input_size})",
                )
            )
        axes = "" if alone else "B, "
        check_features(who, input, self.input_size, axes, type(self).__name__)
        check_dtype(who, "the input", input, self.weight_ih.dtype, "the parameters")
        start = self._cell.start(who, hx, tuple(input.shape[:-1]), axes, self.hidden_size, input)
        rows = input.unsqueeze(0) if alone else input
        before = {name: tensor.unsqueeze(0) if alone else tensor for name, tensor in start.items()}
        given = {name: getattr(self, name) for name in self._cell.layout}
        weights = {name: tensor for name, tensor in given.items() if tensor is not None}
        [(_, after)] = self._cell.run([self._cell.call(weights, rows, before, (rows.shape[0],), self.hidden_size)])
        state = tuple(after[name].squeeze(0) if alone else after[name] for name in before)
        return state if len(state) > 1 else state[0]

    def extra_repr(self) -> str:
        """As torch's: the sizes, and the settings that differ from their defaults."""
        defaults = {"bias": True, "nonlinearity": "tanh"}
        values = {name: getattr(self, name, default) for name, default in defaults.items()}
        settings = [f"{name}={value}" for name, value in values.items() if value != defaults[name]]
        return ", ".join([str(self.input_size), str(self.hidden_size), *settings])


class LSTMCell(TorchCell):
    """`torch.nn.LSTMCell`, line for line: one step of :class:`carousel.nn.LSTM`.

    Args:
        input_size: I, features of the input.
        hidden_size: H.
        bias: whether there are biases.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        ``weight_ih`` (4·H, I), ``weight_hh`` (4·H, H), ``bias_ih`` and ``bias_hh`` (4·H); the gates in the order i f g o.

    Raises:
        ConfigError: a size is not positive.
        DTypeError: a size is not an int, or `bias` not a bool.

    Example:
        >>> h, c = LSTMCell(input_size=3, hidden_size=4)(torch.randn(2, 3))
        >>> tuple(h.shape), tuple(c.shape)
        ((2, 4), (2, 4))
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(StackedCell("lstm"), input_size, hidden_size, bias, device, dtype)


class GRUCell(TorchCell):
    """`torch.nn.GRUCell`, line for line: one step of :class:`carousel.nn.GRU`.

    Args:
        input_size: I, features of the input.
        hidden_size: H.
        bias: whether there are biases.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        As :class:`LSTMCell`, with 3·H for 4·H; the gates in the order r z n.

    Raises:
        ConfigError: a size is not positive.
        DTypeError: a size is not an int, or `bias` not a bool.

    Example:
        >>> tuple(GRUCell(input_size=3, hidden_size=4)(torch.randn(2, 3), torch.zeros(2, 4)).shape)
        (2, 4)
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(StackedCell("gru_reset_after"), input_size, hidden_size, bias, device, dtype)


class RNNCell(TorchCell):
    """`torch.nn.RNNCell`, line for line: one step of :class:`carousel.nn.RNN`.

    Args:
        input_size: I, features of the input.
        hidden_size: H.
        bias: whether there are biases.
        nonlinearity: ``tanh`` or ``relu``.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        As :class:`LSTMCell`, with H for 4·H.

    Raises:
        ConfigError: a size is not positive, or the nonlinearity is neither.
        DTypeError: a size is not an int, or `bias` not a bool.

    Example:
        >>> tuple(RNNCell(input_size=3, hidden_size=4, nonlinearity="relu")(torch.randn(3)).shape)
        (4,)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        cell = simple_cell(type(self).__name__, nonlinearity)
        super().__init__(cell, input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity
