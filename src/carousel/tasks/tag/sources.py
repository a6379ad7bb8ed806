"""Tagged sentences from files and from lists, in words or in characters, as a tagger is given them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.data.tagged import TaggedSentence, guess_scheme, read_tagged, to_characters
from carousel.data.tagged.guess import CONLLU_COLUMNS
from carousel.errors import ConfigError, DataError, explain, unknown_name

if TYPE_CHECKING:
    from carousel.tasks.tag.options import TaggerOptions

__all__ = ["Tagged", "bare_sentences", "column_places", "pair_up", "read_sentences"]

Tagged = str | os.PathLike[str] | Sequence[Any]
"""A file, or a list: of tagged sentences, of pairs (words, tags), or where characters are tagged, of lists of words."""


def read_sentences(
    data: Tagged, options: TaggerOptions, *, what: str, place: int | None = None, tagged: bool = True
) -> list[TaggedSentence]:
    """Read sentences into memory.

    Args:
        data: a file or a list.
        options: how a file is written, and whether characters are tagged.
        what: the data, for messages.
        place: the column of the tags in the training data, where that was a file of columns; None if it is not known.
        tagged: whether there must be tags.

    Raises:
        DataError: a file cannot be read, an item is something else, or there is no sentence.
    """
    characters = options.unit == "char"
    if isinstance(data, str | os.PathLike):
        sentences: Iterable[TaggedSentence] = read_tagged(
            data,
            format=options.format,
            column=options.column,
            word_column=options.word_column,
            require_tags=tagged and not characters,
        )
        if place is not None and options.column is None:
            sentences = (_moved(sentence, place, tagged and not characters) for sentence in sentences)
        found = list(sentences)
    else:
        if not isinstance(data, Sequence):
            got = type(data).__name__
            raise DataError(explain(f"{what} cannot be read.", got=got, expected="a file, or a list of pairs (words, tags)"))
        found = [_sentence(item, at, what, characters=characters, tagged=tagged) for at, item in enumerate(data)]
        found = [sentence for sentence in found if sentence.words] if tagged else found
    if characters:
        found = _in_characters(found)
    if tagged and not found:
        raise DataError(explain(f"{what} holds no sentence.", advice="give at least one sentence with a word in it"))
    return found


def bare_sentences(verb: str, items: Any, options: TaggerOptions) -> list[TaggedSentence]:
    """What is to be tagged, from a list.

    Args:
        verb: who asks, for messages.
        items: sentences: lists of words, texts with blanks between the words (or of characters), or what a file was read into.
        options: whether characters are tagged.

    Raises:
        DataError: `items` is one text, or an item is something else.
    """
    if isinstance(items, str | Path):
        advice = f"{verb}([words])"
        raise DataError(explain(f"{verb} takes a list of sentences.", got="one text", advice=advice))
    return read_sentences(list(items), options, what=verb, tagged=False)


def pair_up(X: Any, y: Any, verb: str = "fit") -> list[tuple[Any, Any]]:
    """Sentences with their tags.

    Args:
        X: a list of words for each sentence.
        y: a list of tags for each sentence.
        verb: who asks, for messages.

    Raises:
        DataError: they are not of one length.
    """
    left, right = list(X), list(y)
    if len(left) != len(right):
        got = f"{len(left)} sentences, {len(right)} lists of tags"
        raise DataError(explain(f"{verb}: X and y are not of one length.", got=got))
    return list(zip(left, right, strict=True))


def column_places(names: Sequence[str], sentences: Sequence[TaggedSentence], what: str) -> list[int]:
    """The places of columns in the rows of sentences.

    Args:
        names: numbers, counted from 0, or names of CoNLL-U.
        sentences: as they were read.
        what: the data, for messages.

    Raises:
        ConfigError: there is no column of that name.
        DataError: a sentence has no such column.
    """
    places = []
    for name in names:
        if name.lstrip("-").isdigit():
            places.append(int(name))
        elif name.lower() in CONLLU_COLUMNS:
            places.append(CONLLU_COLUMNS.index(name.lower()))
        else:
            raise ConfigError("option features: " + unknown_name("column", name, CONLLU_COLUMNS) + ", or a number")
    for sentence in sentences if places else ():
        width = len(sentence.columns[0]) if sentence.columns else 0
        for name, place in zip(names, places, strict=True):
            if not -width <= place < width:
                got = f"{width} columns" if width else "words without columns"
                message = explain(f"{what}: column {name} of option features is missing.", got=got)
                raise DataError(message, path=sentence.path or None, line=sentence.line or None)
            if place % width == sentence.column:
                raise ConfigError(explain(f"option features: column {name} holds the tags.", advice="choose another column"))
    return places


def _moved(sentence: TaggedSentence, place: int, tagged: bool) -> TaggedSentence:
    """The sentence with the tags in the column where the training data had them; without tags if it has none there."""
    if sentence.format != "columns" or sentence.column == place:
        return sentence
    if not sentence.columns or place >= len(sentence.columns[0]):
        if tagged:
            got, advice = f"{len(sentence.columns[0])} columns", "name the column of the tags with column"
            message = explain(f"column {place}, where the training data has its tags, is missing.", got=got, advice=advice)
            raise DataError(message, path=sentence.path, line=sentence.line)
        return replace(sentence, tags=None, column=-1)
    return replace(sentence, tags=tuple(row[place] for row in sentence.columns), column=place)


def _sentence(item: Any, at: int, what: str, *, characters: bool, tagged: bool) -> TaggedSentence:
    if isinstance(item, TaggedSentence):
        if tagged and item.tags is None and not characters:
            raise DataError(explain(f"{what}: sentence {at} has no tags.", got=item.place or None))
        return item
    words, tags = item, None
    if isinstance(item, tuple) and len(item) == 2 and not isinstance(item[0], str):
        words, tags = item
    if isinstance(words, str):
        words = words.split()
    good = isinstance(words, Sequence) and all(isinstance(word, str) and word for word in words)
    good = good and (tags is None or (not isinstance(tags, str) and all(isinstance(tag, str) and tag for tag in tags)))
    if not good or (tagged and tags is None and not characters):
        expected = "a pair (words, tags), lists of texts" if tagged and not characters else "a list of words"
        raise DataError(explain(f"{what}: item {at} is no sentence.", got=repr(item)[:200], expected=expected))
    if tags is not None and len(tags) != len(words):
        got = f"{len(words)} words, {len(tags)} tags"
        raise DataError(explain(f"{what}: sentence {at} has not one tag for each word.", got=got))
    return TaggedSentence(tuple(words), None if tags is None else tuple(tags))


def _in_characters(sentences: list[TaggedSentence]) -> list[TaggedSentence]:
    """Sentences of characters: as they are if they are tagged characters already, else their words cut."""
    if all(len(word) == 1 for sentence in sentences for word in sentence.words):
        rows = [sentence.tags for sentence in sentences]
        tags = [each for each in rows if each is not None]
        if len(tags) == len(rows) and guess_scheme(tags) in ("bmes", "bioes"):
            return sentences
    return [to_characters(sentence) for sentence in sentences]
