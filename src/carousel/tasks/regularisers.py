"""What the networks of several tasks do against learning by heart, by the options that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor
from torch.nn import functional

from carousel.nn import VariationalDropout, WeightDrop, Zoneout

if TYPE_CHECKING:
    from carousel.graph.transforms import Transform

__all__ = ["Regularised", "cell_transforms", "drop_features"]


class Regularised(Protocol):
    """Options of a recurrent layer."""

    @property
    def recurrent_dropout(self) -> float:
        """Share of units that products with the state do not see."""

    @property
    def zoneout(self) -> float:
        """Share of units that keep their state."""

    @property
    def weight_drop(self) -> float:
        """Share of recurrent weights dropped."""


def cell_transforms(options: Regularised) -> list[Transform]:
    """The transforms that the options ask for.

    Args:
        options: those of a task.
    """
    found: list[Transform] = []
    if options.recurrent_dropout:
        found.append(VariationalDropout(state=options.recurrent_dropout))
    if options.zoneout:
        found.append(Zoneout(options.zoneout))
    if options.weight_drop:
        found.append(WeightDrop(options.weight_drop, "U_*"))
    return found


def drop_features(x: Tensor, share: float, *, steps: int | None) -> Tensor:
    """Dropout, in training.

    Args:
        x: features.
        share: of them that are dropped.
        steps: the axis of the steps, at all of which the same ones are dropped (variational dropout); None draws anew at each.
    """
    if steps is None:
        return functional.dropout(x, share)
    shape = [1 if axis == steps else size for axis, size in enumerate(x.shape)]
    return x * (x.new_empty(shape).bernoulli_(1 - share) / (1 - share))
