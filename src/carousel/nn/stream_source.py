"""What a stream asks of a layer, `Recurrent` or one of torch's, and of what runs its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from carousel.engines import Choice
from carousel.errors import ConfigError
from carousel.graph.kinds import Role
from carousel.graph.shapes import Sizes
from carousel.graph.step import Step
from carousel.nn.seeds import seed_words

if TYPE_CHECKING:
    from carousel.nn.recurrent import Recurrent
    from carousel.nn.torch_layers import TorchLayer

#: By layer and name, the states of some rows, (rows, ...).
States = list[dict[str, Tensor]]

_BACKWARDS = (
    "a layer that runs backwards cannot stream, since its way starts at the end of the sequence. Build the layer with "
    "bidirectional=False{}, or run whole sequences"
)


@dataclass(frozen=True)
class Part:
    """One layer of a stack.

    Attributes:
        step: the traced cell.
        sizes: the size of each axis letter.
        values: parameters and constants by name.
    """

    step: Step
    sizes: Sizes
    values: Mapping[str, Tensor]


class Source(Protocol):
    """A layer as a stream sees it."""

    who: str

    @property
    def layer(self) -> Recurrent | TorchLayer:
        """The layer."""

    @property
    def like(self) -> Tensor:
        """A tensor of the layer's dtype and device."""

    @property
    def engine(self) -> Choice:
        """The engine that the layer was built for; ``eager`` where only its own `step` does what it does now."""

    def parts(self) -> list[Part]:
        """The layers of the stack, from the first to the last."""

    def start(self, state: Any, batch: int) -> States:
        """The states to start from, from what a user gives."""

    def join(self, states: States) -> Any:
        """What a user sees of states."""

    def inputs(self, x: Any, batch: int) -> tuple[Tensor, ...]:
        """The cell's inputs, checked, each (B, ...)."""

    def context(self, context: Any, batch: int) -> tuple[dict[str, Tensor], dict[str, int]]:
        """What the cell sees at every step, checked, and the sizes that only it knows."""

    def seed(self, seed: int | Tensor | None) -> Tensor | None:
        """The two words of a seed; None where nothing draws."""

    def between(self, layer: int, before: Tensor, output: Tensor) -> Tensor:
        """What leaves a layer, from its input and its output."""

    @property
    def skips(self) -> bool:
        """Whether `between` does anything."""

    def alone(
        self, inputs: Sequence[Tensor], states: States, context: Mapping[str, Tensor], seed: Tensor | None
    ) -> tuple[Tensor, States]:
        """A step in the layer's own way."""


