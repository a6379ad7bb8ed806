"""Writing many poems side by side, each to its plan: the form is kept because nothing else can be written."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from carousel.tasks.lm.sampling import Sampler, Sampling
from carousel.tasks.poem.forms import NO_RHYME
from carousel.tasks.poem.marks import beginning, is_mark, line_mark
from carousel.tasks.poem.poems import Poem
from carousel.tasks.poem.wishes import Plan

if TYPE_CHECKING:
    from carousel.tasks.lm.reading import Reading
    from carousel.tasks.poem.inputs import PoemInputs

__all__ = ["Manner", "unread", "write_batch"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Manner:
    """How characters are drawn.

    Args:
        sampling: as a language model draws; poem number i of a call is drawn from its seed + i.
        rhyme: lines that rhyme in the form end on a character that rhymes, where one is known.
    """

    sampling: Sampling
    rhyme: bool = True

    def sampler(self, place: int) -> Sampler:
        """What draws one poem.

        Args:
            place: its number in the call, from 0.
        """
        how = self.sampling
        seed = secrets.randbits(64) if how.seed is None else how.seed + place
        return Sampler(
            Sampling(how.temperature, how.top_k, how.top_p, how.repetition_penalty, how.repetition_window, seed=seed)
        )


class _Step(NamedTuple):
    """One token of a poem: a sign or a character of the title; a given character of a line; or one to be drawn."""

    number: int | None  # what the network reads; None: to be drawn
    text: str | None  # what stands in the poem; None for nothing, or to be drawn
    letter: str  # of the rhyme, at the end of a line


class _Row:
    """A poem that is being written."""

    def __init__(self, plan: Plan, inputs: PoemInputs, manner: Manner, place: int) -> None:
        self.plan = plan
        self.steps = _steps(plan, inputs)
        self._inputs, self._rhyme = inputs, manner.rhyme
        self._sampler = manner.sampler(place)
        self._characters: list[str] = []
        self._groups: dict[str, frozenset[str]] = {}  # by letter: the groups of rhymes that its line ends have in common
        self._ends: set[int] = set()

    def next(self, place: int, scores: npt.NDArray[np.float32]) -> int:
        """The token at a place, drawn where it is not given.

        Args:
            place: counted from 0.
            scores: (V,), log-probabilities.
        """
        step = self.steps[place]
        if step.number is not None and step.text is None:
            return step.number
        if step.number is None:
            number = self._sampler.draw(scores, self._allowed(step.letter))
            text = self._inputs.names[number]
        else:
            number, text = step.number, step.text or ""
            only = np.zeros(len(scores), np.bool_)
            only[number] = True
            self._sampler.draw(scores, only)  # counts as a repetition when it comes again
        self._characters.append(text)
        if step.letter != NO_RHYME:
            self._end(number, text, step.letter)
        return number

    def poem(self) -> Poem:
        """What was written."""
        text = "".join(self._characters)
        ends = np.cumsum(self.plan.form.lengths).tolist()
        lines = tuple(text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True))
        return Poem(lines, self.plan.form.stops, self.plan.title, self.plan.tune)

    def _allowed(self, letter: str) -> Mask:
        every = self._inputs.written
        if not self._rhyme or letter == NO_RHYME:
            return every
        rhyming, wanted = self._inputs.rhyming, self.plan.form.scheme.count(letter)
        # The first line of a rhyme ends so that there are enough characters for the others.
        groups = self._groups.get(letter) or [name for name, size in self._inputs.rhyming_sizes.items() if size >= wanted]
        mask = np.zeros_like(every)
        for group in groups:
            mask |= rhyming[group]
        fresh = mask & every
        fresh[list(self._ends)] = False  # the same character at two ends is no rhyme
        return next((one for one in (fresh, mask & every) if one.any()), every)

    def _end(self, number: int, text: str, letter: str) -> None:
        self._ends.add(number)
        mine, before = self._inputs.rhymes.groups(text), self._groups.get(letter, frozenset())
        self._groups[letter] = (mine & before) or before or mine


def write_batch(
    reading: Reading, plans: Sequence[Plan], places: Sequence[int], inputs: PoemInputs, manner: Manner
) -> list[Poem]:
    """Write poems side by side.

    Args:
        reading: of as many texts as there are places, all at their beginning.
        plans: all plans of the call.
        places: which of them to write.
        inputs: characters and rhymes.
        manner: how characters are drawn.
    """
    rows = [_Row(plans[place], inputs, manner, place) for place in places]
    longest = max(len(row.steps) for row in rows)
    for place in range(longest):
        scores = reading.log_probabilities
        numbers = [row.next(place, scores[number]) if place < len(row.steps) else inputs.end for number, row in enumerate(rows)]
        if place + 1 < longest:
            reading.read(numbers)
    return [row.poem() for row in rows]


def unread(plans: Sequence[Plan], inputs: PoemInputs) -> list[str]:
    """The characters of titles and given lines that the model does not know, each once.

    Args:
        plans: what to write.
        inputs: what is known.
    """
    texts = (beginning((), plan.title, "", inputs.title_length) + "".join(plan.begun) for plan in plans)
    return list(dict.fromkeys(char for text in texts for char in text if not is_mark(char) and char not in inputs.numbers))


def _steps(plan: Plan, inputs: PoemInputs) -> list[_Step]:
    form = plan.form
    heading = beginning(form.lengths, plan.title, plan.tune, inputs.title_length)
    # A sign that was never seen in training is left out.
    found = [
        _Step(inputs.numbers.get(char, 0), None, NO_RHYME) for char in heading if char in inputs.numbers or not is_mark(char)
    ]
    for place, length in enumerate(form.lengths):
        mark = inputs.known_mark(line_mark(length, form.stops[place], last=place + 1 == len(form.lengths)))
        if mark is not None:
            found.append(_Step(mark, None, NO_RHYME))
        for at in range(length):
            given = plan.begun[place][at : at + 1]
            letter = form.scheme[place] if at + 1 == length else NO_RHYME
            found.append(_Step(inputs.numbers.get(given, 0), given, letter) if given else _Step(None, None, letter))
    return found
