"""What all converters share: checking arrays and layers, taking a layer's parameters out and building one from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.errors import ConfigError, DTypeError, ShapeError, explain
from carousel.export.weights.dialects import Array
from carousel.graph import Cell
from carousel.graph.transforms import apply_transforms
from carousel.nn import Recurrent

#: The parameters of each layer (L) and direction (D), by name.
Parameters = list[list[dict[str, Tensor]]]


@dataclass(frozen=True)
class Named:
    """An array with what it is called in messages.

    Attributes:
        name: with its place: ``kernel of layer 0``.
        value: the array.
    """

    name: str
    value: Array

    def check_axes(self, who: str, axes: str) -> None:
        """Check the number of axes.

        Args:
            who: the caller, for messages.
            axes: their symbols, for messages and to count: ``I, 4H``.
        """
        if self.value.ndim != len(axes.split(", ")):
            raise ShapeError(
                explain(f"{who}: {self.name} has another number of axes.", got=str(self.value.shape), expected=f"({axes})")
            )

    def check_shape(self, who: str, axes: str, shape: tuple[int, ...], advice: str | None = None) -> None:
        """Check the shape.

        Args:
            who: the caller, for messages.
            axes: the symbols of the axes.
            shape: what it must be.
            advice: what to do; found out if None and the array is only transposed.
        """
        if self.value.shape == shape:
            return
        if advice is None and self.value.shape == shape[:-2] + shape[-2:][::-1]:
            advice = "its last two axes stand the other way round: transpose it"
        raise ShapeError(
            explain(
                f"{who}: {self.name} has another shape than the other arrays ask for.",
                got=f"{self.name} {self.value.shape}",
                expected=f"({axes}) = {shape}",
                advice=advice,
            )
        )


def place(direction: int, directions: int, layer: int | None = None) -> str:
    """Where an array belongs, for messages."""
    parts = [] if layer is None else [f"layer {layer}"]
    parts += [("forward", "backward")[direction]] if directions > 1 else []
    return ", ".join(parts)


def check_array(who: str, name: str, value: Any) -> Named:
    """Check that something is an array of floating point numbers.

    Raises:
        DTypeError: it is not.
    """
    if isinstance(value, Tensor):
        raise DTypeError(explain(f"{who}: {name} must be a NumPy array.", got="a tensor", advice="use .numpy(force=True)"))
    if not isinstance(value, np.ndarray):
        raise DTypeError(explain(f"{who}: {name} must be a NumPy array.", got=type(value).__name__))
    if value.dtype.kind != "f" or value.dtype.itemsize > 8:
        raise DTypeError(
            explain(f"{who}: {name} must hold floating point numbers.", got=str(value.dtype), expected="float16, 32 or 64")
        )
    return Named(name, value)


def check_one_dtype(who: str, arrays: Sequence[Named]) -> None:
    """Check that all arrays have one dtype.

    Raises:
        DTypeError: two differ; the message names both.
    """
    first = arrays[0]
    for other in arrays:
        if other.value.dtype != first.value.dtype:
            got = f"{first.name} {first.value.dtype}, {other.name} {other.value.dtype}"
            raise DTypeError(explain(f"{who}: all arrays must have one dtype.", got=got, advice="use .astype on one of them"))


def tensor(array: Array) -> Tensor:
    """A tensor of its own with an array's numbers, whatever the array's strides and byte order."""
    return torch.tensor(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False))


def array(who: str, tensor: Tensor) -> Array:
    """An array of its own with a tensor's numbers.

    Raises:
        DTypeError: NumPy has no such dtype.
    """
    if tensor.dtype == torch.bfloat16:
        raise DTypeError(explain(f"{who}: NumPy has no bfloat16.", got=str(tensor.dtype), advice="convert layer.float()"))
    return np.array(tensor.numpy(force=True), order="C")


def check_count(who: str, name: str, value: Any) -> None:
    """Check that something is a whole number, 1 or more.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(explain(f"{who}: {name} must be a whole number, 1 or more.", got=repr(value)))


