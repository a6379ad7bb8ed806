"""Weights from and to the arrays of Keras's recurrent layers. Keras itself is not needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from carousel.cells import resolve_cell
from carousel.errors import ConfigError, DTypeError, ShapeError, explain, unknown_name
from carousel.export.weights.dialects import KERAS, Array, Counterpart
from carousel.export.weights.layers import (
    Named,
    array,
    build_layer,
    check_array,
    check_count,
    check_one_dtype,
    place,
    refuse,
    take_parameters,
    tensor,
)
from carousel.nn import Recurrent
from carousel.nn.gates import restack, unstack

#: Keras's word for how a Bidirectional merges, and ours.
MERGES = {"concat": "concat", "sum": "sum", "ave": "mean"}
WHO = "from_keras"


def from_keras(
    kind: str,
    arrays: Sequence[Array],
    *,
    reset_after: bool = True,
    activation: str = "tanh",
    num_layers: int = 1,
    bidirectional: bool = False,
    merge_mode: str = "concat",
    batch_first: bool = True,
) -> Recurrent:
    """Make a layer with the weights of Keras's layers, as their ``get_weights()`` gives them.

    For each layer the arrays are kernel (I, G·H), recurrent_kernel (H, G·H) and, unless the layer has none, bias; for a
    ``Bidirectional`` those forwards, then those backwards. Gates are stacked as i f c o (LSTM) and z r h (GRU).

    ============= ============ ========================= ==================
    kind          G            bias                      cell
    ============= ============ ========================= ==================
    ``LSTM``      4            (4H)                      ``lstm``
    ``GRU``       3            (2, 3H)                   ``gru_reset_after``
    ``GRU``       3            (3H), reset_after=False   ``gru``
    ``SimpleRNN`` 1            (H)                       ``elman``
    ============= ============ ========================= ==================

    Args:
        kind: the layer's class in Keras.
        arrays: of all layers, in order; floating, of one dtype, which becomes the layer's. Not changed, and copied.
        reset_after: of a GRU: whether the reset gate acts after the product, as Keras has it unless told otherwise.
        activation: Keras's name. Only a SimpleRNN may have another than tanh; the gates of all must be ``sigmoid`` (layers
            saved by the first versions of Keras may have ``hard_sigmoid``, which no cell here computes).
        num_layers: how many of Keras's layers `arrays` holds. Their sizes may differ.
        bidirectional: whether each is wrapped in a ``Bidirectional``.
        merge_mode: the Bidirectional's: ``concat``, ``sum`` or ``ave``.
        batch_first: the layer takes (B, T, I), as Keras's do.

    Returns:
        The layer. Its state is ``(h, c)``, in Keras's order.

    Raises:
        ConfigError: an unknown kind or merge mode, or settings that no cell here computes.
        DTypeError: an array is none, holds no floating point numbers, or another kind of them than the others.
        ShapeError: the number of arrays or a shape is wrong; the message names the array.

    Example:
        >>> arrays = [np.random.randn(3, 20), np.random.randn(5, 20), np.random.randn(20)]
        >>> layer = from_keras("LSTM", arrays)
        >>> layer.input_size, layer.hidden_size, layer.layers[0].b_g.dtype
        (3, 5, torch.float64)
    """
    row = KERAS.of_layer(WHO, kind, {"reset_after": reset_after, "activation": activation})
    check_count(WHO, "num_layers", num_layers)
    if merge_mode not in MERGES:
        raise ConfigError(f"{WHO}: " + unknown_name("merge_mode", str(merge_mode), MERGES))
    directions = 2 if bidirectional else 1
    found = _named(row, arrays, num_layers, directions)
    check_one_dtype(WHO, [one for layer in found for both in layer for one in both.values()])
    hidden_sizes: list[int] = []
    features: int | None = None
    for layer in found:
        hidden = _check_layer(row, layer, features)
        hidden_sizes.append(hidden)
        features = hidden * directions if merge_mode == "concat" else hidden
    return build_layer(
        resolve_cell(row.cell, row.options),
        found[0][0]["kernel"].value.shape[0],
        hidden_sizes,
        [[_unstacked(row, both) for both in layer] for layer in found],
        {"batch_first": batch_first, "merge": MERGES[merge_mode]},
    )


def to_keras(layer: Recurrent) -> list[Array]:
    """Give the weights of a layer as Keras's layers take them, for ``set_weights``.

    The cell ``lstm`` fits a `keras.layers.LSTM`; ``gru_reset_after`` a `GRU`; ``gru`` a `GRU` with ``reset_after=False``;
    ``elman`` a `SimpleRNN` of the same activation, ``irnn`` one with relu. A bidirectional layer fits a `Bidirectional` with
    the `merge_mode` that is this layer's `merge` (``ave`` for mean); a deep one fits a `Sequential` of so many, each with
    ``return_sequences=True``. Keras's layers take (B, T, I), whatever this one's `batch_first`.

    A GRU that resets after the product has two biases in Keras: the first holds the whole, the second zeros, but for the
    candidate's, which is b_hn. Keras's `dropout` is another than the one between layers here, so set it there.

    Args:
        layer: its weights are copied.

    Returns:
        kernel, recurrent_kernel and bias of layer 0 forwards, then backwards, then of layer 1, ...

    Raises:
        ConfigError: Keras has nothing that computes what the layer does.
        DTypeError: `layer` is no `Recurrent`, or its dtype has no counterpart in NumPy.

    Example:
        >>> [array.shape for array in to_keras(Recurrent("gru_reset_after", input_size=3, hidden_size=5))]
        [(3, 15), (5, 15), (2, 15)]
    """
    parameters = take_parameters("to_keras", layer)
    row = KERAS.of_cell("to_keras", layer.cell)
    # go_backwards gives the outputs in the order in which it computed them, last step first; ours stay in place.
    refuse("to_keras", "reverse", layer.reverse, allowed=not layer.reverse, expected="reverse=False")
    arrays = []
    for both in parameters:
        for values in both:
            stacked = {name: array("to_keras", value) for name, value in restack(row.layout, values).items()}
            rows = _bias_rows(row)
            bias = stacked["bias"] if rows == 1 else stacked["bias"].reshape(rows, -1)
            arrays += [np.ascontiguousarray(stacked[name].T) for name in ("kernel", "recurrent_kernel")] + [bias]
    return arrays


def _bias_rows(row: Counterpart) -> int:
    """Whether biases of input and recurrent product are apart."""
    return len(row.layout["bias"]) // len(row.layout["kernel"])


def _named(row: Counterpart, arrays: Sequence[Array], num_layers: int, directions: int) -> list[list[dict[str, Named]]]:
    """The arrays of each layer and direction, by Keras's names for them."""
    if isinstance(arrays, np.ndarray) or not isinstance(arrays, Sequence):
        raise DTypeError(explain(f"{WHO}: arrays must be a list of NumPy arrays.", got=type(arrays).__name__))
    places = num_layers * directions
    each = len(arrays) // places
    if len(arrays) != each * places or each not in (2, 3):
        what = f"a {row.kind}" + (" wrapped in a Bidirectional" if directions > 1 else "")
        raise ShapeError(
            explain(
                f"{WHO}: this is not the number of arrays that {num_layers} layer{'s' * (num_layers > 1)} of {what} have.",
                got=f"{len(arrays)} arrays",
                expected=f"{3 * places}, or {2 * places} without biases",
                advice="set num_layers and bidirectional to what the arrays are from",
            )
        )
    names = list(row.layout)[:each]
    found: list[list[dict[str, Named]]] = []
    rest = iter(arrays)
    for layer in range(num_layers):
        deep = layer if num_layers > 1 else None
        where = [place(direction, directions, deep) for direction in range(directions)]
        called = [f" ({one})" if one else "" for one in where]
        found.append([{name: check_array(WHO, name + tail, next(rest)) for name in names} for tail in called])
    return found


