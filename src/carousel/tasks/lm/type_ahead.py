"""Type-ahead: what is being typed, completed at every keystroke."""

from __future__ import annotations

import time
import unicodedata
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carousel.data.subwords import byte_name
from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.lm.completing import PieceCompleter
from carousel.tasks.lm.inputs import UNKNOWN, LanguageInputs

if TYPE_CHECKING:
    from carousel.tasks.lm.reading import Reading
    from carousel.tasks.lm.task import LanguageModel

__all__ = ["Completion", "Completions", "TypeAhead"]

LAST = "\U0010ffff"  # behind all that begins alike
LONG = 4096  # characters typed at once of which only the last get states of their own
LONGEST = 256  # characters without a blank that are held as one half-typed word


@dataclass(frozen=True)
class Completion:
    """How the text may go on.

    Args:
        text: the word, with what is typed of it.
        added: what is not typed yet; empty where the word may be complete.
        probability: given all that is typed, the letters of the half-typed word included.
    """

    text: str
    added: str
    probability: float


@dataclass(frozen=True)
class Completions:
    """What a keystroke leads to.

    Args:
        prefix: the half-typed word; empty where a new one begins.
        best: the completions, the likeliest first; none where no known word begins so.
        milliseconds: how long it took.
    """

    prefix: str
    best: tuple[Completion, ...]
    milliseconds: float


@dataclass(frozen=True)
class _Mark:
    """A place in the text, and the reading that stands there."""

    place: int
    reading: Reading


