"""`Recurrent`: a cell run over time, in any number of layers, in one direction or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from carousel.cells import resolve_cell
from carousel.engines import Choice, choose, load
from carousel.errors import ConfigError, DTypeError, ShapeError, explain, unknown_name
from carousel.graph import Cell, Initialiser, initialiser
from carousel.graph.shapes import concrete
from carousel.nn.packing import Packing, packing
from carousel.nn.state import as_states, state_type


class CellParameters(nn.Module):
    """What one layer of a cell learns in one direction, under the names of its equations.

    Args:
        cell: the cell.
        input_size: I.
        hidden_size: H.
        init: initialisers by parameter name, instead of the cell's own.
        device: where the parameters are made.
        dtype: their type.
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        *,
        init: Mapping[str, Initialiser] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.sizes = dict(cell.sizes(input_size, hidden_size))
        self._init = {name: (init or {}).get(name, p.init) for name, p in cell.graph.parameters.items()}
        for name, shape in cell.parameter_shapes(input_size, hidden_size).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start all parameters anew, from torch's generator."""
        for name, start in self._init.items():
            start.fill(self.get_parameter(name))

    def extra_repr(self) -> str:
        """The names and shapes."""
        return ", ".join(f"{name} {tuple(p.shape)}" for name, p in self.named_parameters())


