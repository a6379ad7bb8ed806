"""A poem: its lines, what stands behind them, its title; and files of poems."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from carousel.data.files import numbered_lines, shown_path
from carousel.data.json_lines import json_object
from carousel.data.source import Source
from carousel.errors import DataError, explain

__all__ = ["COMMA", "FULL_STOP", "PAUSE", "Poem", "PoemFile", "Poems", "is_han", "only_han", "read_poems"]

COMMA, PAUSE, FULL_STOP = "，", "、", "。"
STOPS = {
    **dict.fromkeys("，,；;：:", COMMA),
    **dict.fromkeys("、", PAUSE),
    **dict.fromkeys("。．.！!？?", FULL_STOP),
}
"""The marks that end a line, and the three that are told apart."""

ADVICE = (
    'one object a line: {"title": "...", "paragraphs": ["春眠不覺曉，處處聞啼鳥。", "..."]}, or "rhythmic" for a ci\'s tune'
)
_JOINED = re.compile("[・·]")
_RANGES = ((0x3007, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFD))


def is_han(text: str) -> bool:
    """Whether a text is nothing but Chinese characters; an empty one is not.

    Example:
        >>> is_han("春眠"), is_han("春 眠"), is_han("a"), is_han("□"), is_han("")
        (True, False, False, False, False)
    """
    return bool(text) and all(any(low <= ord(char) <= high for low, high in _RANGES) for char in text)


def only_han(text: str) -> str:
    """The Chinese characters of a text.

    Example:
        >>> only_han("春曉 (Spring) 2")
        '春曉'
    """
    return "".join(char for char in unicodedata.normalize("NFC", text) if is_han(char))


@dataclass(frozen=True)
class Poem:
    """A poem.

    Args:
        lines: its lines, Chinese characters alone.
        stops: what stands behind each line: a comma, a pause or a full stop of Chinese, one character for each line.
        title: its title; it may be empty.
        tune: the tune of a ci; else empty.

    Example:
        >>> poem = Poem.parse("春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少？", title="春曉")
        >>> poem.lengths, poem.lines[3], poem.stops
        ((5, 5, 5, 5), '花落知多少', '，。，。')
        >>> print(poem)
        春曉
        春眠不覺曉，處處聞啼鳥。
        夜來風雨聲，花落知多少。
    """

    lines: tuple[str, ...]
    stops: str
    title: str = ""
    tune: str = ""

    @classmethod
    def parse(cls, text: str, *, title: str = "", tune: str = "") -> Poem:
        """Read the lines of a poem as it is written.

        Args:
            text: lines, each with a mark behind it or a line's end; the last may stand without.
            title: its title.
            tune: its tune.

        Raises:
            DataError: there is no line, or a line holds something else than Chinese characters.
        """
        lines: list[str] = []
        stops: list[str] = []
        line = ""
        for char in unicodedata.normalize("NFC", text) + "\n":
            stop = STOPS.get(char) or (FULL_STOP if char == "\n" else None)
            if stop is None:
                line += "" if char.isspace() else char
            elif line:
                if not is_han(line):
                    raise DataError(explain("a line of a poem is Chinese characters alone.", got=repr(line[:80])))
                lines.append(line)
                stops.append(stop)
                line = ""
        if not lines:
            raise DataError(explain("a poem has at least one line.", got=repr(text[:80])))
        return cls(tuple(lines), "".join(stops), title, tune)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The characters of each line."""
        return tuple(map(len, self.lines))

    @property
    def text(self) -> str:
        """Its lines in one, with what stands behind them."""
        return "".join(line + stop for line, stop in zip(self.lines, self.stops, strict=True))

    @property
    def rows(self) -> list[str]:
        """Its lines as they are printed: a new row after each full stop."""
        return [row for row in re.split(f"(?<={FULL_STOP})", self.text) if row]

    def to_dict(self) -> dict[str, Any]:
        """The poem as a record of a data file."""
        named = {"title": self.title, "rhythmic": self.tune}
        return {key: value for key, value in named.items() if value} | {"paragraphs": self.rows}

    def __str__(self) -> str:
        heading = " ".join(part for part in (self.tune, self.title) if part)
        return "\n".join([heading, *self.rows] if heading else self.rows)


@dataclass(frozen=True)
class PoemFile:
    """The poems of a file.

    Args:
        poems: those that could be read.
        left_out: how many have no line, or hold something else than Chinese characters (□ for a lost one, say).
    """

    poems: tuple[Poem, ...]
    left_out: int


Poems = str | os.PathLike[str] | Sequence[Poem | str]
"""A file, or a list of poems, or of their texts."""


def read_poems(source: Poems) -> PoemFile:
    """Read poems.

    Args:
        source: JSON lines, gzip or not, as the collection chinese-poetry has them: `paragraphs`, a list of texts, with
            `title`, or `rhythmic` for the tune of a ci; ``-`` is standard input. Or a list of poems, or of their texts.

    Raises:
        DataError: the file cannot be read (the message names file and line), or holds no poem.
    """
    left_out = 0
    if not isinstance(source, str | os.PathLike):
        for number, poem in enumerate(source):
            if not isinstance(poem, Poem | str):
                got, advice = repr(poem)[:200], "Poem.parse(text, title=...)"
                raise DataError(explain(f"item {number} of the list is no poem.", got=got, advice=advice))
        found = [Poem.parse(poem) if isinstance(poem, str) else poem for poem in source]
    else:
        read = list(_parsed(source))
        found = [poem for poem in read if poem is not None]
        left_out = len(read) - len(found)
    if not found:
        what = "there is no poem."
        got = f"{left_out} records without a line of Chinese characters alone" if left_out else "nothing"
        shown = shown_path(source) if isinstance(source, str | os.PathLike) else None
        raise DataError(explain(what, got=got, expected=ADVICE), path=shown)
    return PoemFile(tuple(found), left_out)


def tune_names(tune: str) -> tuple[str, ...]:
    """The names that a tune is given by: ``凤栖梧・蝶恋花`` has two, the usual one last.

    Example:
        >>> tune_names("凤栖梧・蝶恋花"), tune_names("")
        (('凤栖梧', '蝶恋花'), ())
    """
    return tuple(name for part in _JOINED.split(tune) if (name := only_han(part)))


def _parsed(path: str | os.PathLike[str]) -> Iterator[Poem | None]:
    source = Source(shown_path(path))
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        record = json_object(number, line, ADVICE, source)
        title, tune = (_string(record, key, number, source) for key in ("title", "rhythmic"))
        verses = record.get("paragraphs")
        if isinstance(verses, str):
            verses = [verses]
        if not isinstance(verses, list) or not all(isinstance(verse, str) for verse in verses):
            got = f"keys {', '.join(record)}"[:200] if verses is None else repr(verses)[:80]
            raise source.error(number, "key 'paragraphs' is no list of texts.", got=got, advice=ADVICE)
        try:
            yield Poem.parse("\n".join(verses), title=title, tune=tune)
        except DataError:
            yield None


def _string(record: dict[str, Any], key: str, number: int, source: Source) -> str:
    found = record.get(key)
    if found is not None and not isinstance(found, str):
        raise source.error(number, f"key '{key}' is no text.", got=repr(found)[:80], advice=ADVICE)
    return found or ""
