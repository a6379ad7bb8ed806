"""What poems are worth, measured on their text: form kept, rhymes, variety, lines that were copied."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from carousel.tasks.poem.forms import NO_RHYME, Form
from carousel.tasks.poem.poems import Poem, is_han
from carousel.tasks.poem.rhymes import RhymeTable

__all__ = ["PoemScore", "chance_of_rhyme", "keeps_form", "rhyming_share", "score_poems"]

DRAWN = 20_000  # pairs of line ends for the rhymes that come by chance


@dataclass(frozen=True)
class PoemScore:
    """Measures of some poems.

    Args:
        count: how many poems.
        forms_kept: share of them whose text has the lines of its form, each of its length, and nothing else.
        rhyming: share of the pairs of lines that are to rhyme and do; None without pairs.
        distinct_2: different pairs of neighbouring characters, as a share of all.
        distinct_lines: different lines, as a share of all.
        copied: share of the lines that stand in the training data word for word; None where that is not known.
    """

    count: int
    forms_kept: float
    rhyming: float | None
    distinct_2: float
    distinct_lines: float
    copied: float | None


def keeps_form(text: str, lengths: Sequence[int]) -> bool:
    """Whether a text has lines of these lengths, all of Chinese characters, and nothing else.

    It knows nothing of how the text was made.

    Args:
        text: a poem as it is printed, without its title: lines with a mark behind each.
        lengths: of the lines.

    Example:
        >>> keeps_form("春眠不覺曉，處處聞啼鳥。", [5, 5]), keeps_form("春眠不覺，處處聞啼鳥。", [5, 5])
        (True, False)
    """
    parts = re.split("[，、。]", "".join(text.split()))
    return parts[-1] == "" and [len(part) for part in parts[:-1]] == list(lengths) and all(map(is_han, parts[:-1]))


def score_poems(
    poems: Sequence[Poem], forms: Sequence[Form], rhymes: RhymeTable, known: Collection[str] | None = None
) -> PoemScore:
    """Measure poems.

    Args:
        poems: any number.
        forms: the form that each was to have.
        rhymes: which characters rhyme.
        known: the lines of the training data, if they are at hand.
    """
    lines = [line for poem in poems for line in poem.lines]
    pairs = [line[place : place + 2] for line in lines for place in range(len(line) - 1)]
    kept = sum(keeps_form(poem.text, form.lengths) for poem, form in zip(poems, forms, strict=True))
    return PoemScore(
        count=len(poems),
        forms_kept=kept / max(1, len(poems)),
        rhyming=rhyming_share(zip(poems, forms, strict=True), rhymes),
        distinct_2=len(set(pairs)) / max(1, len(pairs)),
        distinct_lines=len(set(lines)) / max(1, len(lines)),
        copied=None if known is None else sum(line in known for line in lines) / max(1, len(lines)),
    )


def rhyming_share(poems: Iterable[tuple[Poem, Form]], rhymes: RhymeTable) -> float | None:
    """The share of pairs of lines with the same letter that rhyme: every line with the next one of its letter.

    Args:
        poems: each with its form; one of other lines than its form does not count.
        rhymes: which characters rhyme.
    """
    found = [
        rhymes.match(poem.lines[one][-1], poem.lines[other][-1])
        for poem, form in poems
        if poem.lengths == form.lengths
        for one, other in form.pairs
    ]
    return sum(found) / len(found) if found else None


def chance_of_rhyme(poems: Sequence[tuple[Poem, Form]], rhymes: RhymeTable, *, seed: int = 1) -> float | None:
    """How often lines that are to rhyme would do so by chance: line ends of different poems, drawn at random.

    Args:
        poems: each with its form.
        rhymes: which characters rhyme.
        seed: draws.
    """
    ends = [
        [poem.lines[place][-1] for place, letter in enumerate(form.scheme) if letter != NO_RHYME]
        for poem, form in poems
        if poem.lengths == form.lengths
    ]
    ends = [one for one in ends if one]
    if len(ends) < 2:
        return None
    draw = random.Random(seed)  # noqa: S311 - a choice that can be made again, no secret
    if len(ends) ** 2 <= DRAWN:
        chosen = list(combinations(ends, 2))
    else:
        chosen = [(one, other) for one, other in (draw.sample(ends, 2) for _ in range(DRAWN))]
    return sum(rhymes.match(draw.choice(one), draw.choice(other)) for one, other in chosen) / len(chosen)
