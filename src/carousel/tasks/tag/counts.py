"""Spans of right, found and true, counted from the numbers of tags: what training watches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from carousel.data.tagged import spans

__all__ = ["SpanCounter"]

Integers = npt.NDArray[np.int64]


class SpanCounter:
    """Counts spans without making them, some thousand tokens a millisecond.

    Whether a span begins at a token depends on it and the one before, whether one ends on it and the one behind: all pairs
    of tags are looked up once, as :func:`carousel.data.tagged.spans` reads them.

    Args:
        labels: K tags, by their numbers.
        scheme: that they are written in.
    """

    def __init__(self, labels: Sequence[str], scheme: str) -> None:
        K = len(labels)
        letters = sorted({label.partition("-")[0] for label in labels})
        kinds = sorted({label.partition("-")[2] for label in labels})
        letter = np.array([letters.index(label.partition("-")[0]) for label in labels], np.int64)
        # The number K is what stands before and behind a sentence, and a tag that is not known: outside all spans.
        self.kind = np.array([*(kinds.index(label.partition("-")[2]) for label in labels), 0], np.int64)
        same = self.kind[:K, None] == self.kind[None, :K]
        both = {kind: _borders(letters, kind, scheme) for kind in ("X", "Y")}
        self.begins, self.ends = (np.zeros((K + 1, K + 1), np.bool_) for _ in range(2))
        for at, found in enumerate((self.begins, self.ends)):
            found[:K, :K] = np.where(same, both["X"][at][letter[:, None], letter], both["Y"][at][letter[:, None], letter])
        inside = np.array([label != "O" for label in labels])
        self.begins[K, :K] = self.ends[:K, K] = inside

    def spans(self, tags: Integers, lengths: Integers) -> Integers:
        """(P, 3): where each span begins and ends among all tokens, and the number of its type.

        Args:
            tags: (S,), numbers of tags, one sentence behind the other; below 0 for an unknown one.
            lengths: (N,), tokens of each sentence.
        """
        K = len(self.kind) - 1
        tags = np.where(tags < 0, K, tags)
        sizes = lengths[lengths > 0]
        last = np.cumsum(sizes) - 1
        before = np.roll(tags, 1)
        before[last - sizes + 1] = K
        behind = np.roll(tags, -1)
        behind[last] = K
        begins, ends = np.flatnonzero(self.begins[before, tags]), np.flatnonzero(self.ends[tags, behind])
        return np.stack([begins, ends + 1, self.kind[tags[begins]]], 1)

    def count(self, answers: Integers, truth: Integers, lengths: Integers) -> tuple[int, int, int]:
        """Spans that are right, that are answered, and that are true.

        Args:
            answers: (S,), numbers of tags.
            truth: (S,), numbers of tags.
            lengths: (N,), tokens of each sentence.
        """
        if not len(truth):
            return 0, 0, 0
        found, true = self.spans(answers, lengths), self.spans(truth, lengths)
        S, C = len(truth) + 1, len(self.kind)
        mine, theirs = ((each[:, 0] * S + each[:, 1]) * C + each[:, 2] for each in (found, true))
        return len(np.intersect1d(mine, theirs, assume_unique=True)), len(found), len(true)


def _borders(letters: Sequence[str], kind: str, scheme: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """For each letter of type X, and each of type `kind` behind it: whether a span begins or ends between the two."""
    found = [[spans([_tag(a, "X"), _tag(b, kind)], scheme) for b in letters] for a in letters]
    begins = [[any(begin == 1 for begin, _, _ in pair) for pair in row] for row in found]
    ends = [[any(end == 1 for _, end, _ in pair) for pair in row] for row in found]
    return np.array(begins, np.bool_), np.array(ends, np.bool_)


def _tag(letter: str, kind: str) -> str:
    return letter if letter == "O" else f"{letter}-{kind}"
