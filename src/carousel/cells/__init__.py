"""The cells of the literature, each one class that reads like its paper. A step's equations, and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from carousel.cells.attention import AttentionGRU
from carousel.cells.convolutional import ConvLSTM
from carousel.cells.gru import GRU, GRUD, MGU, GRUResetAfter
from carousel.cells.highway import RHN
from carousel.cells.linear import QRNN, SRU, MinGRU, MinLSTM
from carousel.cells.lstm import LSTM, LSTMP, CoupledLSTM, LayerNormLSTM, MultiplicativeLSTM, PeepholeLSTM
from carousel.cells.simple import IRNN, ClockworkRNN, Elman, FastGRNN, IndRNN, Jordan
from carousel.cells.xlstm import MLSTM, SLSTM
from carousel.errors import ConfigError, DTypeError, explain, unknown_name
from carousel.graph import Cell

__all__ = [
    "CELLS",
    "GRU",
    "GRUD",
    "IRNN",
    "LSTM",
    "LSTMP",
    "MGU",
    "MLSTM",
    "QRNN",
    "RHN",
    "SLSTM",
    "SRU",
    "AttentionGRU",
    "ClockworkRNN",
    "ConvLSTM",
    "CoupledLSTM",
    "Elman",
    "FastGRNN",
    "GRUResetAfter",
    "IndRNN",
    "Jordan",
    "LayerNormLSTM",
    "MinGRU",
    "MinLSTM",
    "MultiplicativeLSTM",
    "PeepholeLSTM",
    "cell_name",
    "resolve_cell",
]

#: By the name that ``cell=`` and ``--cell`` take.
CELLS: dict[str, type[Cell]] = {
    "elman": Elman,
    "irnn": IRNN,
    "jordan": Jordan,
    "lstm": LSTM,
    "peephole_lstm": PeepholeLSTM,
    "coupled_lstm": CoupledLSTM,
    "gru": GRU,
    "gru_reset_after": GRUResetAfter,
    "lstmp": LSTMP,
    "layer_norm_lstm": LayerNormLSTM,
    "multiplicative_lstm": MultiplicativeLSTM,
    "mgu": MGU,
    "indrnn": IndRNN,
    "fastgrnn": FastGRNN,
    "clockwork_rnn": ClockworkRNN,
    "rhn": RHN,
    "sru": SRU,
    "qrnn": QRNN,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "slstm": SLSTM,
    "mlstm": MLSTM,
    "conv_lstm": ConvLSTM,
    "gru_d": GRUD,
    "attention_gru": AttentionGRU,
}


def cell_name(cell: Cell | type[Cell]) -> str:
    """Say what a cell is called: its name in :data:`CELLS`, or its class's name if it is the user's own."""
    kind = cell if isinstance(cell, type) else type(cell)
    return next((name for name, known in CELLS.items() if known is kind), kind.__name__)


def resolve_cell(spec: str | type[Cell] | Cell, options: Mapping[str, Any] | None = None) -> Cell:
    """Turn a name, a class or a cell into a cell.

    Args:
        spec: a name in :data:`CELLS`, a subclass of `Cell`, or a cell, which is returned as it is.
        options: the cell's options; not with a cell, which has its own.

    Raises:
        ConfigError: an unknown name or option (the message has the nearest), or a value that the option does not take.
        DTypeError: `spec` is none of these.

    Example:
        >>> resolve_cell("peephole_lstm", {"output_gate": "old"})
        PeepholeLSTM(forget_bias=1.0, output_gate='old')
    """
    options = dict(options or {})
    if isinstance(spec, Cell):
        if options:
            raise ConfigError("a cell has its options already: give its class or name to set them, or no options")
        return spec
    if isinstance(spec, str):
        if spec not in CELLS:
            raise ConfigError(unknown_name("cell", spec, CELLS))
        spec = CELLS[spec]
    if not (isinstance(spec, type) and issubclass(spec, Cell)):
        raise DTypeError(
            explain("this is not a cell.", got=repr(spec), expected="a name, a subclass of carousel.Cell, or a cell")
        )
    known = [field.name for field in dataclasses.fields(spec)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            if not known:
                raise ConfigError(f"the cell {cell_name(spec)} has no options; got '{name}'")
            raise ConfigError(unknown_name(f"option of the cell {cell_name(spec)}", name, known))
    return spec(**options)
