"""A cell that runs on torch's stacked tensors: what `nn.LSTM` and `nn.LSTMCell` and their like have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from carousel.cells import resolve_cell
from carousel.engines import Choice, choose, load
from carousel.engines.call import Call, Result
from carousel.errors import ConfigError, DTypeError, ShapeError, explain
from carousel.graph import Cell
from carousel.graph.shapes import concrete
from carousel.nn.gates import TORCH, unstack


@cache
def _cell(name: str, options: tuple[tuple[str, Any], ...]) -> Cell:
    """One cell for all layers that have the same: it is traced once."""
    return resolve_cell(name, dict(options))


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _traced_text(cell: Cell, input_size: int, hidden_size: int, directions: int) -> str:
    """What the operators are told about a layer: the same for the same sizes, so what traces a model need not look inside."""
    from carousel.engines.cpu.operators import spec

    sizes = dict(cell.sizes(input_size, hidden_size))
    return spec(cell.graph, sizes, [(d == 1, d) for d in range(directions)], counted=False)


class StackedCell:
    """A cell whose parameters are cut from the tensors that torch keeps.

    Args:
        name: the cell, in :data:`carousel.cells.CELLS` and :data:`carousel.nn.gates.TORCH`.
        options: the cell's options.
    """

    def __init__(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        self._recipe = (name, dict(options or {}))
        self.cell = _cell(name, tuple(self._recipe[1].items()))
        self.layout = TORCH[name]
        self.engine: Choice = choose("auto", self.cell.graph)
        self._engine = load(self.engine)
        self._texts: dict[tuple[int, int, int], str] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return StackedCell, self._recipe

    def shapes(self, input_size: int, hidden_size: int, bias: bool) -> dict[str, tuple[int, ...]]:
        """The shape of each stacked tensor, in torch's order; without bias, of the matrices only."""
        own = self.cell.parameter_shapes(input_size, hidden_size)
        shapes = {name: (sum(own[part][0] for part in parts), *own[parts[0]][1:]) for name, parts in self.layout.items()}
        return {name: shape for name, shape in shapes.items() if bias or len(shape) > 1}

    def state_shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """The shape of each state of one sequence, in the order of the equations."""
        sizes = self.cell.sizes(1, hidden_size)  # no state depends on the input
        return {name: concrete(node.shape, sizes) for name, node in self.cell.graph.states.items()}

    def call(
        self,
        stacked: Mapping[str, Tensor],
        rows: Tensor,
        states: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        hidden_size: int,
        *,
        reverse: bool = False,
        inference_weights: str | None = None,
    ) -> Call:
        """What running one layer in one direction asks of an engine.

        Args:
            stacked: torch's tensors; a bias that is not among them is zero.
            rows: (sum of batch_sizes, I), the rows of all steps, the longest sequence first in each.
            states: by name, what each sequence starts with, (B, ...), in the same order.
            batch_sizes: how many sequences reach each step.
            hidden_size: H.
            reverse: run from each sequence's last step to its first.
            inference_weights: as of a layer.
        """
        parameters = self._parameters(stacked, rows.shape[-1], hidden_size)
        inputs, sizes = {self.cell.inputs[0]: rows}, self.cell.sizes(rows.shape[-1], hidden_size)
        return Call(self.cell.graph, inputs, states, parameters, batch_sizes, sizes, reverse, weights=inference_weights)

    def _parameters(self, stacked: Mapping[str, Tensor], input_size: int, hidden_size: int) -> dict[str, Tensor]:
        """The cell's parameters, cut from torch's; a bias that is not among them is zero."""
        parameters, like = unstack(self.layout, stacked), next(iter(stacked.values()))
        for name, shape in self.cell.parameter_shapes(input_size, hidden_size).items():
            if name not in parameters:
                parameters[name] = like.new_zeros(shape)
        return parameters

    def traceable(self, x: Tensor) -> bool:
        """Whether the compiled engine's operators can run such an input."""
        return self.engine.name == "cpu" and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)

    def run_traced(
        self, given: Sequence[tuple[Mapping[str, Tensor], Tensor, Mapping[str, Tensor]]], hidden_size: int
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Run the directions of a layer by one operator, on whole sequences (T, B, I).

        Args:
            given: for each direction torch's tensors, the input, and what each sequence starts with, by name.
            hidden_size: H.

        Returns:
            For each direction the output and the final states, in the order of the equations.
        """
        graph, input_size = self.cell.graph, given[0][1].shape[-1]
        key = (input_size, hidden_size, len(given))
        if key not in self._texts:
            self._texts[key] = _traced_text(self.cell, *key)
        tensors: list[Tensor] = []
        for stacked, x, states in given:
            parameters = self._parameters(stacked, input_size, hidden_size)
            tensors += [x, *(states[name] for name in graph.states), *(parameters[name] for name in graph.parameters)]
        made = torch.ops.carousel.over_time(self._texts[key], tensors, None, None, [], torch.is_grad_enabled())
        each = 1 + len(graph.states)
        parts = [made[i * each : (i + 1) * each] for i in range(len(given))]
        return [part[0] for part in parts], [list(part[1:]) for part in parts]

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run the directions of a layer.

        Returns:
            For each the output of every step, (sum of batch_sizes, O), and by name what each sequence's last step left.
        """
        return self._engine.run_together(calls)

    def start(
        self, who: str, hx: Any, leading: tuple[int, ...], axes: str, hidden_size: int, like: Tensor
    ) -> dict[str, Tensor]:
        """The states to start from, checked; zeros if `hx` is None.

        Args:
            who: the caller, for messages.
            hx: one tensor where the cell has one state, else a tuple or list in the order of the equations.
            leading: the axes before the features of the state.
            axes: what those are, for messages.
            hidden_size: H.
            like: has the dtype and device of the states.

        Returns:
            By name, each (*leading, ...).

        Raises:
            DTypeError: `hx` is of another type, or its dtype is not the input's.
            ShapeError: there are fewer or more states, or a shape is another.
        """
        shapes = {name: (*leading, *shape) for name, shape in self.state_shapes(hidden_size).items()}
        if hx is None:
            return {name: like.new_zeros(shape) for name, shape in shapes.items()}
        parts = (hx,) if isinstance(hx, Tensor) else hx
        names = ", ".join(f"{name} ({axes}{shape[-1]})" for name, shape in shapes.items())
        if not isinstance(parts, Sequence) or not all(isinstance(part, Tensor) for part in parts):
            raise DTypeError(explain(f"{who}: hx must be made of tensors.", got=type(hx).__name__, expected=names))
        if len(parts) != len(shapes) or isinstance(hx, Tensor) != (len(shapes) == 1):
            got = "a tensor" if isinstance(hx, Tensor) else f"a {type(hx).__name__} of {len(parts)} tensors"
            count = "one tensor" if len(shapes) == 1 else f"a tuple of {len(shapes)} tensors"
            raise ShapeError(explain(f"{who}: hx must be {count}.", got=got, expected=names))
        for part, (name, shape) in zip(parts, shapes.items(), strict=True):
            if tuple(part.shape) != shape:
                raise ShapeError(
                    explain(
                        f"{who}: the initial state {name} does not fit the input or this layer.",
                        got=f"{name} {tuple(part.shape)}",
                        expected=f"{name} ({axes}{shape[-1]}) = {shape}",
                        advice=_state_advice(tuple(part.shape), shape),
                    )
                )
            check_dtype(who, f"the initial state {name}", part, like.dtype, "the input")
        return dict(zip(shapes, parts, strict=True))


def _state_advice(got: tuple[int, ...], expected: tuple[int, ...]) -> str | None:
    if len(got) != len(expected):
        return "the state has a batch axis where the input has one, and none where it has none"
    if len(got) == 3 and (got[1], got[0], got[2]) == expected:
        return "use hx.transpose(0, 1): batch_first does not touch the state"
    return None


@torch.no_grad()
def start_as_torch(module: nn.Module, hidden_size: int) -> None:
    """Fill all parameters of a layer, in their order, uniformly in ±1/sqrt(H) from torch's generator."""
    bound = 1.0 / math.sqrt(hidden_size)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound)


