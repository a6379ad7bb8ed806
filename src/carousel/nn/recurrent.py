"""`Recurrent`: a cell run over time, in any number of layers, in one direction or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from carousel.cells import resolve_cell
from carousel.engines import Choice, choose, load
from carousel.engines.call import Call
from carousel.engines.packing import Packing, ambient, packing
from carousel.errors import ConfigError
from carousel.graph import Cell, Initialiser
from carousel.graph.kinds import Role
from carousel.graph.transforms import Transform, apply_transforms
from carousel.nn.highway import Highway
from carousel.nn.inference import InferenceWeights
from carousel.nn.inputs import InputCheck, Inputs
from carousel.nn.one_hot import LookUps
from carousel.nn.parameters import CellParameters, check_starts
from carousel.nn.penalties import Penalty
from carousel.nn.recompute import run_in_chunks
from carousel.nn.seeds import seed_words
from carousel.nn.settings import check_parts, check_settings, check_whole, widths
from carousel.nn.state import StateLayout
from carousel.nn.stream import Stream, recurrent_stream
from carousel.nn.traced import Traced


class Recurrent(nn.Module):
    r"""A cell over time: deep, bidirectional, ragged and streaming.

    Layer l runs the cell over the output of layer l-1; a bidirectional layer runs it both ways and merges the outputs.
    Sequences that are shorter than T run alone: what stands in the padding is never read.

    Args:
        cell: a subclass of `Cell`, a cell, or a name in :data:`carousel.cells.CELLS`.
        input_size: I, features of each input; a tuple where an input has several axes (channels, Y, X); 0 for a cell
            without inputs.
        hidden_size: H, or one for each layer.
        num_layers: L.
        bidirectional: run both ways; D is then 2, else 1.
        reverse: run from the last step to the first (without `bidirectional`).
        batch_first: x and the output are (B, T, ...) instead of (T, B, ...). Does not touch the state.
        dropout: the probability with which each feature between two layers is dropped in training. At 0, none.
        merge: how the two directions become one output: side by side (``concat``), their ``sum`` or their ``mean``.
        independent: the directions stay apart in all layers and merge only after the last.
        skip: what leads around each layer after the first: nothing, its input added (``residual``), or a learned gate
            between input and output (``highway``, Srivastava et al. 2015). Input and output then have one size.
        learn_state: sequences start from learned states instead of zeros.
        transforms: regularisers and norms from :mod:`carousel.graph.transforms`, applied to the cell's graph in order.
        penalties: what `penalty` adds up, from :mod:`carousel.nn.penalties`.
        init: how parameters start, by name or pattern (``{"b_f": 2.0, "U_*": "orthogonal"}``), instead of the cell's own.
        keep_every: k, to train long sequences in less memory: only the state of every k-th step is kept, and the steps
            between are run again in the backward pass. None keeps everything.
        engine: ``auto``, or the name of an engine; one that cannot run the cell is an error.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        Parameters are ``layers.<l>.<name>`` and, backwards, ``layers_reverse.<l>.<name>``.

    Raises:
        ConfigError: a size is not positive, an option or a name is unknown, or options contradict each other.
        KernelUnavailable: the engine asked for cannot run the cell.

    Example:
        >>> layer = Recurrent("lstm", input_size=3, hidden_size=4, num_layers=2, bidirectional=True)
        >>> output, state = layer(torch.randn(5, 2, 3), lengths=torch.tensor([2, 5]))
        >>> tuple(output.shape), tuple(state.h.shape), output[2:, 0].abs().sum().item()
        ((5, 2, 8), (4, 2, 4), 0.0)
    """

    _reference: Tensor
    inference_weights = InferenceWeights()

    def __init__(
        self,
        cell: str | type[Cell] | Cell,
        input_size: int | tuple[int, ...],
        hidden_size: int | Sequence[int],
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        reverse: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        merge: Literal["concat", "sum", "mean"] = "concat",
        independent: bool = False,
        skip: Literal["none", "residual", "highway"] = "none",
        learn_state: bool = False,
        transforms: Sequence[Transform] = (),
        penalties: Sequence[Penalty] = (),
        init: Mapping[str, Initialiser | str | float] | None = None,
        keep_every: int | None = None,
        engine: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.cell = resolve_cell(cell)
        hidden_sizes = check_settings(
            self.cell,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            merge=merge,
            skip=skip,
            bidirectional=bidirectional,
            reverse=reverse,
        )
        check_parts("transforms", transforms, lambda part: isinstance(part, Transform), "(Zoneout(0.1),), say")
        check_parts(
            "penalties", penalties, lambda part: callable(part) and not isinstance(part, type), "(WeightPenalty(l2=1e-4),)"
        )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bidirectional, self.reverse, self.batch_first = bidirectional, reverse, batch_first
        self.dropout, self.merge, self.independent, self.skip = dropout, merge, independent, skip
        self.learn_state, self.transforms, self.penalties = learn_state, tuple(transforms), tuple(penalties)
        if keep_every is not None:
            check_whole("Recurrent", "keep_every", keep_every, least=1)
        self.keep_every = keep_every
        self.num_directions = 2 if bidirectional else 1
        # One graph for training and one for evaluation; without transforms they are the same.
        self._graphs = {mode: apply_transforms(self.cell.graph, self.transforms, mode) for mode in (False, True)}
        self.engine: Choice = choose(engine, self._graphs[True])
        self._engine = load(self.engine)
        parameters = {**self._graphs[False].parameters, **self._graphs[True].parameters}
        check_starts(init or {}, parameters, type(self.cell).__name__)

        both = 2 if bidirectional and merge == "concat" else 1
        found = widths(self.cell, input_size, hidden_sizes, together=1 if independent else both, at_end=both)
        #: Features of the output of one direction, and of the output.
        self.direction_size, self.output_size = found.direction_size, found.output_size
        if skip != "none" and len(set(found.outputs)) > 1:
            raise ConfigError(f"Recurrent: skip='{skip}' needs layers of one size; their outputs have {found.outputs}")
        learned = {name: node.shape for name, node in self.cell.graph.states.items()} if learn_state else {}

        def stack() -> nn.ModuleList:
            return nn.ModuleList(
                CellParameters(parameters, learned, layout, init=init, device=device, dtype=dtype) for layout in found.sizes
            )

        self.layers = stack()
        if bidirectional:
            self.layers_reverse = stack()
        if skip == "highway":
            paths = self.num_directions if independent else 1
            self.highways = nn.ModuleList(
                Highway(found.outputs[-1], device=device, dtype=dtype) for _ in range((num_layers - 1) * paths)
            )
        # Says dtype and device where a cell learns nothing.
        self.register_buffer("_reference", torch.empty(0, device=device, dtype=dtype), persistent=False)
        counted = any(Role.TIME in graph.ambient for graph in self._graphs.values())
        self._layout = StateLayout(self.cell, found.sizes, self.num_directions, counted)
        self._traced = Traced(self.engine, self._graphs, found.sizes, self.num_directions, reverse, counted)
        self._check = InputCheck(self.cell, found.sizes[0], batch_first)
        self._look_ups = LookUps()

    def reset_parameters(self) -> None:
        """Start all parameters anew, from torch's generator."""
        for module in self.modules():
            if isinstance(module, CellParameters | nn.Linear):
                module.reset_parameters()

    def forward(
        self,
        x: Float[Tensor, "T B I"] | Any = None,
        state: Any = None,
        lengths: Int[Tensor, " B"] | None = None,
        *,
        context: Any = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int | Tensor | None = None,
    ) -> tuple[Float[Tensor, "T B O"], Any]:
        """Run whole sequences.

        Args:
            x: (T, B, I), or (B, T, I) with ``batch_first``; of the parameters' dtype and device. Not changed. A tuple or a
                mapping where the cell has several inputs; None where it has none. Integers (T, B) stand for one-hot
                vectors: products with them are looked up, not computed.
            state: the initial states, a named tuple or a tuple in the order of the equations, each (L·D, B, H): layer 0
                forwards, layer 0 backwards, layer 1 forwards, ... Zeros, or what was learned, if None. With layers of
                different sizes, a tuple of L·D such tuples of (B, H).
            lengths: (B,), how many steps of each sequence are real: 0 to T, in any order, on any device; all T if None.
            context: what the cell sees at every step, (B, ...): a tensor, a tuple or a mapping.
            steps: T, for a cell without inputs.
            batch: B, for a cell without inputs, context and state; 1 if None.
            seed: of the noise that transforms draw; from torch's generator if None. The same seed gives the same masks,
                whatever the order of the batch; a sequence cut into several calls keeps its masks if they get one seed.

        Returns:
            The last layer's output, (T, B, O) or (B, T, O), zero in the padding, and the state after each sequence's last
            real step, like `state`. A sequence of length 0 keeps its initial state.

        Raises:
            ShapeError: an axis of x, a state, the context or the lengths is wrong.
            DTypeError: x is not of the parameters' dtype, or lengths are not integers.
        """
        batch = self._batch_of(state, context) if batch is None else batch
        inputs = self._check.sequence(x, self._like(), steps, batch)
        who = f"Recurrent({type(self.cell).__name__}).forward"
        if torch.compiler.is_compiling() and self._traced.fits(inputs):
            output, after = self._traced.run(self, self._check.vectors(inputs), state, lengths, context, seed)
        else:
            pack = packing(inputs.steps, inputs.batch, lengths, inputs.like.device, who)
            output, after = self._run(inputs, pack, state, context, seed)
            output = pack.unpack(output)
        return (output.transpose(0, 1) if self.batch_first else output), after

    def step(
        self,
        x_t: Float[Tensor, "B I"] | Any = None,
        state: Any = None,
        *,
        context: Any = None,
        batch: int | None = None,
        seed: int | Tensor | None = None,
    ) -> tuple[Float[Tensor, "B O"], Any]:
        """Run one step, for streams: feeding a sequence step by step gives what `forward` gives for the whole.

        Args:
            x_t: (B, I) or integers (B,), as for `forward`; a tuple or a mapping for several inputs, None for none.
            state: what the step before returned, or what `forward` returned; the start if None.
            context: as for `forward`.
            batch: B, for a cell without inputs, context and state; 1 if None.
            seed: as for `forward`.

        Returns:
            The last layer's output (B, O), and the state.

        Raises:
            ConfigError: the layer runs backwards: its first step is the end of the sequence.
            ShapeError: an axis is wrong.
        """
        if self.bidirectional or self.reverse:
            raise ConfigError(
                "Recurrent.step: a layer that runs backwards cannot stream, since its way starts at the end of the "
                "sequence. Build the layer with bidirectional=False, reverse=False, or run whole sequences"
            )
        batch = self._batch_of(state, context) if batch is None else batch
        inputs = self._check.step(x_t, self._like(), batch)
        return self._run(inputs, Packing(1, inputs.batch, (inputs.batch,)), state, context, seed)

    def stream(
        self, batch: int | None = None, state: Any = None, *, context: Any = None, seed: int | Tensor | None = None
    ) -> Stream:
        """Keep weights and states ready to run step by step, without gradients, many sequences at once: see `Stream`.

        `batch` sequences begin, if None as many as `state` or `context` has, else 1; the rest is as for `step`.
        """
        return recurrent_stream(self, batch, state, context, seed)

    def initial_state(self, batch: int) -> Any:
        """The state of sequences that have not started: zeros, or what was learned.

        Args:
            batch: B.
        """
        return self._layout.join(self._start(None, batch, self._like()))

    def penalty(self, output: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """The sum of this layer's penalties, to add to a loss.

        Args:
            output: what `forward` returned; needed where a penalty is about activations.
            lengths: as for `forward`.

        Returns:
            A scalar; 0 without penalties.
        """
        if output is not None and self.batch_first:
            output = output.transpose(0, 1)
        total = self._like().new_zeros(())
        for penalty in self.penalties:
            total = total + penalty(self, output, lengths)
        return total

    # --- running --------------------------------------------------------------------------------------------------------

    def _run(self, inputs: Inputs, pack: Packing, state: Any, context: Any, seed: Any) -> tuple[Tensor, Any]:
        """Run all layers on packed rows."""
        graph = self._graphs[self.training]
        shared, free = self._check.context(context, inputs.batch, inputs.like)
        shared = {name: pack.sort(tensor) for name, tensor in shared.items()}
        start = self._start(state, inputs.batch, inputs.like)
        values = {name: pack.pack(tensor) for name, tensor in inputs.values.items()}
        self._check.numbers(values)
        words = seed_words(seed, inputs.like.device) if Role.SEED in graph.ambient else None
        streams = [values] * self.num_directions
        finals: list[dict[str, Tensor]] = []
        outputs: list[Tensor] = []
        for layer in range(self.num_layers):
            before, outputs = outputs, []
            calls, clocks = [], []
            for direction in range(self.num_directions):
                at = layer * self.num_directions + direction
                initial = {name: pack.sort(tensor) for name, tensor in start[at].items()}
                backwards = self.reverse or direction == 1
                begun = initial.pop("time") if self._layout.counted else None
                device = inputs.like.device
                around = ambient(graph, pack, begun, backwards=backwards, words=words, at=at, device=device)
                module = self._side(direction)[layer]
                parameters, sizes = module.values(), {**module.sizes, **free}
                step, seen = self._look_ups.apply(graph, streams[direction], parameters, sizes)
                given = (seen, initial, parameters, pack.batch_sizes, sizes)
                calls.append(Call(step, *given, backwards, shared, around, self.inference_weights))
                clocks.append({} if begun is None else {"time": begun + pack.lengths.to(begun.device)[:, None]})
            for (output, final), clock in zip(run_in_chunks(self._engine, calls, self.keep_every), clocks, strict=True):
                outputs.append(output)
                finals.append({name: pack.unsort(tensor) for name, tensor in {**final, **clock}.items()})
            if not self.independent:
                outputs = [self._merged(outputs)]
            outputs = self._skipped(layer, before, outputs)
            streams = self._next(layer, outputs)
        return self._merged(outputs), self._layout.join(finals)

    def _merged(self, outputs: list[Tensor], axis: int = 1) -> Tensor:
        if len(outputs) == 1:
            return outputs[0]
        if self.merge == "concat":
            return torch.cat(outputs, axis)
        return outputs[0] + outputs[1] if self.merge == "sum" else (outputs[0] + outputs[1]) / 2

    def _skipped(self, layer: int, before: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
        if self.skip == "none" or layer == 0:
            return outputs
        if self.skip == "residual":
            return [old + new for old, new in zip(before, outputs, strict=True)]
        gates = self.highways[(layer - 1) * len(outputs) : layer * len(outputs)]
        return [gate(old, new) for gate, old, new in zip(gates, before, outputs, strict=True)]

    def _next(self, layer: int, outputs: list[Tensor]) -> list[dict[str, Tensor]]:
        """What the next layer sees: the outputs, with dropout between layers."""
        if layer + 1 < self.num_layers and self.dropout:
            outputs = [nn.functional.dropout(output, self.dropout, self.training) for output in outputs]
        streams = [{self.cell.inputs[0]: output} for output in outputs] if self.cell.inputs else [{}]
        return streams if len(streams) == self.num_directions else streams * self.num_directions

    def _start(self, state: Any, batch: int, like: Tensor) -> list[dict[str, Tensor]]:
        """The state each layer and direction starts from."""
        if state is not None:
            return self._layout.split(state, batch, f"Recurrent({type(self.cell).__name__})", like)
        start = self._layout.zeros(batch, like)
        if self.learn_state:
            modules = [self._side(d)[layer] for layer in range(self.num_layers) for d in range(self.num_directions)]
            for values, module in zip(start, modules, strict=True):
                for name in self.cell.state:
                    # Not get_parameter, which refuses the plain tensors that torch.func puts there.
                    learned: Tensor = getattr(module, f"initial_{name}")
                    values[name] = learned.expand(batch, *learned.shape)
        return start

    def _side(self, direction: int) -> list[CellParameters]:
        """The layers of one direction: 0 the first, 1 the way back."""
        return list(self.layers_reverse if direction else self.layers)  # type: ignore[arg-type]

    def _batch_of(self, state: Any, context: Any) -> int:
        """The batch size where no input tells it."""
        if state is not None:
            return self._layout.batch_of(state)
        if isinstance(context, Mapping):
            context = tuple(context.values())
        if context is not None:
            return int((context if isinstance(context, Tensor) else context[0]).shape[0])
        return 1

    def _like(self) -> Tensor:
        return next(self.parameters(), self._reference)

    def extra_repr(self) -> str:
        """The settings that differ from their defaults, and the engine."""
        parts = [repr(self.cell), str(self.input_size), str(self.hidden_size)]
        defaults = {
            "num_layers": 1, "bidirectional": False, "reverse": False, "batch_first": False, "dropout": 0.0,
            "merge": "concat", "independent": False, "skip": "none", "learn_state": False, "transforms": (), "penalties": (),
            "keep_every": None,
        }  # fmt: skip
        parts += [f"{n}={getattr(self, n)!r}" for n, default in defaults.items() if getattr(self, n) != default]
        return ", ".join([*parts, f"engine={self.engine.name}"])
