"""What parameters and states that a user gives must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.errors import ConfigError, DataError, ShapeError, explain
from carousel.structured.hmm.sequences import Joined, Lengths, join

__all__ = ["chances", "shapes", "told_states"]


def chances(values: Mapping[str, Tensor]) -> None:
    """Rows of probabilities are not negative and sum to 1.

    Raises:
        ConfigError: some do not.
    """
    for name in ("start", "transition", "symbols", "weights"):
        if name in values:
            sums = values[name].sum(-1)
            if not bool((values[name] >= 0).all()) or not bool(torch.isclose(sums, torch.ones_like(sums), atol=1e-6).all()):
                what = f"HMM: rows of {name} are probabilities: not negative, and of sum 1."
                raise ConfigError(explain(what, got=f"{values[name].tolist()}"[:200]))


def shapes(values: Mapping[str, Tensor], wanted: Mapping[str, tuple[int | str, ...]], sizes: dict[int | str, int]) -> None:
    """All are there, and their axes agree.

    Args:
        values: by name.
        wanted: the axes of each, by letters.
        sizes: letters that are known already.

    Raises:
        ShapeError: a name is missing or unknown, or an axis disagrees.
    """
    if set(wanted) != set(values):
        raise ShapeError(explain("HMM: parameters.", got=", ".join(sorted(values)), expected=", ".join(sorted(wanted))))
    for name, axes in wanted.items():
        shape = tuple(values[name].shape)
        if len(shape) != len(axes) or any(sizes.setdefault(axis, n) != n for axis, n in zip(axes, shape, strict=True)):
            expected = "(" + ", ".join(f"{axis}={sizes[axis]}" if axis in sizes else str(axis) for axis in axes) + ")"
            raise ShapeError(explain(f"HMM: {name} does not fit.", got=f"{shape}", expected=expected))


def told_states(states: Any, data: Joined, lengths: Lengths, num_states: int) -> Tensor:
    """(N,), int64; -1 where it is not known.

    Raises:
        ShapeError: there is not one for each step.
        DataError: one is not a state.
    """
    joined = join(states, lengths)
    if not np.array_equal(joined.lengths, data.lengths):
        got = f"{len(joined.values)} states, {len(data.values)} steps"
        raise ShapeError(explain("HMM: each step has one state, or -1.", got=got))
    values = joined.values
    if values.ndim != 1 or values.dtype.kind not in "iu" or ((values < -1) | (values >= num_states)).any():
        got, expected = f"{values.dtype}, up to {values.max(initial=0)}", f"integers, -1 to {num_states - 1}"
        raise DataError(explain("HMM: a state is not one.", got=got, expected=expected))
    return torch.from_numpy(values.astype(np.int64))
