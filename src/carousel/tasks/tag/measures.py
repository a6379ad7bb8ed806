"""What a tagger said about tagged sentences, and the scores that follow: of tags, of spans, of words cut from characters."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carousel.data.tagged import Span, spans
from carousel.errors import ConfigError, DataError, ShapeError, explain

if TYPE_CHECKING:
    from carousel.tasks.intervals import Interval

__all__ = ["TagEvaluation", "conlleval"]

Floats = NDArray[np.float64]

# What is counted in each sentence. Every score is a quotient of sums of these.
_COUNTED = (
    *("tokens", "right", "known", "known_right", "unknown", "unknown_right"),
    *("sentences", "sentences_right", "true", "found", "both", "new", "new_both"),
)
_AT = {name: at for at, name in enumerate(_COUNTED)}
MISSED, INVENTED = "(missed)", "(invented)"


@dataclass(frozen=True, eq=False)
class TagEvaluation:
    """Answers beside the truth, for N sentences.

    Args:
        words: of each sentence; characters, where words are cut from them.
        truth: the true tags of each sentence.
        answers: the tags a model gives.
        scheme: how the tags mark spans, one of `TAG_SCHEMES`; None: they do not.
        known: the words of the training data; None: nothing is said about known and unknown words.
        segmentation: whether spans are the words of a text: what is new is then a word of several characters, not a token.

    Raises:
        ShapeError: the arguments disagree about sentences or their lengths.
        DataError: there is no token, or a tag is not one of the scheme's.
        ConfigError: there is no such scheme, or segmentation without one.

    Example:
        >>> one = TagEvaluation([["New", "York", "is"]], [["B-LOC", "I-LOC", "O"]], [["B-LOC", "O", "O"]], scheme="bio")
        >>> {name: round(value, 3) for name, value in one.scores().items() if name in ("accuracy", "f1", "count")}
        {'f1': 0.0, 'accuracy': 0.667, 'count': 3}
    """

    words: Sequence[Sequence[str]] = field(repr=False)
    truth: Sequence[Sequence[str]] = field(repr=False)
    answers: Sequence[Sequence[str]] = field(repr=False)
    scheme: str | None = None
    known: Container[str] | None = field(default=None, repr=False)
    segmentation: bool = False

    def __post_init__(self) -> None:
        lengths = [len(words) for words in self.words]
        for name in ("truth", "answers"):
            got = [len(tags) for tags in getattr(self, name)]
            if got != lengths:
                same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(got, lengths, strict=False)))
                what = f"TagEvaluation: {name} does not fit the words, at sentence {same} counted from 0."
                raise ShapeError(explain(what, got=f"{len(got)} sentences", expected=f"{len(lengths)}, of the same lengths"))
        if not sum(lengths):
            raise DataError("there is nothing to evaluate: no tokens.")
        if self.segmentation and self.scheme is None:
            raise ConfigError("TagEvaluation: segmentation needs the scheme of the tags.")

    def __len__(self) -> int:
        return len(self.words)

    def scores(self) -> dict[str, float]:
        """All scores by name, 0 to 1.

        Returns:
            With spans `precision`, `recall` and `f1`, as ``conlleval`` counts; for segmentation also `oov_recall`, the share
            found of the true words that training has not seen. `accuracy` of tags; `known_accuracy` and `unknown_accuracy`
            of words that training has seen and has not; `sentence_accuracy`, the share without a mistake; `count` of
            tokens. Shares of nothing are left out.
        """
        sums = self.statistics(slice(None)).sum(axis=0)
        return {name: float(value) for name, value in self.scores_of(sums).items()} | {"count": int(sums[_AT["tokens"]])}

    def statistics(self, rows: slice | NDArray[np.int64]) -> Floats:
        """What the scores need of some sentences, such that sums are enough.

        Args:
            rows: which sentences.

        Returns:
            (n, K), to be summed over any sentences and given to :meth:`scores_of`.
        """
        return self._counts[0][rows]

    def scores_of(self, sums: Floats) -> dict[str, Floats]:
        """The scores that follow from sums of :meth:`statistics`.

        Args:
            sums: (..., K).

        Returns:
            Score to values (...), without `count`.
        """
        there = self._counts[0].sum(axis=0)

        def share(part: str, whole: str) -> Floats:
            return np.asarray(sums[..., _AT[part]] / np.maximum(1, sums[..., _AT[whole]]))

        found: dict[str, Floats] = {}
        if self.scheme is not None:
            found["precision"], found["recall"] = share("both", "found"), share("both", "true")
            either = sums[..., _AT["found"]] + sums[..., _AT["true"]]
            found["f1"] = np.asarray(2 * sums[..., _AT["both"]] / np.maximum(1, either))
        if self.segmentation and there[_AT["new"]]:
            found["oov_recall"] = share("new_both", "new")
        found["accuracy"] = share("right", "tokens")
        for name in ("known", "unknown"):
            if there[_AT[name]]:
                found[f"{name}_accuracy"] = share(f"{name}_right", name)
        return found | {"sentence_accuracy": share("sentences_right", "sentences")}

    def intervals(self, *, seed: int = 0) -> dict[str, Interval]:
        """The 95 % bootstrap intervals of all scores; sentences are drawn again.

        Args:
            seed: chooses the draws.
        """
        from carousel.tasks.intervals import bootstrap

        return bootstrap(self, seed=seed)

    def table(self) -> list[dict[str, Any]]:
        """One row for each type of span, or for each tag where there are no spans.

        Returns:
            `label`, `precision`, `recall`, `f1` (0 to 1; None where nothing was answered or nothing is true), `support`
            (how many there truly are), `answered`; most frequent first.
        """
        true, found, both = self._counts[1:4]
        rows = []
        for label in sorted(set(true) | set(found), key=lambda label: (-true[label], label)):
            b, a, s = both[label], found[label], true[label]
            precision, recall = (b / a if a else None), (b / s if s else None)
            shown = {"precision": precision, "recall": recall, "f1": 2 * b / (a + s), "support": s, "answered": a}
            rows.append({"label": label, **shown})
        return rows

    def confusions(self, limit: int | None = None) -> list[dict[str, Any]]:
        """What is taken for what, most frequent first.

        Args:
            limit: how many; None: all.

        Returns:
            `true`, `answered` and `count`. Without spans, tags. With spans, types where begin and end are right, and spans
            that are missed or invented.
        """
        wrong: Counter[tuple[str, str]] = self._counts[4]
        order = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return [{"true": true, "answered": answered, "count": count} for (true, answered), count in order]

    def to_dict(self) -> dict[str, Any]:
        """Scores with intervals, table and confusions, as JSON can hold them."""
        return {
            "scores": self.scores(),
            "intervals": {name: interval.to_dict() for name, interval in self.intervals().items()},
            "table": self.table(),
            "confusions": self.confusions(100),
        }

    @cached_property
    def _counts(self) -> tuple[Floats, Counter[str], Counter[str], Counter[str], Counter[tuple[str, str]]]:
        """(N, K) counts; true, found and right ones by type; mistakes."""
        true: Counter[str] = Counter()
        found: Counter[str] = Counter()
        both: Counter[str] = Counter()
        wrong: Counter[tuple[str, str]] = Counter()
        rows = np.zeros((len(self.words), len(_COUNTED)))
        for row, words, truth, answers in zip(rows, self.words, self.truth, self.answers, strict=True):
            for name, value in self._of_tags(words, truth, answers).items():
                row[_AT[name]] = value
            if self.scheme is None:
                true.update(truth)
                found.update(answers)
                both.update(a for a, b in zip(truth, answers, strict=True) if a == b)
                wrong.update((a, b) for a, b in zip(truth, answers, strict=True) if a != b)
                continue
            wanted, given = (set(spans(tags, self.scheme)) for tags in (truth, answers))
            met = wanted & given
            for counter, these in ((true, wanted), (found, given), (both, met)):
                counter.update(kind for _, _, kind in these)
            wrong.update(_mistaken(wanted - met, given - met))
            row[[_AT["true"], _AT["found"], _AT["both"]]] = len(wanted), len(given), len(met)
            if self.segmentation and self.known is not None:
                new = {span for span in wanted if "".join(words[span[0] : span[1]]) not in self.known}
                row[[_AT["new"], _AT["new_both"]]] = len(new), len(new & met)
        return rows, true, found, both, wrong

    def _of_tags(self, words: Sequence[str], truth: Sequence[str], answers: Sequence[str]) -> Mapping[str, int]:
        right = [a == b for a, b in zip(truth, answers, strict=True)]
        found = {"tokens": len(words), "right": sum(right), "sentences": 1, "sentences_right": int(all(right))}
        if self.known is None or self.segmentation:
            return found
        seen = [word in self.known for word in words]
        known_right = sum(a and b for a, b in zip(seen, right, strict=True))
        found |= {"known": sum(seen), "known_right": known_right}
        return found | {"unknown": len(words) - sum(seen), "unknown_right": sum(right) - known_right}


def conlleval(evaluation: TagEvaluation) -> str:
    """The scores of spans in the words of the script of that name, percent.

    Args:
        evaluation: with a scheme.

    Example:
        >>> one = TagEvaluation([["New", "York", "is"]], [["B-LOC", "I-LOC", "O"]], [["B-LOC", "I-LOC", "O"]], scheme="bio")
        >>> print(conlleval(one).splitlines()[1])
        accuracy: 100.00%; precision: 100.00%; recall: 100.00%; FB1: 100.00
    """
    scores, rows = evaluation.scores(), evaluation.table()
    true, found = (sum(row[name] for row in rows) for name in ("support", "answered"))
    right = round(scores["precision"] * found)
    lines = [
        f"processed {scores['count']} tokens with {true} phrases; found: {found} phrases; correct: {right}.",
        f"accuracy: {100 * scores['accuracy']:6.2f}%; {_percent(scores)}",
    ]
    for row in sorted(rows, key=lambda row: str(row["label"])):
        values = {name: row[name] or 0.0 for name in ("precision", "recall", "f1")}
        lines.append(f"{row['label']:>17}: {_percent(values)}  {row['answered']}")
    return "\n".join(lines)


def _percent(scores: Mapping[str, float]) -> str:
    precision, recall, f1 = (100 * scores[name] for name in ("precision", "recall", "f1"))
    return f"precision: {precision:6.2f}%; recall: {recall:6.2f}%; FB1: {f1:6.2f}"


def _mistaken(missed: set[Span], invented: set[Span]) -> list[tuple[str, str]]:
    """Pairs of types: spans at the same place, and those that stand alone."""
    there = {(begin, end): kind for begin, end, kind in invented}
    found = [(kind, there.pop((begin, end), MISSED)) for begin, end, kind in sorted(missed)]
    return found + [(INVENTED, kind) for kind in there.values()]
