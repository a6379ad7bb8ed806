"""The options of :class:`carousel.tasks.KeyTerms`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from carousel.errors import ConfigError, explain
from carousel.graph import Cell
from carousel.tasks.options import check_values, within

__all__ = ["KeyTermsOptions"]


@dataclass(frozen=True)
class KeyTermsOptions:
    """What :class:`KeyTerms` are found with.

    Args:
        method: tags marks terms in the document, word by word; terms scores a vocabulary of terms by what the whole
            document says; tfidf and textrank count words and train no network.
        cell: the recurrent cell: a name that `carousel cells` lists, or your own (--code FILE.py --cell NAME).
        cell_options: options of the cell.
        hidden_size: units of one layer in one direction.
        num_layers: recurrent layers on top of each other.
        bidirectional: read in both directions.
        embedding_size: features of an embedded word; with `vectors` their features count.
        embedding_scale: deviation of the random start of the word embedding.
        dropout: share of features dropped before the first recurrent layer, between layers and before the output.
        word_dropout: share of words replaced by the unknown one in training.
        recurrent_dropout: share of units that products with the state do not see, the same at all steps of a document.
        zoneout: share of units that keep their state at a step.
        weight_drop: share of the recurrent weights dropped in training.
        engine: what runs the recurrent layers: auto, or an engine that `carousel info` lists.
        min_count: words seen less often in training are unknown.
        max_vocab: keep at most this many words, the most frequent.
        vectors: file of word vectors (word2vec or GloVe, text) that the word embedding starts from.
        freeze_vectors: leave the vectors of that file as they are.
        characters: what reads the characters of a word: a layer of `cell` in both directions (recurrent), a
            convolution over three with the maximum (cnn), or none.
        affixes: prefixes and suffixes of up to this many letters are embedded; 0 for none.
        affix_size: features of an embedded affix, and of an embedded shape.
        shape: embed the kinds of a word's characters (Boeing-747 is Xx-d).
        statistics: embed what counting says of a word: how often it stands in the document and in training, its tf-idf and
            first place in the document, and how often it was part of a term in other documents.
        statistic_size: features of each of these.
        max_words: words of the longest term that is answered.
        term_count: terms: the vocabulary is the terms of at least this many training documents.
        only_present: terms: answer only with terms that stand in the document.
        batch_size: documents in a batch.
        format: how the data files are written: columns (word and tag), jsonl, tsv or csv (with a column of terms), or raw;
            null goes by their name and first lines.
        text_field: column or key of the text.
        label_field: column or key of the terms.
        label_separator: what stands between the terms of a field.
        column: columns: the column of the tags, by number (from 0; -1 is the last) or by name; null is the last.
    """

    method: Literal["tags", "terms", "tfidf", "textrank"] = field(default="tags", metadata=within("network"))
    cell: str | type[Cell] | Cell = field(default="lstm", metadata=within("network"))
    cell_options: Mapping[str, Any] = field(default_factory=dict, metadata=within("network"))
    hidden_size: int = field(default=128, metadata=within("network", at_least=1))
    num_layers: int = field(default=1, metadata=within("network", at_least=1))
    bidirectional: bool = field(default=True, metadata=within("network"))
    embedding_size: int = field(default=100, metadata=within("network", at_least=1))
    embedding_scale: float = field(default=0.1, metadata=within("network", at_least=0))
    dropout: float = field(default=0.5, metadata=within("network", at_least=0, below=1))
    word_dropout: float = field(default=0.1, metadata=within("network", at_least=0, below=1))
    recurrent_dropout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    zoneout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    weight_drop: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    engine: str = field(default="auto", metadata=within("network"))
    min_count: int = field(default=2, metadata=within("inputs", at_least=1))
    max_vocab: int | None = field(default=None, metadata=within("inputs", at_least=1))
    vectors: str | None = field(default=None, metadata=within("inputs"))
    freeze_vectors: bool = field(default=False, metadata=within("inputs"))
    characters: Literal["recurrent", "cnn", "none"] = field(default="none", metadata=within("inputs"))
    affixes: int = field(default=4, metadata=within("inputs", at_least=0, at_most=8))
    affix_size: int = field(default=20, metadata=within("inputs", at_least=1))
    shape: bool = field(default=True, metadata=within("inputs"))
    statistics: bool = field(default=True, metadata=within("inputs"))
    statistic_size: int = field(default=10, metadata=within("inputs", at_least=1))
    max_words: int = field(default=6, metadata=within("targets", at_least=1, at_most=20))
    term_count: int = field(default=2, metadata=within("targets", at_least=1))
    only_present: bool = field(default=True, metadata=within("targets"))
    batch_size: int = field(default=16, metadata=within("data", at_least=1))
    format: Literal["columns", "jsonl", "tsv", "csv", "raw"] | None = field(default=None, metadata=within("data"))
    text_field: str = field(default="text", metadata=within("data"))
    label_field: str = field(default="keyterms", metadata=within("data"))
    label_separator: str = field(default=";", metadata=within("data"))
    column: str | int | None = field(default=None, metadata=within("data"))

    def __post_init__(self) -> None:
        check_values(self)
        if self.label_separator == "":
            raise ConfigError(explain("option label_separator: cannot be empty.", advice="give a character such as ;"))
        if self.freeze_vectors and self.vectors is None:
            raise ConfigError(explain("option freeze_vectors: there are no vectors.", advice="name their file with vectors"))

    @property
    def counts(self) -> bool:
        """Whether the method counts words, and trains no network."""
        return self.method in ("tfidf", "textrank")
