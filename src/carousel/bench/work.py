"""What is computed: a cell, sizes, and how it is used; and the right results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from carousel.cells import resolve_cell
from carousel.errors import ConfigError, explain, unknown_name
from carousel.graph import Cell
from carousel.nn import Recurrent

#: How a layer is used, and how many times the operations of a forward pass that takes.
MODES = {"train": 3, "forward": 1, "step": 1, "ragged": 3}

Results = Mapping[str, Tensor]


class Unavailable(Exception):  # noqa: N818 - it says what is so, and is always caught
    """A contestant cannot do some work here; its text says why."""


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Attributes:
        cell: its name in :data:`carousel.cells.CELLS`.
        T: steps.
        B: rows of the batch.
        I: features of the input.
        H: hidden size.
        mode: ``train`` is forward and backward, to the gradients of the input and all parameters; ``forward`` without
            gradients; ``step`` the same, one call for each step; ``ragged`` like ``train``, with lengths between 1 and T.

    Raises:
        ConfigError: a name is unknown, or the cell takes more than vectors x.
    """

    cell: str
    T: int
    B: int
    I: int  # noqa: E741 - the field's letter
    H: int
    mode: str = "train"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(unknown_name("mode", self.mode, MODES))
        if min(self.T, self.B, self.I, self.H) < 1:
            raise ConfigError(explain("a shape is T x B x I x H, each at least 1.", got=self.shape))
        cell = resolve_cell(self.cell)
        takes = ", ".join((*cell.inputs, *cell.context))
        if takes != "x" or len(cell.graph.inputs["x"].shape) != 1:
            raise ConfigError(
                explain(
                    f"bench: {self.cell} cannot be measured: the benchmark feeds cells one vector x at each step.",
                    got=f"it takes {takes}" if takes != "x" else f"its x has the axes {cell.graph.inputs['x'].shape}",
                )
            )

    @property
    def shape(self) -> str:
        """The sizes, as the command takes them."""
        return f"{self.T}x{self.B}x{self.I}x{self.H}"

    @property
    def text(self) -> str:
        """For titles."""
        return f"{self.cell} {self.mode} {self.shape}"

    @property
    def trains(self) -> bool:
        """Whether gradients are wanted."""
        return MODES[self.mode] > 1


@dataclass
class Problem:
    """A piece of work with its numbers, drawn once; every contestant gets copies of them.

    Attributes:
        work: what it is.
        layer: of this library, whose weights all have. Biases and other vectors differ in all their elements, so that no
            mistake in their order can hide.
        x: (T, B, I).
        d_output: (T, B, O), the gradient of the output.
        lengths: (B,), or None where all rows are T long.
    """

    work: Work
    layer: Recurrent
    x: Tensor
    d_output: Tensor
    lengths: Tensor | None
    _expected: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def draw(cls, work: Work) -> Problem:
        """Draw the numbers; the same for the same work."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = Recurrent(work.cell, work.I, work.H, engine="eager")
            with torch.no_grad():
                for parameter in layer.parameters():
                    if parameter.dim() == 1:
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            x = torch.randn(work.T, work.B, work.I)
            d_output = torch.randn(work.T, work.B, layer.output_size)
            lengths = torch.randint(1, work.T + 1, (work.B,)) if work.mode == "ragged" else None
        return cls(work, layer, x, d_output, lengths)

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.layer.cell

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The values of all learned parameters, by the cell's names for them."""
        return {name.removeprefix("layers.0."): p.detach().clone() for name, p in self.layer.named_parameters()}

    @property
    def operations(self) -> float:
        """Additions and multiplications of all products with matrices: 6·T·B·(I+H)·G·H in training an LSTM or a GRU."""
        rows = self.work.T * self.work.B if self.lengths is None else int(self.lengths.sum())
        weights = sum(p.numel() for p in self.layer.parameters() if p.dim() == 2)
        return 2.0 * rows * weights * MODES[self.work.mode]

    def expected(self) -> Results:
        """The right output and, in training, gradients by ``d x`` and ``d NAME``: the eager engine's, in float64."""
        if not self._expected:
            layer, x = copy.deepcopy(self.layer).double(), self.x.double().requires_grad_(self.work.trains)
            with torch.set_grad_enabled(self.work.trains):
                output, _ = layer(x, lengths=self.lengths)
            self._expected["output"] = output.detach()
            if self.work.trains:
                output.backward(self.d_output.double())
                self._expected |= gradients(x, dict(layer.named_parameters()))
        return self._expected


def gradients(x: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients that lie in the input and in the parameters of a layer, by the cell's names."""
    named = {name.removeprefix("layers.0."): p.grad for name, p in parameters.items()}
    return {f"d {name}": d.detach() for name, d in {"x": x.grad, **named}.items() if d is not None}


@dataclass(frozen=True)
class Side:
    """A contestant, ready to run.

    Attributes:
        run: does the work once; this is timed, so it keeps nothing.
        results: does the work once and gives what came out; empty where that cannot be compared.
    """

    run: Callable[[], object]
    results: Callable[[], Results]
