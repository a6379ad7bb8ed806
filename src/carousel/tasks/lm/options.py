"""The options of :class:`carousel.tasks.LanguageModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from carousel.errors import ConfigError, explain
from carousel.graph import Cell
from carousel.tasks.options import check_values, within

__all__ = ["LanguageModelOptions"]


@dataclass(frozen=True)
class LanguageModelOptions:
    """What a :class:`LanguageModel` is made of.

    Args:
        cell: the recurrent cell: a name that `carousel cells` lists, or your own (--code FILE.py --cell NAME).
        cell_options: options of the cell.
        hidden_size: units of a layer, or a list with one number for each layer.
        num_layers: recurrent layers on top of each other.
        embedding_size: features of an embedded token.
        attention: steps back that an attention before the last recurrent layer (behind it, if it is the only one) reaches; 0
            for none.
        attention_heads: independent attentions there.
        attention_size: features of a head's queries, keys and values; null for half the layer's, shared among the heads.
        tie_weights: the output layer's weights are those of the embedding; between different sizes stands a linear layer.
        cutoffs: adaptive softmax, for many words: the tokens up to the first number, the most frequent, are predicted directly,
            those up to the next through a layer a quarter as wide, and so on; null predicts all directly.
        init_range: all weights start uniformly within this range around 0; null for the cell's own starts, and 0.1 for
            embedding and output.
        embedding_dropout: share of tokens whose embeddings are dropped, everywhere in a window, in training.
        input_dropout: share of features dropped after the embedding.
        dropout: share of features dropped between recurrent layers.
        output_dropout: share of features dropped before the output layer.
        locked_dropout: the three above drop the same features at all steps of a window (variational dropout).
        recurrent_dropout: share of units that products with the state do not see, the same at all steps of a window.
        zoneout: share of units that keep their state at a step.
        weight_drop: share of the recurrent weights dropped in training.
        activation_penalty: how much the mean square of the output counts in training (AR).
        temporal_penalty: how much the mean square of its change from step to step counts in training (TAR).
        engine: what runs the recurrent layers: auto, or an engine that `carousel info` lists.
        direction: forward predicts the next token, backward the one before.
        unit: predict words, characters, bytes or subwords; auto takes characters where the texts have no spaces, else words.
        split: words: cut at blanks alone (space), or cut off punctuation too (word); auto goes by space where `<unk>` stands
            in the training data.
        lowercase: make letters small before reading.
        line_ends: the end of a line is a token (`<eos>` for words); else lines run on.
        min_count: tokens seen less often in training are unknown.
        max_vocab: keep at most this many tokens, the most frequent.
        vocab_size: subwords: how many pieces are learned from the training data.
        batch_size: rows of text that are read side by side.
        bptt: steps of a window: how far back gradients go.
        random_windows: draw the lengths of windows, around `bptt` or half of it, and scale the rate with them.
        detach: gradients stop at the borders of windows; false lets them flow through the window before, too.
    """

    cell: str | type[Cell] | Cell = field(default="lstm", metadata=within("network"))
    cell_options: Mapping[str, Any] = field(default_factory=dict, metadata=within("network"))
    hidden_size: int | list[int] = field(default=256, metadata=within("network", at_least=1))
    num_layers: int = field(default=1, metadata=within("network", at_least=1))
    embedding_size: int = field(default=256, metadata=within("network", at_least=1))
    attention: int = field(default=0, metadata=within("network", at_least=0))
    attention_heads: int = field(default=1, metadata=within("network", at_least=1))
    attention_size: int | None = field(default=None, metadata=within("network", at_least=1))
    tie_weights: bool = field(default=True, metadata=within("network"))
    cutoffs: list[int] | None = field(default=None, metadata=within("network"))
    init_range: float | None = field(default=None, metadata=within("network", at_least=0))
    embedding_dropout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    input_dropout: float = field(default=0.2, metadata=within("network", at_least=0, below=1))
    dropout: float = field(default=0.2, metadata=within("network", at_least=0, below=1))
    output_dropout: float = field(default=0.2, metadata=within("network", at_least=0, below=1))
    locked_dropout: bool = field(default=False, metadata=within("network"))
    recurrent_dropout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    zoneout: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    weight_drop: float = field(default=0.0, metadata=within("network", at_least=0, below=1))
    activation_penalty: float = field(default=0.0, metadata=within("network", at_least=0))
    temporal_penalty: float = field(default=0.0, metadata=within("network", at_least=0))
    engine: str = field(default="auto", metadata=within("network"))
    direction: Literal["forward", "backward"] = field(default="forward", metadata=within("inputs"))
    unit: Literal["word", "char", "byte", "subword", "auto"] = field(default="auto", metadata=within("inputs"))
    split: Literal["auto", "space", "word"] = field(default="auto", metadata=within("inputs"))
    lowercase: bool = field(default=False, metadata=within("inputs"))
    line_ends: bool = field(default=True, metadata=within("inputs"))
    min_count: int = field(default=1, metadata=within("inputs", at_least=1))
    max_vocab: int | None = field(default=None, metadata=within("inputs", at_least=1))
    vocab_size: int = field(default=8000, metadata=within("inputs", at_least=2))
    batch_size: int = field(default=32, metadata=within("data", at_least=1))
    bptt: int = field(default=64, metadata=within("data", at_least=1))
    random_windows: bool = field(default=False, metadata=within("data"))
    detach: bool = field(default=True, metadata=within("data"))

    def __post_init__(self) -> None:
        check_values(self)
        sizes = self.hidden_size
        if isinstance(sizes, list):
            if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
                what = "option hidden_size: not the sizes of layers."
                raise ConfigError(explain(what, got=repr(sizes), expected="[256, 256], say"))
            if len(sizes) != self.num_layers:
                got = f"{len(sizes)} sizes, num_layers={self.num_layers}"
                raise ConfigError(explain("option hidden_size: one size, or one for each layer.", got=got))

        self._check_cutoffs()

    def _check_cutoffs(self) -> None:
        cutoffs = self.cutoffs
        if cutoffs is None:
            return
        whole = all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in cutoffs)
        if not cutoffs or not whole or sorted(set(cutoffs)) != cutoffs:
            expected = "growing numbers of tokens, such as [2000, 20000]"
            raise ConfigError(explain("option cutoffs: not possible.", got=repr(cutoffs), expected=expected))
        if self.tie_weights:
            raise ConfigError(
                explain("option cutoffs: the output cannot have the embedding's weights.", advice="tie_weights=false")
            )
        if self.unit in ("byte", "subword"):
            what = "option cutoffs: they are for tokens in the order of their frequency."
            raise ConfigError(explain(what, got=f"unit={self.unit}", expected="words or characters"))

    @property
    def hidden_sizes(self) -> list[int]:
        """The units of each layer."""
        sizes = self.hidden_size
        return list(sizes) if isinstance(sizes, list) else [sizes] * self.num_layers
