"""Typed pinyin as a lattice: all ways to cut letters into syllables, and what stands between them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from carousel.tasks.lm.readings import Readings, plain_letter

__all__ = ["Arc", "Letters", "Plain", "parse_pinyin", "sentences"]

_LETTER = "[" + "".join(letter for letter in map(chr, range(0x41, 0x250)) if plain_letter(letter)) + "]"
# A digit right behind a letter that is no part of a number is a tone; an apostrophe parts syllables.
_RUN = re.compile(rf"{_LETTER}(?:{_LETTER}|['’](?={_LETTER})|[1-5](?!\d))*")
_APOSTROPHES = "'’"
_END = re.compile(r"[。！？!?]+[”’」』）》\"]*")


@dataclass(frozen=True)
class Plain:
    """Text that stays as it is.

    Args:
        text: not empty.
        letters: it was tried as pinyin, but cannot be cut into syllables.
    """

    text: str
    letters: bool = False


@dataclass(frozen=True)
class Arc:
    """A syllable between two places of a run of letters.

    Args:
        start: the place before its first letter.
        end: the place behind its last one.
        syllable: without tone.
        tone: 1 to 5; None if it was not typed.
    """

    start: int
    end: int
    syllable: str
    tone: int | None


@dataclass(frozen=True)
class Letters:
    """Letters without a blank between them, and all ways to read them. Each arc lies on a way from 0 to `size`.

    Args:
        size: the last place.
        arcs: the syllables, by their starts.
    """

    size: int
    arcs: tuple[Arc, ...]

    def mirrored(self) -> Letters:
        """The same, from its end."""
        size = self.size
        arcs = sorted((Arc(size - arc.end, size - arc.start, arc.syllable, arc.tone) for arc in self.arcs), key=_place)
        return Letters(size, tuple(arcs))


def parse_pinyin(line: str, readings: Readings, *, spaced: bool = False) -> list[Plain | Letters]:
    """Cut a line into runs of syllables and other text.

    Blanks between syllables part them and are dropped; all other text stays, and so do letters that cannot be cut into
    syllables.

    Args:
        line: what was typed.
        readings: the syllables that there are.
        spaced: letters between blanks that are a syllable are that one and no other: xian is xian, never xi'an.

    Returns:
        The parts, in order; no two runs of plain text follow each other, unless one of them was tried as pinyin.

    Example:
        >>> parts = parse_pinyin("xi'an, OK", Readings(["西", "安", "先"]))
        >>> [arc.syllable for arc in parts[0].arcs], parts[1:]
        (['xi', 'an'], [Plain(text=', ', letters=False), Plain(text='OK', letters=True)])
        >>> (letters,) = parse_pinyin("xian1", Readings(["西", "安", "先"]))
        >>> [(arc.start, arc.end, arc.syllable, arc.tone) for arc in letters.arcs]
        [(0, 2, 'xi', None), (0, 4, 'xian', 1), (2, 4, 'an', 1)]
    """
    line = unicodedata.normalize("NFC", line)
    parts: list[Plain | Letters] = []
    gone = 0
    for found in _RUN.finditer(line):
        if found.start() > gone:
            parts.append(Plain(line[gone : found.start()]))
        parts.append(_letters(found.group(), readings, spaced) or Plain(found.group(), letters=True))
        gone = found.end()
    if gone < len(line):
        parts.append(Plain(line[gone:]))
    around = [None, *parts, None]
    return [
        part
        for before, part, after in zip(around, parts, around[2:], strict=False)
        if not (isinstance(part, Plain) and part.text.isspace() and isinstance(before, Letters) and isinstance(after, Letters))
    ]


def sentences(parts: list[Plain | Letters]) -> Iterator[list[Plain | Letters]]:
    """The parts of a line, sentence by sentence, each with the mark that ends it.

    Args:
        parts: of a line.

    Example:
        >>> parts = parse_pinyin("an。 “xian！”", Readings(["西", "安", "先"]))
        >>> [[part.text for part in sentence if isinstance(part, Plain)] for sentence in sentences(parts)]
        [['。'], [' “', '！”']]
    """
    sentence: list[Plain | Letters] = []
    for part in parts:
        if isinstance(part, Letters) or part.letters:
            sentence.append(part)
            continue
        bounds = [0, *(mark.end() for mark in _END.finditer(part.text)), len(part.text)]
        for place, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                sentence.append(Plain(part.text[start:end]))
            if place < len(bounds) - 2:
                yield sentence
                sentence = []
    if sentence:
        yield sentence


def _letters(text: str, readings: Readings, spaced: bool) -> Letters | None:
    """All ways to cut letters into syllables; None if there is none."""
    letters: list[str] = []
    marks: list[int | None] = []
    digits: dict[int, int] = {}
    parted: set[int] = set()
    for sign in text:
        read = plain_letter(sign)
        if read is not None:
            letters.append(read[0])
            marks.append(read[1])
        else:
            parted.add(len(letters))
            if sign not in _APOSTROPHES:
                digits[len(letters)] = int(sign)
    whole, size = "".join(letters), len(letters)
    parted -= {0, size}

    def arc(start: int, end: int) -> Arc | None:
        told = [mark for mark in marks[start:end] if mark is not None]
        syllable = readings.spelled(whole[start:end])
        if syllable is None or len(told) > 1 or any(place in parted for place in range(start + 1, end)):
            return None
        return Arc(start, end, syllable, digits.get(end, told[0] if told else None))

    if spaced and (only := arc(0, size)) is not None:
        return Letters(size, (only,))
    reached, arcs = {0}, []
    for start in range(size):
        if start in reached:
            leaving = [arc(start, end) for end in range(start + 1, min(size, start + readings.longest) + 1)]
            arcs += [one for one in leaving if one is not None]
            reached |= {one.end for one in leaving if one is not None}
    useful, kept = {size}, []
    for one in reversed(arcs):
        if one.end in useful:
            useful.add(one.start)
            kept.append(one)
    return Letters(size, tuple(sorted(kept, key=_place))) if kept and 0 in useful else None


def _place(arc: Arc) -> tuple[int, int]:
    return arc.start, arc.end
