"""Which characters rhyme: by their readings in modern Mandarin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from carousel.data import read_json, write_json
from carousel.errors import CheckpointError, explain

__all__ = ["RhymeTable"]

MAX_GROUPS = 200

# The fourteen rhymes of the Chinese Poetry Society's modern table (中华新韵, 2005), but with 齊 and 支 as one: in Tang poems
# they rhyme. Names are those of the table.
FINALS = {
    "麻": "a ia ua", "波": "o e uo", "皆": "ie ve ue", "開": "ai uai", "微": "ei uei", "豪": "ao iao", "尤": "ou iou",
    "寒": "an ian uan van", "文": "en in uen vn", "唐": "ang iang uang", "庚": "eng ing ueng ong iong", "支": "i v er",
    "姑": "u",
}  # fmt: skip
LEVEL, OBLIQUE = "平", "仄"


class RhymeTable:
    """Groups of characters that rhyme with each other.

    Groups are the finals of modern Mandarin, level tones (the first and the second) apart from the others. A character with
    several readings is in several groups. That is an approximation: a thousand years ago the readings were others, and the
    entering tone, which rhymed with itself alone, has been spread over the four tones of today. By these groups about five
    of six pairs of lines that rhyme in Tang quatrains do so, and one of nine pairs that do not.

    Args:
        groups: name to characters.

    Example:
        >>> rhymes = RhymeTable.of("曉鳥聲少")
        >>> rhymes.match("鳥", "少"), rhymes.match("鳥", "聲"), rhymes.groups("聲")
        (True, False, frozenset({'庚平'}))
    """

    def __init__(self, groups: Mapping[str, str]) -> None:
        self.members = dict(groups)
        found: dict[str, set[str]] = {}
        for name, characters in groups.items():
            for character in characters:
                found.setdefault(character, set()).add(name)
        self._groups = {character: frozenset(names) for character, names in found.items()}

    @classmethod
    def of(cls, characters: Iterable[str]) -> RhymeTable:
        """The table of some characters, with all readings that the library pypinyin knows.

        Args:
            characters: each by itself; one without a reading is in no group.
        """
        from pypinyin import Style, pinyin

        names = {final: name for name, finals in FINALS.items() for final in finals.split()}
        groups: dict[str, list[str]] = {}
        for character in dict.fromkeys(characters):
            readings = pinyin(character, style=Style.FINALS_TONE3, heteronym=True, errors="ignore")
            for reading in dict.fromkeys(readings[0] if readings else ()):
                final, tone = reading.rstrip("012345"), reading[-1:]
                if final in names and tone in "1234":
                    name = names[final] + (LEVEL if tone in "12" else OBLIQUE)
                    if character not in groups.setdefault(name, []):
                        groups[name].append(character)
        return cls({name: "".join(groups[name]) for name in sorted(groups)})

    def groups(self, character: str) -> frozenset[str]:
        """The names of the groups that a character is in.

        Args:
            character: any.
        """
        return self._groups.get(character, frozenset())

    def match(self, one: str, other: str) -> bool:
        """Whether two characters rhyme.

        Args:
            one: a character.
            other: another; the same one rhymes with itself, if it has a reading.
        """
        return not self.groups(one).isdisjoint(self.groups(other))

    def write(self, path: Path) -> None:
        """Write the table as JSON."""
        write_json(path, {"rhymes": self.members})

    @classmethod
    def recall(cls, path: Path) -> RhymeTable:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: the file cannot be read.
            CheckpointError: it holds something else.
        """
        saved: Any = read_json(path)
        groups = saved.get("rhymes") if isinstance(saved, dict) and set(saved) == {"rhymes"} else None
        if (
            not isinstance(groups, dict)
            or len(groups) > MAX_GROUPS
            or not all(isinstance(text, str) and text and len(set(text)) == len(text) for text in groups.values())
        ):
            expected = '{"rhymes": {NAME: characters, each once}}'
            raise CheckpointError(explain(f"{path}: not a table of rhymes.", got=repr(saved)[:200], expected=expected))
        return cls(groups)
