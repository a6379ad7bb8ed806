"""Streams: a layer that runs step by step, with weights packed and states kept where the machine code wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from carousel.engines import Choice
from carousel.engines.packing import Packing, ambient
from carousel.errors import ConfigError, DTypeError, ShapeError, explain
from carousel.graph.kinds import Role
from carousel.nn.stream_source import EagerLoops, Loops, Part, Source, States, recurrent_source, torch_source

if TYPE_CHECKING:
    from carousel.nn.recurrent import Recurrent
    from carousel.nn.torch_layers import TorchLayer


class Stream:
    """A layer that runs one step at a time, without gradients, and keeps its states: ``layer.stream()`` makes it.

    Calling the stream with the input of a step, x_t (B, I), gives the layer's output for that step, (B, O). Feeding a
    sequence step by step gives what `forward` gives for the whole, to rounding. Many sequences that begin and end at
    different times share one stream: each has a *slot*; ``join`` gives a new one, ``leave`` ends it, and a step for some
    slots computes no others.

    The weights are packed when the stream is made. If a parameter is changed in place (an optimiser's step,
    ``load_state_dict``), the next step packs them again by itself; after a change that torch does not count (``p.data = ...``,
    ``.data.add_``, tensors made in inference mode), call ``refresh``. If the layer goes from training to evaluation or back,
    the stream follows at its next step. With ``layer.inference_weights = "bfloat16"`` (set before the stream is made, or
    followed by ``refresh``) all matrices are kept so, those that multiply inputs too: the fastest for few slots.

    Where noise is drawn (a regulariser in training), it belongs to the slot and the number of the step, from the seed the
    stream was made with. A stream is used by one thread at a time; streams of one layer do not disturb each other.

    Shapes:
        x_t is (B, I), contiguous memory is used as it is; the output is a new tensor for every step, which is the caller's.

    Example:
        >>> from carousel.nn import Recurrent
        >>> layer = Recurrent("lstm", input_size=3, hidden_size=4)
        >>> stream, x = layer.stream(), torch.randn(5, 1, 3)
        >>> outputs = [stream(x_t) for x_t in x]
        >>> bool(torch.allclose(torch.stack(outputs), layer(x)[0], atol=1e-6)), tuple(stream.state.h.shape)
        (True, (1, 1, 4))
    """

    def __init__(self, source: Source, batch: int, state: Any, context: Any, seed: int | Tensor | None) -> None:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0:
            raise ConfigError(explain(f"{source.who}: batch must be a whole number, 0 or more.", got=repr(batch)))
        self._source = source
        self._slots = list(range(batch))  # by row; rows are always in the order of their slots
        self._next = batch
        self._shape: torch.Size | None = None  # of an input that needs no more looking at
        self._words = source.seed(seed)
        with torch.no_grad():
            states = source.start(state, batch)
            self._context, self._free = source.context(context, batch)
            self._set_room(max(batch, 1), states)

    # --- steps --------------------------------------------------------------------------------------------------------

    def step(self, x: Any = None, slots: Sequence[int] | None = None) -> Any:
        """Run one step.

        Args:
            x: the inputs: (B, I) for all slots in ascending order, or, with `slots`, (len(slots), I) for those; a tuple or a
                mapping by name where the cell has several inputs; None where it has none. Or a mapping from slots to
                inputs, each (I,), or a tuple of them.
            slots: which slots go on, each at most once; all if None. The others are not computed and keep their states.

        Returns:
            The last layer's output, (B, O), in the order of x, a tensor of its own; a mapping from slots to (O,) if x is one.

        Raises:
            ConfigError: a slot is not there, or is named twice, or the stream is closed.
            ShapeError: the inputs have another shape.
            DTypeError: the inputs are of another dtype than the parameters.
        """
        if (
            slots is None
            and type(x) is Tensor
            and x.shape == self._shape
            and x.dtype is self._dtype
            and x.is_cpu
            and x.is_contiguous()
            and self._unchanged()
        ):
            return self._direct(x)
        with torch.no_grad():
            if isinstance(x, Mapping) and slots is None and all(isinstance(key, int) for key in x) and x:
                named = list(x)
                return dict(zip(named, self._checked(self._stacked(list(x.values())), named), strict=True))
            return {} if isinstance(x, Mapping) and not x and slots is None else self._checked(x, slots)

    __call__ = step

    def _checked(self, x: Any, slots: Sequence[int] | None) -> Tensor:
        loops = self._open()
        source, like = self._source, self._source.like
        if not self._unchanged() or like.dtype is not self._like.dtype or like.device != self._like.device:
            self.refresh()
            loops = self._open()
        rows = None if slots is None else self._rows(slots)
        count = self._count if rows is None else len(rows)
        tensors = source.inputs(x, count)
        for tensor in tensors:
            if tensor.shape[0] != count:
                whose = f"the stream has {count} slots" if rows is None else f"{count} slots are named"
                raise ShapeError(
                    explain(
                        f"{source.who}: there must be one input for each slot.",
                        got=f"{tuple(tensor.shape)}, and {whose}",
                        expected=f"(B={count}, ...)",
                        advice="join() adds a slot; step(x, slots) runs some of them" if rows is None else None,
                    )
                )
        tensors = tuple(tensor.detach().contiguous() for tensor in tensors)
        if not count:
            states = [{name: state[:0] for name, state in part.items()} for part in loops.read(slice(0, 0))]
            return source.alone(tensors, states, {name: value[:0] for name, value in self._context.items()}, self._words)[0]
        if rows is None or rows == list(range(self._count)):
            return loops.step(count, tensors)
        return loops.step_some(torch.tensor(rows, device=self._like.device), tensors)

    def _stacked(self, values: Sequence[Any]) -> Any:
        """One input for each slot as a batch."""
        if all(isinstance(value, Tensor) for value in values):
            return torch.stack(list(values))
        if not all(isinstance(value, tuple | list) for value in values):
            kinds = ", ".join(sorted({type(value).__name__ for value in values}))
            raise DTypeError(f"{self._source.who}: the input of a slot is a tensor, or a tuple of them; got {kinds}")
        return tuple(torch.stack(parts) for parts in zip(*values, strict=True))

    # --- slots and states ---------------------------------------------------------------------------------------------

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots in use, ascending: the order of the rows of x, of the output and of the state."""
        return tuple(self._slots)

    @property
    def state(self) -> Any:
        """The state after the last step, as the layer's `step` gives it: a copy, of all slots in ascending order."""
        return self._source.join(self._open().read(slice(0, self._count)))

    @property
    def engine(self) -> Choice:
        """What runs the steps, and why."""
        return self._choice

    @torch.no_grad()
    def join(self, state: Any = None, *, context: Any = None) -> int:
        """Add a sequence.

        Args:
            state: what it starts with, as for the layer's `step` with B = 1; the start if None.
            context: what the cell sees at every step, (1, ...), for a cell that has a context.

        Returns:
            The new slot's number; numbers are not used again.
        """
        loops, source, row = self._open(), self._source, self._count
        begin = source.start(state, 1)
        mine, _ = source.context(context, 1)
        for name, tensor in mine.items():
            known = self._context[name]
            if tensor.shape[1:] != known.shape[1:]:
                raise ShapeError(
                    explain(
                        f"{source.who}: the context {name} of all slots must have one shape.",
                        got=str(tuple(tensor.shape)),
                        expected=str((1, *known.shape[1:])),
                    )
                )
        room = self._room
        states = loops.read(slice(0, row))
        self._slots.append(self._next)
        self._next += 1
        together = [
            {name: torch.cat([part[name], new[name]]) for name in part} for part, new in zip(states, begin, strict=True)
        ]
        self._context = {name: torch.cat([self._context[name][:row], tensor]) for name, tensor in mine.items()}
        if row == room or self._by_row:
            self._set_room(2 * room if row == room else room, together)
        else:
            loops.write(slice(row, row + 1), begin)
            self._renumber()
        return self._slots[-1]

    @torch.no_grad()
    def leave(self, slot: int) -> Any:
        """End a sequence.

        Args:
            slot: its number.

        Returns:
            Its state, as the layer's `step` gives it with B = 1.
        """
        loops, (row,) = self._open(), self._rows([slot])
        gone = self._source.join(loops.read(slice(row, row + 1)))
        loops.write(slice(row, self._count - 1), loops.read(slice(row + 1, self._count)))
        self._context = {name: torch.cat([tensor[:row], tensor[row + 1 :]]) for name, tensor in self._context.items()}
        self._slots.pop(row)
        self._renumber()
        if self._by_row:
            self.refresh()
        return gone

    @torch.no_grad()
    def reset(self, slots: Sequence[int] | None = None) -> None:
        """Start sequences anew, from zeros or from what was learned.

        Args:
            slots: which; all if None.
        """
        loops = self._open()
        rows = list(range(self._count)) if slots is None else self._rows(slots)
        loops.write(torch.tensor(rows, dtype=torch.long, device=self._like.device), self._source.start(None, len(rows)))

    @torch.no_grad()
    def restart(self, batch: int, state: Any = None) -> None:
        """End all sequences and begin others, with the weights as they are packed: for a search that goes back and forth.

        Args:
            batch: how many begin; their slots are 0 to batch - 1.
            state: what they start with, as for the layer's `step`; the start if None.

        Raises:
            ConfigError: the stream is closed, or its layer has a context.
            ShapeError: the state has another shape.
        """
        loops, states = self._open(), self._source.start(state, batch)
        if self._context:
            raise ConfigError(f"{self._source.who}: sequences with a context cannot restart; layer.stream() makes a new stream")
        same = batch == self._count
        self._slots, self._next = list(range(batch)), batch
        if batch > self._room or self._by_row:
            self._set_room(max(batch, self._room), states)
            return
        loops.write(slice(0, batch), states)
        if not same or self._row.keys() != set(self._slots):
            self._renumber()

    @torch.no_grad()
    def refresh(self) -> None:
        """Read the layer's parameters again; the states stay as they are."""
        self._set_room(self._room, self._open().read(slice(0, self._count)))

    def close(self) -> None:
        """Give the memory back. The stream cannot be used any more."""
        for name in ("_loops", "_direct"):
            self.__dict__.pop(name, None)
        self._shape, self._context = None, {}

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"{self._count} slots, engine={self._choice.name}" if "_loops" in self.__dict__ else "closed"
        return f"<{self._source.who}: {state}>"

    # --- inside -------------------------------------------------------------------------------------------------------

    def _open(self) -> Loops:
        loops: Loops | None = self.__dict__.get("_loops")
        if loops is None:
            raise ConfigError(f"{self._source.who}: this stream is closed; layer.stream() makes a new one")
        return loops

    def _rows(self, slots: Sequence[int]) -> list[int]:
        """The rows of slots."""
        named = slots.tolist() if isinstance(slots, Tensor) else list(slots)
        try:
            rows = [self._row[slot] for slot in named]
        except (KeyError, TypeError):
            wrong = next(slot for slot in named if not isinstance(slot, int) or slot not in self._row)
            there = ", ".join(map(str, self._slots[:20])) or "none"
            raise ConfigError(
                explain(
                    f"{self._source.who}: there is no such slot.",
                    got=repr(wrong),
                    expected=f"one of {there}" + (", ..." if self._count > 20 else ""),
                    advice="join() gives a slot; one that has left does not come back",
                )
            ) from None
        if len(set(rows)) != len(rows):
            raise ConfigError(f"{self._source.who}: a slot is named twice, and a step is one step for each; got {named}")
        return rows

    def _renumber(self) -> None:
        self._row = {slot: row for row, slot in enumerate(self._slots)}
        self._count = len(self._slots)
        features = self._features
        self._shape = None if features is None or not self._count else torch.Size((self._count, *features))
        if self._shape:
            self._direct = self._loops.direct(self._count)

    def _unchanged(self) -> bool:
        """Whether the layer is as it was when its weights were packed."""
        return (
            [tensor._version for tensor in self._watched] == self._versions
            and self._source.layer.training is self._training
            and torch.get_num_threads() == self._threads
        )

    def _set_room(self, room: int, states: States) -> None:
        """Build everything for so many rows, of which the first begin with `states`."""
        source = self._source
        self._room, self._threads = room, torch.get_num_threads()
        self._like = like = source.like.detach()  # a parameter itself changes its type with the layer
        self._training = source.layer.training
        self._watched = [p for p in (*source.layer.parameters(), *source.layer.buffers()) if not p.is_inference()]
        self._versions = [tensor._version for tensor in self._watched]
        parts = source.parts()
        self._by_row = bool(self._context) or any(Role.ROW in part.step.ambient for part in parts)
        padded = [{name: _padded(state, room, like) for name, state in part.items()} for part in states]
        self._choice = choice = _engine(source, parts)
        compiled = choice.name == "cpu"
        self._loops = self._compiled(parts, padded) if compiled else EagerLoops(source, padded, self._context, self._words)
        self._dtype, self._features = like.dtype, None
        if compiled and len(parts[0].step.inputs) == 1:
            (leaf,) = parts[0].step.inputs.values()
            self._features = tuple(parts[0].sizes[axis] if isinstance(axis, str) else axis for axis in leaf.shape)
        self._renumber()

    def _compiled(self, parts: Sequence[Part], states: States) -> Loops:
        from carousel.engines.cpu.stream import LayerLoops, StepLoop  # only where there is a compiler

        room, device = self._room, self._like.device
        pack = Packing(1, room, (room,))
        numbers = torch.zeros((room, 1), dtype=torch.long)
        numbers[: len(self._slots), 0] = torch.tensor(self._slots, dtype=torch.long)
        shared = {name: _padded(tensor, room, tensor) for name, tensor in self._context.items()}
        loops = []
        for at, (part, state) in enumerate(zip(parts, states, strict=True)):
            words = self._words if Role.SEED in part.step.ambient else None
            around = ambient(part.step, pack, None, backwards=False, words=words, at=at, device=device)
            if Role.ROW in around:
                around[Role.ROW] = numbers
            sizes = {**part.sizes, **self._free}
            weights = self._source.layer.inference_weights
            loops.append(StepLoop(part.step, sizes, part.values, state, shared, around, self._threads, weights))
        return LayerLoops(loops, self._source.between if self._source.skips else None)


