"""Words completed piece by piece: a beam search over characters, bytes or subwords to the end of the word."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carousel.data.subwords import token_bytes
from carousel.tasks.lm.inputs import UNKNOWN

if TYPE_CHECKING:
    from carousel.tasks.lm.reading import Reading

__all__ = ["PieceCompleter"]

STEPS = {"char": 24, "byte": 24, "subword": 8}  # pieces of a completion
SURE = 0.3  # in a script without blanks a completion goes on while the next piece has at least this probability
UNSPACED = "\u0e00"  # scripts without blanks begin with Thai


@dataclass(frozen=True, slots=True)
class _Way:
    """A completion that is being searched.

    Args:
        score: its log-probability.
        added: its bytes, what is typed of them included.
        rest: what is typed and not reached yet.
        begun: a word has begun, here or in what is typed.
    """

    score: float
    added: bytes
    rest: bytes
    begun: bool


class PieceCompleter:
    """Searches for the likeliest ends of a word.

    A word ends before a blank or a sign; the probability of its end is that of all tokens that begin with one. In a script
    without blanks it ends where the model is not sure any more how to go on. A sign by itself is a completion, too.

    Args:
        names: the tokens by their numbers.
        unit: char, byte or subword.
        end: the number of a line's end.
        count: completions to find.
    """

    def __init__(self, names: Sequence[str], unit: str, end: int, count: int) -> None:
        self._count, self._beam, self._steps = count, max(8, 2 * count), STEPS[unit]
        self._bytes = [name.encode("utf-8", "replace") if unit == "char" else token_bytes(name) for name in names]
        texts = [piece.decode("utf-8", "ignore") for piece in self._bytes]
        # A part of a character belongs to a word: only its bytes are known.
        self._signs = np.array([bool(text) and not text[0].isalnum() for text in texts])
        self._blank = np.array([text.isspace() for text in texts])
        self._begins = np.array([not text or any(map(str.isalnum, text)) for text in texts])
        self._unspaced = np.array([bool(text) and text[-1].isalnum() and text[-1] >= UNSPACED for text in texts])
        self._signs[end] = self._blank[end] = True
        self._signs[UNKNOWN] = self._blank[UNKNOWN] = True  # never written
        self._ends = self._signs.copy()
        self._ends[UNKNOWN] = False
        self._sorted = sorted((piece, number) for number, piece in enumerate(self._bytes) if number != UNKNOWN)
        self._number = dict(reversed(self._sorted))
        self._order = np.array([number for _, number in self._sorted], np.int64)

    def run(self, reading: Reading, prefix: str, inside: bool) -> list[tuple[str, float]]:
        """Complete.

        Args:
            reading: one text, up to where the search begins; not changed.
            prefix: what is typed behind it.
            inside: whether the text ends in the middle of a word.

        Returns:
            What is to be added, and its probability given all that is typed; the likeliest first.
        """
        typed = prefix.encode("utf-8", "replace")
        ways, last = [_Way(0.0, b"", typed, inside)], [-1]
        done: list[tuple[float, bytes]] = []
        mass = 0.0 if typed else 1.0
        for _ in range(self._steps):
            found: list[tuple[float, int, int]] = []
            for row, way in enumerate(ways):
                scores = reading.log_probabilities[row].astype(np.float64)
                if way.rest:
                    numbers, reached = self._agreeing(way.rest)
                    mass += math.exp(way.score) * float(np.exp(scores[reached]).sum())
                else:
                    numbers = self._following(way, scores, last[row], done)
                found += [(way.score + scores[number], row, number) for number in numbers.tolist()]
            done = sorted(done, reverse=True)[: self._count]
            least = done[-1][0] if len(done) == self._count else -math.inf
            going = []
            for score, row, number in sorted(found, reverse=True)[: self._beam]:
                piece, before = self._bytes[number], ways[row]
                way = _Way(score, before.added + piece, before.rest[len(piece) :], before.begun or bool(self._begins[number]))
                if not (way.rest or way.begun or self._blank[number]):
                    done.append((score, way.added))
                elif score > least:
                    going.append((row, number, way))
            if not going:
                break
            rows, last, ways = [list(column) for column in zip(*going, strict=True)]
            reading = reading.select(rows).read(last)
        if not done:
            done = [(way.score, way.added) for way in ways if not way.rest]
        best: dict[str, float] = {}
        for score, added in done:
            text = added[len(typed) :].decode("utf-8", "ignore")
            if mass > 0 and (text or inside):
                best[text] = best.get(text, 0.0) + math.exp(score) / mass
        return sorted(best.items(), key=lambda pair: -pair[1])[: self._count]

    def _agreeing(self, rest: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The pieces that agree with what is typed, and those of them that hold all of it."""
        first, last = (bisect_left(self._sorted, (bound, -1)) for bound in (rest, rest + b"\xff"))
        whole = self._order[first:last]
        parts = [self._number[rest[:size]] for size in range(1, len(rest)) if rest[:size] in self._number]
        return np.concatenate([whole, np.array(parts, np.int64)]), whole

    def _following(
        self, way: _Way, scores: npt.NDArray[np.float64], last: int, done: list[tuple[float, bytes]]
    ) -> npt.NDArray[np.int64]:
        """The likeliest pieces that go on with a word; where it may end, that is one completion more."""
        allowed = ~(self._signs if way.begun else self._blank)
        unsure = last >= 0 and bool(self._unspaced[last])
        if unsure:
            allowed &= scores >= math.log(SURE)
        if way.begun and (not unsure or not allowed.any()):
            share = 1.0 if unsure else float(np.exp(scores[self._ends]).sum())
            if share > 0:
                done.append((way.score + math.log(share), way.added))
        numbers = np.flatnonzero(allowed)
        if len(numbers) > self._beam:
            numbers = numbers[np.argpartition(-scores[numbers], self._beam)[: self._beam]]
        return numbers
