"""Features of tokens: embeddings of words, affixes, pairs and columns, and what a layer makes of a word's characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from carousel.nn import LastSummary, Recurrent
from carousel.tasks.classify.network import UNKNOWN, TokenEmbedding

if TYPE_CHECKING:
    from carousel.data import WordVectors
    from carousel.graph import Cell
    from carousel.tasks.tag.batches import TagBatch
    from carousel.tasks.tag.options import TaggerOptions
    from carousel.tasks.tag.words import WordIndex

__all__ = ["CharacterConvolution", "CharacterRecurrent", "TokenFeatures"]

SCALE = 0.3  # deviation of the random start of all embeddings but the words'
WINDOW = 3  # characters that a filter sees


class CharacterRecurrent(nn.Module):
    """A recurrent layer over a word's characters in both directions; its two last outputs are the word's features.

    Args:
        cell: the cell.
        input_size: features of a character.
        hidden_size: H, units in one direction.
        engine: what runs the layer.
    """

    def __init__(self, cell: Cell, input_size: int, hidden_size: int, engine: str) -> None:
        super().__init__()
        self.recurrent = Recurrent(cell, input_size, hidden_size, bidirectional=True, batch_first=True, engine=engine)
        self.last = LastSummary(self.recurrent)
        self.output_size = self.last.output_size

    def forward(self, characters: Tensor, counts: Tensor) -> Tensor:
        """Read words.

        Args:
            characters: (U, W, E), embedded.
            counts: (U,), how many of them are real.

        Returns:
            (U, 2H).
        """
        output, _ = self.recurrent(characters, lengths=counts)
        return cast(Tensor, self.last(output, counts).vector)


class CharacterConvolution(nn.Module):
    """Filters over three characters, each with its maximum over the word.

    Args:
        input_size: features of a character.
        filters: how many.

    References:
        Ma & Hovy (2016), "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF".
    """

    def __init__(self, input_size: int, filters: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, filters, WINDOW, padding=WINDOW // 2)
        self.output_size = filters

    def forward(self, characters: Tensor, counts: Tensor) -> Tensor:
        """Read words.

        Args:
            characters: (U, W, E), embedded; zeros in the padding.
            counts: (U,), how many of them are real; at least one.

        Returns:
            (U, F).
        """
        found = self.convolution(characters.mT)  # (U, F, W)
        padding = torch.arange(found.shape[-1], device=counts.device) >= counts[:, None]
        return cast(Tensor, found.masked_fill(padding[:, None], -torch.inf).amax(-1))


class TokenFeatures(nn.Module):
    """All features of tokens side by side.

    What belongs to a word's form (characters, affixes, shape) is worked out once for each form of a batch.

    Args:
        index: the vocabularies.
        cell: of the layer over characters.
        options: sizes and the rest.
        vectors: what the word embedding starts from; None for a random start.
        size: features of an embedded word.
    """

    def __init__(
        self, index: WordIndex, cell: Cell, options: TaggerOptions, size: int, vectors: WordVectors | None = None
    ) -> None:
        super().__init__()
        self.word_dropout, self.rare_unknown = options.word_dropout, options.rare_unknown
        self.words = TokenEmbedding(len(index.words), size, scale=options.embedding_scale)
        if vectors is not None:
            self.words.start_from(index.words.encode(vectors.tokens), vectors.matrix)
        self.words.weight.requires_grad_(not options.freeze_vectors)
        self.affixes = _tables([len(vocabulary) for vocabulary in index.affixes], options.affix_size)
        self.pairs = None if index.pairs is None else TokenEmbedding(len(index.pairs), options.bigram_size, scale=SCALE)
        self.columns = _tables([len(vocabulary) for vocabulary in index.columns], options.feature_size)
        self.letters: nn.Module | None = None
        self.characters: CharacterRecurrent | CharacterConvolution | None = None
        if index.characters is not None:
            self.letters = TokenEmbedding(len(index.characters), options.character_size, scale=SCALE)
            if options.reads_characters == "recurrent":
                hidden = options.character_hidden
                self.characters = CharacterRecurrent(cell, options.character_size, hidden, options.engine)
            else:
                self.characters = CharacterConvolution(options.character_size, options.character_hidden)
        of_forms = options.affix_size * len(self.affixes) + (self.characters.output_size if self.characters else 0)
        of_tokens = options.feature_size * len(self.columns) + (2 * options.bigram_size if self.pairs is not None else 0)
        self.output_size = size + of_forms + of_tokens

    def forward(self, batch: TagBatch) -> Tensor:
        """Features of the tokens.

        Args:
            batch: sentences.

        Returns:
            (B, T, F); what stands in the padding means nothing.
        """
        forms = [table(batch.affixes[:, at]) for at, table in enumerate(self.affixes)]
        if self.letters is not None and self.characters is not None:
            forms.append(self.characters(self.letters(batch.characters), batch.character_counts))
        found = [self.words(self._words(batch))]
        if forms:
            found.append(torch.cat(forms, -1)[batch.forms])
        if self.pairs is not None:
            found.append(self.pairs(self._hidden(batch.pairs)).flatten(-2))
        found += [table(batch.columns[..., at]) for at, table in enumerate(self.columns)]
        return torch.cat(found, -1)

    def _words(self, batch: TagBatch) -> Tensor:
        """(B, T): the words' numbers; in training some are made unknown."""
        words = batch.words
        if self.training and self.rare_unknown:
            hidden = batch.rare & (torch.rand(words.shape, device=words.device) < self.rare_unknown)
            words = words.masked_fill(hidden, UNKNOWN)
        return self._hidden(words[batch.forms])

    def _hidden(self, numbers: Tensor) -> Tensor:
        """The same, in training with some of them unknown."""
        if not self.training or not self.word_dropout:
            return numbers
        return numbers.masked_fill(torch.rand(numbers.shape, device=numbers.device) < self.word_dropout, UNKNOWN)


def _tables(sizes: Sequence[int], features: int) -> nn.ModuleList:
    return nn.ModuleList(TokenEmbedding(size, features, scale=SCALE) for size in sizes)
