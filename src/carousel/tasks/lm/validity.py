"""Is a sentence valid? A threshold on what a language model thinks of it, chosen on labelled sentences."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carousel.data import numbered_lines
from carousel.errors import DataError, explain

if TYPE_CHECKING:
    import os

    from carousel.tasks.lm.task import LanguageModel

__all__ = ["ValidityScore", "judge_validity", "matthews", "read_judgements"]


@dataclass(frozen=True)
class ValidityScore:
    """How well a threshold tells valid sentences from others.

    Args:
        matthews: the Matthews correlation on the sentences that were judged, from -1 to 1; 0 is chance.
        accuracy: the share that was judged right.
        threshold: the score from which on a sentence is taken for valid: the mean log-probability of its tokens, less that
            of each token by itself.
        train_matthews: the correlation on the sentences that the threshold was chosen on.
        count: how many were judged.
    """

    matthews: float
    accuracy: float
    threshold: float
    train_matthews: float
    count: int


def read_judgements(path: str | os.PathLike[str]) -> list[tuple[str, bool]]:
    """Read sentences with judgements: CoLA's four columns (source, 0 or 1, mark, sentence), or two (0 or 1, sentence).

    Args:
        path: columns between tabs, without a header.

    Raises:
        DataError: the file cannot be read, or a line is written otherwise.
    """
    found = []
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        cells = next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE))
        if len(cells) not in (2, 4) or cells[-3 if len(cells) == 4 else 0] not in ("0", "1"):
            expected = "source, 0 or 1, mark and sentence between tabs, or 0 or 1 and sentence"
            raise DataError(explain("not a judged sentence.", got=line[:80], expected=expected), path=str(path), line=number)
        found.append((cells[-1], cells[-3 if len(cells) == 4 else 0] == "1"))
    if not found:
        raise DataError("there is no sentence.", path=str(path))
    return found


def judge_validity(model: LanguageModel, train: Sequence[tuple[str, bool]], test: Sequence[tuple[str, bool]]) -> ValidityScore:
    r"""Choose a threshold on some sentences, and judge others by it.

    The score of a sentence is :math:`\frac1N \sum_t \log \frac{p(x_t \mid x_{<t})}{u(x_t)}` (SLOR [1]): rare words alone
    do not make a sentence invalid. :math:`u` is how often a token occurs in the sentences of `train`, with one added to
    each count.

    Args:
        model: the language model.
        train: pairs (sentence, whether it is valid); the threshold is the one with the best Matthews correlation on them.
        test: the same, to be judged.

    References:
        [1] Lau, Clark, Lappin (2017), "Grammaticality, Acceptability, and Probability", Cognitive Science 41.
    """
    counts = np.ones(len(model.inputs_))
    for sentence, _ in train:
        np.add.at(counts, model.inputs_.encode(sentence), 1)
    usual = np.log(counts / counts.sum())

    def scores(pairs: Sequence[tuple[str, bool]]) -> npt.NDArray[np.float64]:
        found = []
        for line in model.score_lines([" ".join(sentence.splitlines()) for sentence, _ in pairs]):
            words = max(1, len(line.numbers) - model.inputs_.line_ends)
            found.append((line.total - usual[line.numbers[:words]].sum()) / words)
        return np.array(found)

    seen, truth = scores(train), np.array([valid for _, valid in train])
    threshold, best = _threshold(seen, truth)
    answers, right = scores(test) >= threshold, np.array([valid for _, valid in test])
    return ValidityScore(matthews(answers, right), float((answers == right).mean()), threshold, best, len(test))


def matthews(answers: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """The Matthews correlation of two rows of truth values; 0 where one of them has one value only.

    Args:
        answers: (N,).
        truth: (N,).

    Example:
        >>> matthews(np.array([True, True, False, False]), np.array([True, False, False, False]))
        0.5773502691896258
    """
    return _correlation(float((answers & truth).sum()), float(answers.sum()), float(truth.sum()), len(truth))


def _correlation(both: float, answered: float, true: float, count: int) -> float:
    spread = answered * (count - answered) * true * (count - true)
    return float((both * count - answered * true) / np.sqrt(spread)) if spread > 0 else 0.0


def _threshold(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold with the best correlation, and that; it lies half way between two scores."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    found = [
        (_correlation(float(hits[place]), place + 1.0, float(hits[-1]), len(scores)), place)
        for place in range(len(scores) - 1)
        if ranked[place] > ranked[place + 1]
    ]
    if not found:
        return float(ranked[-1]), 0.0
    best, place = max(found, key=lambda pair: (pair[0], -pair[1]))
    return float((ranked[place] + ranked[place + 1]) / 2), best
