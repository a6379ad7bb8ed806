"""`LSTM`, `GRU` and `RNN`: torch.nn's layers, line for line, run by this package's cells and engines.

They take torch's arguments, keep its parameters (both biases), start from its values for the same seed, load its state
dicts, and give its results; dropout between layers draws torch's masks on a CPU. Where they differ, each on purpose:

- a sequence of no steps gives an empty output and the initial state, where torch raises;
- errors are :class:`~carousel.errors.ShapeError` and `ConfigError` (both a ValueError) and `DTypeError` (a TypeError); torch
  raises RuntimeError for shapes and ValueError for an input of another dtype;
- `bidirectional` must be a bool, as torch asks of `bias` and `batch_first` already;
- `proj_size` is an argument of `LSTM` alone, so `GRU(..., proj_size=...)` is a TypeError, where torch raises ValueError.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from carousel.engines import Choice
from carousel.engines.packing import Packing, packed_sequence
from carousel.errors import ConfigError, ShapeError, explain, unknown_name
from carousel.nn.inference import InferenceWeights
from carousel.nn.stacked import StackedCell, check_dtype, check_features, check_flag, check_size, start_as_torch
from carousel.nn.stream import Stream, torch_stream
from carousel.nn.traced import run_torch_traced


class TorchLayer(nn.Module):
    """What torch's recurrent layers share. Its subclasses say which cell they are, in torch's signature, and nothing else.

    Args:
        mode: torch's name for the kind of layer.
        cell: what runs.
        input_size: I.
        hidden_size: H.
        num_layers: L.
        bias: whether there are biases.
        batch_first: whether inputs and outputs are (B, T, ...).
        dropout: of the outputs between layers.
        bidirectional: whether to run both ways.
        proj_size: P; 0 for no projection.
        device: where the parameters are made.
        dtype: their type.
    """

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    _cell: StackedCell
    _parts: list[dict[str, str]]
    inference_weights = InferenceWeights()

    def __init__(
        self,
        mode: str,
        cell: StackedCell,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            check_size(who, name, size)
        for name, flag in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            check_flag(who, name, flag)
        if isinstance(dropout, bool) or not isinstance(dropout, numbers.Real) or not 0 <= dropout <= 1:
            raise ConfigError(explain(f"{who}: dropout is a probability.", got=repr(dropout), expected="0 to 1"))
        if dropout and num_layers == 1:
            # Begins as torch's does, so that a filter for the one also silences the other.
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so with num_layers=1 there is none; "
                f"got dropout={dropout}",
                stacklevel=3,
            )
        self.mode = mode
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        self._cell = cell
        self._parts = []  # for each layer and direction, torch's names with and without its suffix
        width = input_size
        for layer in range(num_layers):
            for direction in ("", "_reverse") if bidirectional else ("",):
                shapes = cell.shapes(width, hidden_size, bias)
                self._parts.append({part: f"{part}_l{layer}{direction}" for part in shapes})
                for part, shape in shapes.items():
                    parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                    self.register_parameter(self._parts[-1][part], parameter)
            width = (proj_size or hidden_size) * self._directions
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start all parameters anew, as torch does: uniform in ±1/sqrt(H)."""
        start_as_torch(self, self.hidden_size)

    def flatten_parameters(self) -> None:
        """Do nothing: here no fast path needs the parameters in one piece of memory. For scripts that call it."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in parts.values()] for parts in self._parts]

    @property
    def engine(self) -> Choice:
        """The engine that runs this layer, and why."""
        return self._cell.engine

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 - torch's name
        """Run whole sequences.

        Args:
            input: (T, B, I), or (B, T, I) with `batch_first`, or (T, I) for one sequence alone, or a PackedSequence; of the
                parameters' dtype and device. T may be 0. Not changed.
            hx: the initial states, (L·D, B, H), or (L·D, H) for one sequence alone: one tensor, for `LSTM` a pair (h, c),
                where h has P features if there is a projection; zeros if None. `batch_first` does not touch it.

        Returns:
            The last layer's output, shaped as the input but with D·H features (D·P), and the state after each sequence's last
            step, like `hx`: a tensor, or torch's plain tuple. A PackedSequence gives one, with the same order.

        Raises:
            ShapeError: an axis of the input or of a state is wrong.
            DTypeError: the input is not of the parameters' dtype, or a state not of the input's.

        Gradients:
            Exact for the input, the states and all parameters, of any order.
        """
        who = f"{type(self).__name__}.forward"
        if isinstance(input, PackedSequence):
            pack = packed_sequence(input)
            self._check(who, input.data, ("rows, ",))
            start = self._start(who, hx, pack.batch, input.data)
            rows, state = self._run(input.data, start, pack)
            return PackedSequence(rows, input.batch_sizes, input.sorted_indices, input.unsorted_indices), state
        self._check(who, input, ("T, ", "B, T, " if self.batch_first else "T, B, "))
        alone = input.dim() == 2
        x = input.unsqueeze(1) if alone else input.transpose(0, 1) if self.batch_first else input  # (T, B, I)
        steps, batch = x.shape[:2]
        start = self._start(who, hx, None if alone else batch, x)
        if torch.compiler.is_compiling() and self._cell.traceable(x):
            output, state = run_torch_traced(self, x, start)
        else:
            pack = Packing(steps, batch, (batch,) * steps)
            rows, state = self._run(pack.pack(x), start, pack)
            output = pack.unpack(rows)
        if alone:
            return output.squeeze(1), self._each(state, lambda tensor: tensor.squeeze(1))
        return (output.transpose(0, 1) if self.batch_first else output), state

    def stream(self, batch: int | None = None, state: Any = None) -> Stream:
        """Run step by step, without gradients: see `Stream`; `state` is what `forward` calls `hx`."""
        return torch_stream(self, batch, state)

    def _run(self, rows: Tensor, start: Mapping[str, Tensor], pack: Packing) -> tuple[Tensor, Any]:
        """Run all layers over packed rows."""
        finals: list[dict[str, Tensor]] = []
        for layer in range(self.num_layers):
            calls = []
            for direction in range(self._directions):
                at = layer * self._directions + direction
                weights = {part: getattr(self, name) for part, name in self._parts[at].items()}
                initial = {name: pack.sort(tensor[at]) for name, tensor in start.items()}
                sizes = (pack.batch_sizes, self.hidden_size)
                how: dict[str, Any] = {"reverse": direction == 1, "inference_weights": self.inference_weights}
                calls.append(self._cell.call(weights, rows, initial, *sizes, **how))
            results = self._cell.run(calls)
            outputs = [output for output, _ in results]
            finals += [final for _, final in results]
            rows = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if layer + 1 < self.num_layers and self.dropout:
                rows = nn.functional.dropout(rows, self.dropout, self.training)
        state = tuple(torch.stack([pack.unsort(final[name]) for final in finals]) for name in start)
        return rows, state if len(state) > 1 else state[0]

    def _start(self, who: str, hx: Any, batch: int | None, like: Tensor) -> dict[str, Tensor]:
        """The initial states, (L·D, B, ...); `batch` is None for one sequence alone."""
        copies = self.num_layers * self._directions
        leading, axes = ((copies,), "L·D, ") if batch is None else ((copies, batch), "L·D, B, ")
        start = self._cell.start(who, hx, leading, axes, self.hidden_size, like)
        return {name: tensor.unsqueeze(1) if batch is None else tensor for name, tensor in start.items()}

    @staticmethod
    def _each(state: Any, change: Any) -> Any:
        return change(state) if isinstance(state, Tensor) else tuple(change(part) for part in state)

    def _check(self, who: str, x: Tensor, forms: tuple[str, ...]) -> None:
        """Check an input at the door; `forms` are the axes it may have before its features."""
        allowed = {form.count(",") + 1: form for form in forms}
        if x.dim() not in allowed:
            what = f"{who}: the input must have {' or '.join(map(str, allowed))} axes."
            expected = " or ".join(f"({form}{self.input_size})" for form in forms)
            raise ShapeError(explain(what, got=str(tuple(x.shape)), expected=expected))
        check_features(who, x, self.input_size, allowed[x.dim()], type(self).__name__)
        weight = getattr(self, self._parts[0]["weight_ih"])
        check_dtype(who, "the input", x, weight.dtype, "the parameters")

    def extra_repr(self) -> str:
        """As torch's: the sizes, and the settings that differ from their defaults."""
        basic = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
        defaults = {**basic, "bidirectional": False}
        settings = [f"{name}={getattr(self, name)}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join([str(self.input_size), str(self.hidden_size), *settings])


class LSTM(TorchLayer):
    """`torch.nn.LSTM`, line for line. The equations are those of :class:`carousel.cells.LSTM`.

    Differs from that cell in what it learns: two biases for each gate, of which the gate sees the sum, and torch's initial
    values instead of a forget bias of 1. With `proj_size`, the cell is :class:`carousel.cells.LSTMP`.

    Args:
        input_size: I, features of each input.
        hidden_size: H.
        num_layers: L.
        bias: whether there are biases.
        batch_first: inputs and outputs are (B, T, ...) instead of (T, B, ...). Does not touch the state.
        dropout: the probability with which each feature between two layers is dropped in training.
        bidirectional: run both ways; D is then 2, else 1.
        proj_size: P, features of h and of the output if not 0; less than H.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        For layer k and each direction (backwards with the suffix ``_reverse``): ``weight_ih_l<k>`` (4·H, I), for k > 0
        (4·H, D·H); ``weight_hh_l<k>`` (4·H, H); ``bias_ih_l<k>``, ``bias_hh_l<k>`` (4·H); the gates in the order i f g o.
        With a projection, H is P in all places but the 4·H, and ``weight_hr_l<k>`` (P, H) comes last.

    Raises:
        ConfigError: a size is not positive, P is not less than H, or dropout is no probability.
        DTypeError: a size is not an int, or a flag not a bool.

    Example:
        >>> layer = LSTM(input_size=3, hidden_size=4, num_layers=2, bidirectional=True)
        >>> output, (h, c) = layer(torch.randn(5, 2, 3))
        >>> tuple(output.shape), tuple(h.shape), [name for name, _ in layer.named_parameters()][:2]
        ((5, 2, 8), (4, 2, 4), ['weight_ih_l0', 'weight_hh_l0'])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        who = type(self).__name__
        check_size(who, "hidden_size", hidden_size)
        check_size(who, "proj_size", proj_size, least=0)
        if proj_size >= hidden_size:
            raise ConfigError(explain(f"{who}: proj_size must be less than hidden_size.", got=f"{proj_size} and {hidden_size}"))
        cell = StackedCell("lstmp", {"proj_size": proj_size}) if proj_size else StackedCell("lstm")
        super().__init__(
            "LSTM", cell, input_size, hidden_size, num_layers,
            bias, batch_first, dropout, bidirectional, proj_size, device, dtype,
        )  # fmt: skip


class GRU(TorchLayer):
    """`torch.nn.GRU`, line for line. The equations are those of :class:`carousel.cells.GRUResetAfter`: z keeps the old state.

    Differs from that cell in what it learns: two biases for each of r and z, of which the gate sees the sum.

    Args:
        input_size: I, features of each input.
        hidden_size: H.
        num_layers: L.
        bias: whether there are biases.
        batch_first: inputs and outputs are (B, T, ...) instead of (T, B, ...). Does not touch the state.
        dropout: the probability with which each feature between two layers is dropped in training.
        bidirectional: run both ways; D is then 2, else 1.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        As :class:`LSTM`, with 3·H for 4·H; the gates in the order r z n.

    Raises:
        ConfigError: a size is not positive, or dropout is no probability.
        DTypeError: a size is not an int, or a flag not a bool.

    Example:
        >>> output, h = GRU(input_size=3, hidden_size=4, batch_first=True)(torch.randn(2, 5, 3))
        >>> tuple(output.shape), tuple(h.shape)
        ((2, 5, 4), (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU", StackedCell("gru_reset_after"), input_size, hidden_size, num_layers,
            bias, batch_first, dropout, bidirectional, 0, device, dtype,
        )  # fmt: skip


#: The nonlinearities torch has, and its names for the layers that they make.
NONLINEARITIES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


def simple_cell(who: str, nonlinearity: str) -> StackedCell:
    """The simple network's cell.

    Raises:
        ConfigError: torch has no such nonlinearity.
    """
    if nonlinearity not in NONLINEARITIES:
        raise ConfigError(f"{who}: " + unknown_name("nonlinearity", str(nonlinearity), NONLINEARITIES))
    return StackedCell("elman", {"activation": nonlinearity})


class RNN(TorchLayer):
    """`torch.nn.RNN`, line for line. The equations are those of :class:`carousel.cells.Elman`.

    Differs from that cell in what it learns: two biases, of which the units see the sum.

    Args:
        input_size: I, features of each input.
        hidden_size: H.
        num_layers: L.
        nonlinearity: ``tanh`` or ``relu``.
        bias: whether there are biases.
        batch_first: inputs and outputs are (B, T, ...) instead of (T, B, ...). Does not touch the state.
        dropout: the probability with which each feature between two layers is dropped in training.
        bidirectional: run both ways; D is then 2, else 1.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        As :class:`LSTM`, with H for 4·H.

    Raises:
        ConfigError: a size is not positive, dropout is no probability, or the nonlinearity is neither.
        DTypeError: a size is not an int, or a flag not a bool.

    Example:
        >>> output, h = RNN(input_size=3, hidden_size=4, nonlinearity="relu")(torch.randn(5, 2, 3))
        >>> bool((output >= 0).all()), tuple(h.shape)
        (True, (1, 2, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        cell = simple_cell(type(self).__name__, nonlinearity)
        super().__init__(
            NONLINEARITIES[nonlinearity], cell, input_size, hidden_size, num_layers,
            bias, batch_first, dropout, bidirectional, 0, device, dtype,
        )  # fmt: skip
        self.nonlinearity = nonlinearity
