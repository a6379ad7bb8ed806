"""Weights from and to the initialisers of ONNX's LSTM, GRU and RNN operators. ONNX itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from carousel.cells import resolve_cell
from carousel.errors import ConfigError, ShapeError, explain, unknown_name
from carousel.export.weights.dialects import ONNX, Array, Counterpart
from carousel.export.weights.layers import (
    Named,
    array,
    build_layer,
    check_array,
    check_one_dtype,
    hidden_sizes,
    take_parameters,
    tensor,
)
from carousel.nn import Recurrent
from carousel.nn.gates import restack, unstack

#: ONNX's words for the way a node runs, and the number of directions of each.
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
WHO = "from_onnx"


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """The weights of one node: one layer, in all its directions.

    Attributes:
        kind: the operator: ``LSTM``, ``GRU`` or ``RNN``.
        W: (D, G·H, I), the matrices for the input.
        R: (D, G·H, H), those for the state.
        B: (D, 2·G·H), the biases of both products.
        P: (D, 3·H), the peepholes of an LSTM, or None.
        attributes: the node's, as ``onnx.helper.make_node`` takes them.
    """

    kind: str
    W: Array
    R: Array
    B: Array
    P: Array | None
    attributes: Mapping[str, Any]


# The arguments after the arrays are the operator's attributes, so that a node's can be handed over as they are.
def from_onnx(
    kind: str,
    W: Array | Sequence[Array],
    R: Array | Sequence[Array],
    B: Array | Sequence[Array] | None = None,
    P: Array | Sequence[Array] | None = None,
    *,
    direction: str | None = None,
    hidden_size: int | None = None,
    linear_before_reset: int = 0,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Recurrent:
    """Make a layer with the weights of an ONNX node.

    Gates are stacked as i o f c (LSTM, peepholes i o f) and z r h (GRU). An LSTM becomes the cell ``lstm`` or, with P,
    ``peephole_lstm``; a GRU ``gru`` or, with ``linear_before_reset=1``, ``gru_reset_after``; an RNN ``elman``. The two biases
    of a gate become one, their sum, but for R's of the candidate in ``gru_reset_after``.

    Nodes on top of each other, of one kind and with the same attributes, become one deep layer: give lists of their arrays.
    Between two of them, the directions must be side by side.

    Args:
        kind: the operator: ``LSTM``, ``GRU`` or ``RNN``.
        W: (D, G·H, I); floating, and all arrays of one dtype, which becomes the layer's. Not changed, and copied.
        R: (D, G·H, H).
        B: (D, 2·G·H), W's biases and then R's; zeros if None.
        P: (D, 3·H), an LSTM's peepholes; none if None. The output gate sees the new cell state.
        direction: ``forward``, ``reverse`` or ``bidirectional``; by the number of directions in W if None.
        hidden_size: H of every node; checked if given.
        linear_before_reset: of a GRU: 1 if the reset gate acts after the product.
        activations: the node's, for each direction; ONNX's own if None. Only an RNN may have others than those.
        clip: of what the activations see; no cell here computes that.
        input_forget: of an LSTM; 1 is not computed here.
        layout: 0 for a layer that takes (T, B, I), 1 for one that takes (B, T, I).

    Returns:
        The layer. Its output has D·H features side by side, where the operator's Y is (T, D, B, H).

    Raises:
        ConfigError: an unknown kind or direction, or attributes that no cell here computes.
        DTypeError: an array is none, holds no floating point numbers, or another kind of them than the others.
        ShapeError: a shape is wrong; the message names the array.

    Example:
        >>> W, R, B = np.random.randn(2, 15, 3), np.random.randn(2, 15, 5), np.random.randn(2, 30)
        >>> layer = from_onnx("GRU", W, R, B, linear_before_reset=1)
        >>> layer.cell, layer.hidden_size, layer.bidirectional
        (GRUResetAfter(), 5, True)
    """
    ONNX.check_kind(WHO, kind)
    nodes = _nodes(W, R, B, P)
    check_one_dtype(WHO, [one for node in nodes for one in node.values()])
    nodes[0]["W"].check_axes(WHO, "D, G·H, I")
    directions = nodes[0]["W"].value.shape[0]
    direction = _direction(nodes[0]["W"], direction)
    settings = {
        "activations": _activations(kind, activations, directions),
        "linear_before_reset": int(bool(linear_before_reset)),
        "peepholes": P is not None,
    }
    row = ONNX.of_layer(WHO, kind, settings)
    for name, value in (("clip", clip), ("input_forget", input_forget)):
        if value:
            raise ConfigError(explain(f"{WHO}: no cell here computes a node with {name}.", got=f"{name}={value!r}"))
    if layout not in (0, 1):
        raise ConfigError(explain(f"{WHO}: layout is 0 for (T, B, I) or 1 for (B, T, I).", got=repr(layout)))
    sizes: list[int] = []
    for node in nodes:
        sizes.append(_check_node(row, node, directions, sizes[-1] * directions if sizes else None, hidden_size))
    return build_layer(
        resolve_cell(row.cell, row.options),
        nodes[0]["W"].value.shape[2],
        sizes,
        [
            [unstack(row.layout, {name: tensor(one.value[d]) for name, one in node.items()}) for d in range(directions)]
            for node in nodes
        ],
        {"batch_first": bool(layout), "reverse": direction == "reverse"},
    )


def to_onnx(layer: Recurrent) -> list[OnnxNode]:
    """Give the weights of a layer as ONNX's operators take them, one node for each layer.

    The cells ``lstm`` and ``peephole_lstm`` become LSTM, ``gru`` and ``gru_reset_after`` GRU, ``elman`` and ``irnn`` RNN. The
    whole of each bias is the first of ONNX's two, and the second is zero, but for b_hn of ``gru_reset_after``.

    A node takes X (T, B, I), whatever the layer's `batch_first`, and gives Y (T, D, B, H). This layer's output, and what the
    next node takes, has the directions merged: transposed to (T, B, D, H) and reshaped for ``merge="concat"``, else summed or
    averaged over D.

    Args:
        layer: its weights are copied.

    Returns:
        The nodes, the first layer's first. ``from_onnx(node.kind, node.W, node.R, node.B, node.P, **node.attributes)`` is the
        way back.

    Raises:
        ConfigError: ONNX has nothing that computes what the layer does.
        DTypeError: `layer` is no `Recurrent`, or its dtype has no counterpart in NumPy.

    Example:
        >>> [node] = to_onnx(Recurrent("peephole_lstm", input_size=3, hidden_size=5))
        >>> node.kind, node.W.shape, node.R.shape, node.B.shape, node.P.shape, node.attributes["direction"]
        ('LSTM', (1, 20, 3), (1, 20, 5), (1, 40), (1, 15), 'forward')
    """
    parameters = take_parameters("to_onnx", layer)
    row = ONNX.of_cell("to_onnx", layer.cell)
    direction = "bidirectional" if layer.bidirectional else "reverse" if layer.reverse else "forward"
    nodes = []
    for hidden, both in zip(hidden_sizes(layer), parameters, strict=True):
        sides = [restack(row.layout, values) for values in both]
        stacked = {name: np.stack([array("to_onnx", side[name]) for side in sides]) for name in row.layout}
        attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
        attributes["activations"] = list(row.settings["activations"]) * len(both)
        if "linear_before_reset" in row.settings:
            attributes["linear_before_reset"] = row.settings["linear_before_reset"]
        nodes.append(OnnxNode(row.kind, stacked["W"], stacked["R"], stacked["B"], stacked.get("P"), attributes))
    return nodes


def _nodes(W: Any, R: Any, B: Any, P: Any) -> list[dict[str, Named]]:
    """The arrays of each node, by ONNX's names for them."""
    given = {name: value for name, value in (("W", W), ("R", R), ("B", B), ("P", P)) if value is not None}
    if not isinstance(W, list | tuple):
        return [{name: check_array(WHO, name, value) for name, value in given.items()}]
    counts = {name: len(value) if isinstance(value, list | tuple) else 1 for name, value in given.items()}
    if len(set(counts.values())) > 1 or not len(W):
        got = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ShapeError(explain(f"{WHO}: lists of arrays need one of each for every node.", got=got))
    return [
        {name: check_array(WHO, f"{name} of layer {at}", value[at]) for name, value in given.items()} for at in range(len(W))
    ]


