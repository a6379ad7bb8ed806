"""Documents made ready: what is learned from them before training, and their batches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from carousel.data.tagged import TaggedSentence
from carousel.errors import CheckpointError, DataError, explain
from carousel.tasks.base import Prepared
from carousel.tasks.keyterms.documents import Document, Documents, Term, open_documents
from carousel.tasks.keyterms.features import STATISTICS, WordStatistics
from carousel.tasks.keyterms.spans import KIND
from carousel.tasks.run_directory import path_text
from carousel.tasks.splits import hold_out_any
from carousel.tasks.tag.options import TaggerOptions
from carousel.tasks.tag.tags import TagIndex
from carousel.tasks.tag.words import TokenNumbers, WordIndex

if TYPE_CHECKING:
    from carousel.data import WordVectors
    from carousel.tasks.keyterms.options import KeyTermsOptions

__all__ = ["PREDICT_BATCH_SIZE", "KeyTermsInputs", "PreparedDocuments", "prepare", "tagger_options"]

PREDICT_BATCH_SIZE = 32
INPUTS_FILE, TERMS_FILE, THRESHOLD_FILE = "keyterms.json", "terms.json", "threshold.json"
THRESHOLD = 0.3  # of a run that did not come to measure its own
MAX_SIZE = 1 << 16


def tagger_options(options: KeyTermsOptions) -> TaggerOptions:
    """The options of the tagger whose network reads the documents.

    Args:
        options: those of the key terms.
    """
    return TaggerOptions(
        cell=options.cell,
        cell_options=options.cell_options,
        hidden_size=options.hidden_size,
        num_layers=options.num_layers,
        bidirectional=options.bidirectional,
        embedding_size=options.embedding_size,
        embedding_scale=options.embedding_scale,
        dropout=options.dropout,
        word_dropout=options.word_dropout,
        recurrent_dropout=options.recurrent_dropout,
        zoneout=options.zoneout,
        weight_drop=options.weight_drop,
        engine=options.engine,
        lowercase=True,
        min_count=options.min_count,
        max_vocab=options.max_vocab,
        vectors=options.vectors,
        freeze_vectors=options.freeze_vectors,
        characters=options.characters,
        affixes=options.affixes,
        affix_size=options.affix_size,
        shape=options.shape,
        features=",".join(map(str, range(len(STATISTICS)))) if options.statistics else None,
        feature_size=options.statistic_size,
        scheme="bioes",
        batch_size=options.batch_size,
    )


@dataclass(frozen=True)
class KeyTermsInputs:
    """What turns documents into numbers, and scores into terms.

    Args:
        statistics: words counted in the training data.
        words: vocabularies of what is embedded; None where no network is trained.
        tags: the tags; None likewise.
        terms: the vocabulary of terms, where it is scored.
        threshold: terms of at least this score are answered; None until it is measured.
        size: features of the word vectors that the embedding started from; None if there were none.
        vectors: the vectors themselves, known only to the run that reads them: later they are weights.
    """

    statistics: WordStatistics
    words: WordIndex | None = None
    tags: TagIndex | None = None
    terms: tuple[Term, ...] = ()
    threshold: float | None = None
    size: int | None = None
    vectors: WordVectors | None = field(default=None, compare=False, repr=False)

    @classmethod
    def learn(cls, documents: Sequence[Document], options: KeyTermsOptions) -> KeyTermsInputs:
        """Count words and terms.

        Args:
            documents: the training data.
            options: what is read and answered.

        Raises:
            DataError: there is no term to learn from.
        """
        statistics = WordStatistics.learn(documents)
        if options.counts:
            return cls(statistics)
        terms: tuple[Term, ...] = ()
        if options.method == "terms":
            counts = Counter(term for document in documents for term in document.terms or () if len(term) <= options.max_words)
            terms = tuple(sorted(term for term, count in counts.items() if count >= options.term_count))
            if not terms:
                got = f"{len(counts)} terms, none of {options.term_count} documents"
                raise DataError(explain("there is no vocabulary of terms.", got=got, advice="lower term_count, or method=tags"))
        elif not any(document.spans for document in documents):
            advice = "give documents whose terms stand in them, or choose method=terms"
            raise DataError(explain("the training data has not one key term in its place.", advice=advice))
        tagger = tagger_options(options)
        sentences = cls(statistics).counted(documents, options, learned=True)
        words = WordIndex.learn(sentences, range(len(tagger.feature_columns)), tagger)
        # All four letters, whatever the data has: two terms, of one word and of three.
        tags = TagIndex.learn([TaggedSentence(("", "", "", ""), (f"B-{KIND}", f"B-{KIND}", f"I-{KIND}", "O"))], tagger)
        if options.vectors is None:
            return cls(statistics, words, tags, terms)
        from carousel.data import read_vectors

        vectors = read_vectors(options.vectors, words.words.tokens[2:])
        return cls(statistics, words, tags, terms, None, int(vectors.matrix.shape[1]), vectors)

    def tagged(self, documents: Sequence[Document]) -> list[TaggedSentence]:
        """Documents as sentences with tags that say where terms stand.

        Args:
            documents: with key terms.
        """
        return [TaggedSentence(document.words, _tags(document)) for document in documents]

    def counted(
        self, documents: Sequence[Document], options: KeyTermsOptions, *, learned: bool = False
    ) -> list[TaggedSentence]:
        """Documents as sentences with what counting says of each word in further columns.

        Args:
            documents: any number.
            options: whether there are such columns.
            learned: whether they are those that were counted.
        """
        rows = self.statistics.rows
        return [
            TaggedSentence(document.words, None, rows(document, learned=learned) if options.statistics else ())
            for document in documents
        ]

    def numbers(self, documents: Sequence[Document], options: KeyTermsOptions, *, learned: bool = False) -> TokenNumbers:
        """Documents as numbers; see :meth:`counted` for the arguments."""
        words = cast("WordIndex", self.words)  # only a method with a network asks
        columns = range(len(words.columns))
        return words.encode(self.counted(documents, options, learned=learned), columns, training=learned)

    @property
    def cutoff(self) -> float:
        """The score from which on terms are answered."""
        return THRESHOLD if self.threshold is None else self.threshold

    def write(self, directory: Path) -> None:
        """Write all of it as JSON files."""
        from carousel.data import write_json

        self.statistics.write(directory)
        write_json(directory / INPUTS_FILE, {"size": self.size})
        if self.words is not None and self.tags is not None:
            self.words.write(directory)
            self.tags.write(directory)
        if self.terms:
            write_json(directory / TERMS_FILE, {"terms": [list(term) for term in self.terms]})
        self.write_threshold(directory)

    def write_threshold(self, directory: Path) -> None:
        """Write the threshold, if it is known."""
        from carousel.data import write_json

        if self.threshold is not None:
            write_json(directory / THRESHOLD_FILE, {"threshold": self.threshold})

    @classmethod
    def recall(cls, directory: Path, options: KeyTermsOptions) -> KeyTermsInputs:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        statistics = WordStatistics.recall(directory)
        size = _recalled(directory / INPUTS_FILE, "size")
        if size is not None and not (type(size) is int and 0 < size <= MAX_SIZE):
            raise CheckpointError(explain(f"{directory / INPUTS_FILE}: not a size of vectors.", got=repr(size)[:200]))
        threshold = _recalled(directory / THRESHOLD_FILE, "threshold") if (directory / THRESHOLD_FILE).exists() else None
        if threshold is not None and not (type(threshold) is float and math.isfinite(threshold) and threshold > 0):
            raise CheckpointError(explain(f"{directory / THRESHOLD_FILE}: not a threshold.", got=repr(threshold)[:200]))
        if options.counts:
            return cls(statistics, threshold=threshold)
        words, tags = WordIndex.recall(directory, tagger_options(options)), TagIndex.recall(directory)
        wanted = {f"{letter}-{KIND}" for letter in "BIES"} | {"O"}
        if set(tags.labels.names) != wanted or tags.scheme != "bioes":
            raise CheckpointError(f"{directory}: the tags are not those of key terms.")
        terms = _recalled_terms(directory / TERMS_FILE) if options.method == "terms" else ()
        return cls(statistics, words, tags, terms, threshold, size)


@dataclass(frozen=True)
class PreparedDocuments(Prepared[KeyTermsInputs]):
    """Data made ready, and the documents that are held for validation.

    Args:
        held: the documents of `valid`.
    """

    held: list[Document]


def prepare(
    train: Documents,
    valid: Documents | None,
    inputs: KeyTermsInputs | None,
    *,
    options: KeyTermsOptions,
    seed: int,
    note: Callable[[str], None],
    processes: int = 1,
) -> PreparedDocuments:
    """Read the data, learn from them what turns documents into numbers, and make batches.

    Args:
        train: a file or a list.
        valid: the same, or None to hold out a tenth of `train`.
        inputs: what a run that goes on has learned before.
        options: the options of the task.
        seed: of the order of batches, and of what is held out.
        note: says a line to the user.
        processes: of the run; each takes its share of a batch, so that batches are larger by so much.
    """
    learn = open_documents(train, options, labelled=True, what="the training data")
    if valid is None:
        learn, held = hold_out_any(learn, seed=seed, what="documents")
        note(f"No validation data given: {len(held):,} of {len(learn) + len(held):,} documents are held out for it.")
    else:
        held = open_documents(valid, options, labelled=True, what="the validation data")
    if inputs is None:
        inputs = KeyTermsInputs.learn(learn, options)
    _say(inputs, learn, held, note)
    batches: list[Any] = [(), ()]
    if not options.counts:
        from carousel.tasks.keyterms.batches import document_batches

        size = options.batch_size * processes
        batches = [
            document_batches(inputs, learn, options, batch_size=size, learned=True, shuffle=True, seed=seed),
            document_batches(inputs, held, options, batch_size=max(size, PREDICT_BATCH_SIZE)),
        ]
    return PreparedDocuments(
        inputs=inputs,
        train=batches[0],
        valid=batches[1],
        sources={"train": path_text(train), "valid": path_text(valid)},
        held=held,
    )


def _say(inputs: KeyTermsInputs, learn: list[Document], held: list[Document], note: Callable[[str], None]) -> None:
    wanted = sum(len(document.terms or ()) for document in learn)
    note(f"{len(learn):,} documents to learn from, with {wanted:,} key terms, {len(held):,} to validate on.")
    if inputs.words is not None:
        coverage = "" if inputs.vectors is None else f", {inputs.vectors.coverage}"
        note(f"{len(inputs.words.words):,} words known{coverage}.")
    if inputs.terms:
        vocabulary = set(inputs.terms)
        terms = [term for document in held for term in document.terms or ()]
        known = sum(term in vocabulary for term in terms)
        note(f"{len(vocabulary):,} terms in the vocabulary: {known:,} of {len(terms):,} of the validation data are among them.")


def _tags(document: Document) -> tuple[str, ...]:
    tags = ["O"] * len(document.words)
    for begin, end in document.spans:
        tags[begin:end] = [f"B-{KIND}", *[f"I-{KIND}"] * (end - begin - 1)]
    return tuple(tags)


def _recalled(path: Path, key: str) -> Any:
    from carousel.data import read_json

    saved: Any = read_json(path)
    if not isinstance(saved, dict) or saved.keys() != {key}:
        raise CheckpointError(
            explain(f"{path}: not saved by a run of key terms.", got=repr(saved)[:200], expected=f'{{"{key}": ...}}')
        )
    return saved[key]


def _recalled_terms(path: Path) -> tuple[Term, ...]:
    saved = _recalled(path, "terms")
    good = isinstance(saved, list) and all(
        isinstance(term, list) and term and all(isinstance(word, str) and word for word in term) for term in saved
    )
    terms = tuple(map(tuple, saved)) if good else ()
    if not terms or len(set(terms)) != len(terms):
        raise CheckpointError(explain(f"{path}: not a saved vocabulary of terms.", got=repr(saved)[:200]))
    return terms
