"""Splitting data where no validation data were given."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from carousel.errors import DataError, explain

if TYPE_CHECKING:
    from carousel.data import Example

__all__ = ["hold_out"]


def hold_out(examples: Sequence[Example], *, seed: int, share: float = 0.1) -> tuple[list[Example], list[Example]]:
    """Split off validation data, the same share of every label, always the same for the same seed.

    Args:
        examples: labelled examples. Not changed.
        seed: chooses which.
        share: of each label, rounded; a label with at least two examples gives at least one.

    Returns:
        The rest and the share, each in the order of `examples`.

    Raises:
        DataError: no label has two examples.
    """
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(str(example.label), []).append(place)
    held: set[int] = set()
    for label in sorted(places):
        count = max(1, round(share * len(places[label]))) if len(places[label]) > 1 else 0
        # Not cryptography: a stable choice.
        held.update(random.Random(f"{seed}/{label}").sample(places[label], count))  # noqa: S311
    if not held:
        raise DataError(
            explain("too few examples to hold out a part for validation.", got=str(Counter(e.label for e in examples))),
            path=examples[0].path,
        )
    rest = [example for place, example in enumerate(examples) if place not in held]
    return rest, [example for place, example in enumerate(examples) if place in held]
