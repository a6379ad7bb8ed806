"""Weights to and from other frameworks: torch's modules, Keras's arrays, ONNX's initialisers.

What is converted is what evaluation computes: the same weights give the same outputs there and here. What acts in training
alone (dropout, penalties) has no weights and is left behind, except that torch's `dropout` between layers is kept.
`docs/weights.md` shows each framework's arrays beside ours.
"""

from carousel.export.weights.dialects import GATE_ORDERS, GateOrder, permute_gates
from carousel.export.weights.keras import from_keras, to_keras
from carousel.export.weights.onnx import OnnxNode, from_onnx, to_onnx
from carousel.export.weights.torch import from_torch, to_torch

__all__ = [
    "GATE_ORDERS",
    "GateOrder",
    "OnnxNode",
    "from_keras",
    "from_onnx",
    "from_torch",
    "permute_gates",
    "to_keras",
    "to_onnx",
    "to_torch",
]
