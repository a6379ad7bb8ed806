"""Records as rows of numbers beside their answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.tasks.classify.options import ClassifierOptions
from carousel.tasks.classify.records import MEMORY_LIMIT, Records
from carousel.tasks.classify.sources import Source
from carousel.tasks.classify.targets import Target

if TYPE_CHECKING:
    from carousel.data import Sequences

__all__ = ["Rows", "encode_rows"]

SHARE_OF_ROWS = 4  # the part of the memory that rows may take before they go to disk


@dataclass(frozen=True)
class Rows:
    """N records as numbers.

    Args:
        sequences: the inputs.
        answers: (N,) or (N, V), what the network is trained on.
        texts: each record in one line, for a person; empty if nobody will see them.
        places: where each record stands, as ``file:line``; empty likewise.
    """

    sequences: Sequences
    answers: NDArray[Any]
    texts: list[str]
    places: list[str]


def encode_rows(records: Records, source: Source, target: Target, options: ClassifierOptions, *, shown: bool = True) -> Rows:
    """Turn records into numbers, in one walk through them.

    Args:
        records: the records.
        source: how their inputs are coded.
        target: how their answers are coded.
        options: `memory_limit` says when rows go to disk.
        shown: whether texts and places are kept, if the records are.

    Raises:
        DataError: a record does not fit what was learned from the training data; the message names file and line.
    """
    from carousel.data import Sequences

    answers, texts, places = target.new_store(), [], []

    def rows() -> Iterator[Any]:
        for record in records.walk():
            answers.append(target.encode(record))
            if shown and records.kept:
                texts.append(source.shown(record))
                places.append(f"{record.path}:{record.line}")
            yield source.encode(record)

    limit = ((options.memory_limit or MEMORY_LIMIT) << 20) // SHARE_OF_ROWS
    sequences = Sequences.build(rows(), dtype=source.dtype, memory_limit=limit)
    return Rows(sequences, np.array(answers), texts, places)
