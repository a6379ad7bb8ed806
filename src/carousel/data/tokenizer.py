"""Texts into tokens: words or characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

from carousel.errors import CheckpointError, ConfigError, NotFittedError, explain, unknown_name

__all__ = ["Tokenizer"]

UNITS = ("auto", "char", "word")

# Han, kana and their marks: written without blanks, a character close to a word.
_CJK = "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
# All scripts written without blanks: the above, Thai, Lao, Tibetan, Myanmar, Khmer.
_UNSPACED = re.compile(f"[{_CJK}\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
_CONTRACTION = re.compile(r"(.+)(n't|'(?:s|m|d|ll|re|ve))", re.IGNORECASE)
_CURLY = re.compile(r"(?<=\w)’(?=\w)")
_SAMPLE = 10_000

# W stands for a character of a word. What is one token stays one when it stands alone: tokenising the tokens again
# changes nothing. No part backtracks over more than it takes, so time grows with the length of the text.
_WORDS = r"""
    (?: https?:// | www\. ) [^\s<>"]* [^\s<>".,;:!?')\]}]
  | [\w.+-]{1,64} @ [\w-]+ (?: \. [\w-]+ )+
  | - [lr][rcs]b - (?!W)                                     # brackets of the treebanks: -lrb-
  | [CJK]
  | [@\#] W+
  | n't (?!W) | ' (?: s | m | d | t | ll | re | ve ) (?!W)    # already apart: do n't
  | ' (?: \d\ds? | em | til | tis | twas | n' | n ) (?!W)
  | (?: [^\W\d_CJK] \. ){2,} (?!W)                           # u.s.
  | (?: al | bros | co | corp | dr | etc | inc | jr | ltd | mr | mrs | ms | prof | rev | sept | sr | st | vs ) \. (?!W)
  | [^\W\d_CJK] \. (?= \s+ \S )                              # an initial, unless the text ends there
  | (?<! \S ) [-+]? \.? \d W* (?: JOIN W+ )*                 # -1.5
  | W+ (?: JOIN W+ )*
  | `` | '' | (?: \\\* )+ | \\/ | [!?]+ | (?P<run> [-.*=~…] ) (?P=run)*
  | \S (?: [\ufe0e\ufe0f\U0001f3fb-\U0001f3ff] | \u200d [^\w\s] )*   # a symbol; an emoji with its modifiers
"""
_JOIN = r"(?: [-'&+·‐‑] | \\? / | (?<= \d ) [,:] (?= \d ) | \. (?! (?-i: [A-Z] ) ) )"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Cuts texts into tokens.

    ``word``: raw text is cut at blanks, and punctuation is cut off its words; a contraction is cut as the treebanks
    do (``do n't``, ``it 's``), so raw text and text that is already in tokens give the same ones. Numbers, web
    addresses and hyphenated words stay whole. Each Chinese character and Japanese kana is a token.
    ``char``: every character is a token; a run of blanks is one blank.
    ``auto``: decided by :meth:`resolve` on the texts for training.

    Args:
        unit: ``word``, ``char`` or ``auto``.
        lowercase: whether case is dropped. None: yes for words, no for characters.

    Raises:
        ConfigError: an unknown unit.

    Example:
        >>> Tokenizer("word").tokenize("It isn't 1,000 times better (or is it?).")
        ['it', 'is', "n't", '1,000', 'times', 'better', '(', 'or', 'is', 'it', '?', ')', '.']
        >>> Tokenizer("auto").resolve(["房间很大", "早餐不错"])
        Tokenizer(unit='char', lowercase=False)
    """

    unit: str = "auto"
    lowercase: bool | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(unknown_name("unit", str(self.unit), UNITS))
        if self.lowercase is None and self.unit != "auto":
            object.__setattr__(self, "lowercase", self.unit == "word")

    def resolve(self, texts: Iterable[str]) -> Tokenizer:
        """Decide what ``auto`` means for these texts: characters or words.

        Characters, if most letters belong to a script without blanks (Chinese, Japanese, Thai, ...), or if most texts
        have no blank in them (surnames, say); else words. The first 10,000 texts are looked at.

        Args:
            texts: the texts for training.

        Returns:
            A tokenizer whose unit is ``word`` or ``char``; itself if it is that already.
        """
        if self.unit != "auto":
            return self
        texts_seen = single = letters = unspaced = 0
        for text in islice(texts, _SAMPLE):
            texts_seen += 1
            single += len(text.split(None, 1)) < 2
            letters += sum(map(str.isalpha, text))
            unspaced += len(_UNSPACED.findall(text))
        by_characters = texts_seen > 0 and (2 * single > texts_seen or 2 * unspaced > letters > 0)
        return replace(self, unit="char" if by_characters else "word")

    def tokenize(self, text: str) -> list[str]:
        """Cut a text into tokens.

        Args:
            text: the text; it is normalised to Unicode NFC first.

        Returns:
            The tokens, none of them empty; no tokens for a text of blanks.

        Raises:
            NotFittedError: the unit is still ``auto``.
        """
        if self.unit == "auto":
            raise NotFittedError(explain(_UNRESOLVED, advice="call resolve(texts) with the texts for training"))
        text = unicodedata.normalize("NFC", text)
        tokens = list(" ".join(text.split())) if self.unit == "char" else _words(text)
        return [token.lower() for token in tokens] if self.lowercase else tokens

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as JSON values.

        Raises:
            NotFittedError: the unit is still ``auto``.
        """
        if self.unit == "auto":
            raise NotFittedError(explain(_UNRESOLVED, advice="call resolve(texts) with the texts for training"))
        return {"unit": self.unit, "lowercase": self.lowercase}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that :meth:`to_dict` wrote.

        Raises:
            CheckpointError: `content` is something else.
        """
        if isinstance(content, Mapping) and content.keys() == {"unit", "lowercase"}:
            unit, lowercase = content["unit"], content["lowercase"]
            if unit in ("word", "char") and isinstance(lowercase, bool):
                return cls(unit, lowercase)
        expected = '{"unit": "word" or "char", "lowercase": true or false}'
        raise CheckpointError(explain("this is not a saved tokenizer.", got=repr(content)[:200], expected=expected))


_UNRESOLVED = "Tokenizer: whether tokens are words or characters is not decided yet (unit='auto')."


def _words(text: str) -> list[str]:
    tokens: list[str] = []
    text = _CURLY.sub("'", text)
    for match in _pattern(text.isascii()).finditer(text):
        token = match.group()
        if "'" in token and len(token) > 1:
            tokens += _parts(token)
        else:
            tokens.append(token)
    return tokens


def _parts(token: str) -> list[str]:
    """A contraction as stem and endings: couldn't've = could n't 've."""
    endings: list[str] = []
    while found := _CONTRACTION.fullmatch(token):
        token, ending = found.groups()
        endings.append(ending)
    return [token, *reversed(endings)]


@cache
def _pattern(ascii_only: bool) -> re.Pattern[str]:
    if ascii_only:
        word, cjk = r"[A-Za-z0-9_]", "\u4e00"
    else:
        # Vowel signs and other marks belong to their words, but \w does not hold them.
        marks = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
        word, cjk = rf"(?:[^\W{_CJK}]|[{re.escape(marks)}])", _CJK
    joined = _WORDS.replace("JOIN", _JOIN).replace("CJK", cjk)
    return re.compile(re.sub(r"(?<!\\)W", lambda _: word, joined), re.VERBOSE | re.IGNORECASE)