def _check_layer(row: Counterpart, layer: Sequence[dict[str, Named]], features: int | None) -> int:
    """Check the shapes of one layer's arrays and return its hidden size.

    Args:
        row: what the layer is.
        layer: the arrays of each direction.
        features: of the layer below; None for the first.
    """
    gates = len(row.layout["kernel"])
    many = f"{gates}H" if gates > 1 else "H"
    for both in layer:
        both["kernel"].check_axes(WHO, f"I, {many}")
        both["recurrent_kernel"].check_axes(WHO, f"H, {many}")
    # Sizes are read so that a transposed matrix is found to be one: H is the smaller axis of its matrix.
    hidden: int = min(layer[0]["recurrent_kernel"].value.shape)
    kernel = layer[0]["kernel"].value.shape
    turned = kernel[0] == gates * hidden != kernel[1]
    inputs = kernel[1 if turned else 0] if features is None else features
    rows = _bias_rows(row)
    for both in layer:
        both["recurrent_kernel"].check_shape(WHO, f"H, {many}", (hidden, gates * hidden))
        both["kernel"].check_shape(WHO, f"I, {many}", (inputs, gates * hidden))
        if "bias" in both:
            axes, shape = (many, (gates * hidden,)) if rows == 1 else (f"{rows}, {many}", (rows, gates * hidden))
            other = gates == 3 and both["bias"].value.shape in ((2, 3 * hidden), (3 * hidden,))
            advice = f"a bias of this shape is that of a GRU with reset_after={rows == 1}" if other else None
            both["bias"].check_shape(WHO, axes, shape, advice)
    return hidden


def _unstacked(row: Counterpart, both: dict[str, Named]) -> dict[str, torch.Tensor]:
    """The cell's parameters."""
    stacked = {name: tensor(one.value.T if name != "bias" else one.value.reshape(-1)) for name, one in both.items()}
    return unstack(row.layout, stacked)
