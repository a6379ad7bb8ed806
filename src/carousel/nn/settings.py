"""The settings of a recurrent layer, checked together before anything is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from carousel.errors import ConfigError, DTypeError, explain, unknown_name
from carousel.graph import Cell
from carousel.graph.shapes import Sizes, concrete

MERGES = ("concat", "sum", "mean")
SKIPS = ("none", "residual", "highway")


@dataclass(frozen=True)
class Widths:
    """The sizes of a stack of layers.

    Attributes:
        sizes: for each layer, the size of each axis letter.
        outputs: for each layer, the features of its merged output; a tuple where there are several axes.
        direction_size: features of one direction of the last layer.
        output_size: features of the last layer's merged output.
    """

    sizes: list[Sizes]
    outputs: list[Any]
    direction_size: int
    output_size: int


def check_settings(
    cell: Cell,
    *,
    input_size: Any,
    hidden_size: Any,
    num_layers: Any,
    dropout: Any,
    merge: Any,
    skip: Any,
    bidirectional: bool,
    reverse: bool,
) -> list[int]:
    """Check settings against each other and return the hidden size of each layer.

    Raises:
        ConfigError: one is impossible; the message says which, what was got and what is possible.
    """
    check_whole("Recurrent", "num_layers", num_layers, 1)
    hidden_sizes = list(hidden_size) if isinstance(hidden_size, Sequence) else [hidden_size] * num_layers
    for size in input_size if isinstance(input_size, tuple | list) else [input_size]:
        check_whole("Recurrent", "input_size", size, 1 if cell.inputs else 0)
    for size in hidden_sizes:
        check_whole("Recurrent", "hidden_size", size, 1)
    if len(hidden_sizes) != num_layers:
        got = f"{len(hidden_sizes)} sizes for num_layers={num_layers}"
        raise ConfigError(explain("Recurrent: there must be one hidden_size, or one for each layer.", got=got))
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise ConfigError(explain("Recurrent: dropout is a probability.", got=repr(dropout), expected="0 to 1"))
    for name, value, choices in (("merge", merge, MERGES), ("skip", skip, SKIPS)):
        if value not in choices:
            raise ConfigError(f"Recurrent: {name}: " + unknown_name("choice", str(value), choices))
    if reverse and bidirectional:
        raise ConfigError("Recurrent: reverse and bidirectional exclude each other: the latter runs both ways already")
    if num_layers > 1 and len(cell.inputs) != 1:
        raise ConfigError(
            f"Recurrent: {type(cell).__name__} has {len(cell.inputs)} inputs, so a second layer cannot run on "
            "the output of the first: use num_layers=1 and put another layer on top"
        )
    return hidden_sizes


def check_parts(name: str, parts: Any, fits: Callable[[Any], bool], expected: str) -> None:
    """Check that something is a tuple of built parts.

    Raises:
        DTypeError: it is not: a name, a class, or one alone.
    """
    if not isinstance(parts, tuple | list) or not all(map(fits, parts)):
        raise DTypeError(explain(f"Recurrent: {name} must be a tuple of them, each built.", got=repr(parts), expected=expected))


def check_whole(who: str, name: str, value: Any, least: int) -> None:
    """Check that a setting is a whole number.

    Raises:
        ConfigError: it is not, or it is too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(explain(f"{who}: {name} must be a whole number, {least} or more.", got=repr(value)))


def widths(cell: Cell, input_size: Any, hidden_sizes: Sequence[int], together: int, at_end: int) -> Widths:
    """Work out the sizes of a stack of layers.

    Args:
        cell: the cell.
        input_size: I of the first layer.
        hidden_sizes: H of each layer.
        together: how many directions stand side by side between layers.
        at_end: how many do in the output.
    """
    sizes: list[Sizes] = []
    outputs: list[Any] = []
    before, direction = input_size, 0
    for hidden in hidden_sizes:
        sizes.append(cell.sizes(before, hidden))
        direction, *places = concrete(cell.graph.output.shape, sizes[-1])
        before = (direction * together, *places) if places else direction * together
        outputs.append(before)
    return Widths(sizes, outputs, direction, direction * at_end)
