"""How other frameworks order and name the gates, spelled by letters, and which of our cells each of their layers is.

Nothing here is a number: whoever reorders gates says the letters of both orders, and blocks are found by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carousel.cells import CELLS, cell_name
from carousel.errors import ConfigError, explain, unknown_name
from carousel.graph import Cell
from carousel.nn.gates import TORCH as TORCH_LAYOUTS
from carousel.nn.gates import Layout, named, split, stack

Array = npt.NDArray[Any]
Stacked = TypeVar("Stacked", Tensor, Array)


@dataclass(frozen=True)
class GateOrder:
    """The gates of one kind of cell, in the order in which a framework stacks them.

    Attributes:
        theirs: their letters, in the order of the blocks.
        ours: which of our gates each of them is.
    """

    theirs: str
    ours: str


#: The order of the gates, by framework and kind of cell. In every GRU here z keeps the old state: ``z * h + (1 - z) * n``.
GATE_ORDERS: dict[str, dict[str, GateOrder]] = {
    "carousel": {"lstm": GateOrder("ifgo", "ifgo"), "gru": GateOrder("rzn", "rzn"), "rnn": GateOrder("h", "h")},
    "torch": {"lstm": GateOrder("ifgo", "ifgo"), "gru": GateOrder("rzn", "rzn"), "rnn": GateOrder("h", "h")},
    "keras": {"lstm": GateOrder("ifco", "ifgo"), "gru": GateOrder("zrh", "zrn"), "rnn": GateOrder("h", "h")},
    "onnx": {
        "lstm": GateOrder("iofc", "iofg"),
        "peepholes": GateOrder("iof", "iof"),
        "gru": GateOrder("zrh", "zrn"),
        "rnn": GateOrder("i", "h"),
    },
    "flax": {"lstm": GateOrder("ifgo", "ifgo"), "gru": GateOrder("rzn", "rzn")},
    "equinox": {"lstm": GateOrder("ifgo", "ifgo"), "gru": GateOrder("rzn", "rzn")},
}


def permute_gates(stacked: Stacked, source: str, target: str, axis: int = 0) -> Stacked:
    """Put stacked gates into another order.

    Args:
        stacked: a tensor or an array, with blocks of one size along `axis`. Not changed.
        source: a letter for each block, as it is ordered now.
        target: the same letters, in the order wanted.
        axis: along which the blocks are stacked.

    Returns:
        A new tensor or array, as `stacked` is.

    Raises:
        ConfigError: the two do not have the same letters, each once.
        ShapeError: the axis cannot be cut into so many blocks.

    Example:
        >>> keras, onnx = GATE_ORDERS["keras"]["lstm"].ours, GATE_ORDERS["onnx"]["lstm"].ours
        >>> permute_gates(np.arange(8), keras, onnx)  # i f g o to i o f g
        array([0, 1, 6, 7, 2, 3, 4, 5])
    """
    if sorted(source) != sorted(target) or len(set(source)) != len(source):
        raise ConfigError(
            explain(
                "permute_gates: the two orders must have the same letters, each once.",
                got=f"source '{source}', target '{target}'",
                advice="GATE_ORDERS has both in our letters, as .ours",
            )
        )
    if isinstance(stacked, Tensor):
        return stack(split(stacked, source, axis), target, axis)
    return permute_gates(torch.tensor(np.ascontiguousarray(stacked)), source, target, axis).numpy()


@dataclass(frozen=True)
class Counterpart:
    """A cell here and the layer that computes the same elsewhere.

    Attributes:
        kind: what the layer is called there.
        cell: the cell, in :data:`carousel.cells.CELLS`.
        layout: the blocks of each of its stacked arrays, the gates along the first axis.
        settings: how the layer there is built, as far as that changes what it computes.
        options: what the cell's options must be; the others may be anything.
    """

    kind: str
    cell: str
    layout: Layout
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """A framework's layers that have counterparts here.

    Attributes:
        name: the framework, for messages.
        counterparts: where several fit, the first is taken.
    """

    name: str
    counterparts: Sequence[Counterpart]

    def check_kind(self, who: str, kind: str) -> None:
        """Check that a kind of layer has counterparts here.

        Raises:
            ConfigError: it has not; the message names those that have.
        """
        kinds = {row.kind for row in self.counterparts}
        if kind not in kinds:
            raise ConfigError(f"{who}: " + unknown_name(f"kind of {self.name} layer", str(kind), kinds))

    def of_layer(self, who: str, kind: str, settings: Mapping[str, Any]) -> Counterpart:
        """What a layer of theirs is here.

        Args:
            who: the caller, for messages.
            kind: what the layer is called there.
            settings: how it is built; those that its kind does not have are not looked at.

        Raises:
            ConfigError: an unknown kind, or settings that no cell here computes.
        """
        self.check_kind(who, kind)
        rows = [row for row in self.counterparts if row.kind == kind]
        for row in rows:
            if all(settings[name] == value for name, value in row.settings.items()):
                return row
        relevant = {name: settings[name] for row in rows for name in row.settings}
        raise ConfigError(
            explain(
                f"{who}: no cell here computes what this {kind} does.",
                got=spell(relevant),
                expected="; or ".join(dict.fromkeys(spell(row.settings) for row in rows)),
            )
        )

    def of_cell(self, who: str, cell: Cell) -> Counterpart:
        """What a cell is there.

        Args:
            who: the caller, for messages.
            cell: the cell.

        Raises:
            ConfigError: nothing there computes the same, or not with the cell's options.
        """
        # By class and not by name, so that a user's own class that happens to be called like one of ours is not taken for it.
        rows = [row for row in self.counterparts if CELLS[row.cell] is type(cell)]
        options = cell.options()
        for row in rows:
            if all(options[name] == value for name, value in row.options.items()):
                return row
        names = ", ".join(dict.fromkeys(row.cell for row in self.counterparts))
        if not rows:
            raise ConfigError(
                explain(
                    f"{who}: the cell {cell_name(cell)} has no counterpart in {self.name}.",
                    got=repr(cell),
                    expected=f"one of {names}",
                )
            )
        raise ConfigError(
            explain(
                f"{who}: with these options the cell {cell_name(cell)} has no counterpart in {self.name}.",
                got=repr(cell),
                expected="; or ".join(dict.fromkeys(spell(row.options) for row in rows)),
            )
        )


def spell(settings: Mapping[str, Any]) -> str:
    """Settings as one writes them in a call."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def _hidden_apart(gates: str) -> tuple[str, ...]:
    """The recurrent biases of a GRU that resets after the product: n's stays apart, since r multiplies it."""
    return tuple("b_hn" if gate == "n" else f"b_{gate}" for gate in gates)


