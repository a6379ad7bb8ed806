"""The options of :class:`carousel.tasks.Classifier`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from carousel.errors import ConfigError, explain
from carousel.graph import Cell
from carousel.tasks.options import check_values, within

__all__ = ["ClassifierOptions"]


@dataclass(frozen=True)
class ClassifierOptions:
    """What a :class:`Classifier` is made of.

    Args:
        cell: the recurrent cell: a name that `carousel cells` lists, or your own (--code FILE.py --cell NAME).
        cell_options: options of the cell.
        hidden_size: units of one layer in one direction.
        num_layers: recurrent layers on top of each other.
        bidirectional: read in both directions.
        embedding_size: features of an embedded word or character; with `vectors` their features count.
        embedding_scale: deviation of the random start of the embedding.
        project: series: a learned linear layer to `embedding_size` features before the recurrent layers.
        dropout: share of values dropped after the embedding, between layers and before the output.
        word_dropout: share of words or characters replaced by the unknown one in training, which so learns its meaning.
        recurrent_dropout: share of units that products with the state do not see, the same at all steps of a sequence.
        zoneout: share of units that keep their state at a step.
        weight_drop: share of the recurrent weights dropped in training.
        summary: how a sequence becomes one vector.
        engine: what runs the recurrent layers: auto, or an engine that `carousel info` lists.
        source: what is read: texts or numeric series; auto goes by the file (.ts, or an `id_field`) or the list.
        unit: read words, characters, bytes or subwords; auto takes characters where the texts have no spaces, else words.
        lowercase: make letters small before reading; null does so for words, not for the others.
        min_count: words seen less often in training are unknown.
        max_vocab: keep at most this many words or characters, the most frequent.
        vocab_size: subwords: how many pieces are learned from the training data.
        vectors: file of word vectors (word2vec or GloVe, text) that the embedding starts from.
        freeze_vectors: leave the vectors of that file as they are.
        missing: series: a missing value counts as the channel's mean, told by a mask channel; or is refused.
        target: one label, several labels or none, or numbers for each record; auto goes by the data.
        label_separator: what stands between the labels of a record; null for one label, or | with target several.
        label_smoothing: share of the probability spread over all labels in training; one label only.
        class_weights: how much a label counts in training: none, balanced, or numbers by label (others count 1).
        sampling: plain takes each record once an epoch; balanced draws so that every label comes equally often.
        number_loss: what is minimised for numbers, on targets of deviation 1.
        batch_size: records in a batch; auto tries what fits into `memory_limit`.
        memory_limit: MiB of memory for data, and with batch_size auto for a step; larger files stay on disk. null is 1024 for
            the data, and for a step what the machine has free.
        format: how the data files are written; null goes by their suffix.
        text_field: column or key of the text.
        label_field: column or key of the label; for numbers one or more, with commas between.
        id_field: column of the series' name in a table of steps; rows of one name are the steps in order.
    """

    cell: str | type[Cell] | Cell = field(default="lstm", metadata=within("network"))
    cell_options: Mapping[str, Any] = field(default_factory=dict, metadata=within("network"))
    hidden_size: int = field(default=128, metadata=within("network", at_least=1))
    num_layers: int = field(default=1, metadata=within("network", at_least=1))
    bidirectional: bool = field(default=True, metadata=within("network"))
    embedding_size: int = field(default=100, metadata=within("network", at_least=1))
    embedding_scale: float = field(default=0.1, metadata=within("network", at_least=0))
    project: bool = field(default=False, metadata=within("network"))
    dropout: float = field(default=0.5, metadata=within("network", at_least=0, below=1))
    word_dropout: float = field(default=0.1, metadata=within("network", at_least=0, below=1))
    recurrent_dropout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    zoneout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    weight_drop: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    summary: Literal["last", "mean", "max", "attention"] = field(default="attention", metadata=within("network"))
    engine: str = field(default="auto", metadata=within("network"))
    source: Literal["auto", "text", "series"] = field(default="auto", metadata=within("inputs"))
    unit: Literal["word", "char", "byte", "subword", "auto"] = field(default="auto", metadata=within("inputs"))
    lowercase: bool | None = field(default=None, metadata=within("inputs"))
    min_count: int = field(default=1, metadata=within("inputs", at_least=1))
    max_vocab: int | None = field(default=None, metadata=within("inputs", at_least=1))
    vocab_size: int = field(default=8000, metadata=within("inputs", at_least=2))
    vectors: str | None = field(default=None, metadata=within("inputs"))
    freeze_vectors: bool = field(default=False, metadata=within("inputs"))
    missing: Literal["mask", "refuse"] = field(default="mask", metadata=within("inputs"))
    target: Literal["auto", "one", "several", "number"] = field(default="auto", metadata=within("targets"))
    label_separator: str | None = field(default=None, metadata=within("targets"))
    label_smoothing: float = field(default=0.0, metadata=within("targets", at_least=0, below=1))
    class_weights: dict[str, float] | Literal["none", "balanced"] = field(default="none", metadata=within("targets"))
    sampling: Literal["plain", "balanced"] = field(default="plain", metadata=within("targets"))
    number_loss: Literal["mse", "mae", "huber"] = field(default="mse", metadata=within("targets"))
    batch_size: int | Literal["auto"] = field(default=32, metadata=within("data", at_least=1))
    memory_limit: int | None = field(default=None, metadata=within("data", at_least=1))
    format: Literal["tsv", "csv", "jsonl", "txt", "ts"] | None = field(default=None, metadata=within("data"))
    text_field: str = field(default="text", metadata=within("data"))
    label_field: str = field(default="label", metadata=within("data"))
    id_field: str | None = field(default=None, metadata=within("data"))

    def __post_init__(self) -> None:
        check_values(self)
        if self.label_separator == "":
            raise ConfigError(explain("option label_separator: cannot be empty.", advice="give a character such as |"))
        if self.freeze_vectors and self.vectors is None:
            raise ConfigError(explain("option freeze_vectors: there are no vectors.", advice="name their file with vectors"))
        weights = self.class_weights
        if isinstance(weights, Mapping):
            for label, weight in weights.items():
                good = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight < float("inf")
                if not good:
                    what = f"option class_weights: the weight of {label!r} is not possible."
                    raise ConfigError(explain(what, got=repr(weight), expected="a number, 0 or more"))
