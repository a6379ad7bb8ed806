"""Recurrent networks from their equations.

Write one step of a cell over symbols (:class:`Cell`), run it over time with :class:`carousel.nn.Recurrent`, or train it for a
task with :mod:`carousel.tasks`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LANGUAGE = "carousel.graph"
_NAMES = (
    "Cell", "Initialiser", "Output", "activation", "chrono", "clamp", "constant", "cos", "cumsum", "elu", "equal",
    "erf", "exp", "expm1", "gelu", "glorot", "greater", "hard_sigmoid", "hard_tanh", "identity", "leaky_relu", "log",
    "logsumexp", "matvec", "max", "maximum", "mean", "minimum", "minus", "normal", "ones", "orthogonal", "outer",
    "product", "relu", "remainder", "reshape", "sigmoid", "sign", "silu", "sin", "size", "softmax", "softplus",
    "softsign", "sqrt", "stop_gradient", "sum", "tanh", "uniform", "vecmat", "where", "zeros",
)  # fmt: skip

__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    """Load the cell language at its first use, so that importing the package costs nothing."""
    if name in _NAMES:
        value = getattr(importlib.import_module(_LANGUAGE), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'carousel' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
