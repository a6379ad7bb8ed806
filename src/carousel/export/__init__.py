"""What leaves this library for others, and what comes in from them: weights to and from other frameworks."""

from carousel.export.weights import (
    GATE_ORDERS,
    GateOrder,
    OnnxNode,
    from_keras,
    from_onnx,
    from_torch,
    permute_gates,
    to_keras,
    to_onnx,
    to_torch,
)

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
