"""The network of :class:`carousel.tasks.Classifier`: a front layer, recurrent layers, a summary, an output and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from carousel.nn import SUMMARIES, Linear, Recurrent, Summary
from carousel.tasks.regularisers import cell_transforms
from carousel.training import Measured

if TYPE_CHECKING:
    from carousel.data import Batch
    from carousel.graph import Cell
    from carousel.tasks.classify.options import ClassifierOptions

__all__ = ["NumberHead", "OneHead", "SequenceClassifier", "SeveralHead", "TokenEmbedding"]

PAD, UNKNOWN = 0, 1
NUMBER_LOSSES = {"mse": nn.MSELoss, "mae": nn.L1Loss, "huber": nn.HuberLoss}
Loss = tuple[Tensor, dict[str, Tensor]]


class TokenEmbedding(nn.Embedding):
    """An embedding that in training replaces some tokens by the unknown one.

    Args:
        vocab_size: tokens, padding (0) and unknown (1) included.
        features: of an embedded token.
        word_dropout: share of tokens that are replaced in training.
        scale: deviation of the random start. Where it is large, rare words speak as loud as frequent ones from the start,
            and the network learns them by heart.
    """

    def __init__(self, vocab_size: int, features: int, *, word_dropout: float = 0.0, scale: float = 1.0) -> None:
        super().__init__(vocab_size, features, padding_idx=PAD)
        self.word_dropout = word_dropout
        with torch.no_grad():
            self.weight *= scale

    def start_from(self, numbers: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Set the rows of some tokens; the others keep their random start, brought to the vectors' deviation.

        Args:
            numbers: N tokens.
            vectors: (N, F).
        """
        known = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        with torch.no_grad():
            if len(known) > 1 and (here := self.weight.std()) > 0:
                self.weight *= known.std() / here
            self.weight[torch.tensor(numbers, dtype=torch.long)] = known
            self.weight[PAD] = 0.0

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed.

        Args:
            tokens: (B, T), integers, padded with 0.

        Returns:
            (B, T, F).
        """
        if self.training and self.word_dropout > 0:
            drop = (torch.rand(tokens.shape, device=tokens.device) < self.word_dropout) & (tokens != PAD)
            tokens = tokens.masked_fill(drop, UNKNOWN)
        return super().forward(tokens)


class OneHead(nn.Module):
    """Cross-entropy in nats, the mean over the records. Weights and smoothing count in training only.

    Args:
        weights: V, how much the records of each label count; None for 1.
        smoothing: share of the probability spread over all labels.
    """

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None, smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)
        self.smoothing = smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Loss:
        """The loss, and the number of right answers.

        Args:
            logits: (B, V).
            labels: (B,), integers.
        """
        smoothing = self.smoothing if self.training else 0.0
        if self.weights is None or not self.training:
            loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        else:
            # Not divided by the weights of the batch, as torch does: then rare labels would count less where they stand alone.
            each = functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
            loss = (each * self.weights[labels]).mean()
        return loss, {"accuracy": (logits.detach().argmax(dim=-1) == labels).sum()}


class SeveralHead(nn.Module):
    """Binary cross-entropy in nats, the mean over records and labels. Weights count in training only.

    Args:
        weights: V, how much the presence of each label counts; None for 1.
    """

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None) -> None:
        super().__init__()
        self.register_buffer("weights", None if weights is None else torch.tensor(weights), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Loss:
        """The loss, the number of records whose labels are all right, and the sum of the records' F1.

        Args:
            logits: (B, V).
            labels: (B, V), 0 or 1.
        """
        loss = functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype), pos_weight=self.weights if self.training else None
        )
        found, there = logits.detach() > 0, labels > 0
        both, total = (found & there).sum(-1), found.sum(-1) + there.sum(-1)
        f1 = torch.where(total == 0, 1.0, 2 * both / total.clamp(min=1))
        return loss, {"exact_match": (found == there).all(-1).sum(), "f1": f1.sum()}


class NumberHead(nn.Module):
    """The mean error on standardised numbers: squared, absolute, or Huber's.

    Args:
        loss: ``mse``, ``mae`` or ``huber``.
        deviations: D, what one stands for, in the numbers' own units.
    """

    deviations: Tensor

    def __init__(self, loss: str, deviations: Sequence[float]) -> None:
        super().__init__()
        self.loss = NUMBER_LOSSES[loss]()
        self.register_buffer("deviations", torch.tensor(deviations), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Loss:
        """The loss, and the sum over records of the mean absolute error in own units.

        Args:
            logits: (B, D), standardised.
            labels: (B, D), standardised.
        """
        errors = (logits.detach() - labels).abs() * self.deviations
        return cast(Tensor, self.loss(logits, labels)), {"mae": errors.mean(-1).sum()}


class SequenceClassifier(nn.Module):
    """A front layer, recurrent layers, a summary, and an output.

    Args:
        cell: the recurrent cell.
        front: what makes features of the inputs: (B, T) or (B, T, C) to (B, T, I).
        features: I.
        head: the loss of the output.
        outputs: V, labels or numbers.
        options: sizes and the rest.
    """

    def __init__(
        self, cell: Cell, front: nn.Module, features: int, head: nn.Module, outputs: int, options: ClassifierOptions
    ) -> None:
        super().__init__()
        self.embedding = front
        self.dropout = nn.Dropout(options.dropout)
        self.recurrent = Recurrent(
            cell,
            features,
            options.hidden_size,
            num_layers=options.num_layers,
            bidirectional=options.bidirectional,
            batch_first=True,
            dropout=options.dropout if options.num_layers > 1 else 0.0,
            transforms=cell_transforms(options),
            engine=options.engine,
        )
        self.summary = SUMMARIES[options.summary](self.recurrent)
        self.output = Linear(cast(int, self.summary.output_size), outputs)
        self.head = head

    def summarise(self, inputs: Tensor, lengths: Tensor) -> Summary:
        """One vector for each sequence.

        Args:
            inputs: (B, T), token numbers, or (B, T, C), values; padded with 0.
            lengths: (B,), integers; 0 is allowed.

        Returns:
            The vectors (B, F) and the attention weights (B, T), or None for the other summaries.
        """
        features = self.dropout(self.embedding(inputs))  # (B, T, I)
        output, _ = self.recurrent(features, lengths=lengths)  # (B, T, D*H)
        return cast(Summary, self.summary(output, lengths))

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score the labels, or say the numbers.

        Args:
            inputs: (B, T), token numbers, or (B, T, C), values; padded with 0.
            lengths: (B,), integers; 0 is allowed.

        Returns:
            Scores before the softmax or the sigmoid, or standardised numbers, (B, V); and the attention weights (B, T), or
            None for the other summaries.
        """
        summary = self.summarise(inputs, lengths)
        return self.output(self.dropout(summary.vector)), summary.weights

    def measure(self, batch: Batch) -> Measured:
        """The loss and the sums of the metrics of a labelled batch."""
        logits, _ = self(batch.inputs, batch.lengths)
        loss, sums = self.head(logits, batch.labels)
        return Measured(loss=loss, items=len(logits), tokens=batch.token_count, sums=sums)
