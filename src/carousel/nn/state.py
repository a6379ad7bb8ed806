"""States as named tuples, in the order of the equations."""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from carousel.errors import ConfigError, DTypeError, ShapeError, explain
from carousel.graph import Cell
from carousel.graph.shapes import Sizes, concrete
from carousel.nn.inputs import check_dtype, named


@cache
def state_type(name: str, fields: tuple[str, ...]) -> Any:
    """The named tuple of a cell's states: ``LSTMState(h, c)``."""
    make: Any = namedtuple
    kind = make(f"{name}State", fields, rename=any(keyword.iskeyword(field) for field in fields))

    def found_again(state: tuple[Tensor, ...]) -> tuple[Any, ...]:
        return _state, (name, fields, tuple(state))

    kind.__reduce__ = found_again  # a class made here has no name by which another process could find it
    return kind


def _state(name: str, fields: tuple[str, ...], values: tuple[Tensor, ...]) -> Any:
    return state_type(name, fields)(*values)


class StateLayout:
    """How the states of a layer's parts become what a user sees, and back.

    Where all layers have one size, each state is one tensor (L·D, B, ...), as torch has it; else the state is a tuple of
    L·D named tuples of (B, ...).

    Args:
        cell: whose states they are.
        sizes: the size of each axis letter, for each layer.
        directions: D.
        counted: whether the number of the next step is part of the state, as ``time``, (B, 1), int64.
    """

    def __init__(self, cell: Cell, sizes: Sequence[Sizes], directions: int, counted: bool) -> None:
        if counted and "time" in cell.state:
            raise ConfigError(
                f"Recurrent: this layer keeps the number of the step in its state as 'time', and {type(cell).__name__} has a "
                "state of that name; call the cell's another"
            )
        self.names = (*cell.state, "time") if counted else cell.state
        self.counted = counted
        states = cell.graph.states
        self.shapes = [
            {name: concrete(states[name].shape, layer) if name in states else (1,) for name in self.names}
            for layer in sizes
            for _ in range(directions)
        ]
        self.uniform = all(shape == self.shapes[0] for shape in self.shapes)
        self.name = type(cell).__name__

        #: The named tuple of the states.
        self.type = state_type(self.name, self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "type"}  # a class without a module's name

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, type=state_type(state["name"], state["names"]))

    def zeros(self, batch: int, like: Tensor) -> list[dict[str, Tensor]]:
        """The state of sequences that have not started, for each layer and direction."""
        return [
            {
                name: like.new_zeros((batch, *shape), dtype=torch.long if name == "time" and self.counted else None)
                for name, shape in shapes.items()
            }
            for shapes in self.shapes
        ]

    def join(self, parts: Sequence[Mapping[str, Tensor]]) -> Any:
        """What a user sees, from the state of each layer and direction."""
        if not self.uniform:
            return tuple(self.type(*(part[name] for name in self.names)) for part in parts)
        if len(parts) == 1:  # a copy without the guard on B that stacking leaves where a model is traced
            return self.type(*(parts[0][name].clone().reshape(1, *parts[0][name].shape) for name in self.names))
        return self.type(*(torch.stack([part[name] for part in parts]) for name in self.names))

    def split(self, state: Any, batch: int, who: str, like: Tensor) -> list[dict[str, Tensor]]:
        """The state of each layer and direction, from what a user gives.

        Raises:
            DTypeError: it is not made of tensors, or of another dtype than the parameters.
            ShapeError: the number of states or a shape is another.
        """
        if self.uniform:
            whole = named(state, self.names, "the state", who)
            for name, tensor in whole.items():
                expected = (len(self.shapes), batch, *self.shapes[0][name])
                swapped = "batch_first does not touch the state" if tensor.shape[:1] == (batch,) else None
                self._check(name, tensor, expected, "(layers x directions, B, ...)", swapped, who, like)
            return [{name: tensor[i] for name, tensor in whole.items()} for i in range(len(self.shapes))]
        if not isinstance(state, Sequence) or isinstance(state, Tensor):
            raise DTypeError(explain(f"{who}: the state must be a tuple.", got=type(state).__name__, expected=self._wanted()))
        if len(state) != len(self.shapes):
            raise ShapeError(explain(f"{who}: the state has other parts.", got=f"{len(state)}", expected=self._wanted()))
        parts = [named(part, self.names, "the state", who) for part in state]
        for part, shapes in zip(parts, self.shapes, strict=True):
            for name, tensor in part.items():
                self._check(name, tensor, (batch, *shapes[name]), "(B, ...)", None, who, like)
        return parts

    def batch_of(self, state: Any) -> int:
        """The batch size of a state that a user gives."""
        part, axis = state, 1 if self.uniform else 0
        while not isinstance(part, Tensor):
            inside = list(part.values() if isinstance(part, Mapping) else part if isinstance(part, tuple | list) else ())
            if not inside:
                return 1  # it is no state, which `split` says
            part = inside[0]
        return part.shape[axis] if part.dim() > axis else 1

    def _wanted(self) -> str:
        return f"{len(self.shapes)} tuples ({', '.join(self.names)}), one for each layer and direction"

    def _check(
        self, name: str, tensor: Tensor, expected: tuple[int, ...], axes: str, advice: str | None, who: str, like: Tensor
    ) -> None:
        if tuple(tensor.shape) != expected:
            raise ShapeError(
                explain(
                    f"{who}: the state {name} has another shape.",
                    got=f"{name} {tuple(tensor.shape)}",
                    expected=f"{name} {axes} = {expected}",
                    advice=advice,
                )
            )
        counts = self.counted and name == "time"
        check_dtype(who, f"the state {name}", tensor, torch.zeros((), dtype=torch.long) if counts else like)
