"""What a recurrent layer is called with, checked at the door."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from carousel.errors import ConfigError, DTypeError, ShapeError, explain
from carousel.graph import Cell
from carousel.graph.shapes import Shape, Sizes, concrete, show
from carousel.nn.one_hot import check_range, is_numbers, one_hot


@dataclass(frozen=True)
class Inputs:
    """Checked inputs.

    Attributes:
        values: by name, (T, B, ...).
        steps: T.
        batch: B.
        like: a tensor of the dtype and device to compute in.
    """

    values: dict[str, Tensor]
    steps: int
    batch: int
    like: Tensor


def named(given: Any, names: Sequence[str], what: str, who: str) -> dict[str, Tensor]:
    """Give tensors their names: one tensor for one name, a tuple in order, or a mapping.

    Raises:
        ShapeError: there are more or fewer than names, or other names.
        DTypeError: something is not a tensor.
    """
    if isinstance(given, Tensor):
        given = (given,)
    if given is None:
        given = ()
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ShapeError(
                explain(f"{who}: {what} has other names.", got=", ".join(map(str, given)), expected=", ".join(names))
            )
        given = tuple(given[name] for name in names)
    if not isinstance(given, Sequence) or not all(isinstance(part, Tensor) for part in given):
        kinds = ", ".join(type(part).__name__ for part in given) if isinstance(given, Sequence) else type(given).__name__
        raise DTypeError(explain(f"{who}: {what} must be tensors.", got=kinds, expected=f"({', '.join(names)})"))
    if len(given) != len(names):
        raise ShapeError(
            explain(
                f"{who}: {what} needs {len(names)} tensors.",
                got=f"{len(given)}",
                expected=f"({', '.join(names)})" if names else "none",
            )
        )
    return dict(zip(names, given, strict=True))


def check_dtype(who: str, name: str, tensor: Tensor, like: Tensor) -> None:
    """Check that a value has the parameters' dtype, except where autocast chooses.

    Raises:
        DTypeError: it has another.
    """
    if tensor.dtype != like.dtype and not torch.is_autocast_enabled(tensor.device.type):
        raise DTypeError(
            explain(
                f"{who}: {name} is of another dtype than the parameters.",
                got=str(tensor.dtype),
                expected=str(like.dtype),
                advice=f"use {name}.to({like.dtype}), or layer.to({tensor.dtype})" if tensor.is_floating_point() else None,
            )
        )


class InputCheck:
    """Checks what a layer is called with.

    Args:
        cell: the cell.
        sizes: the size of each axis letter of the first layer.
        batch_first: whether inputs are (B, T, ...).
    """

    def __init__(self, cell: Cell, sizes: Sizes, batch_first: bool) -> None:
        self.cell, self.sizes, self.batch_first = cell, sizes, batch_first

    def sequence(self, x: Any, like: Tensor, steps: int | None, batch: int | None) -> Inputs:
        """Check the inputs of `forward`, and put time first.

        Args:
            x: a tensor, or one for each input, (T, B, ...) or (B, T, ...).
            like: a parameter of the layer.
            steps: T, where the cell has no inputs.
            batch: B, likewise.
        """
        who = f"Recurrent({type(self.cell).__name__}).forward"
        values = named(x, self.cell.inputs, "x", who)
        if not values:
            if steps is None or batch is None:
                raise ConfigError(f"{who}: this cell has no inputs: say how many steps with steps=T (and batch=B)")
            for name, value in (("steps", steps), ("batch", batch)):
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise ConfigError(explain(f"{who}: {name} must be a whole number, 0 or more.", got=repr(value)))
            return Inputs({}, steps, batch, like)
        if steps is not None:
            raise ConfigError(f"{who}: steps= is for cells without inputs; this one has {', '.join(values)}")
        letters = ("B", "T") if self.batch_first else ("T", "B")
        for name, tensor in values.items():
            self._check(name, tensor, letters, like, who)
        if self.batch_first:
            values = {name: tensor.transpose(0, 1) for name, tensor in values.items()}
        shapes = {name: tuple(tensor.shape[:2]) for name, tensor in values.items()}
        one, *others = shapes.values()
        if any(other != one for other in others):  # not a set: what traces a model cannot hash sizes it does not know
            raise ShapeError(explain(f"{who}: the inputs disagree in time or batch.", got=f"(T, B) {shapes}"))
        first = next(iter(values.values()))
        return Inputs(values, first.shape[0], first.shape[1], self._like(first, like))

    def numbers(self, values: Mapping[str, Tensor]) -> None:
        """Check the range of what stands for one-hot vectors; padding is not among it.

        Raises:
            ConfigError: a number of no class.
        """
        for name, x in values.items():
            if is_numbers(x):
                check_range(name, x, self._size(name), f"Recurrent({type(self.cell).__name__})")

    def vectors(self, given: Inputs) -> Inputs:
        """The inputs with one-hot vectors in place of numbers."""
        if not any(map(is_numbers, given.values.values())):
            return given
        values = {n: one_hot(x, self._size(n), given.like) if is_numbers(x) else x for n, x in given.values.items()}
        return replace(given, values=values)

    def _size(self, name: str) -> int:
        return concrete(self.cell.graph.inputs[name].shape, self.sizes)[0]

    def step(self, x_t: Any, like: Tensor, batch: int | None) -> Inputs:
        """Check the inputs of `step`: (B, ...)."""
        who = f"Recurrent({type(self.cell).__name__}).step"
        values = named(x_t, self.cell.inputs, "x", who)
        if not values:
            if batch is None:
                raise ConfigError(f"{who}: this cell has no inputs: give a state, or batch=B")
            return Inputs({}, 1, batch, like)
        for name, tensor in values.items():
            self._check(name, tensor, ("B",), like, who)
        first = next(iter(values.values()))
        values = {name: tensor.unsqueeze(0) for name, tensor in values.items()}
        return Inputs(values, 1, first.shape[0], self._like(first, like))

    def context(self, given: Any, batch: int, like: Tensor) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Check what is constant over time, (B, ...), and learn the sizes that only it knows."""
        who = f"Recurrent({type(self.cell).__name__})"
        values = named(given, self.cell.context, "context", who)
        sizes: dict[str, int] = {}
        for name, tensor in values.items():
            shape = self.cell.graph.context[name].shape
            known = {**self.sizes, **sizes}
            expected = (batch, *(known.get(a, a) if isinstance(a, str) else a for a in shape))
            fits = tensor.dim() == len(expected) and all(
                isinstance(want, str) or have == want for have, want in zip(tensor.shape, expected, strict=True)
            )
            if not fits:
                raise ShapeError(
                    explain(
                        f"{who}: the context {name} has another shape.",
                        got=f"{name} {tuple(tensor.shape)}",
                        expected=f"{name} {show((f'B={batch}', *expected[1:]))}",
                    )
                )
            if tensor.is_floating_point():  # a mask may be of any type
                check_dtype(who, f"the context {name}", tensor, like)
            learn = zip(tensor.shape[1:], shape, strict=True)
            sizes.update({axis: size for size, axis in learn if isinstance(axis, str) and axis not in self.sizes})
        return values, sizes

    def _check(self, name: str, x: Tensor, letters: tuple[str, ...], like: Tensor, who: str) -> None:
        shape = concrete(self.cell.graph.inputs[name].shape, self.sizes)
        if is_numbers(x) and len(shape) == 1 and x.dim() == len(letters):
            return  # each stands for a one-hot vector; what is not padding is checked when it is looked up
        expected = f"{name} {show((*letters, *shape))}"
        if x.dim() != len(letters) + len(shape):
            raise ShapeError(
                explain(
                    f"{who}: {name} must have {len(letters) + len(shape)} axes.",
                    got=f"{name} {tuple(x.shape)}",
                    expected=expected,
                    advice="add the batch axis with x.unsqueeze" if x.dim() == len(letters) + len(shape) - 1 else None,
                )
            )
        if tuple(x.shape[len(letters) :]) != shape:
            one = len(shape) == 1
            raise ShapeError(
                explain(
                    f"{who}: the last axis of `{name}` is {x.shape[-1]}, but this layer was built with input_size={shape[0]}."
                    if one
                    else f"{who}: `{name}` has another shape than this layer was built with.",
                    got=f"{name} {tuple(x.shape)}, {x.dtype}, {x.device}".replace("torch.", ""),
                    expected=expected,
                    advice=self._size_advice(name, x, shape) if one else None,
                )
            )
        check_dtype(who, name, x, like)

    def _size_advice(self, name: str, x: Tensor, shape: Shape) -> str:
        if shape[0] in x.shape[:-1]:
            return f"the axis of size {shape[0]} must come last"
        return f"build Recurrent(..., input_size={x.shape[-1]}), or project {name} first"

    @staticmethod
    def _like(first: Tensor, like: Tensor) -> Tensor:
        """Under autocast, the states stay in the parameters' dtype."""
        return first if first.dtype == like.dtype else like
