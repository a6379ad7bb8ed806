"""Language models: the next token of a text, and all that follows from knowing it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.tasks.lm.agreement import AgreementScore, agreement_sentences
    from carousel.tasks.lm.blanks import Blank, cut_blanks, fill_blanks
    from carousel.tasks.lm.options import LanguageModelOptions
    from carousel.tasks.lm.reading import Reading
    from carousel.tasks.lm.sampling import Sampling
    from carousel.tasks.lm.task import LanguageModel
    from carousel.tasks.lm.validity import ValidityScore, judge_validity
    from carousel.tasks.lm.vectors import correlation, nearest, write_vectors

__all__ = [
    "AgreementScore",
    "Blank",
    "LanguageModel",
    "LanguageModelOptions",
    "Reading",
    "Sampling",
    "ValidityScore",
    "agreement_sentences",
    "correlation",
    "cut_blanks",
    "fill_blanks",
    "judge_validity",
    "nearest",
    "write_vectors",
]

_MODULES = {
    "AgreementScore": "agreement",
    "Blank": "blanks",
    "LanguageModel": "task",
    "LanguageModelOptions": "options",
    "Reading": "reading",
    "Sampling": "sampling",
    "ValidityScore": "validity",
    "agreement_sentences": "agreement",
    "correlation": "vectors",
    "cut_blanks": "blanks",
    "fill_blanks": "blanks",
    "judge_validity": "validity",
    "nearest": "vectors",
    "write_vectors": "vectors",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module("carousel.tasks.lm." + _MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