class TypeAhead:
    r"""A text that is being typed, and its completions.

    A keystroke costs what is new: the states of the last words (characters, for models of characters and bytes) are kept,
    also for deleting. What is older is forgotten, so memory does not grow with the text.

    A model of words completes by the letters typed: with :math:`v` over all known words that begin with them,

    .. math:: p(w \mid \text{text}, \text{letters}) = p(w \mid \text{text}) / \textstyle\sum_v p(v \mid \text{text}).

    The other units search for the likeliest endings of the word, letter by letter, with a beam. For subwords, which may
    have been cut otherwise than the letters tell so far, the search begins before the word and follows all pieces that
    agree with them; there, probabilities are shares of what was found.

    Args:
        model: a language model that reads forward.
        count: completions to give.
        kept: states that are kept.

    Raises:
        ConfigError: the model reads backward, or an argument is not possible.

    Example:
        .. code-block:: python

            typing = model.type_ahead()
            typing.type("the mar").best[0].text                  # market
            typing.back(3).best[0].text
    """

    def __init__(self, model: LanguageModel, count: int = 5, kept: int = 256) -> None:
        for name, value in (("count", count), ("kept", kept)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(explain(f"{name} must be a whole number, 1 or more.", got=repr(value)))
        self._inputs: LanguageInputs = model.inputs_
        if self._inputs.backward:
            what = "this model reads from the end of a text, so it cannot complete one."
            raise ConfigError(explain(what, advice="use a model that was trained with direction=forward"))
        self._count, self._kept = count, kept
        self._start = model.start()
        self._text = ""
        self._marks: deque[_Mark] = deque()
        self._tail: list[tuple[int, Reading]] = []  # tokens read of the half-typed word, as it was cut last
        self._words = self._inputs.unit == "word"
        self._letters = self._inputs.unit in ("char", "byte")
        names = self._inputs.tokens
        if self._words:
            known = [(name, number) for number, name in enumerate(names) if number not in (UNKNOWN, self._inputs.end)]
            self._sorted = [name for name, _ in sorted(known)]
            self._numbers = np.array([number for _, number in sorted(known)], np.int64)
        else:
            self._completer = PieceCompleter(names, self._inputs.unit, self._inputs.end, count)
        self.clear()

    @property
    def unit(self) -> str:
        """What the model's tokens are."""
        return self._inputs.unit

    @property
    def text(self) -> str:
        """What is typed, as far back as it is kept."""
        return self._text

    def clear(self) -> None:
        """Begin a new text."""
        self._text = ""
        self._marks.clear()
        self._marks.append(_Mark(0, self._start))
        self._tail = []

    def type(self, text: str) -> Completions:
        """Go on with a text: one keystroke, or more.

        Args:
            text: what is new; the end of a line is a newline. An empty one adds nothing.

        Raises:
            DataError: it is no text.
        """
        began = time.perf_counter()
        if not isinstance(text, str):
            raise DataError(explain("what is typed is a text.", got=type(text).__name__))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if len(text) > LONG:
            text = self._skip(text)
        for start in range(0, len(text), LONGEST):
            self._text += text[start : start + LONGEST]
            self._read()
        return self._complete(began)

    def back(self, count: int = 1) -> Completions:
        """Delete characters from the end.

        Args:
            count: how many.

        Raises:
            ConfigError: `count` is not possible.
        """
        began = time.perf_counter()
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ConfigError(explain("count must be a whole number, 0 or more.", got=repr(count)))
        self._text = self._text[: max(0, len(self._text) - count)]
        settled = self._settled()
        while len(self._marks) > 1 and self._marks[-1].place > settled:
            self._marks.pop()
            self._tail = []
        if self._marks[0].place > settled:
            self._forgotten()
        self._read()
        return self._complete(began)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _skip(self, text: str) -> str:
        """Read most of a long text at once; what is left of it."""
        text = self._text[self._marks[-1].place :] + text
        reading = self._marks[-1].reading.select([0])
        begin = 0
        while len(text) - begin > 2 * LONG:
            end = begin + LONG
            if not self._letters:
                blank = max(text.rfind(" ", begin + 1, end), text.rfind("\n", begin + 1, end))
                end = blank if blank > 0 else end
            reading.read_all(self._encode(text[begin:end]))
            begin = end
        self._text, self._tail = "", []
        self._marks = deque([_Mark(0, reading)])
        return text[begin:]

    def _forgotten(self) -> None:
        """What is left is older than every state: begin with it anew."""
        rest = self._text
        self.clear()
        self._text = rest

    def _settled(self) -> int:
        """Up to where the text is in tokens that further typing does not change."""
        text = self._text
        if self._letters:
            return len(text)
        first = max(0, len(text) - LONGEST)
        end = len(text)
        while end > first and not text[end - 1].isspace():
            end -= 1
        if end == first and first:
            return len(text)  # too long for a word
        newline = text.rfind("\n", first, end) + 1
        while end > newline and text[end - 1].isspace():
            end -= 1
        return max(end, newline)

    def _read(self) -> None:
        settled, last = self._settled(), self._marks[-1]
        for end in self._ends(last.place, settled):
            numbers = self._encode(self._text[last.place : end])
            reading = self._marks[-1].reading.select([0])
            last = _Mark(end, reading.read_all(numbers) if len(numbers) > 1 else reading.read(numbers) if numbers else reading)
            self._marks.append(last)
            self._tail = []
        while len(self._marks) > self._kept:
            self._marks.popleft()
        gone = self._marks[0].place
        if gone > LONGEST:
            self._text = self._text[gone:]
            self._marks = deque(_Mark(mark.place - gone, mark.reading) for mark in self._marks)

    def _ends(self, start: int, end: int) -> list[int]:
        """Where tokens or words end between two places."""
        if self._letters:
            return list(range(start + 1, end + 1))
        text = self._text
        inner = [place for place in range(start + 1, end) if text[place].isspace() and not text[place - 1].isspace()]
        return [*inner, end] if end > start else []

    def _encode(self, text: str) -> list[int]:
        """The numbers of some whole tokens."""
        inputs, numbers = self._inputs, []
        for place, line in enumerate(text.split("\n")):
            if place and inputs.line_ends:
                numbers.append(inputs.end)
            elif place and not self._words:
                line = " " + line
            numbers += [number - 1 for number in inputs.vocabulary.encode(self._cut(line))]
        return numbers

    def _cut(self, line: str) -> list[str]:
        inputs = self._inputs
        if inputs.unit == "subword":
            return inputs.tokenizer.tokenize(line)
        line = line.lower() if inputs.tokenizer.lowercase else line
        if inputs.unit == "byte":
            return list(map(byte_name, line.encode("utf-8", "replace")))
        line = unicodedata.normalize("NFC", line)
        if inputs.unit == "char":
            return list(line)
        return line.split() if inputs.spaces else inputs.tokenizer.tokenize(line)

    def _complete(self, began: float) -> Completions:
        mark = self._marks[-1]
        rest = self._text[mark.place :]
        if self._words:
            prefix, best = self._complete_word(rest, mark.reading)
        else:
            prefix = _half_word(self._text[-LONGEST:])
            rest = rest.lower() if self._inputs.tokenizer.lowercase else rest
            found = self._completer.run(mark.reading, rest, bool(prefix))
            best = [Completion(prefix + added, added, share) for added, share in found]
        return Completions(prefix, tuple(best), 1000 * (time.perf_counter() - began))

    def _complete_word(self, rest: str, reading: Reading) -> tuple[str, list[Completion]]:
        tokens = self._cut(rest)
        prefix = tokens.pop() if tokens and not rest[-1].isspace() else ""
        reading = self._read_tail([number - 1 for number in self._inputs.vocabulary.encode(tokens)], reading)
        first, last = bisect_left(self._sorted, prefix), bisect_left(self._sorted, prefix + LAST)
        numbers = self._numbers[first:last]
        if not len(numbers):
            return prefix, []
        scores = reading.log_probabilities[0, numbers].astype(np.float64)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        order = _largest(shares, self._count)
        names = [self._sorted[first + place] for place in order.tolist()]
        return prefix, [
            Completion(name, name[len(prefix) :], share) for name, share in zip(names, shares[order].tolist(), strict=True)
        ]

    def _read_tail(self, numbers: list[int], reading: Reading) -> Reading:
        """The reading behind the tokens of the last word but its last one: punctuation, say, or characters without blanks."""
        same = 0
        while same < min(len(numbers), len(self._tail)) and self._tail[same][0] == numbers[same]:
            same += 1
        del self._tail[same:]
        for number in numbers[same:]:
            reading = self._tail[-1][1] if self._tail else reading
            self._tail.append((number, reading.select([0]).read([number])))
        return self._tail[-1][1] if self._tail else reading


def _largest(shares: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    places = np.argpartition(-shares, count)[:count] if len(shares) > count else np.arange(len(shares))
    return places[np.argsort(-shares[places], kind="stable")]


def _half_word(text: str) -> str:
    """The letters at the end of a text that a blank or a sign stands before; none in a script without blanks."""
    start = len(text)
    while start and text[start - 1].isalnum() and text[start - 1] < "\u0e00":
        start -= 1
    return text[start:]
