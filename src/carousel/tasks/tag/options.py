"""The options of :class:`carousel.tasks.Tagger`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from carousel.errors import ConfigError, explain
from carousel.graph import Cell
from carousel.tasks.options import check_values, within

__all__ = ["TaggerOptions"]


@dataclass(frozen=True)
class TaggerOptions:
    """What a :class:`Tagger` is made of.

    Args:
        cell: the recurrent cell: a name that `carousel cells` lists, or your own (--code FILE.py --cell NAME).
        cell_options: options of the cell.
        hidden_size: units of one layer in one direction.
        num_layers: recurrent layers on top of each other.
        bidirectional: read in both directions.
        embedding_size: features of an embedded word or character; with `vectors` their features count.
        embedding_scale: deviation of the random start of the word embedding; that of the others is 0.3.
        dropout: share of features dropped before the first recurrent layer, between layers and before the output.
        locked_dropout: drop the same features at all steps of a sentence.
        word_dropout: share of all words, and of all pairs of `bigrams`, replaced by the unknown one in training.
        recurrent_dropout: share of units that products with the state do not see, the same at all steps of a sentence.
        zoneout: share of units that keep their state at a step.
        weight_drop: share of the recurrent weights dropped in training.
        output: crf scores whole sequences of tags, with transitions; softmax scores each tag by itself.
        loss: what is minimised: the negative log-likelihood, or with output crf the structured perceptron's or the
            margin loss.
        constraints: answer only sequences of tags that the scheme allows; a CRF also learns under them.
        engine: what runs the recurrent layers: auto, or an engine that `carousel info` lists.
        unit: tag words, or characters: those of a text in words then say where words begin (segmentation).
        lowercase: make letters small before a word is looked up; characters, affixes and shapes see them as they are.
        zero_digits: make every digit 0 before a word or a character is looked up.
        min_count: words seen less often in training are unknown.
        max_vocab: keep at most this many words, the most frequent.
        rare_unknown: chance that a word seen once in training is the unknown one, which so learns its meaning.
        vectors: file of word vectors (word2vec or GloVe, text) that the word embedding starts from.
        freeze_vectors: leave the vectors of that file as they are.
        characters: what reads the characters of a word: a recurrent layer of `cell` in both directions, a convolution over
            three with the maximum (cnn), or none; auto is recurrent for words and none for characters.
        character_size: features of an embedded character.
        character_hidden: units of the characters' layer: in one direction, or filters.
        affixes: prefixes and suffixes of up to this many letters are embedded too; 0 for none.
        affix_size: features of an embedded affix.
        shape: embed the kinds of a word's characters (Boeing-747 is Xx-d) too.
        bigrams: embed each token together with its neighbours on both sides; null does so for characters.
        bigram_size: features of an embedded pair.
        features: columns of the file that are embedded too, by number (from 0) or name, with commas between.
        feature_size: features of an embedded column.
        scheme: how spans are written as tags for training; auto is bioes where the data holds spans (bmes where it is
            written so), none takes tags as they are. Answers are written as the data is.
        inconsistent: tags that break the data's scheme (I after O): repair reads them as conlleval does, error refuses them.
        batch_size: sentences in a batch.
        format: how the data files are written; null goes by their name and first lines.
        column: the column of the tags, by number (from 0; -1 is the last) or by name (upos, xpos, feats); null is upos or
            the last.
        word_column: the column of the words, by number; null is the format's own.
    """

    cell: str | type[Cell] | Cell = field(default="lstm", metadata=within("network"))
    cell_options: Mapping[str, Any] = field(default_factory=dict, metadata=within("network"))
    hidden_size: int = field(default=200, metadata=within("network", at_least=1))
    num_layers: int = field(default=1, metadata=within("network", at_least=1))
    bidirectional: bool = field(default=True, metadata=within("network"))
    embedding_size: int = field(default=100, metadata=within("network", at_least=1))
    embedding_scale: float = field(default=0.3, metadata=within("network", at_least=0))
    dropout: float = field(default=0.5, metadata=within("network", at_least=0, below=1))
    locked_dropout: bool = field(default=False, metadata=within("network"))
    word_dropout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    recurrent_dropout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    zoneout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    weight_drop: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    output: Literal["crf", "softmax"] = field(default="crf", metadata=within("network"))
    loss: Literal["likelihood", "perceptron", "margin"] = field(default="likelihood", metadata=within("network"))
    constraints: bool = field(default=True, metadata=within("network"))
    engine: str = field(default="auto", metadata=within("network"))
    unit: Literal["word", "char"] = field(default="word", metadata=within("inputs"))
    lowercase: bool = field(default=False, metadata=within("inputs"))
    zero_digits: bool = field(default=False, metadata=within("inputs"))
    min_count: int = field(default=1, metadata=within("inputs", at_least=1))
    max_vocab: int | None = field(default=None, metadata=within("inputs", at_least=1))
    rare_unknown: float = field(default=0.5, metadata=within("inputs", at_least=0, at_most=1))
    vectors: str | None = field(default=None, metadata=within("inputs"))
    freeze_vectors: bool = field(default=False, metadata=within("inputs"))
    characters: Literal["auto", "recurrent", "cnn", "none"] = field(default="auto", metadata=within("inputs"))
    character_size: int = field(default=30, metadata=within("inputs", at_least=1))
    character_hidden: int = field(default=50, metadata=within("inputs", at_least=1))
    affixes: int = field(default=0, metadata=within("inputs", at_least=0, at_most=8))
    affix_size: int = field(default=20, metadata=within("inputs", at_least=1))
    shape: bool = field(default=False, metadata=within("inputs"))
    bigrams: bool | None = field(default=None, metadata=within("inputs"))
    bigram_size: int = field(default=50, metadata=within("inputs", at_least=1))
    features: str | None = field(default=None, metadata=within("inputs"))
    feature_size: int = field(default=20, metadata=within("inputs", at_least=1))
    scheme: Literal["auto", "none", "bio", "iob1", "bioes", "bmes", "io"] = field(default="auto", metadata=within("targets"))
    inconsistent: Literal["repair", "error"] = field(default="repair", metadata=within("targets"))
    batch_size: int = field(default=32, metadata=within("data", at_least=1))
    format: str | None = field(default=None, metadata=within("data"))
    column: str | int | None = field(default=None, metadata=within("data"))
    word_column: int | None = field(default=None, metadata=within("data", at_least=0))

    def __post_init__(self) -> None:
        check_values(self)
        if self.freeze_vectors and self.vectors is None:
            raise ConfigError(explain("option freeze_vectors: there are no vectors.", advice="name their file with vectors"))
        if self.output == "softmax" and self.loss != "likelihood":
            what = f"option loss: {self.loss} compares whole sequences of tags."
            raise ConfigError(explain(what, got="output softmax", advice="output=crf, or loss=likelihood"))

    @property
    def reads_characters(self) -> Literal["recurrent", "cnn", "none"]:
        """What reads the characters of a token."""
        if self.characters == "auto":
            return "recurrent" if self.unit == "word" else "none"
        return self.characters

    @property
    def reads_bigrams(self) -> bool:
        """Whether a token is embedded together with its neighbours."""
        return self.unit == "char" if self.bigrams is None else self.bigrams

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns that are embedded."""
        return tuple(part.strip() for part in (self.features or "").split(",") if part.strip())
