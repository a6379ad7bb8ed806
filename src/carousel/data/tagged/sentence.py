"""A tagged sentence, and words cut into characters and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from carousel.data.tagged.schemes import spans
from carousel.errors import ShapeError, explain

__all__ = ["TaggedSentence", "to_characters", "to_words"]


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """Words with their tags, and what is needed to write the same file back.

    Args:
        words: of the sentence.
        tags: of the words; None if there are none.
        columns: all columns of each word's row as they stood; empty if words do not stand in rows.
        path: the file, as messages show it.
        line: the line of the file where the first word stands, counted from 1; 0 if it was in no file.
        format: what it was read from, one of `TAGGED_FORMATS`.
        column: the number of the column of the tags; -1 if there is none.
        separator: what stands between columns, or between words.
        kept: lines that are no words, each with the number of the word that it stands before: comments, words of several
            parts, documents' beginnings, blank lines.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None = None
    columns: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    path: str = ""
    line: int = 0
    format: str = "raw"
    column: int = -1
    separator: str = ""
    kept: tuple[tuple[int, str], ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.words)

    @property
    def place(self) -> str:
        """Where it stands, as ``file:line``; empty if it was in no file."""
        return f"{self.path}:{self.line}" if self.line else self.path

    def line_of(self, word: int) -> int:
        """The line of the file where a word stands.

        Args:
            word: its number in the sentence.
        """
        if not self.columns:
            return self.line
        return self.line + word + sum(1 for before, _ in self.kept if 0 < before <= word)


def to_characters(sentence: TaggedSentence, with_tags: bool = False) -> TaggedSentence:
    """The sentence's characters, tagged ``B M E S`` by their place in the word they are of: segmentation as tagging.

    Args:
        sentence: words, with or without tags.
        with_tags: whether a word's tag is joined to its characters' (``B-n``). Needs tags.

    Raises:
        ShapeError: `with_tags`, and there are none.

    Example:
        >>> to_characters(TaggedSentence(("北京", "在"), ("ns", "p"))).tags
        ('B', 'E', 'S')
        >>> to_characters(TaggedSentence(("北京", "在"), ("ns", "p")), with_tags=True).tags
        ('B-ns', 'E-ns', 'S-p')
    """
    if with_tags and sentence.tags is None:
        raise ShapeError(explain("to_characters: the words have no tags.", got=sentence.place, advice="leave out with_tags"))
    tags: list[str] = []
    for at, word in enumerate(sentence.words):
        suffix = f"-{sentence.tags[at]}" if with_tags and sentence.tags is not None else ""
        letters = "S" if len(word) == 1 else "B" + "M" * (len(word) - 2) + "E"
        tags += [letter + suffix for letter in letters]
    kept = tuple((0, line) for before, line in sentence.kept if before == 0)
    return TaggedSentence(
        tuple("".join(sentence.words)), tuple(tags), (), sentence.path, sentence.line, "raw", -1, sentence.separator, kept
    )


def to_words(sentence: TaggedSentence, tags: Sequence[str] | None = None, scheme: str = "bmes") -> TaggedSentence:
    """The words that tagged characters make up; what :func:`to_characters` does, undone.

    Args:
        sentence: characters.
        tags: of the characters; by default the sentence's own.
        scheme: what they are written in. A character outside all spans is a word.

    Returns:
        The words, with the types of the spans as tags if they have any.

    Raises:
        ShapeError: there are not as many tags as characters.
        DataError: a tag is not one of the scheme's.

    Example:
        >>> to_words(TaggedSentence(tuple("我在北京")), ["S", "S", "B", "E"]).words
        ('我', '在', '北京')
    """
    tags = sentence.tags if tags is None else tags
    if tags is None or len(tags) != len(sentence):
        got = "no tags" if tags is None else f"{len(tags)} tags"
        raise ShapeError(explain("to_words: a tag for each character is needed.", got=got, expected=f"{len(sentence)}"))
    words: list[str] = []
    types: list[str] = []
    at = 0
    for begin, end, kind in [*spans(tags, scheme), (len(tags), len(tags), "")]:
        words += sentence.words[at:begin]
        types += ["O"] * (begin - at)
        if end > begin:
            words.append("".join(sentence.words[begin:end]))
            types.append(kind)
        at = end
    typed = any(kind not in ("", "O") for kind in types)
    found = tuple(kind or "O" for kind in types) if typed else None
    kept = tuple((0, line) for before, line in sentence.kept if before == 0)
    format, separator = ("word/tag" if typed else "raw"), sentence.separator or " "  # noqa: A001
    return TaggedSentence(tuple(words), found, (), sentence.path, sentence.line, format, -1, separator, kept)
