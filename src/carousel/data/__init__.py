"""Data files in, batches out: readers, tokens, vocabularies, and batches of similar lengths.

A reader gives :class:`Example` objects or one :class:`~carousel.errors.DataError` that names file and line.
Only the batches need a tensor library, and it is imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carousel.data.files import numbered_lines, read_json, replacing, write_json
from carousel.data.readers import FORMATS, Example, read_labelled
from carousel.data.tokenizer import Tokenizer
from carousel.data.vocabulary import LabelSet, Vocabulary

if TYPE_CHECKING:
    from carousel.data.batching import Batch, BucketedBatches

__all__ = [
    "FORMATS",
    "Batch",
    "BucketedBatches",
    "Example",
    "LabelSet",
    "Tokenizer",
    "Vocabulary",
    "numbered_lines",
    "read_json",
    "read_labelled",
    "replacing",
    "write_json",
]

_NEED_TORCH = ("Batch", "BucketedBatches")


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        from carousel.data import batching

        return getattr(batching, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NEED_TORCH})