def _engine(source: Source, parts: Sequence[Part]) -> Choice:
    """What can run a stream of this layer, and why."""
    choice = source.engine
    if choice.name != "cpu":
        return choice
    from carousel.engines.cpu.stream import why_not

    for part in parts:
        problem = why_not(part.step, list(part.values.values()))
        if problem:
            return Choice("eager", f"a step by itself cannot be compiled: {problem}")
    return Choice("cpu", "each step is one call of machine code for each layer")


def _padded(state: Tensor, room: int, like: Tensor) -> Tensor:
    """Rows for all slots that may come."""
    dtype = like.dtype if state.is_floating_point() else state.dtype
    made = torch.zeros((room, *state.shape[1:]), dtype=dtype, device=like.device)
    made[: state.shape[0]] = state
    return made


def recurrent_stream(layer: Recurrent, batch: int | None, state: Any, context: Any, seed: int | Tensor | None) -> Stream:
    """A stream of a `Recurrent`; arguments as for its `stream`."""
    return Stream(recurrent_source(layer), layer._batch_of(state, context) if batch is None else batch, state, context, seed)


def torch_stream(layer: TorchLayer, batch: int | None, state: Any) -> Stream:
    """A stream of one of torch's layers; arguments as for its `stream`."""
    source = torch_source(layer)
    if batch is None:
        first = state if isinstance(state, Tensor) or state is None else next(iter(state), None)
        batch = first.shape[1] if isinstance(first, Tensor) and first.dim() == 3 else 1
    return Stream(source, batch, state, None, None)