class Loops(Protocol):
    """What runs a stream's steps and keeps its states, row by row."""

    def read(self, rows: slice | Tensor) -> States:
        """Copies of the states of some rows."""

    def write(self, rows: slice | Tensor, parts: States) -> None:
        """Set the states of some rows."""

    def step(self, rows: int, inputs: Sequence[Tensor]) -> Tensor:
        """Run a step on the first rows, all that are in use; the inputs are contiguous."""

    def step_some(self, rows: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Run a step on some rows; the others keep their states."""

    def direct(self, rows: int) -> Callable[[Tensor], Tensor]:
        """`step` for one input and a number of rows."""


def _engine(layer: Recurrent | TorchLayer) -> Choice:
    """The engine of a layer's steps as the layer is now."""
    if layer.training and layer.dropout and layer.num_layers > 1:
        return Choice("eager", "there is dropout between the layers while the layer is training; layer.eval() ends it")
    return layer.engine


class _Recurrent:
    """A `Recurrent`."""

    def __init__(self, layer: Recurrent) -> None:
        self._layer = layer
        self.who = f"Recurrent({type(layer.cell).__name__}).stream"
        if layer.bidirectional or layer.reverse:
            raise ConfigError(f"{self.who}: " + _BACKWARDS.format(", reverse=False"))

    @property
    def layer(self) -> Recurrent:
        return self._layer

    @property
    def like(self) -> Tensor:
        return self.layer._like()

    @property
    def engine(self) -> Choice:
        return _engine(self.layer)

    def parts(self) -> list[Part]:
        graph = self.layer._graphs[self.layer.training]
        return [Part(graph, module.sizes, module.values()) for module in self.layer._side(0)]

    def start(self, state: Any, batch: int) -> States:
        return self.layer._start(state, batch, self.like)

    def join(self, states: States) -> Any:
        return self.layer._layout.join(states)

    def inputs(self, x: Any, batch: int) -> tuple[Tensor, ...]:
        check = self.layer._check
        found = check.step(x, self.like, batch)
        check.numbers(found.values)
        return tuple(tensor[0] for tensor in check.vectors(found).values.values())

    def context(self, context: Any, batch: int) -> tuple[dict[str, Tensor], dict[str, int]]:
        return self.layer._check.context(context, batch, self.like)

    def seed(self, seed: int | Tensor | None) -> Tensor | None:
        draws = any(Role.SEED in graph.ambient for graph in self.layer._graphs.values())
        return seed_words(seed, self.like.device) if draws else None

    @property
    def skips(self) -> bool:
        return self.layer.skip != "none"

    def between(self, layer: int, before: Tensor, output: Tensor) -> Tensor:
        return self.layer._skipped(layer, [before], [output])[0]

    def alone(
        self, inputs: Sequence[Tensor], states: States, context: Mapping[str, Tensor], seed: Tensor | None
    ) -> tuple[Tensor, States]:
        batch = next(iter(states[0].values())).shape[0]
        layer = self.layer
        output, after = layer.step(
            tuple(inputs) or None, self.join(states), context=dict(context) or None, batch=batch, seed=seed
        )
        return output, layer._layout.split(after, batch, self.who, self.like)


class _Torch:
    """One of torch's layers, as this package has them."""

    def __init__(self, layer: TorchLayer) -> None:
        self._layer = layer
        self.who = f"{type(layer).__name__}.stream"
        if layer.bidirectional:
            raise ConfigError(f"{self.who}: " + _BACKWARDS.format(""))

    @property
    def layer(self) -> TorchLayer:
        return self._layer

    @property
    def like(self) -> Tensor:
        return next(self.layer.parameters())

    @property
    def engine(self) -> Choice:
        return _engine(self.layer)

    def parts(self) -> list[Part]:
        found, width = [], self.layer.input_size
        for names in self.layer._parts:
            weights = {part: getattr(self.layer, name) for part, name in names.items()}
            call = self.layer._cell.call(weights, self.like.new_empty((0, width)), {}, (), self.layer.hidden_size)
            found.append(Part(call.step, call.sizes, call.parameters))
            width = self.layer.proj_size or self.layer.hidden_size
        return found

    def start(self, state: Any, batch: int) -> States:
        start = self.layer._start(self.who, state, batch, self.like)
        return [{name: tensor[layer] for name, tensor in start.items()} for layer in range(self.layer.num_layers)]

    def join(self, states: States) -> Any:
        found = tuple(torch.stack([part[name] for part in states]) for name in states[0])
        return found if len(found) > 1 else found[0]

    def inputs(self, x: Any, batch: int) -> tuple[Tensor, ...]:  # noqa: ARG002
        self.layer._check(self.who, x, ("B, ",))
        return (x,)

    def context(self, context: Any, batch: int) -> tuple[dict[str, Tensor], dict[str, int]]:  # noqa: ARG002
        return {}, {}

    def seed(self, seed: int | Tensor | None) -> Tensor | None:  # noqa: ARG002
        return None

    @property
    def skips(self) -> bool:
        return False

    def between(self, layer: int, before: Tensor, output: Tensor) -> Tensor:  # noqa: ARG002
        return output

    def alone(
        self,
        inputs: Sequence[Tensor],
        states: States,
        context: Mapping[str, Tensor],  # noqa: ARG002
        seed: Tensor | None,  # noqa: ARG002
    ) -> tuple[Tensor, States]:
        axis = 1 if self.layer.batch_first else 0
        output, after = self.layer(inputs[0].unsqueeze(axis), self.join(states))
        parts = (after,) if isinstance(after, Tensor) else after
        split = [dict(zip(states[0], (part[i] for part in parts), strict=True)) for i in range(len(states))]
        return output.squeeze(axis), split


def recurrent_source(layer: Recurrent) -> Source:
    """A `Recurrent` as a stream sees it.

    Raises:
        ConfigError: the layer runs backwards.
    """
    return _Recurrent(layer)


def torch_source(layer: TorchLayer) -> Source:
    """One of torch's layers as a stream sees it.

    Raises:
        ConfigError: the layer runs both ways.
    """
    return _Torch(layer)


class EagerLoops:
    """Steps in the layer's own way.

    Args:
        source: the layer.
        states: of all rows.
        context: by name, what each row sees at every step.
        seed: two words, or None.
    """

    def __init__(self, source: Source, states: States, context: Mapping[str, Tensor], seed: Tensor | None) -> None:
        self._source, self._states, self._context, self._seed = source, states, context, seed

    def read(self, rows: slice | Tensor) -> States:
        """Copies of the states of some rows."""
        return [{name: state[rows].clone() for name, state in part.items()} for part in self._states]

    def write(self, rows: slice | Tensor, parts: States) -> None:
        """Set the states of some rows."""
        for mine, part in zip(self._states, parts, strict=True):
            for name, state in mine.items():
                state[rows] = part[name]

    def step(self, rows: int, inputs: Sequence[Tensor]) -> Tensor:
        """Run a step on the first rows."""
        return self._run(slice(0, rows), inputs)

    def step_some(self, rows: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Run a step on some rows."""
        return self._run(rows, inputs)

    def direct(self, rows: int) -> Callable[[Tensor], Tensor]:
        """`step` for one input and a number of rows."""
        return lambda x: self.step(rows, (x,))

    def _run(self, rows: slice | Tensor, inputs: Sequence[Tensor]) -> Tensor:
        context = {name: value[rows] for name, value in self._context.items()}
        output, after = self._source.alone(inputs, self.read(rows), context, self._seed)
        self.write(rows, after)
        return output
