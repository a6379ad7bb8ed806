"""What goes into a training run and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Batches", "Measured", "TrainableModel", "TrainingResult"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model says about one batch.

    Over an epoch the loss is the mean over all items, and the metric NAME is ``sum(sums[NAME]) / sum(items)``: a metric
    is a mean over items, whatever the sizes of the batches.

    Args:
        loss: scalar tensor, floating: the mean over the items of this batch, with its gradient.
        items: how many items (examples, tokens: what the loss is a mean of) the batch holds.
        tokens: how many real tokens the batch holds. They count the speed.
        sums: for each metric, its sum over the items, for example ``{"accuracy": number of correct items}``.
        rate: the share of the learning rate that the step uses; with several batches a step, that of the last one counts.
    """

    loss: Tensor
    items: int
    tokens: int
    sums: Mapping[str, Tensor | float] = field(default_factory=dict)
    rate: float = 1.0


class TrainableModel(Protocol):
    """A ``torch.nn.Module`` with one method more. It decides what the loss and the metrics are.

    Four further methods are used where a model has them. ``run_state()`` gives what it carries from batch to batch beside
    its weights (plain values and tensors), which checkpoints keep, and ``load_run_state(state)`` takes it over, raising
    ValueError if it is none of its own. ``derive(means)`` gives numbers that follow from the means of an epoch, by name,
    for its row; a metric whose name begins with ``_`` is for ``derive`` alone and in no row. ``lone_embeddings()`` lists the
    embeddings whose weights nothing else uses: plain descent then touches the rows of a batch alone.
    """

    def measure(self, batch: Any) -> Measured:
        """Return the loss and the metrics of one batch, in training and in validation alike."""
        ...


class Batches(Protocol):
    """A sized iterable of batches, each with ``.to(device)``, that reshuffles itself by epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch, counted from 0."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. Its rows are those of ``metrics.csv``.

    Args:
        best_epoch: the epoch, counted from 1, whose weights the model now has; 0 if no epoch was finished.
        best: the row of that epoch, empty if there is none.
        last: the row of the last finished epoch, empty if there is none.
        epochs_run: the number of finished epochs, those before a resume included.
        seconds: wall-clock seconds of training and validation, those before a resume included.
        interrupted: whether Ctrl-C ended the run.
        history: one row per finished epoch.
        lr: the learning rate of the run: the one that was found where the option says auto.
    """

    best_epoch: int
    best: dict[str, float]
    last: dict[str, float]
    epochs_run: int
    seconds: float
    interrupted: bool
    history: list[dict[str, float]]
    lr: float
