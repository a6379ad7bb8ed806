"""What all readers share: the name of the file, its errors, its format, and numbers as they are written in files."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from carousel.data.files import STANDARD_INPUT, StrPath
from carousel.errors import DataError, explain

__all__ = ["MISSING", "Lines", "Source", "choose_format", "hint", "listed", "parse_number"]

MISSING = frozenset({"", "nan", "NaN", "None", "null", "NULL"})
"""How tables spell a missing value."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMPARED = 1000  # names a misspelt one is compared with

Lines = Iterator[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is read.

    Args:
        shown: its name, as messages show it.
        problems: who is told of each bad record, which is then left out. None: the first one is raised.
    """

    shown: str
    problems: Callable[[DataError], None] | None = None

    def error(self, line: int | None, what: str, *, got: str | None = None, advice: str | None = None) -> DataError:
        """An error of this file, to be raised."""
        return DataError(explain(what, got=got, advice=advice), path=self.shown, line=line)

    def refuse(self, error: DataError) -> None:
        """Raise the error, or tell who wants to know and go on."""
        if self.problems is None:
            raise error
        self.problems(error)

    def column(self, name: str, option: str, line: int, columns: list[str]) -> int:
        """The place of a column that must be there, once."""
        if columns.count(name) == 1:
            return columns.index(name)
        if name in columns:
            advice = "give every column a name of its own"
            raise self.error(line, f"column '{name}' stands there twice.", got=listed(columns), advice=advice)
        advice = f"the first line must name the columns; choose another one with {option}"
        if len(columns) == 1 and (other := re.search(r"[\t;,|]", columns[0])):
            advice = f"the columns seem to be separated by {other.group()!r}; a TSV file has tabs, a CSV file has commas"
        raise self.error(line, f"column '{name}' is missing.{hint(name, columns)}", got=listed(columns), advice=advice)


def parse_number(text: str) -> float | None:
    """The number a text spells, or None; NaN and infinity are none, nor is what overflows.

    Example:
        >>> parse_number(" -1.5e3"), parse_number("1_000"), parse_number("inf"), parse_number("1e999")
        (-1500.0, None, None, None)
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def choose_format(
    path: StrPath, lines: Lines, suffixes: Mapping[str, str], recognise: Callable[[str], str]
) -> tuple[str, Lines]:
    """The format by the suffix, else by the first line that is not blank; and all the lines.

    Args:
        path: the file.
        lines: its lines.
        suffixes: the format for each suffix.
        recognise: the format for a first line.
    """
    if path != STANDARD_INPUT:
        found = [suffix.lower() for suffix in PurePath(path).suffixes]
        if found[-1:] == [".gz"]:
            found.pop()
        if found and found[-1] in suffixes:
            return suffixes[found[-1]], lines
    seen = []
    for number, line in lines:
        seen.append((number, line))
        if line.strip():
            break
    return recognise(seen[-1][1] if seen else ""), itertools.chain(seen, lines)


def hint(name: str, choices: list[str]) -> str:
    """A question whether another name was meant, or nothing."""
    choices = choices[:_COMPARED]
    near = difflib.get_close_matches(name.lower()[:100], [choice.lower()[:100] for choice in choices], n=1)
    spelled = next((choice for choice in choices if near and choice.lower() == near[0]), None)
    return f" Did you mean '{spelled}'?" if spelled else ""


def listed(names: list[str]) -> str:
    """Names for a message, not too many of them."""
    shown = ", ".join(name[:40] for name in names[:20])
    return (shown or "nothing") + (f" and {len(names) - 20} more" if len(names) > 20 else "")