class Recurrent(nn.Module):
    r"""A cell over time: deep, bidirectional, ragged and streaming.

    Layer l runs the cell over the output of layer l-1; a bidirectional layer runs it both ways and puts the outputs side by
    side, forwards first. Sequences that are shorter than T run alone: what stands in the padding is never read.

    Args:
        cell: a subclass of `Cell`, a cell, or a name in :data:`carousel.cells.CELLS`.
        input_size: I, features of each input.
        hidden_size: H.
        num_layers: L.
        bidirectional: run both ways; D is then 2, else 1.
        batch_first: x and the output are (B, T, ...) instead of (T, B, ...). Does not touch the state.
        dropout: the probability with which each feature between two layers is dropped in training. At 0, none.
        engine: ``auto``, or the name of an engine; one that cannot run the cell is an error.
        init: how parameters start, by name, instead of the cell's own: an initialiser, its name, or a number.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        Parameters are ``layers.<l>.<name>`` and, backwards, ``layers_reverse.<l>.<name>``.

    Raises:
        ConfigError: a size is not positive, an option or a name is unknown, the cell has several inputs.
        KernelUnavailable: the engine asked for cannot run the cell.

    Example:
        >>> layer = Recurrent("lstm", input_size=3, hidden_size=4, num_layers=2, bidirectional=True)
        >>> output, state = layer(torch.randn(5, 2, 3), lengths=torch.tensor([2, 5]))
        >>> tuple(output.shape), tuple(state.h.shape), output[2:, 0].abs().sum().item()
        ((5, 2, 8), (4, 2, 4), 0.0)
    """

    def __init__(
        self,
        cell: str | type[Cell] | Cell,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        engine: str = "auto",
        init: Mapping[str, Initialiser | str | float] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cell = resolve_cell(cell)
        for name, value, least in (
            ("input_size", input_size, 1),
            ("hidden_size", hidden_size, 1),
            ("num_layers", num_layers, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(explain(f"Recurrent: {name} must be a whole number, {least} or more.", got=repr(value)))
        if not 0 <= dropout <= 1:
            raise ConfigError(explain("Recurrent: dropout is a probability.", got=repr(dropout), expected="0 to 1"))
        if len(self.cell.inputs) != 1:
            raise ConfigError(f"Recurrent runs cells with one input; this one has {', '.join(self.cell.inputs) or 'none'}")
        graph = self.cell.graph
        starts = {name: initialiser(start) for name, start in (init or {}).items()}
        for name in starts:
            if name not in graph.parameters:
                raise ConfigError(unknown_name(f"parameter of {type(self.cell).__name__}", name, graph.parameters))
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.batch_first, self.dropout = bidirectional, batch_first, dropout
        self.engine: Choice = choose(engine, graph)
        self._engine = load(self.engine)
        self._state = state_type(type(self.cell).__name__, self.cell.state)
        self.num_directions = 2 if bidirectional else 1
        #: Features of the output of one direction.
        self.direction_size = concrete(graph.output.shape, self.cell.sizes(input_size, hidden_size))[-1]
        #: Features of the output: both directions side by side.
        self.output_size = self.direction_size * self.num_directions

        def stack() -> nn.ModuleList:
            widths = [input_size] + [self.output_size] * (num_layers - 1)
            return nn.ModuleList(
                CellParameters(self.cell, width, hidden_size, init=starts, device=device, dtype=dtype) for width in widths
            )

        self._sizes = dict(self.cell.sizes(input_size, hidden_size))
        self.layers = stack()
        if bidirectional:
            self.layers_reverse = stack()

    def reset_parameters(self) -> None:
        """Start all parameters anew, from torch's generator."""
        for direction in range(self.num_directions):
            for parameters in self._directions(direction):
                parameters.reset_parameters()

    def forward(
        self,
        x: Float[Tensor, "T B I"],
        state: Any = None,
        lengths: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "T B O"], Any]:
        """Run whole sequences.

        Args:
            x: (T, B, I), or (B, T, I) with ``batch_first``; of the parameters' dtype and device. Not changed.
            state: the initial states, a tuple in the order of the equations, each (L·D, B, H): layer 0 forwards, layer 0
                backwards, layer 1 forwards, ...; zeros if None.
            lengths: (B,), how many steps of each sequence are real: 0 to T, in any order, on any device; all T if None.

        Returns:
            The last layer's output, (T, B, D·O) or (B, T, D·O), zero in the padding, and the state after each
            sequence's last real step, a named tuple like `state`. A sequence of length 0 keeps its initial state.

        Raises:
            ShapeError: an axis of x, a state or the lengths is wrong.
            DTypeError: x is not of the parameters' dtype, or lengths are not integers.
        """
        time_first = self._check_input(x, 3)
        steps, batch = time_first.shape[:2]
        who = f"Recurrent({type(self.cell).__name__}).forward"
        pack = packing(steps, batch, lengths, x.device, who)
        start = self._initial(state, batch, time_first)
        packed = pack.pack(time_first)
        finals: list[dict[str, Tensor]] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(self.num_directions):
                at = layer * self.num_directions + direction
                initial = {name: pack.sort(tensor[at]) for name, tensor in start.items()}
                output, final = self._run(layer, direction, packed, initial, pack)
                outputs.append(output)
                finals.append(final)
            packed = outputs[0] if len(outputs) == 1 else torch.cat(outputs, -1)
            if layer + 1 < self.num_layers and self.dropout:
                packed = nn.functional.dropout(packed, self.dropout, self.training)
        output = pack.unpack(packed)
        after = self._state(*(torch.stack([pack.unsort(f[name]) for f in finals]) for name in self.cell.state))
        return (output.transpose(0, 1) if self.batch_first else output), after

    def step(self, x_t: Float[Tensor, "B I"], state: Any = None) -> tuple[Float[Tensor, "B O"], Any]:
        """Run one step, for streams: feeding a sequence step by step gives what `forward` gives for the whole.

        Args:
            x_t: (B, I), the input of this step.
            state: what the step before returned, or what `forward` returned; zeros if None.

        Returns:
            The last layer's output (B, O), and the state, a named tuple of (L, B, H).

        Raises:
            ConfigError: the layer is bidirectional: the way back needs the end of the sequence.
            ShapeError: an axis is wrong.
        """
        if self.bidirectional:
            raise ConfigError(
                "Recurrent.step: a bidirectional layer cannot stream, since its way back starts at the end of the sequence. "
                "Build the layer with bidirectional=False, or run whole sequences"
            )
        self._check_input(x_t, 2)
        batch = x_t.shape[0]
        start = self._initial(state, batch, x_t)
        pack = Packing(1, batch, (batch,))
        rows, finals = x_t, []
        for layer in range(self.num_layers):
            initial = {name: tensor[layer] for name, tensor in start.items()}
            rows, final = self._run(layer, 0, rows, initial, pack)
            finals.append(final)
            if layer + 1 < self.num_layers and self.dropout:
                rows = nn.functional.dropout(rows, self.dropout, self.training)
        return rows, self._state(*(torch.stack([final[name] for final in finals]) for name in self.cell.state))

    def initial_state(self, batch: int) -> Any:
        """The state of sequences that have not started: zeros, (L·D, B, H) each.

        Args:
            batch: B.
        """
        like = next(self.parameters())
        return self._state(*self._zeros(batch, like).values())

    def _run(
        self, layer: int, direction: int, packed: Tensor, initial: Mapping[str, Tensor], pack: Packing
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parameters = self._directions(direction)[layer]
        return self._engine.run(
            self.cell.graph,
            {self.cell.inputs[0]: packed},
            initial,
            dict(parameters.named_parameters()),
            pack.batch_sizes,
            parameters.sizes,
            reverse=direction == 1,
        )

    def _initial(self, state: Any, batch: int, like: Tensor) -> dict[str, Tensor]:
        if state is None:
            return self._zeros(batch, like)
        copies = self.num_layers * self.num_directions
        sizes = self._sizes
        return as_states(self.cell, state, copies, batch, sizes, f"Recurrent({type(self.cell).__name__})")

    def _zeros(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        copies = self.num_layers * self.num_directions
        shapes = {name: concrete(node.shape, self._sizes) for name, node in self.cell.graph.states.items()}
        return {name: like.new_zeros((copies, batch, *shape)) for name, shape in shapes.items()}

    def _check_input(self, x: Tensor, axes: int) -> Tensor:
        who = f"Recurrent({type(self.cell).__name__}).{'forward' if axes == 3 else 'step'}"
        letters = ("B, T" if self.batch_first else "T, B") if axes == 3 else "B"
        if x.dim() != axes:
            raise ShapeError(
                explain(
                    f"{who}: x must have {axes} axes.",
                    got=f"x {tuple(x.shape)}",
                    expected=f"x ({letters}, {self.input_size})",
                    advice="add the batch axis with x.unsqueeze" if x.dim() == axes - 1 else None,
                )
            )
        if x.shape[-1] != self.input_size:
            raise ShapeError(
                explain(
                    f"{who}: the last axis of `x` is {x.shape[-1]}, but this layer was built with "
                    f"input_size={self.input_size}.",
                    got=f"x {tuple(x.shape)}, {x.dtype}, {x.device}".replace("torch.", ""),
                    expected=f"x ({letters}, {self.input_size})",
                    advice=f"build Recurrent(..., input_size={x.shape[-1]}), or project x first",
                )
            )
        weight = next(self.parameters())
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise DTypeError(
                explain(
                    f"{who}: x is of another dtype than the parameters.",
                    got=str(x.dtype),
                    expected=str(weight.dtype),
                    advice=f"use x.to({weight.dtype}), or layer.to({x.dtype})" if x.is_floating_point() else None,
                )
            )
        return x.transpose(0, 1) if axes == 3 and self.batch_first else x

    def _directions(self, direction: int) -> list[CellParameters]:
        """The layers of one direction: 0 forwards, 1 backwards."""
        return list(self.layers_reverse if direction else self.layers)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """The settings that differ from their defaults, and the engine."""
        parts = [repr(self.cell), str(self.input_size), str(self.hidden_size)]
        settings = {
            "num_layers": (self.num_layers, 1),
            "bidirectional": (self.bidirectional, False),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
        }
        parts += [f"{name}={value}" for name, (value, default) in settings.items() if value != default]
        return ", ".join([*parts, f"engine={self.engine.name}"])
