"""Which poems are held out, and which are read without their titles: always the same for the same seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from carousel.errors import DataError, explain
from carousel.tasks.poem.poems import Poem
from carousel.tasks.splits import HELD_OUT

__all__ = ["hold_out_poems", "without_titles"]


def hold_out_poems(poems: Sequence[Poem], *, seed: int) -> tuple[tuple[Poem, ...], tuple[Poem, ...]]:
    """Split off a tenth for validation; poems of the same lines stay together.

    Args:
        poems: all of them.
        seed: chooses.

    Returns:
        The rest and the tenth, both in their order.

    Raises:
        DataError: there is only one poem.
    """
    texts = list(dict.fromkeys(poem.text for poem in poems))
    if len(texts) < 2:
        got, advice = f"{len(texts)} poem", "give validation data"
        raise DataError(explain("too few poems to hold out a part for validation.", got=got, advice=advice))
    count = max(1, round(HELD_OUT * len(texts)))
    held = set(random.Random(seed).sample(texts, count))  # noqa: S311 - a choice that can be made again, no secret
    rest = tuple(poem for poem in poems if poem.text not in held)
    return rest, tuple(poem for poem in poems if poem.text in held)


def without_titles(poems: Sequence[Poem], share: float, *, seed: int) -> list[Poem]:
    """Take the titles from some poems; tunes stay.

    Args:
        poems: all of them. Not changed.
        share: of the poems.
        seed: chooses.
    """
    draw = random.Random(seed)  # noqa: S311 - a choice that can be made again, no secret
    return [dataclasses.replace(poem, title="") if draw.random() < share else poem for poem in poems]
