"""Transforms: regularisers and norms that rewrite any cell's graph, so that none is written per cell.

A transform takes a traced step and returns another. In training its graph draws noise; in evaluation it computes the
expectation. Values are found by their names in the equations; a pattern such as ``U_*`` names several.
"""

from carousel.graph.transforms.dropout import (
    InputDropout,
    RecurrentDropout,
    StateDropout,
    VariationalDropout,
    WeightDrop,
    Zoneout,
)
from carousel.graph.transforms.norms import ClipState, Normalise, Projected
from carousel.graph.transforms.rewriting import Transform, apply_transforms

__all__ = [
    "ClipState",
    "InputDropout",
    "Normalise",
    "Projected",
    "RecurrentDropout",
    "StateDropout",
    "Transform",
    "VariationalDropout",
    "WeightDrop",
    "Zoneout",
    "apply_transforms",
]