def build_layer(
    cell: Cell, input_size: int, hidden_sizes: Sequence[int], parameters: Parameters, settings: Mapping[str, Any]
) -> Recurrent:
    """Build a layer from the parameters of each layer and direction; a bias that is not among them is zero.

    Draws nothing from torch's generator.

    Args:
        cell: the cell.
        input_size: I.
        hidden_sizes: H of each layer.
        parameters: by name, of fitting shapes, on one device and of one dtype, which become the layer's.
        settings: arguments of `Recurrent`.
    """
    hidden = hidden_sizes[0] if len(set(hidden_sizes)) == 1 else tuple(hidden_sizes)
    with torch.random.fork_rng(devices=[]):  # on the CPU the layer starts from random weights, which are not kept
        layer = Recurrent(
            cell,
            input_size,
            hidden,
            num_layers=len(parameters),
            bidirectional=len(parameters[0]) > 1,
            device="cpu",
            dtype=torch.float32,
            **settings,
        )
    like = next(iter(parameters[0][0].values()))
    layer.to(device=like.device, dtype=like.dtype)
    with torch.no_grad():
        for own, given in zip(_modules(layer), (values for both in parameters for values in both), strict=True):
            for name, value in own.values().items():
                value.copy_(given[name]) if name in given else value.zero_()
    return layer


def take_parameters(who: str, layer: Recurrent) -> Parameters:
    """The parameters of each layer and direction of a layer that is nothing but its cell over time.

    Raises:
        DTypeError: it is no `Recurrent`.
        ConfigError: something beside the cell changes what it computes.
    """
    if not isinstance(layer, Recurrent):
        raise DTypeError(
            explain(f"{who}: this is no layer to take weights from.", got=type(layer).__name__, expected="a Recurrent")
        )
    graph = layer.cell.graph
    for transform in layer.transforms:
        if apply_transforms(graph, (transform,), False) is not graph:
            raise ConfigError(
                explain(
                    f"{who}: a transform of this layer changes what it computes in evaluation too.",
                    got=repr(transform),
                    expected="the cell alone; dropout that acts in training only is left behind",
                )
            )
    deep = layer.num_layers > 1
    refuse(who, "skip", layer.skip, allowed=layer.skip == "none" or not deep, expected="skip='none'")
    apart = layer.independent and layer.bidirectional and deep
    refuse(who, "independent", layer.independent, allowed=not apart, expected="independent=False")
    refuse(
        who,
        "learn_state",
        layer.learn_state,
        allowed=not layer.learn_state,
        expected="learn_state=False",
        advice="give layer.initial_state(B) to the other framework as the initial state, and take the weights from a layer "
        "built without it",
    )
    values = [module.values() for module in _modules(layer)]
    directions = layer.num_directions
    return [values[at : at + directions] for at in range(0, len(values), directions)]


def refuse(who: str, name: str, value: Any, *, allowed: bool, expected: str, advice: str | None = None) -> None:
    """Refuse a setting of a layer that the other framework cannot express.

    Raises:
        ConfigError: it is not allowed.
    """
    if not allowed:
        raise ConfigError(
            explain(f"{who}: {name} cannot be expressed there.", got=f"{name}={value!r}", expected=expected, advice=advice)
        )


def hidden_sizes(layer: Recurrent) -> list[int]:
    """H of each layer."""
    return [layer.hidden_size] * layer.num_layers if isinstance(layer.hidden_size, int) else list(layer.hidden_size)


def _modules(layer: Recurrent) -> list[Any]:
    """What keeps the parameters: layer 0 forwards, layer 0 backwards, layer 1 forwards, ..."""
    sides = [layer.layers, layer.layers_reverse] if layer.bidirectional else [layer.layers]
    return [module for both in zip(*sides, strict=True) for module in both]
