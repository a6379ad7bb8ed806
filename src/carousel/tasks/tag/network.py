"""The network of :class:`carousel.tasks.Tagger`: features of tokens, recurrent layers, scores of tags, a chain over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.nn import Linear, Recurrent
from carousel.structured import CRF, LinearChain, margin_loss, perceptron_loss
from carousel.tasks.regularisers import cell_transforms, drop_features
from carousel.tasks.tag.counts import SpanCounter
from carousel.training import Measured

if TYPE_CHECKING:
    from carousel.graph import Cell
    from carousel.structured import Constraints
    from carousel.tasks.tag.batches import TagBatch
    from carousel.tasks.tag.front import TokenFeatures
    from carousel.tasks.tag.options import TaggerOptions
    from carousel.tasks.tag.tags import TagIndex

__all__ = ["SoftmaxTags", "TagNetwork"]


class SoftmaxTags(nn.Module):
    """Each tag by itself, as a chain whose transitions cost nothing; those that are not allowed are not answered.

    Args:
        num_tags: K.
        constraints: which tags may follow which; anything by default.
    """

    transition: Tensor | None
    start: Tensor | None
    end: Tensor | None

    def __init__(self, num_tags: int, constraints: Constraints | None = None) -> None:
        super().__init__()
        self.num_tags = num_tags
        for name in ("transition", "start", "end"):
            allowed = None if constraints is None else getattr(constraints, name)
            self.register_buffer(name, None if allowed is None else ~allowed, persistent=False)

    def chain(self, emissions: Tensor, mask: Tensor) -> LinearChain:
        """The distribution over tags.

        Args:
            emissions: (B, T, K).
            mask: (B, T), bool.
        """
        scores, K = functional.log_softmax(emissions, -1), self.num_tags
        transition, start, end = (
            scores.new_zeros(shape) if forbidden is None else scores.new_zeros(shape).masked_fill(forbidden, -torch.inf)
            for shape, forbidden in (((K, K), self.transition), ((K,), self.start), ((K,), self.end))
        )
        return LinearChain(scores, transition, start, end, mask)


class TagNetwork(nn.Module):
    """Features of tokens, recurrent layers, a score for each tag at each token, and a chain over these scores.

    Args:
        cell: the recurrent cell.
        front: features of tokens.
        tags: the tags.
        options: sizes and the rest.
    """

    def __init__(self, cell: Cell, front: TokenFeatures, tags: TagIndex, options: TaggerOptions) -> None:
        super().__init__()
        self.options = options
        self.front = front
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
        K = len(tags)
        self.output = Linear(self.recurrent.output_size, K)
        constraints = tags.constraints() if options.constraints else None
        self.tags = CRF(K, constraints=constraints) if options.output == "crf" else SoftmaxTags(K, constraints)
        self.counter = None if tags.scheme is None else SpanCounter(tags.labels.names, tags.scheme)

    def hidden(self, batch: TagBatch) -> Tensor:
        """(B, T, O): what the output layer sees; zeros in the padding.

        Args:
            batch: sentences.
        """
        features = self._drop(self.front(batch))
        output, _ = self.recurrent(features, lengths=batch.lengths)
        return cast(Tensor, output)

    def forward(self, batch: TagBatch) -> LinearChain:
        """The distribution over the tags of sentences.

        Args:
            batch: sentences.
        """
        emissions = self.output(self._drop(self.hidden(batch)))
        if emissions.dtype in (torch.float16, torch.bfloat16):  # sums over paths need more digits
            emissions = emissions.float()
        return self.tags.chain(emissions, batch.mask)

    def measure(self, batch: TagBatch) -> Measured:
        """The loss, the mean over tokens in nats, and the sums of the metrics, of the tagged sentences of a batch."""
        chain, mask = self(batch), batch.mask
        truth = cast(Tensor, batch.tags)
        known = truth.clamp(min=0)
        # A sentence with a tag that was never learned has no likelihood; it counts in the other measures.
        whole = ~(mask & (truth < 0)).any(1)
        loss = self._loss(chain, known).masked_fill(~whole, 0.0).sum() / max(1, batch.token_count)
        with torch.no_grad():
            best = chain.best()[0]
        right = ((best == truth) & mask).sum()
        sums: dict[str, Tensor | float] = {"accuracy": right}
        if self.counter is not None:
            answers, true = (values[mask].cpu().numpy() for values in (best, truth))
            counts = self.counter.count(answers, true, batch.lengths.cpu().numpy())
            sums |= {"f1": 0.0} | dict(zip(("_right", "_found", "_true"), map(float, counts), strict=True))
        return Measured(loss=loss, items=batch.token_count, tokens=batch.token_count, sums=sums)

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """What follows from the means of an epoch: F1 of the spans, 0 to 1."""
        if "_right" not in means:
            return {}
        total = means["_found"] + means["_true"]
        return {"f1": 2 * means["_right"] / total if total else 0.0}

    def _loss(self, chain: LinearChain, tags: Tensor) -> Tensor:
        """(B,): the loss of each sentence, the sum over its tokens."""
        if isinstance(self.tags, SoftmaxTags):  # its transitions are no part of what is learned
            each = functional.nll_loss(chain.unary.transpose(1, 2), tags, reduction="none")
            return each.masked_fill(~cast(Tensor, chain.mask), 0.0).sum(1)
        if self.options.loss == "likelihood":
            return -chain.log_likelihood(tags)
        return perceptron_loss(chain, tags) if self.options.loss == "perceptron" else margin_loss(chain, tags)

    def _drop(self, x: Tensor) -> Tensor:
        share = self.options.dropout
        if not self.training or not share:
            return x
        return drop_features(x, share, steps=1 if self.options.locked_dropout else None)
