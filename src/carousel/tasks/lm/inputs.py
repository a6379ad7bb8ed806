"""Texts into the numbers of tokens, and back."""

from __future__ import annotations

import codecs
import os
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carousel.data import Tokenizer, Vocabulary, numbered_lines, read_json, write_json
from carousel.data.subwords import byte_name, token_bytes
from carousel.errors import CheckpointError, DataError, explain

if TYPE_CHECKING:
    from carousel.tasks.lm.options import LanguageModelOptions

__all__ = ["Joiner", "LanguageInputs", "Texts", "read_lines"]

Texts = str | os.PathLike[str] | Sequence[str]
"""A file, or a list of texts."""

UNKNOWN = 0  # numbers are those of the vocabulary without its padding
LINE_END = {"word": "<eos>", "char": "\n", "byte": byte_name(10), "subword": byte_name(10)}
TEXT_FILE, VOCABULARY_FILE = "text.json", "vocabulary.json"
PIECE = 1 << 16  # characters of a long line that are cut into tokens at once
SAMPLE = 10_000  # lines that tell whether words are already apart
LINE_BREAKS = ("\r\n", "\r", "\n")


def read_lines(texts: Texts) -> Iterator[str]:
    """The lines of a file (``-`` is standard input), or of a list of texts.

    Raises:
        DataError: the file cannot be read, or something in the list is no text.
    """
    if isinstance(texts, str | os.PathLike):
        for _, line in numbered_lines(texts):
            yield line
        return
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(explain(f"text {number} of the list is no text.", got=repr(text)[:200]))
        yield from text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


@dataclass(frozen=True)
class LanguageInputs:
    """How a text becomes tokens, and which of them are known.

    The number of a token is that of the vocabulary less one: there is no padding, 0 is unknown.

    Args:
        tokenizer: cuts a text; resolved and learned.
        spaces: words are cut at blanks alone.
        line_ends: the end of a line is a token.
        backward: texts are read from their end.
        vocabulary: the known tokens.
    """

    tokenizer: Tokenizer
    spaces: bool
    line_ends: bool
    backward: bool
    vocabulary: Vocabulary

    @classmethod
    def learn(cls, lines: Callable[[], Iterable[str]], options: LanguageModelOptions) -> LanguageInputs:
        """Learn the vocabulary.

        Args:
            lines: gives the training text, line by line, as often as it is asked.
            options: unit, split and what is known.

        Raises:
            DataError: there is no text.
        """
        tokenizer = Tokenizer(options.unit, options.lowercase, options.vocab_size)
        tokenizer = tokenizer.resolve(line for line in lines() if line.strip())
        tokenizer = Tokenizer(tokenizer.unit, options.lowercase, options.vocab_size)
        tokenizer = tokenizer.learn(lines())
        spaces = options.split == "space"
        if tokenizer.unit == "word" and options.split == "auto":
            spaces = any("<unk>" in line.split() for _, line in zip(range(SAMPLE), lines(), strict=False))
        self = cls(tokenizer, spaces, options.line_ends, options.direction == "backward", Vocabulary([]))
        if tokenizer.tokens is not None:
            return self._knowing(tokenizer.tokens)
        counted = Vocabulary.count(map(self.cut, lines()), min_count=options.min_count, max_size=options.max_vocab)
        return self._knowing(counted.tokens[2:])

    def _knowing(self, tokens: Sequence[str]) -> LanguageInputs:
        # The end of a line stands before every text, so it is always known.
        known = list(tokens) if self.line_end in tokens else [self.line_end, *tokens]
        return LanguageInputs(self.tokenizer, self.spaces, self.line_ends, self.backward, Vocabulary(known))

    @property
    def unit(self) -> str:
        """What a token is: word, char, byte or subword."""
        return self.tokenizer.unit

    @property
    def line_end(self) -> str:
        """The token at the end of a line."""
        return LINE_END[self.unit]

    @property
    def end(self) -> int:
        """Its number; it is also the context of a text's first token."""
        return self.vocabulary.encode([self.line_end])[0] - 1

    @property
    def tokens(self) -> list[str]:
        """The tokens by their numbers."""
        return self.vocabulary.tokens[1:]

    def __len__(self) -> int:
        return len(self.vocabulary) - 1

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's tokens, from first to last; ends of lines inside of it are tokens, too.

        Args:
            text: any text; an empty one has no tokens.
        """
        return list(self.encode_text(text))

    def encode_text(self, text: str) -> array[int]:
        """As :meth:`encode`, in a tenth of the memory.

        Args:
            text: any text.
        """
        numbers = array("i")
        for place, line in enumerate(read_lines([text])):
            if place and self.line_ends:
                numbers.append(self.end)
            self._append(numbers, line)
        return numbers

    def encode_line(self, line: str) -> array[int]:
        """The numbers of a line's tokens in the order in which the model reads them, with the line's end.

        Args:
            line: without its end.
        """
        numbers = array("i")
        self._append(numbers, line)
        if self.backward:
            numbers.reverse()
        if self.line_ends:
            numbers.append(self.end)
        return numbers

    def _append(self, numbers: array[int], line: str) -> None:
        """Add a line's tokens, some at a time: a list of them all would be large."""
        tokens = self.cut(line)
        while piece := list(islice(tokens, PIECE)):
            numbers.extend(number - 1 for number in self.vocabulary.encode(piece))

    def stream(self, lines: Iterable[str]) -> tuple[npt.NDArray[np.int32], int]:
        """The numbers of a whole text in the order in which the model reads it, and its characters.

        Args:
            lines: the lines of the text.

        Raises:
            DataError: there is not one token.
        """
        parts: list[array[int]] = []
        characters = 0
        for line in lines:
            parts.append(self.encode_line(line))
            characters += len(line) + self.line_ends
        if self.backward:
            parts.reverse()
        numbers = np.frombuffer(b"".join(parts), np.int32) if parts else np.zeros(0, np.int32)
        if not len(numbers):
            raise DataError(explain("there is no text.", got=f"{len(parts)} lines without a token", advice="give a text file"))
        return numbers, characters

    def write(self, directory: Path) -> None:
        """Write all of it as JSON files."""
        self.vocabulary.save(directory / VOCABULARY_FILE)
        told = {"spaces": self.spaces, "line_ends": self.line_ends, "backward": self.backward}
        write_json(directory / TEXT_FILE, {"tokenizer": self.tokenizer.to_dict(), **told})

    @classmethod
    def recall(cls, directory: Path) -> LanguageInputs:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        path = directory / TEXT_FILE
        saved: Any = read_json(path)
        flags = ("spaces", "line_ends", "backward")
        if (
            not isinstance(saved, dict)
            or set(saved) != {"tokenizer", *flags}
            or any(type(saved[flag]) is not bool for flag in flags)
        ):
            raise CheckpointError(explain(f"{path}: does not say how texts are read.", got=repr(saved)[:200]))
        try:
            tokenizer = Tokenizer.from_dict(saved["tokenizer"])
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        vocabulary = Vocabulary.load(directory / VOCABULARY_FILE)
        found = cls(tokenizer, saved["spaces"], saved["line_ends"], saved["backward"], vocabulary)
        wanted = set(tokenizer.tokens or ()) | {found.line_end}
        if not wanted <= set(vocabulary.tokens):
            raise CheckpointError(f"{directory / VOCABULARY_FILE}: does not hold the tokens of {path}.")
        return found

    def cut(self, line: str) -> Iterator[str]:
        """The tokens of a line, a piece of it at a time.

        Args:
            line: without its end.
        """
        if self.unit == "char":
            text = unicodedata.normalize("NFC", line)
            if not self.line_ends:
                text += " "
            yield from text.lower() if self.tokenizer.lowercase else text
            return
        for piece in _pieces(line if self.line_ends or self.unit == "word" else line + " "):
            if self.spaces:
                yield from (piece.lower() if self.tokenizer.lowercase else piece).split()
            else:
                yield from self.tokenizer.tokenize(piece)


