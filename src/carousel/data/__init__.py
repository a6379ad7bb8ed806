"""Data files in, batches out: readers, tokens, vocabularies, and batches of similar lengths.

A reader gives :class:`Example` objects or one :class:`~carousel.errors.DataError` that names file and line.
Only the batches need a tensor library, and it is imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from carousel.data.files import numbered_lines, read_json, replacing, write_json
from carousel.data.labels import LabelSet
from carousel.data.readers import FORMATS, Example, labelled_examples, read_labelled
from carousel.data.tokenizer import Tokenizer
from carousel.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    from carousel.data.batching import Batch, BucketedBatches
    from carousel.data.file_report import FileReport, describe_file
    from carousel.data.sequences import Sequences
    from carousel.data.series import SERIES_FORMATS, read_series
    from carousel.data.series_values import Series
    from carousel.data.vectors import Coverage, WordVectors, read_vectors

__all__ = [
    "FORMATS",
    "SERIES_FORMATS",
    "Batch",
    "BucketedBatches",
    "Coverage",
    "Example",
    "FileReport",
    "LabelSet",
    "Sequences",
    "Series",
    "Tokenizer",
    "Vocabulary",
    "WordVectors",
    "describe_file",
    "labelled_examples",
    "numbered_lines",
    "read_json",
    "read_labelled",
    "read_series",
    "read_vectors",
    "replacing",
    "write_json",
]

# What needs a tensor library or NumPy, and the module it stands in.
_LATER = {
    "Batch": "batching",
    "BucketedBatches": "batching",
    "Coverage": "vectors",
    "FileReport": "file_report",
    "SERIES_FORMATS": "series",
    "Sequences": "sequences",
    "Series": "series_values",
    "WordVectors": "vectors",
    "describe_file": "file_report",
    "read_series": "series",
    "read_vectors": "vectors",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module("carousel.data." + _LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
