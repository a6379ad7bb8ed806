"""Texts into tokens: words, characters, bytes or pieces of words."""

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import Any

from carousel.data.files import StrPath, read_json, read_text, shown_path, write_json
from carousel.data.subwords import MAX_CHARACTERS, Subwords, byte_name, text_of
from carousel.errors import CheckpointError, ConfigError, NotFittedError, explain, unknown_name

__all__ = ["Tokenizer"]

UNITS = ("auto", "byte", "char", "subword", "word")
VOCAB_SIZE = 8000

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
    ``byte``: every byte of the text's UTF-8 is a token, one of 256.
    ``subword``: pieces of words, which :meth:`learn` finds in the texts for training (byte-pair encoding). Any text
    can be cut, and no token is unknown.
    ``auto``: words or characters, decided by :meth:`resolve` on the texts for training.

    Args:
        unit: ``word``, ``char``, ``byte``, ``subword`` or ``auto``.
        lowercase: whether case is dropped. None: yes for words, else no.
        vocab_size: how many pieces to learn, the 256 bytes included; for subwords only.
        subwords: what was learned; give none.

    Raises:
        ConfigError: an unknown unit.

    Example:
        >>> Tokenizer("word").tokenize("It isn't 1,000 times better (or is it?).")
        ['it', 'is', "n't", '1,000', 'times', 'better', '(', 'or', 'is', 'it', '?', ')', '.']
        >>> Tokenizer("auto").resolve(["房间很大", "早餐不错"])
        Tokenizer(unit='char', lowercase=False)
        >>> Tokenizer("subword", vocab_size=260).learn(["lower and lower", "slower"]).tokenize("lowest")
        ['lo', 'w', 'e', 's', 't']
    """

    unit: str = "auto"
    lowercase: bool | None = None
    vocab_size: int = field(default=VOCAB_SIZE, repr=False)
    subwords: Subwords | None = field(default=None, repr=False)

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

    def learn(self, texts: Iterable[str]) -> Tokenizer:
        """Learn the pieces of words. The same texts give the same pieces.

        Args:
            texts: the texts for training; they are read once, one at a time. The other units do not look at them.

        Returns:
            A tokenizer that knows its pieces; itself, if its unit is not ``subword`` or it knows them already.

        Raises:
            ConfigError: `vocab_size` is not from 257 to 131,072.
            NotFittedError: the unit is still ``auto``.
        """
        self._check_resolved()
        if self.unit != "subword" or self.subwords is not None:
            return self
        return replace(self, subwords=Subwords.learn(map(self._prepared, texts), self.vocab_size))

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """All tokens there can be, if that is known beforehand: for bytes, and for subwords once they are learned."""
        if self.unit == "byte":
            return tuple(map(byte_name, range(256)))
        return self.subwords.names if self.subwords is not None else None

    def tokenize(self, text: str) -> list[str]:
        """Cut a text into tokens.

        Args:
            text: the text; for words and characters it is normalised to Unicode NFC first.

        Returns:
            The tokens, none of them empty. No tokens for a text of blanks, if they are words or characters.

        Raises:
            NotFittedError: the unit is still ``auto``, or subwords are not learned yet.
        """
        if self.unit == "subword" and self.subwords is not None:
            return self.subwords.cut(self._prepared(text))
        self._check_resolved(learned=True)
        if self.unit == "byte":
            return list(map(byte_name, self._prepared(text).encode()))
        text = unicodedata.normalize("NFC", text)
        tokens = list(" ".join(text.split())) if self.unit == "char" else _words(text)
        return [token.lower() for token in tokens] if self.lowercase else tokens

    def join(self, tokens: Iterable[str]) -> str:
        """The text of tokens: for bytes and subwords, exactly the one that was cut, but for its case if that is dropped.

        Args:
            tokens: what :meth:`tokenize` gave, or a part of it.
        """
        if self.unit in ("byte", "subword"):
            return text_of(tokens)
        return ("" if self.unit == "char" else " ").join(tokens)

    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as JSON values.

        Raises:
            NotFittedError: the unit is still ``auto``, or subwords are not learned yet.
        """
        self._check_resolved(learned=True)
        content: dict[str, Any] = {"unit": self.unit, "lowercase": self.lowercase}
        if self.subwords is not None:
            content |= {"vocab_size": self.vocab_size, "merges": self.subwords.to_text()}
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that :meth:`to_dict` wrote.

        Raises:
            CheckpointError: `content` is something else.
        """
        keys = set(content) if isinstance(content, Mapping) else set()
        if {"unit", "lowercase"} <= keys and isinstance(content["lowercase"], bool):
            unit, lowercase = content["unit"], content["lowercase"]
            if keys == {"unit", "lowercase"} and unit in ("byte", "char", "word"):
                return cls(unit, lowercase)
            if (
                keys == {"unit", "lowercase", "vocab_size", "merges"}
                and unit == "subword"
                and type(content["vocab_size"]) is int
            ):
                return cls(unit, lowercase, content["vocab_size"], Subwords.from_text(content["merges"]))
        raise CheckpointError(explain("this is not a saved tokenizer.", got=reprlib.repr(content), expected=_EXPECTED))

    def save(self, path: StrPath) -> None:
        """Write the tokenizer as JSON, atomically.

        Raises:
            DataError: the file cannot be written.
            NotFittedError: the unit is still ``auto``, or subwords are not learned yet.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: StrPath) -> Tokenizer:
        """Read the tokenizer that :meth:`save` wrote.

        Raises:
            DataError: the file cannot be read or is not JSON.
            CheckpointError: the file holds something else.
        """
        text = read_text(path, max_characters=2 * MAX_CHARACTERS)
        try:
            if sum(map(text.count, "[{,")) > _SIGNS:  # a file full of small values would need much memory
                raise CheckpointError(explain("this is not a saved tokenizer.", got=repr(text[:80]), expected=_EXPECTED))
            return cls.from_dict(read_json(path))
        except CheckpointError as error:
            raise CheckpointError(f"{shown_path(path)}: {error}") from error

    def _prepared(self, text: str) -> str:
        """For bytes and subwords: nothing but the case is changed, and half of a surrogate pair is no character."""
        return (text.lower() if self.lowercase else text).encode("utf-8", "replace").decode()

    def _check_resolved(self, *, learned: bool = False) -> None:
        if self.unit == "auto":
            raise NotFittedError(explain(_UNRESOLVED, advice="call resolve(texts) with the texts for training"))
        if learned and self.unit == "subword" and self.subwords is None:
            raise NotFittedError(explain(_UNLEARNED, advice="call learn(texts) with the texts for training"))


_EXPECTED = '{"unit": "byte", "char" or "word", "lowercase": true or false}, for "subword" with vocab_size and merges'
_SIGNS = 8
_UNLEARNED = "Tokenizer: the pieces of words are not learned yet (unit='subword')."
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
