"""Key terms: the phrases that say what a document is about."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.tasks.keyterms.counting import DocumentCounts, textrank_terms, tfidf_terms
    from carousel.tasks.keyterms.documents import Document
    from carousel.tasks.keyterms.measures import RankedTerm, exact_match
    from carousel.tasks.keyterms.options import KeyTermsOptions
    from carousel.tasks.keyterms.task import KeyTerms

__all__ = [
    "Document",
    "DocumentCounts",
    "KeyTerms",
    "KeyTermsOptions",
    "RankedTerm",
    "exact_match",
    "textrank_terms",
    "tfidf_terms",
]

_MODULES = {
    "Document": "documents",
    "DocumentCounts": "counting",
    "KeyTerms": "task",
    "KeyTermsOptions": "options",
    "RankedTerm": "measures",
    "exact_match": "measures",
    "textrank_terms": "counting",
    "tfidf_terms": "counting",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module("carousel.tasks.keyterms." + _MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