def _pieces(line: str) -> Iterator[str]:
    """A long line in pieces, cut before a blank where there is one near."""
    start = 0
    while len(line) - start > PIECE:
        end = line.rfind(" ", start + 1, start + PIECE)
        end = end if end > start else start + PIECE
        yield line[start:end]
        start = end
    if start < len(line):
        yield line[start:]


class Joiner:
    """Tokens into text, one at a time: what has been given out never changes.

    Args:
        inputs: which tokens there are.

    Example:
        >>> inputs = LanguageInputs(Tokenizer("word", False), True, True, False, Vocabulary(["<eos>", "a", "cat"]))
        >>> joiner = Joiner(inputs)
        >>> [joiner.add(number) for number in (2, 3, 1, 2)]
        ['a', ' cat', '\\n', 'a']
    """

    def __init__(self, inputs: LanguageInputs) -> None:
        self._names = inputs.tokens
        self._unit = inputs.unit
        self._end = inputs.end
        self._fresh = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, number: int) -> str:
        """The text that this token adds; it may be empty where a character is not complete yet.

        Args:
            number: of the token.
        """
        name = self._names[number]
        if self._unit in ("byte", "subword"):
            return self._decoder.decode(token_bytes(name) if number else "\ufffd".encode())
        if self._unit == "char":
            return name if number else "\ufffd"
        if number == self._end:
            self._fresh = True
            return "\n"
        blank, self._fresh = "" if self._fresh else " ", False
        return blank + name

    def go_on(self) -> None:
        """Let the next word stand behind another one."""
        self._fresh = False

    def close(self) -> str:
        """What is left of a character that was not completed."""
        return self._decoder.decode(b"", True)
