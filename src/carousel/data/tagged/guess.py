"""What a file of tagged text is written in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from carousel.data.files import STANDARD_INPUT, StrPath

__all__ = ["BLANKS", "CONLLU_COLUMNS", "DOCUMENT", "GUESSED_FROM", "ID", "guess_tagged_format", "has_tag"]

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
DOCUMENT = "-DOCSTART-"
GUESSED_FROM = 50  # lines that are not blank
BLANKS = re.compile("[ \t]+")
ID = re.compile(r"([0-9]+)(-[0-9]+|\.[0-9]+)?")

_FEW = 5  # lines with equally many words may still be plain text
_SUFFIXES = {".conllu": "conllu", **dict.fromkeys((".conll", ".bio", ".iob", ".bioes", ".bmes"), "columns")}


def guess_tagged_format(path: StrPath, lines: Sequence[str], *, require_tags: bool = True) -> str:
    """The format by the file's suffix (``.gz`` is looked through), and where that does not tell, by its first lines.

    Args:
        path: the file; ``-`` is standard input.
        lines: the first of it, up to 50 that are not blank.
        require_tags: whether it must have tags. Without them, a few lines of equally many words are plain text.

    Example:
        >>> guess_tagged_format("a.txt", ["the/DT film/NN"]), guess_tagged_format("a.txt", ["the DT", "film NN"])
        ('word/tag', 'columns')
    """
    if path != STANDARD_INPUT:
        found = [suffix.lower() for suffix in PurePath(path).suffixes]
        if found[-1:] == [".gz"]:
            found.pop()
        if found and found[-1] in _SUFFIXES:
            return _SUFFIXES[found[-1]]
    rows = [line for line in lines if line.strip(" \t") and not line.lstrip(" \t").startswith(DOCUMENT)]
    plain = [line for line in rows if not line.startswith("#")] or rows
    if any(line.count("\t") == len(CONLLU_COLUMNS) - 1 and ID.fullmatch(line.partition("\t")[0]) for line in plain):
        return "conllu"
    if rows and all(has_tag(item) for line in rows for item in BLANKS.split(line.strip(" \t"))):
        return "word/tag"
    if any("\t" in line for line in plain):
        return "columns"
    counts = {len(BLANKS.split(line.strip(" "))) for line in plain}
    alike = len(counts) == 1 and min(counts) > 1 and len(plain) >= _FEW
    return "columns" if require_tags or alike else "raw"


def has_tag(item: str) -> bool:
    """Whether it is a word, a slash and a tag."""
    word, _, tag = item.rpartition("/")
    return bool(word and tag)