def check_size(who: str, name: str, value: Any, least: int = 1) -> None:
    """A size must be a whole number.

    Raises:
        DTypeError: it is not an int.
        ConfigError: it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise DTypeError(explain(f"{who}: {name} must be an int.", got=f"{value!r} ({type(value).__name__})"))
    if value < least:
        raise ConfigError(explain(f"{who}: {name} is too small.", got=str(value), expected=f"{least} or more"))


def check_flag(who: str, name: str, value: Any) -> None:
    """A flag must be True or False.

    Raises:
        DTypeError: it is anything else.
    """
    if not isinstance(value, bool):
        raise DTypeError(explain(f"{who}: {name} must be True or False.", got=f"{value!r} ({type(value).__name__})"))


def check_features(who: str, x: Tensor, input_size: int, axes: str, kind: str) -> None:
    """The last axis of an input must be what the layer was built for.

    Raises:
        ShapeError: it has another size.
    """
    if x.shape[-1] != input_size:
        raise ShapeError(
            explain(
                f"{who}: the last axis of the input is {x.shape[-1]}, but this layer was built with input_size={input_size}.",
                got=f"{tuple(x.shape)}, {x.dtype}, {x.device}".replace("torch.", ""),
                expected=f"({axes}{input_size})",
                advice=f"build {kind}(input_size={x.shape[-1]}, ...), or project the input first",
            )
        )


def check_dtype(who: str, what: str, tensor: Tensor, wanted: torch.dtype, whose: str) -> None:
    """What is multiplied must have one dtype, except where autocast chooses.

    Raises:
        DTypeError: it has two.
    """
    if tensor.dtype != wanted and not torch.is_autocast_enabled(tensor.device.type):
        raise DTypeError(
            explain(
                f"{who}: {what} and {whose} are of different dtypes.",
                got=str(tensor.dtype),
                expected=str(wanted),
                advice=f"use .to({wanted}) on it, or module.to({tensor.dtype})" if tensor.is_floating_point() else None,
            )
        )
