"""Ranked key terms, where the line between answered and not is drawn, and how good the answers are."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from carousel.errors import ShapeError, explain
from carousel.tasks.keyterms.documents import Term

__all__ = ["RankedTerm", "best_threshold", "exact_match", "rank"]

CUTS = (5, 10)


@dataclass(frozen=True, slots=True)
class RankedTerm:
    """A key term that was found.

    Args:
        term: its words, in small letters.
        score: from 0 to 1; a probability, or a share of the best score in the document.
        places: where it stands in the document: begin and end (not included).
    """

    term: Term
    score: float
    places: tuple[tuple[int, int], ...] = ()


def rank(found: Collection[RankedTerm]) -> list[RankedTerm]:
    """The best first; of equal ones the one that stands first in the document, then the one first in the alphabet.

    Args:
        found: the terms of a document.
    """
    return sorted(found, key=lambda one: (-one.score, one.places[0] if one.places else (math.inf,), one.term))


def exact_match(
    answers: Sequence[Sequence[RankedTerm]], truth: Sequence[Collection[Term]], threshold: float
) -> dict[str, float]:
    """Precision, recall and F1 of terms that match exactly, word by word.

    A term counts once in a document, however often it stands there. Counts are summed over all documents before they are
    divided (micro-averages).

    Args:
        answers: for each of N documents its terms, the best first, none twice.
        truth: for each its key terms.
        threshold: terms of at least this score are answered.

    Returns:
        `precision`, `recall` and `f1` of all that are answered; `f1_at_5` and `f1_at_10` of the so many best, answered or not;
        `count`, N.

    Raises:
        ShapeError: there are not as many answers as documents.

    Example:
        >>> found = [RankedTerm(("a",), 0.9), RankedTerm(("b",), 0.8), RankedTerm(("c",), 0.1)]
        >>> scores = exact_match([found], [[("a",), ("d",)]], 0.5)
        >>> scores["precision"], scores["recall"], scores["f1"], scores["f1_at_5"]
        (0.5, 0.5, 0.5, 0.4)
    """
    if len(answers) != len(truth):
        got = f"{len(answers)} answers, {len(truth)} documents"
        raise ShapeError(explain("exact_match: an answer for each document is needed.", got=got))
    wanted = sum(len(set(terms)) for terms in truth)
    kept = [[one.term for one in ranked if one.score >= threshold] for ranked in answers]
    precision, recall, f1 = _scores(kept, truth, wanted)
    found: dict[str, float] = {"precision": precision, "recall": recall, "f1": f1}
    for cut in CUTS:
        best = [[one.term for one in ranked[:cut]] for ranked in answers]
        found[f"f1_at_{cut}"] = _scores(best, truth, wanted)[2]
    return found | {"count": len(truth)}


def _scores(answers: Sequence[Sequence[Term]], truth: Sequence[Collection[Term]], wanted: int) -> tuple[float, float, float]:
    right = sum(len(set(terms) & set(true)) for terms, true in zip(answers, truth, strict=True))
    answered = sum(len(set(terms)) for terms in answers)
    return right / max(1, answered), right / max(1, wanted), 2 * right / max(1, answered + wanted)


def best_threshold(answers: Sequence[Sequence[RankedTerm]], truth: Sequence[Collection[Term]]) -> float:
    """The threshold with the best F1 of all documents together; halfway between the scores on both of its sides.

    Args:
        answers: for each document its terms, none twice.
        truth: for each its key terms.

    Returns:
        A score above 0; 0.5 where no answer is right.

    Example:
        >>> best_threshold([[RankedTerm(("a",), 0.9), RankedTerm(("b",), 0.5)]], [[("a",)]])
        0.7
    """
    pairs = sorted(
        ((one.score, one.term in true) for ranked, true in zip(answers, map(set, truth), strict=True) for one in ranked),
        reverse=True,
    )
    wanted = sum(len(set(terms)) for terms in truth)
    best, threshold, right = 0.0, 0.5, 0
    for answered, (score, good) in enumerate(pairs, 1):
        right += good
        below = pairs[answered][0] if answered < len(pairs) else 0.0
        if below < score and 2 * right / (answered + wanted) > best:
            best, threshold = 2 * right / (answered + wanted), (score + below) / 2
    return threshold
