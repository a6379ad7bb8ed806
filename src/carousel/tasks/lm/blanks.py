"""Blanks in a text: filled among candidates, by a model that reads forward, one that reads backward, or both together."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carousel.errors import DataError, explain

if TYPE_CHECKING:
    from carousel.tasks.lm.task import LanguageModel

__all__ = ["Blank", "Filled", "cut_blanks", "fill_blanks", "parse_blank"]

_BLANK = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
NEARBY = 50  # words of about the same frequency that distractors are drawn from


@dataclass(frozen=True)
class Blank:
    """A line with a place to fill.

    Args:
        before: the line up to the blank.
        candidates: what may stand there.
        after: the line behind it.
        right: the place of the right one among the candidates, None if not known.
    """

    before: str
    candidates: tuple[str, ...]
    after: str
    right: int | None = None

    def filled(self, number: int) -> str:
        """The line with one of the candidates.

        Args:
            number: its place.
        """
        return self.before + self.candidates[number] + self.after

    def __str__(self) -> str:
        return f"{self.before}[{'|'.join(self.candidates)}]{self.after}"


@dataclass(frozen=True)
class Filled:
    """A blank and what the models think of its candidates.

    Args:
        blank: the blank.
        probabilities: of the candidates, by all models together; they sum to 1.
        forward: log-probability of the line with each candidate, in nats.
        backward: the same by the model that reads backward, None without one.
    """

    blank: Blank
    probabilities: tuple[float, ...]
    forward: tuple[float, ...]
    backward: tuple[float, ...] | None

    @property
    def best(self) -> int:
        """The place of the likeliest candidate."""
        return int(np.argmax(self.probabilities))


def parse_blank(line: str) -> Blank:
    """Read a line with one blank: ``a[n|] apple``.

    Raises:
        DataError: there is none, or several.

    Example:
        >>> parse_blank("The keys [was|were] lost.").candidates
        ('was', 'were')
    """
    found = list(_BLANK.finditer(line))
    if len(found) != 1:
        what = "a line to fill has one blank with candidates."
        raise DataError(
            explain(what, got=f"{len(found)} in {line[:80]!r}", expected="a line such as: The keys [was|were] lost.")
        )
    place = found[0]
    return Blank(line[: place.start()], tuple(place.group(1).split("|")), line[place.end() :])


def fill_blanks(blanks: Sequence[Blank], forward: LanguageModel, backward: LanguageModel | None = None) -> list[Filled]:
    r"""Fill blanks.

    The score of a candidate is the log-probability of the whole line with it; with two models it is the sum of both. A
    softmax over the candidates makes probabilities of them.

    Args:
        blanks: the lines.
        forward: a model, usually one that reads forward.
        backward: another one, usually one that reads backward, trained with ``direction="backward"``.

    Returns:
        For each blank, in order, what was found.
    """
    lines = [blank.filled(number) for blank in blanks for number in range(len(blank.candidates))]
    ends = np.cumsum([len(blank.candidates) for blank in blanks])[:-1]

    def totals(model: LanguageModel) -> list[npt.NDArray[np.float64]]:
        return np.split(np.array([score.total for score in model.score_lines(lines)]), ends) if blanks else []

    ahead, back = totals(forward), None if backward is None else totals(backward)
    found = []
    for place, (blank, mine) in enumerate(zip(blanks, ahead, strict=True)):
        other = None if back is None else back[place]
        both = mine if other is None else mine + other
        chances = np.exp(both - both.max())
        shares = tuple((chances / chances.sum()).tolist())
        found.append(Filled(blank, shares, tuple(mine.tolist()), None if other is None else tuple(other.tolist())))
    return found


def cut_blanks(
    lines: Iterable[str], *, candidates: int = 4, seed: int = 1, most: int | None = None, characters: bool = False
) -> list[Blank]:
    """Make blanks of a text, one for each line that is long enough: a word is cut out, others of its frequency join it.

    Args:
        lines: the text; words are what stands between blanks.
        candidates: how many words to choose from, the right one included.
        seed: chooses words, their places and their order.
        most: the first so many lines only.
        characters: cut out characters, not words.

    Returns:
        The blanks, each with its `right`. A line of fewer than three words gives none, nor does a text of too few words.
    """
    draw = random.Random(seed)  # noqa: S311 - a choice that can be made again, no secret
    texts = [list(line.strip()) if characters else line.split() for line in lines]
    counts = Counter(word for words in texts for word in words if word.strip() and word not in ("<unk>", "N"))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    place = {word: number for number, word in enumerate(ranked)}
    found: list[Blank] = []
    for words in texts:
        possible = [number for number, word in enumerate(words) if word in place]
        if len(words) < 3 or not possible or (most is not None and len(found) == most):
            continue
        at = draw.choice(possible)
        near = range(max(0, place[words[at]] - NEARBY), min(len(ranked), place[words[at]] + NEARBY + 1))
        others = [ranked[number] for number in near if ranked[number] != words[at]]
        if len(others) < candidates - 1:
            continue
        chosen = [words[at], *draw.sample(others, candidates - 1)]
        draw.shuffle(chosen)
        blank = "" if characters else " "
        before, after = blank.join(words[:at]), blank.join(words[at + 1 :])
        found.append(
            Blank(before + blank if before else "", tuple(chosen), blank + after if after else "", chosen.index(words[at]))
        )
    return found
