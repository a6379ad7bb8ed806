"""The network that scores a vocabulary of terms: the tagger's features and layers, an attention summary, a score per term."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.nn import SUMMARIES, Linear, Recurrent, Summary
from carousel.tasks.regularisers import cell_transforms
from carousel.training import Measured

if TYPE_CHECKING:
    from carousel.graph import Cell
    from carousel.tasks.keyterms.batches import TermBatch
    from carousel.tasks.keyterms.options import KeyTermsOptions
    from carousel.tasks.tag.batches import TagBatch
    from carousel.tasks.tag.front import TokenFeatures

__all__ = ["TermNetwork"]

BEST = 10


class TermNetwork(nn.Module):
    r"""Many to one: which terms of a vocabulary a document has, from one vector that attention makes of it.

    .. math:: p(\text{term } v) = \sigma(w_v^\top s(h_1, \ldots, h_T) + b_v)

    Args:
        cell: the recurrent cell.
        front: features of words.
        terms: V, terms of the vocabulary.
        options: sizes and the rest.
    """

    def __init__(self, cell: Cell, front: TokenFeatures, terms: int, options: KeyTermsOptions) -> None:
        super().__init__()
        self.front = front
        self.dropout = nn.Dropout(options.dropout)
        self.recurrent = Recurrent(
            cell,
            front.output_size,
            options.hidden_size,
            num_layers=options.num_layers,
            bidirectional=options.bidirectional,
            batch_first=True,
            dropout=options.dropout if options.num_layers > 1 else 0.0,
            transforms=cell_transforms(options),
            engine=options.engine,
        )
        self.summary = SUMMARIES["attention"](self.recurrent)
        self.output = Linear(cast(int, self.summary.output_size), terms)
        nn.init.constant_(cast(Tensor, self.output.bias), -math.log(terms + 1))  # scores begin at one term for a document

    def summarise(self, batch: TagBatch) -> Summary:
        """One vector for each document, and how much each word counts in it.

        Args:
            batch: documents.
        """
        output, _ = self.recurrent(self.dropout(self.front(batch)), lengths=batch.lengths)
        return cast(Summary, self.summary(output, batch.lengths))

    def forward(self, batch: TagBatch) -> Tensor:
        """Score the terms.

        Args:
            batch: documents.

        Returns:
            (B, V), before the sigmoid.
        """
        return cast(Tensor, self.output(self.dropout(self.summarise(batch).vector)))

    def measure(self, batch: TermBatch) -> Measured:
        """The loss, the sum over terms and the mean over documents in nats; and how many terms are among the ten best."""
        scores = self(batch.documents)
        loss = functional.binary_cross_entropy_with_logits(scores, batch.terms, reduction="sum") / max(1, len(batch))
        best = scores.detach().topk(min(BEST, scores.shape[1]), dim=1).indices
        found, true = batch.terms.gather(1, best).sum(1), batch.terms.sum(1)
        recall = torch.where(true > 0, found / true.clamp(min=1), 1.0)
        return Measured(loss=loss, items=len(batch), tokens=batch.token_count, sums={"recall_at_10": recall.sum()})
