"""Splitting data where no validation data were given."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from carousel.errors import DataError, explain

if TYPE_CHECKING:
    from carousel.data import Example

__all__ = ["HELD_OUT", "held_places", "hold_out", "hold_out_any"]

Item = TypeVar("Item")

HELD_OUT = 0.1


def held_places(groups: Iterable[tuple[str, ...]], *, seed: int, share: float = HELD_OUT) -> npt.NDArray[np.bool_]:
    """Choose which records are held out: the same share of every group, always the same for the same seed.

    It keeps a few bytes for each record, so that it works for data that are not kept in memory.

    Args:
        groups: the labels of each record; records with the same labels are a group.
        seed: chooses which.
        share: of each group, rounded; a group of at least two gives at least one. Records that are alone with several labels
            are one group together. A record stays if it is the last to have one of its labels.

    Returns:
        (N,), whether a record is held out.
    """
    numbers, names = _numbered(groups)
    sizes = np.bincount(numbers, minlength=len(names))
    # Sets of labels are often unique: without a group for these nothing would be held out.
    loose = np.array([sizes[number] == 1 and len(name) > 1 for number, name in enumerate(names)], np.bool_)
    pooled = np.where(loose[numbers], len(names), numbers) if len(names) else numbers
    order = np.argsort(pooled, kind="stable")
    held = np.zeros(len(numbers), np.bool_)
    ends = np.cumsum(np.bincount(pooled, minlength=len(names) + 1))
    for number, name in enumerate([*names, ("several",)]):
        places = order[ends[number - 1] if number else 0 : ends[number]]
        count = max(1, round(share * len(places))) if len(places) > 1 else 0
        # Not cryptography: a stable choice.
        chosen = random.Random(f"{seed}/{'/'.join(name)}").sample(range(len(places)), count)  # noqa: S311
        held[places[chosen]] = True
    _keep_last_ones(held, numbers, names)
    return held


def hold_out(examples: Sequence[Example], *, seed: int, share: float = HELD_OUT) -> tuple[list[Example], list[Example]]:
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
    held = held_places(((str(example.label),) for example in examples), seed=seed, share=share)
    if not held.any():
        raise DataError(
            explain("too few examples to hold out a part for validation.", got=str(Counter(e.label for e in examples))),
            path=examples[0].path,
        )
    rest = [example for example, out in zip(examples, held, strict=True) if not out]
    return rest, [example for example, out in zip(examples, held, strict=True) if out]


def hold_out_any(items: Sequence[Item], *, seed: int, what: str) -> tuple[list[Item], list[Item]]:
    """Split off a tenth of items without labels for validation, always the same for the same seed.

    Args:
        items: not changed.
        seed: chooses which.
        what: they are, for the message.

    Returns:
        The rest and the tenth, each in the order of `items`.

    Raises:
        DataError: there is only one.
    """
    if len(items) < 2:
        raise DataError(explain(f"too few {what} to hold out a part for validation.", got="1", advice="give valid"))
    # Not cryptography: a stable choice.
    chosen = set(random.Random(seed).sample(range(len(items)), round(HELD_OUT * len(items)) or 1))  # noqa: S311
    rest = [item for at, item in enumerate(items) if at not in chosen]
    return rest, [items[at] for at in sorted(chosen)]


def _numbered(groups: Iterable[tuple[str, ...]]) -> tuple[npt.NDArray[np.int32], list[tuple[str, ...]]]:
    known: dict[tuple[str, ...], int] = {}
    numbers = array("i", (known.setdefault(group, len(known)) for group in groups))
    return np.array(numbers, np.int32), list(known)


def _keep_last_ones(held: npt.NDArray[np.bool_], numbers: npt.NDArray[np.int32], names: list[tuple[str, ...]]) -> None:
    """Take back what holds a label that nothing else is left to learn from."""
    left = np.bincount(numbers[~held], minlength=len(names))
    learned = {label for name, count in zip(names, left, strict=True) if count for label in name}
    for place in np.flatnonzero(held).tolist():
        if missing := set(names[numbers[place]]) - learned:
            held[place] = False
            learned |= missing | set(names[numbers[place]])
