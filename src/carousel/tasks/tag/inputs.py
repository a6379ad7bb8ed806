"""Tagged data made ready: what is learned from it before training, and its batches."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carousel.data import Vocabulary, read_json, read_vectors, write_json
from carousel.data.tagged import TaggedSentence, to_words
from carousel.errors import CheckpointError, DataError, explain
from carousel.tasks.base import Prepared
from carousel.tasks.run_directory import path_text
from carousel.tasks.splits import hold_out_any
from carousel.tasks.tag.sources import Tagged, column_places, read_sentences
from carousel.tasks.tag.tags import UNSEEN, TagIndex
from carousel.tasks.tag.words import TokenNumbers, WordIndex

if TYPE_CHECKING:
    from carousel.data import WordVectors
    from carousel.tasks.tag.options import TaggerOptions

__all__ = ["PREDICT_BATCH_SIZE", "PreparedSentences", "TaggerInputs", "prepare"]

PREDICT_BATCH_SIZE = 64
SOURCE_FILE = "tagged.json"
LEXICON_FILE = "words.json"
MAX_SIZE = 1 << 16


@dataclass(frozen=True)
class TaggerInputs:
    """What turns sentences into numbers and back.

    Args:
        words: vocabularies of what is embedded.
        tags: the tags.
        place: the column of the tags in the training data; None if that had no columns.
        size: features of the word vectors that the embedding started from; None if there were none.
        coverage: how much of the training data those vectors know, in words.
        lexicon: where characters are tagged, the words of the training data; else None.
        vectors: the vectors themselves, known only to the run that reads them: later they are weights.
    """

    words: WordIndex
    tags: TagIndex
    place: int | None = None
    size: int | None = None
    coverage: str = ""
    lexicon: Vocabulary | None = field(default=None, repr=False)
    vectors: WordVectors | None = field(default=None, compare=False, repr=False)

    def numbers(self, sentences: Sequence[TaggedSentence], options: TaggerOptions, *, training: bool = False) -> TokenNumbers:
        """Sentences as numbers.

        Args:
            sentences: tagged or not.
            options: which further columns are read.
            training: whether these are the data that were learned from.
        """
        places = column_places(options.feature_columns, sentences, "the data")
        return self.words.encode(sentences, places, training=training)

    @property
    def known(self) -> Container[str]:
        """The words that training has seen, as they are looked up."""
        return self.words if self.lexicon is None else self.lexicon

    def write(self, directory: Path) -> None:
        """Write all of it as JSON files."""
        if self.lexicon is not None:
            self.lexicon.save(directory / LEXICON_FILE)
        self.words.write(directory)
        self.tags.write(directory)
        write_json(directory / SOURCE_FILE, {"place": self.place, "size": self.size, "coverage": self.coverage})

    @classmethod
    def recall(cls, directory: Path, options: TaggerOptions) -> TaggerInputs:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        path = directory / SOURCE_FILE
        saved: Any = read_json(path)
        good = isinstance(saved, dict) and saved.keys() == {"place", "size", "coverage"} and isinstance(saved["coverage"], str)
        for name, least in (("place", 0), ("size", 1)) if good else ():
            value = saved[name]
            good = good and (value is None or (type(value) is int and least <= value <= MAX_SIZE))
        if not good:
            raise CheckpointError(explain(f"{path}: not saved by a tagger.", got=repr(saved)[:200]))
        words, tags = WordIndex.recall(directory, options), TagIndex.recall(directory)
        lexicon = Vocabulary.load(directory / LEXICON_FILE) if options.unit == "char" else None
        return cls(words, tags, saved["place"], saved["size"], saved["coverage"], lexicon)


@dataclass(frozen=True)
class PreparedSentences(Prepared[TaggerInputs]):
    """Data made ready, and the sentences that are held for validation.

    Args:
        held: the sentences of `valid`.
    """

    held: list[TaggedSentence]


def prepare(
    train: Tagged,
    valid: Tagged | None,
    inputs: TaggerInputs | None,
    *,
    options: TaggerOptions,
    seed: int,
    note: Callable[[str], None],
    processes: int = 1,
) -> PreparedSentences:
    """Read the data, learn from them what turns sentences into numbers, and make batches.

    Args:
        train: a file or a list.
        valid: the same, or None to hold out a tenth of `train`.
        inputs: what a run that goes on has learned before.
        options: the options of the task.
        seed: of the order of batches, and of what is held out.
        note: says a line to the user.
        processes: of the run; each takes its share of a batch, so that batches are larger by so much.
    """
    from carousel.tasks.tag.batches import TagBatches

    place = None if inputs is None else inputs.place
    learn = read_sentences(train, options, what="the training data", place=place)
    if valid is None:
        learn, held = hold_out_any(learn, seed=seed, what="sentences")
        note(f"No validation data given: {len(held):,} of {len(learn) + len(held):,} sentences are held out for it.")
    else:
        first = learn[0]
        held = read_sentences(
            valid, options, what="the validation data", place=first.column if first.format == "columns" else None
        )
    if inputs is None:
        inputs = _learn(learn, options)
    numbers = inputs.numbers(learn, options, training=True)
    truth, check = inputs.tags.encode(learn), inputs.tags.encode(held)
    _say(inputs, learn, held, check, note)
    if (truth == UNSEEN).any():
        raise DataError("the training data has tags that the run to resume has not learned.")
    size = options.batch_size * processes
    return PreparedSentences(
        inputs=inputs,
        train=TagBatches(numbers, truth, batch_size=size, shuffle=True, seed=seed),
        valid=TagBatches(
            inputs.numbers(held, options), check, batch_size=max(size, PREDICT_BATCH_SIZE), shuffle=False, seed=seed
        ),
        sources={"train": path_text(train), "valid": path_text(valid)},
        held=held,
    )


def _learn(sentences: list[TaggedSentence], options: TaggerOptions) -> TaggerInputs:
    tags = TagIndex.learn(sentences, options)
    words = WordIndex.learn(sentences, column_places(options.feature_columns, sentences, "the training data"), options)
    first = sentences[0]
    place = first.column if first.format == "columns" and first.column >= 0 else None
    lexicon = None
    if options.unit == "char":
        scheme = tags.data_scheme or "bmes"
        lexicon = Vocabulary.count(to_words(sentence, scheme=scheme).words for sentence in sentences)
    if options.vectors is None:
        return TaggerInputs(words, tags, place, lexicon=lexicon)
    vectors = read_vectors(options.vectors, words.words.tokens[2:])
    return TaggerInputs(words, tags, place, int(vectors.matrix.shape[1]), str(vectors.coverage), lexicon, vectors)


def _say(
    inputs: TaggerInputs,
    learn: list[TaggedSentence],
    held: list[TaggedSentence],
    check: npt.NDArray[np.int64],
    note: Callable[[str], None],
) -> None:
    known, tags = len(inputs.words.words), inputs.tags
    spans = "no spans" if tags.scheme is None else f"spans written as {tags.data_scheme}, learned as {tags.scheme}"
    note(f"{len(learn):,} sentences to learn from, {len(held):,} to validate on, {len(tags):,} tags, {spans}.")
    what = "words" if inputs.lexicon is None else "characters"
    note(f"{known:,} {what} known" + (f", {inputs.coverage}." if inputs.coverage else "."))
    if unseen := int((check == UNSEEN).sum()):
        note(f"{unseen:,} of {len(check):,} tags of the validation data are not in the training data: they count as wrong.")