def _keras(kind: str, bias: tuple[str, ...] = ()) -> Layout:
    """Keras's arrays, kernels transposed; a bias of two rows is flattened."""
    gates = GATE_ORDERS["keras"][kind].ours
    return {"kernel": named("W", gates), "recurrent_kernel": named("U", gates), "bias": bias or named("b", gates)}


def _onnx(kind: str, recurrent_bias: tuple[str, ...] = (), peepholes: str = "") -> Layout:
    """The initialisers of one direction."""
    gates = GATE_ORDERS["onnx"][kind].ours
    biases = named("b", gates) + (recurrent_bias or named("b", gates))
    layout = {"W": named("W", gates), "R": named("U", gates), "B": biases}
    return {**layout, "P": named("p", peepholes)} if peepholes else layout


TORCH = Dialect(
    "torch",
    [
        Counterpart("LSTM", "lstm", TORCH_LAYOUTS["lstm"], {"projected": False}),
        Counterpart("LSTM", "lstmp", TORCH_LAYOUTS["lstmp"], {"projected": True}),
        Counterpart("GRU", "gru_reset_after", TORCH_LAYOUTS["gru_reset_after"]),
        Counterpart("RNN", "elman", TORCH_LAYOUTS["elman"], {"nonlinearity": "tanh"}, {"activation": "tanh"}),
        Counterpart("RNN", "elman", TORCH_LAYOUTS["elman"], {"nonlinearity": "relu"}, {"activation": "relu"}),
        Counterpart("RNN", "irnn", TORCH_LAYOUTS["elman"], {"nonlinearity": "relu"}),
    ],
)

#: Keras's names of the activations that compute the same there and here.
_KERAS_ACTIVATIONS = {
    "tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "linear": "identity",
    "softplus": "softplus", "softsign": "softsign", "elu": "elu", "silu": "silu",
}  # fmt: skip
_KERAS_ZR_HN = named("b", GATE_ORDERS["keras"]["gru"].ours) + _hidden_apart(GATE_ORDERS["keras"]["gru"].ours)

KERAS = Dialect(
    "Keras",
    [
        Counterpart("LSTM", "lstm", _keras("lstm"), {"activation": "tanh"}),
        Counterpart("GRU", "gru_reset_after", _keras("gru", _KERAS_ZR_HN), {"reset_after": True, "activation": "tanh"}),
        Counterpart("GRU", "gru", _keras("gru"), {"reset_after": False, "activation": "tanh"}),
        *(
            Counterpart("SimpleRNN", "elman", _keras("rnn"), {"activation": theirs}, {"activation": ours})
            for theirs, ours in _KERAS_ACTIVATIONS.items()
        ),
        Counterpart("SimpleRNN", "irnn", _keras("rnn"), {"activation": "relu"}),
    ],
)

#: ONNX's names of the activations that need no numbers of their own.
_ONNX_ACTIVATIONS = {
    "Tanh": "tanh", "Relu": "relu", "Sigmoid": "sigmoid", "Softplus": "softplus", "Softsign": "softsign",
}  # fmt: skip
_LSTM = {"activations": ("Sigmoid", "Tanh", "Tanh")}
_GRU = {"activations": ("Sigmoid", "Tanh")}
_ONNX_HN = _hidden_apart(GATE_ORDERS["onnx"]["gru"].ours)

ONNX = Dialect(
    "ONNX",
    [
        Counterpart("LSTM", "lstm", _onnx("lstm"), {**_LSTM, "peepholes": False}),
        Counterpart(
            "LSTM",
            "peephole_lstm",
            _onnx("lstm", peepholes=GATE_ORDERS["onnx"]["peepholes"].ours),
            {**_LSTM, "peepholes": True},
            {"output_gate": "new"},
        ),
        Counterpart("GRU", "gru", _onnx("gru"), {**_GRU, "linear_before_reset": 0, "peepholes": False}),
        Counterpart("GRU", "gru_reset_after", _onnx("gru", _ONNX_HN), {**_GRU, "linear_before_reset": 1, "peepholes": False}),
        *(
            Counterpart("RNN", "elman", _onnx("rnn"), {"activations": (theirs,), "peepholes": False}, {"activation": ours})
            for theirs, ours in _ONNX_ACTIVATIONS.items()
        ),
        Counterpart("RNN", "irnn", _onnx("rnn"), {"activations": ("Relu",), "peepholes": False}),
    ],
)
