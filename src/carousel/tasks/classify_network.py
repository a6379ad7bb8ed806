"""The network of :class:`carousel.tasks.Classifier`."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.nn import SUMMARIES, Recurrent
from carousel.training import Measured

if TYPE_CHECKING:
    from carousel.data import Batch
    from carousel.graph import Cell

__all__ = ["SequenceClassifier"]

PAD, UNKNOWN = 0, 1


class SequenceClassifier(nn.Module):
    """Embedding, recurrent layers, a summary, and scores of the labels.

    Args:
        cell: the recurrent cell.
        vocab_size: tokens, padding (0) and unknown (1) included.
        num_labels: V, labels.
        embedding_size: features of an embedded token.
        hidden_size: H, units of one layer in one direction.
        num_layers: L, recurrent layers.
        bidirectional: read in both directions.
        dropout: share of values dropped after the embedding, between layers and before the output.
        word_dropout: share of tokens replaced by the unknown one in training.
        summary: `last`, `mean`, `max` or `attention`.
        engine: what runs the recurrent layers.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        vocab_size: int,
        num_labels: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        word_dropout: float,
        summary: str,
        engine: str,
    ) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(vocab_size, embedding_size, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = Recurrent(
            cell,
            embedding_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            engine=engine,
        )
        self.summary = SUMMARIES[summary](self.recurrent)
        self.output = nn.Linear(cast(int, self.summary.output_size), num_labels)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score the labels.

        Args:
            tokens: (B, T), integers, padded with 0.
            lengths: (B,), integers; 0 is allowed.

        Returns:
            Scores before the softmax, (B, V), and the attention weights, (B, T), or None for the other summaries.
        """
        if self.training and self.word_dropout > 0:
            drop = (torch.rand(tokens.shape, device=tokens.device) < self.word_dropout) & (tokens != PAD)
            tokens = tokens.masked_fill(drop, UNKNOWN)
        embedded = self.dropout(self.embedding(tokens))  # (B, T, I)
        output, _ = self.recurrent(embedded, lengths=lengths)  # (B, T, D*H)
        summary = self.summary(output, lengths)
        return self.output(self.dropout(summary.vector)), summary.weights

    def measure(self, batch: Batch) -> Measured:
        """Cross-entropy (nats, mean over the texts) and the number of right answers of a labelled batch."""
        labels = cast(Tensor, batch.labels)
        logits, _ = self(batch.tokens, batch.lengths)
        loss = functional.cross_entropy(logits, labels)
        right = (logits.detach().argmax(dim=-1) == labels).sum()
        return Measured(loss=loss, items=len(labels), tokens=batch.token_count, sums={"accuracy": right})