def _direction(W: Named, direction: str | None) -> str:
    """The node's direction, checked against the number of directions in W."""
    directions = W.value.shape[0]
    direction = _text(direction) if direction is not None else "bidirectional" if directions == 2 else "forward"
    if direction not in DIRECTIONS:
        raise ConfigError(f"{WHO}: " + unknown_name("direction", direction, DIRECTIONS))
    if DIRECTIONS[direction] != directions:
        raise ShapeError(
            explain(
                f"{WHO}: the first axis of {W.name} is the number of directions, D.",
                got=f"{W.name} {W.value.shape}, direction='{direction}'",
                expected=f"D = {DIRECTIONS[direction]}",
            )
        )
    return direction


def _activations(kind: str, activations: Sequence[str] | None, directions: int) -> tuple[str, ...]:
    """The activations of one direction, spelled as in the table; all directions must have the same."""
    if activations is None:
        default: tuple[str, ...] = next(row.settings["activations"] for row in ONNX.counterparts if row.kind == kind)
        return default
    known = {name.lower(): name for row in ONNX.counterparts for name in row.settings["activations"]}
    names = [known.get(_text(name).lower(), _text(name)) for name in activations]
    each = len(names) // directions
    if names != names[:each] * directions:
        raise ConfigError(
            explain(f"{WHO}: every direction must have the same activations.", got=str(names), advice="make two layers of it")
        )
    return tuple(names[:each])


def _text(value: Any) -> str:
    """A string attribute, which ONNX keeps as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_node(
    row: Counterpart, node: Mapping[str, Named], directions: int, features: int | None, hidden_size: int | None
) -> int:
    """Check the shapes of one node's arrays and return its hidden size.

    Args:
        row: what the node is.
        node: its arrays.
        directions: D.
        features: of the node below; None for the first.
        hidden_size: what the attribute says, if it is there.
    """
    gates = len(row.layout["W"])
    many = f"{gates}H" if gates > 1 else "H"
    node["W"].check_axes(WHO, f"D, {many}, I")
    node["R"].check_axes(WHO, f"D, {many}, H")
    # Sizes are read so that a transposed matrix is found to be one: H is the smaller axis of its matrix.
    hidden = min(node["R"].value.shape[1:]) if hidden_size is None else hidden_size
    W = node["W"].value.shape
    turned = W[2] == gates * hidden != W[1]
    inputs = W[1 if turned else 2] if features is None else features
    node["R"].check_shape(WHO, f"D, {many}, H", (directions, gates * hidden, hidden))
    node["W"].check_shape(WHO, f"D, {many}, I", (directions, gates * hidden, inputs))
    for name, axes in (("B", f"D, {2 * gates}H"), ("P", "D, 3H")):
        if name in node:
            node[name].check_shape(WHO, axes, (directions, len(row.layout[name]) * hidden))
    return hidden
