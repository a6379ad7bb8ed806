"""Byte-pair encoding: pieces of words, learned from data.

The library `tokenizers` learns and cuts; what is saved is ours, so that nothing but numbers is read from a file.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from carousel.errors import CheckpointError, ConfigError, explain

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

__all__ = ["MAX_CHARACTERS", "MAX_PIECES", "Subwords", "byte_name", "text_of"]

MAX_PIECES = 1 << 17
MAX_PIECE_BYTES = 64
MAX_CHARACTERS = 14 * MAX_PIECES  # of saved pairs
_BYTES = 256
_RUN = 1 << 16  # characters cut at once: the library needs some 200 bytes of memory for each

_ESCAPED = re.compile(r"(?:<0x[0-9A-F]{2}>)+")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")

Result = TypeVar("Result")


class Subwords:
    """The pieces of a byte-pair encoding: the 256 bytes, and pairs of earlier pieces, each joined to one.

    Text becomes UTF-8, and is cut into words, numbers and runs of signs, each with the blank before it. A word starts
    as its bytes; again and again the pair that was learned first is joined. Any text can be cut, and the pieces hold all
    of it: the words of the training data that are frequent are one piece, a character that was never seen is its bytes.

    Args:
        merges: pairs of numbers of pieces, in the order in which they were learned. Pieces 0 to 255 are the bytes; each
            pair makes the next piece, unless the bytes it makes are a piece already.

    Raises:
        ConfigError: a pair names a piece that is not made before it, a piece is longer than 64 bytes, or there are more
            than 131,072 pieces.

    References:
        Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", arXiv:1508.07909.
    """

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        pieces = [bytes([number]) for number in range(_BYTES)]
        numbers = {piece: number for number, piece in enumerate(pieces)}
        flat = array("i")
        for place, (left, right) in enumerate(merges):
            if not (0 <= left < len(pieces) and 0 <= right < len(pieces)):
                got = f"pair {place}: {left} {right}, when there are {len(pieces)} pieces"
                raise ConfigError(explain("Subwords: a pair names a piece that is not there yet.", got=got))
            piece = pieces[left] + pieces[right]
            if len(piece) > MAX_PIECE_BYTES or len(pieces) >= MAX_PIECES or place >= MAX_PIECES:
                got, expected = (
                    f"pair {place}: {len(piece)} bytes",
                    f"at most {MAX_PIECE_BYTES} bytes and {MAX_PIECES:,} pieces",
                )
                raise ConfigError(explain("Subwords: the pieces are too long or too many.", got=got, expected=expected))
            if piece not in numbers:
                numbers[piece] = len(pieces)
                pieces.append(piece)
            flat.extend((left, right))
        self._flat = flat
        self._pieces = pieces
        self._engine: Engine | None = None
        self._names: tuple[str, ...] | None = None

    @classmethod
    def learn(cls, texts: Iterable[str], size: int) -> Subwords:
        """Learn from texts. The same texts give the same pieces.

        Args:
            texts: the texts; they are read once, and need not fit in memory.
            size: how many pieces to learn, the 256 bytes included; fewer if the texts do not have as many.

        Raises:
            ConfigError: `size` is not from 257 to 131,072.
        """
        if not _BYTES < size <= MAX_PIECES:
            got, expected = str(size), f"{_BYTES + 1} to {MAX_PIECES}"
            raise ConfigError(explain("Tokenizer: vocab_size is not possible for subwords.", got=got, expected=expected))
        from tokenizers import models, trainers

        trainer = trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=sorted(_alphabet()),
            special_tokens=[],
            show_progress=False,
            max_token_length=MAX_PIECE_BYTES,
        )
        engine = _contained(lambda: _engine_of(models.BPE()))
        errors: list[BaseException] = []
        _contained(lambda: engine.train_from_iterator(_watched(texts, errors), trainer), errors)
        import json  # the library tells what it learned in this form alone

        byte_of = {character: number for number, character in enumerate(_alphabet())}
        numbers = {bytes([number]): number for number in range(_BYTES)}
        pairs = []
        for left, right in json.loads(engine.to_str())["model"]["merges"]:
            halves = [bytes(byte_of[character] for character in half) for half in (left, right)]
            pairs.append((numbers[halves[0]], numbers[halves[1]]))
            numbers.setdefault(halves[0] + halves[1], len(numbers))
        return cls(pairs)

    @property
    def names(self) -> tuple[str, ...]:
        """Every piece as a token, in the order of their numbers: its text, or its bytes where they are no whole text."""
        if self._names is None:
            self._names = tuple(map(_name, self._pieces))
        return self._names

    def cut(self, text: str) -> list[str]:
        """The pieces of a text, as tokens."""
        if self._engine is None:
            self._engine = self._build()
        engine, names, tokens = self._engine, self.names, []
        for run in _runs(text):
            tokens += [names[number] for number in _contained(lambda run=run: engine.encode(run).ids)]  # type: ignore[misc]
        return tokens

    def _build(self) -> Engine:
        from tokenizers import models

        alphabet = _alphabet()
        spelled = ["".join(alphabet[byte] for byte in piece) for piece in self._pieces]
        pairs = [(spelled[left], spelled[right]) for left, right in self.merges]
        return _contained(lambda: _engine_of(models.BPE({piece: n for n, piece in enumerate(spelled)}, pairs)))

    @property
    def merges(self) -> list[tuple[int, int]]:
        """The pairs, in the order in which they were learned."""
        return list(zip(self._flat[::2], self._flat[1::2], strict=True))

    def to_text(self) -> str:
        """The pairs as whole numbers between blanks."""
        return " ".join(map(str, self._flat))

    @classmethod
    def from_text(cls, text: object) -> Subwords:
        """The pieces whose pairs :meth:`to_text` wrote.

        Raises:
            CheckpointError: `text` is something else, or the library fails on it.
        """
        expected = "whole numbers between blanks, an even number of them"
        if not isinstance(text, str) or len(text) > MAX_CHARACTERS or not re.fullmatch(r"(?:[0-9]{1,6}(?: (?!$)|$))*", text):
            raise CheckpointError(explain("these are not saved subwords.", got=f"{text!r:.80}", expected=expected))
        numbers = array("i", map(int, text.split()))
        if len(numbers) % 2:
            raise CheckpointError(explain("these are not saved subwords.", got=f"{len(numbers)} numbers", expected=expected))
        try:
            made = cls(zip(numbers[::2], numbers[1::2], strict=True))
        except ConfigError as error:
            raise CheckpointError(str(error)) from error
        made.cut("a")  # if the library cannot take them, that shows now
        return made

    def __len__(self) -> int:
        return len(self._pieces)

    def __eq__(self, other: object) -> bool:
        return self._flat == other._flat if isinstance(other, Subwords) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._flat.tobytes())

    def __reduce__(self) -> tuple[Any, ...]:
        return Subwords, (self.merges,)

    def __repr__(self) -> str:
        return f"Subwords({len(self)} pieces)"


def byte_name(byte: int) -> str:
    """A byte as a token: itself where it is a printable character of ASCII, else its value.

    Example:
        >>> byte_name(65), byte_name(10)
        ('A', '<0x0A>')
    """
    return chr(byte) if 0x20 <= byte < 0x7F else f"<0x{byte:02X}>"


def text_of(tokens: Iterable[str]) -> str:
    """The text of tokens that are bytes or pieces. Bytes that are not UTF-8 become U+FFFD.

    Example:
        >>> text_of(["caf", "<0xC3>", "<0xA9>", " au", " lait"])
        'café au lait'
    """
    return b"".join(map(token_bytes, tokens)).decode("utf-8", "replace")


def token_bytes(name: str) -> bytes:
    """The bytes that a token of this kind stands for.

    Example:
        >>> token_bytes("<0xC3>"), token_bytes(" au")
        (b'\\xc3', b' au')
    """
    if _ESCAPED.fullmatch(name):
        return bytes.fromhex(name.replace("<0x", "").replace(">", ""))
    return name.encode("utf-8", "replace")


def _name(piece: bytes) -> str:
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    # A text that could be taken for bytes, or for a vocabulary's own tokens, is spelled as bytes: names stay different.
    if _PLAIN.fullmatch(text) and "<0x" not in text and text not in ("<pad>", "<unk>"):
        return text
    return "".join(f"<0x{byte:02X}>" for byte in piece)


def _runs(text: str) -> Iterator[str]:
    """The text in parts that are cut alike alone and together: a word takes the blank before it, and no other."""
    start = 0
    while len(text) - start > _RUN:
        end = start + _RUN
        while end > start and not (text[end] == " " and not text[end - 1].isspace()):
            end -= 1
        end = end if end > start else start + _RUN  # a word of that length is cut anyhow
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _engine_of(model: Any) -> Engine:
    from tokenizers import Tokenizer, pre_tokenizers

    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return engine


@cache
def _alphabet() -> tuple[str, ...]:
    """The character by which the library spells each byte: itself if it can be seen, else one from U+0100 on."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(_BYTES) if byte not in seen]
    return tuple(chr(byte) if byte in seen else chr(0x100 + hidden.index(byte)) for byte in range(_BYTES))


def _watched(texts: Iterable[str], errors: list[BaseException]) -> Iterator[str]:
    """The texts as the library can take them; an error of theirs is kept, since the library would reword it."""
    try:
        for text in texts:
            yield text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no character
    except BaseException as error:
        errors.append(error)
        raise


def _contained(call: Callable[[], Result], errors: list[BaseException] | None = None) -> Result:
    """Run the library. It can panic, with an exception that is not an `Exception`: that becomes an error of ours."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        if errors:
            raise errors[0] from None
        message = explain("the library for subwords failed.", got=f"{type(error).__name__}: {error}"[:200])
        raise CheckpointError(message) from error
