"""How Chinese characters are read: the characters of a vocabulary by their syllables."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Candidates", "Readings", "plain_letter", "sentence_syllables"]

TONE_MARKS = {"\u0304": 1, "\u0301": 2, "\u030c": 3, "\u0300": 4}
NEUTRAL = 5
DIAERESIS = "\u0308"  # of ü, which is v on a keyboard
VOWELS = frozenset("aeiouv")
CHANGING = frozenset("一不")  # their tones change with what follows, so any tone may be typed for them


@dataclass(frozen=True)
class Candidates:
    """The characters that a syllable may be.

    Args:
        numbers: (C,), int64, of their tokens.
        rare: (C,), float32, 0 for the commonest reading of a character, 1 for its others.
    """

    numbers: npt.NDArray[np.int64]
    rare: npt.NDArray[np.float32]


class Readings:
    """Which characters of a vocabulary are read how; all readings of each, from the dictionary of `pypinyin`.

    Syllables are small letters with v for ü.

    Args:
        tokens: the tokens by their numbers; those that are no Chinese character have no reading.

    Attributes:
        longest: letters of the longest syllable, 0 if there is none.

    Example:
        >>> readings = Readings(["<unk>", "长", "常", "张", "a"])
        >>> readings.candidates("chang").numbers.tolist(), readings.candidates("zhang").numbers.tolist()
        ([1, 2], [1, 3])
        >>> readings.candidates("zhang", 3).numbers.tolist()
        [1]
        >>> "a" in readings
        False
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        from pypinyin import Style, pinyin

        found: dict[str, dict[int, float]] = defaultdict(dict)
        toned: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
        for number, token in enumerate(tokens):
            if len(token) != 1 or token.isascii():
                continue
            read = pinyin(token, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True, errors="ignore")
            for place, reading in enumerate(read[0] if read else ()):
                syllable, tone = reading[:-1], int(reading[-1])
                if not VOWELS & set(syllable):
                    continue  # ng, hm and the like: sounds that would let any letters pass for pinyin
                rare = float(place > 0 and syllable != read[0][0][:-1])
                found[syllable].setdefault(number, rare)
                for one in range(1, NEUTRAL) if token in CHANGING else (tone,):
                    toned[syllable, one].setdefault(number, rare)
        self._all = {syllable: _candidates(numbers) for syllable, numbers in found.items()}
        self._toned = {key: _candidates(numbers) for key, numbers in toned.items()}
        self.longest = max(map(len, self._all), default=0)

    def __contains__(self, syllable: object) -> bool:
        return syllable in self._all

    def spelled(self, letters: str) -> str | None:
        """The syllable that these letters are; lue and nue are typed for lüe and nüe.

        Args:
            letters: without marks.

        Returns:
            None if there is none.
        """
        other = f"{letters[0]}ve" if letters in ("lue", "nue") else letters
        return other if other in self._all else None

    def candidates(self, syllable: str, tone: int | None = None) -> Candidates:
        """The characters with a reading.

        Args:
            syllable: without its tone.
            tone: 1 to 4; 5, the neutral one, and None stand for any. A tone that no character has is not looked at.

        Raises:
            KeyError: there is none.
        """
        everything = self._all[syllable]
        if tone is None or tone == NEUTRAL:
            return everything
        return self._toned.get((syllable, tone), everything)


def sentence_syllables(text: str) -> list[str]:
    """How each character of a text is read in its place, by the dictionary of phrases of `pypinyin`.

    Args:
        text: any text.

    Returns:
        A syllable without tone for each character, v for ü; an empty text for what is no Chinese character.

    Example:
        >>> sentence_syllables("银行行长，A")
        ['yin', 'hang', 'hang', 'zhang', '', '']
    """
    from pypinyin import lazy_pinyin

    found: list[str] = lazy_pinyin(text, errors=_none_for_each)  # type: ignore[arg-type]
    return found


def _none_for_each(rest: str) -> list[str]:
    """What the library takes for a run of other characters; its types only tell of one text for all of them."""
    return [""] * len(rest)


def plain_letter(letter: str) -> tuple[str, int | None] | None:
    """A letter of pinyin without its marks, and the tone that they told.

    Args:
        letter: one character, composed (NFC).

    Returns:
        A small letter, v for ü, and the tone; None if pinyin has no such letter.

    Example:
        >>> plain_letter("Ǐ"), plain_letter("ǜ"), plain_letter("b"), plain_letter("é"), plain_letter("ç")
        (('i', 3), ('v', 4), ('b', None), ('e', 2), None)
    """
    parts = unicodedata.normalize("NFD", letter.lower())
    base, marks = parts[:1], parts[1:]
    if not ("a" <= base <= "z"):
        return None
    tone = None
    for mark in marks:
        if mark == DIAERESIS and base == "u":
            base = "v"
        elif mark in TONE_MARKS and tone is None:
            tone = TONE_MARKS[mark]
        else:
            return None
    return base, tone


def _candidates(numbers: dict[int, float]) -> Candidates:
    return Candidates(np.array(list(numbers), np.int64), np.array(list(numbers.values()), np.float32))
