"""The options of :class:`carousel.tasks.Poet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carousel.graph import Cell
from carousel.tasks.lm.options import LanguageModelOptions
from carousel.tasks.options import check_values, within

__all__ = ["PoetOptions"]


@dataclass(frozen=True)
class PoetOptions:
    """What a :class:`Poet` is made of: a language model of characters, and how poems are read.

    Args:
        cell: the recurrent cell: a name that `carousel cells` lists, or your own (--code FILE.py --cell NAME).
        cell_options: options of the cell.
        hidden_size: units of a layer, or a list with one number for each layer.
        num_layers: recurrent layers on top of each other.
        embedding_size: features of an embedded character.
        tie_weights: the output layer's weights are those of the embedding; between different sizes stands a linear layer.
        init_range: all weights start uniformly within this range around 0; null for the cell's own starts, and 0.1 for
            embedding and output.
        embedding_dropout: share of characters whose embeddings are dropped, everywhere in a batch, in training.
        input_dropout: share of features dropped after the embedding.
        dropout: share of features dropped between recurrent layers.
        output_dropout: share of features dropped before the output layer.
        locked_dropout: the three above drop the same features at all steps of a poem (variational dropout).
        recurrent_dropout: share of units that products with the state do not see, the same at all steps of a poem.
        zoneout: share of units that keep their state at a step.
        weight_drop: share of the recurrent weights dropped in training.
        activation_penalty: how much the mean square of the output counts in training (AR).
        temporal_penalty: how much the mean square of its change from step to step counts in training (TAR).
        engine: what runs the recurrent layers: auto, or an engine that `carousel info` lists.
        min_count: characters seen less often in training are unknown, and never written.
        max_vocab: keep at most this many tokens, the most frequent.
        title_length: characters of a title that are read.
        untitled: share of the training poems that are read without their title, so that poems without one can be written.
        max_lines: lines of a training poem that are read, from its beginning.
        batch_size: poems that are read side by side.
    """

    cell: str | type[Cell] | Cell = field(default="lstm", metadata=within("network"))
    cell_options: Mapping[str, Any] = field(default_factory=dict, metadata=within("network"))
    hidden_size: int | list[int] = field(default=320, metadata=within("network", at_least=1))
    num_layers: int = field(default=1, metadata=within("network", at_least=1))
    embedding_size: int = field(default=128, metadata=within("network", at_least=1))
    tie_weights: bool = field(default=True, metadata=within("network"))
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
    min_count: int = field(default=2, metadata=within("inputs", at_least=1))
    max_vocab: int | None = field(default=None, metadata=within("inputs", at_least=1))
    title_length: int = field(default=12, metadata=within("inputs", at_least=0))
    untitled: float = field(default=0.1, metadata=within("inputs", at_least=0, at_most=1))
    max_lines: int = field(default=24, metadata=within("inputs", at_least=1))
    batch_size: int = field(default=24, metadata=within("data", at_least=1))

    def __post_init__(self) -> None:
        check_values(self)
        self.language  # noqa: B018 - what the language model refuses is refused here

    @property
    def language(self) -> LanguageModelOptions:
        """The same as options of a language model of characters."""
        shared = {item.name for item in dataclasses.fields(LanguageModelOptions)}
        mine = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name in shared}
        return LanguageModelOptions(**mine, unit="char")

    @property
    def hidden_sizes(self) -> list[int]:
        """The units of each layer."""
        return self.language.hidden_sizes
