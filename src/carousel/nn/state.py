"""States as named tuples, in the order of the equations."""

from __future__ import annotations

import keyword
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor

from carousel.errors import DTypeError, ShapeError, explain
from carousel.graph import Cell
from carousel.graph.shapes import Sizes, concrete


@cache
def state_type(name: str, fields: tuple[str, ...]) -> Any:
    """The named tuple of a cell's states: ``LSTMState(h, c)``."""
    return namedtuple(f"{name}State", fields, rename=any(keyword.iskeyword(field) for field in fields))


def as_states(cell: Cell, state: Any, copies: int, batch: int, sizes: Sizes, who: str) -> dict[str, Tensor]:
    """Check the state a caller gives.

    Args:
        cell: whose states they are.
        state: a tuple of tensors in the order of `cell.state`, a mapping by name, or one tensor if there is one state.
        copies: L·D.
        batch: B.
        sizes: the size of each axis letter.
        who: the caller, for messages.

    Returns:
        By name, (L·D, B, ...).

    Raises:
        DTypeError: it is none of these.
        ShapeError: the number of states or a shape is another.
    """
    if isinstance(state, Tensor):
        state = (state,)
    if isinstance(state, Mapping):
        if set(state) != set(cell.state):
            raise ShapeError(
                explain(f"{who}: the state has other names.", got=", ".join(state), expected=", ".join(cell.state))
            )
        state = tuple(state[name] for name in cell.state)
    if not isinstance(state, Sequence) or not all(isinstance(part, Tensor) for part in state):
        raise DTypeError(
            explain(f"{who}: the state must be tensors.", got=type(state).__name__, expected=f"({', '.join(cell.state)})")
        )
    if len(state) != len(cell.state):
        raise ShapeError(
            explain(
                f"{who}: {type(cell).__name__} has {len(cell.state)} states.",
                got=f"{len(state)} tensors",
                expected=f"({', '.join(cell.state)})",
            )
        )
    for name, tensor in zip(cell.state, state, strict=True):
        expected = (copies, batch, *concrete(cell.graph.states[name].shape, sizes))
        if tuple(tensor.shape) != expected:
            raise ShapeError(
                explain(
                    f"{who}: the state {name} has another shape.",
                    got=f"{name} {tuple(tensor.shape)}",
                    expected=f"{name} (layers x directions, B, ...) = {expected}",
                    advice="batch_first does not touch the state" if tensor.shape[:1] == (batch,) else None,
                )
            )
    return dict(zip(cell.state, state, strict=True))
