"""From the scores of a vocabulary to the terms of a document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from carousel.tasks.keyterms.documents import Document, Term
from carousel.tasks.keyterms.measures import RankedTerm, rank

__all__ = ["places_of", "vocabulary_terms"]

KEPT = 100  # the best terms of a document


def places_of(document: Document, terms: Sequence[Term]) -> dict[Term, tuple[tuple[int, int], ...]]:
    """Where some terms stand in a document; those that stand nowhere are left out.

    Args:
        document: any document.
        terms: what to look for.
    """
    words, wanted = document.lowered, set(terms)
    found: dict[Term, list[tuple[int, int]]] = {}
    for n in sorted({len(term) for term in wanted}):
        for at in range(len(words) - n + 1):
            if words[at : at + n] in wanted:
                found.setdefault(words[at : at + n], []).append((at, at + n))
    return {term: tuple(places) for term, places in found.items()}


def vocabulary_terms(
    document: Document, terms: Sequence[Term], scores: npt.NDArray[np.float64], *, only_present: bool
) -> list[RankedTerm]:
    """The terms of a vocabulary by their probability, at most 100.

    Args:
        document: whose terms they are.
        terms: V terms.
        scores: (V,), before the sigmoid.
        only_present: whether terms that do not stand in the document are left out.

    Returns:
        The best first.
    """
    chances = np.exp(-np.logaddexp(0.0, -scores))
    order = np.argsort(-chances, kind="stable")
    if not only_present:
        order = order[:KEPT]
    places = places_of(document, [terms[at] for at in order.tolist()])
    found = [
        RankedTerm(terms[at], float(chances[at]), places.get(terms[at], ()))
        for at in order.tolist()
        if not only_present or terms[at] in places
    ]
    return rank(found)[:KEPT]
