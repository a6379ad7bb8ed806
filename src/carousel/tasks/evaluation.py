"""What a model said about labelled data, item by item, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError, ShapeError, explain

if TYPE_CHECKING:
    from carousel.tasks.confusion import Confusion

__all__ = ["Attention", "Evaluation", "Kind"]

Floats = NDArray[np.float64]
Kind = Literal["one", "several", "number"]
Attention = Sequence[tuple[str, float]]
"""The tokens of an item, each with its weight."""

CHUNK = 1 << 14  # items whose statistics are held at once


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Answers beside the truth, for N items.

    Args:
        kind: `one` label for an item, `several` labels (any number of them), or `number`: D targets to be met.
        labels: the names of the V labels, or of the D targets.
        truth: `one`: (N,), integers, the label's number; `several`: (N, V), bool; `number`: (N, D), float64.
        logits: (N, V), float64: scores before the softmax (`one`) or the sigmoid (`several`). `number`: the answers, (N, D).
        lengths: (N,), integers: tokens or steps of each item.
        texts: N texts that show the items to a person.
        attention: for each item its tokens and their weights; None for a model without attention.
        places: for each item where it stands, as ``file:line``.

    Raises:
        ShapeError: the arguments disagree about N, V or D.
        DataError: there is no item.
    """

    kind: Kind
    labels: tuple[str, ...]
    truth: NDArray[Any] = field(repr=False)
    logits: Floats = field(repr=False)
    lengths: NDArray[np.int64] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    attention: Sequence[Attention] | None = field(default=None, repr=False)
    places: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        N, V = len(self.truth), len(self.labels)
        if not N:
            raise DataError("there is nothing to evaluate: no items.")
        wanted = {"truth": (N,) if self.kind == "one" else (N, V), "logits": (N, V), "lengths": (N,)}
        for name, shape in wanted.items():
            got = np.shape(getattr(self, name))
            if got != shape:
                raise ShapeError(explain(f"Evaluation: {name} does not fit.", got=str(got), expected=str(shape)))
        for name in ("texts", "places", "attention"):
            value = getattr(self, name)
            if value is not None and len(value) not in ((0, N) if name == "places" else (N,)):
                raise ShapeError(explain(f"Evaluation: {name} does not fit.", got=f"{len(value)}", expected=f"{N}"))

    def __len__(self) -> int:
        return len(self.truth)

    @cached_property
    def log_probabilities(self) -> Floats:
        """(N, V), nats. `several`: of the label being there. Not for numbers."""
        self._require_labels("log_probabilities")
        if self.kind == "several":
            return -np.logaddexp(0.0, -self.logits)
        highest = self.logits.max(axis=1, keepdims=True)
        shifted = self.logits - highest
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)

    @cached_property
    def probabilities(self) -> Floats:
        """(N, V): of the labels, summing to 1 (`one`), or of each label being there (`several`). Not for numbers."""
        return np.exp(self.log_probabilities)

    @cached_property
    def answers(self) -> NDArray[Any]:
        """What the model answers, in the form of `truth`; a label is answered if its probability is above one half."""
        if self.kind == "one":
            return np.asarray(self.logits.argmax(axis=1))
        return np.asarray(self.logits > 0.0) if self.kind == "several" else self.logits

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(N,): whether an item's answer is all right. Not for numbers."""
        self._require_labels("right")
        same = self.answers == self.truth
        return np.asarray(same if self.kind == "one" else same.all(axis=1))

    @cached_property
    def losses(self) -> Floats:
        """(N,): what each item loses. Cross-entropy in nats, the mean over the labels (`several`); numbers: mean |error|."""
        if self.kind == "number":
            return np.asarray(np.abs(self.logits - self.truth).mean(axis=1), dtype=np.float64)
        if self.kind == "one":
            return -np.take_along_axis(self.log_probabilities, self.truth[:, None].astype(np.int64), axis=1)[:, 0]
        return np.logaddexp(0.0, np.where(self.truth, -self.logits, self.logits)).mean(axis=1)  # type: ignore[no-any-return]

    def scores(self) -> dict[str, float]:
        """All scores by name.

        Returns:
            `one`: `accuracy`, `macro_f1` (0 to 1; the mean over the labels that occur, as truth or as answer), `loss`
            (nats) and `count`. `several`: `micro_f1`, `macro_f1`, `exact_match`, `loss` (nats, the mean over labels),
            `count`. `number`: `mae`, `rmse` and `r2`, each the mean over the targets, and `count`.
        """
        total = np.sum([self.statistics(slice(at, at + CHUNK)).sum(axis=0) for at in range(0, len(self), CHUNK)], axis=0)
        values = {name: float(value) for name, value in self.scores_of(total).items()}
        return values | {"count": len(self)}

    def statistics(self, rows: slice | NDArray[np.int64]) -> Floats:
        """What the scores need of some items, such that sums over items are enough.

        Args:
            rows: which items.

        Returns:
            (n, K), to be summed over any items and given to :meth:`scores_of`. Every score is a function of such sums,
            so resampling items is a product of matrices.
        """
        truth, answers = self.truth[rows], self.answers[rows]
        ones = np.ones((len(truth), 1))
        if self.kind == "number":
            # r2 does not change when a constant is taken off; near zero the squares lose no digits
            centred = truth - self.truth.mean(axis=0)
            errors = answers - truth
            return np.concatenate([np.abs(errors), errors**2, centred, centred**2, ones], axis=1)
        losses = self.losses[rows, None]
        if self.kind == "one":
            V = np.arange(len(self.labels))
            truth, answers = truth[:, None] == V, answers[:, None] == V
        right = (truth == answers).all(axis=1, keepdims=True)
        return np.concatenate([truth & answers, truth, answers, right, losses, ones], axis=1, dtype=np.float64)

    def scores_of(self, sums: Floats) -> dict[str, Floats]:
        """The scores that follow from sums of :meth:`statistics`; `count` is not among them.

        Args:
            sums: (..., K).

        Returns:
            Score to values (...).
        """
        V, count = len(self.labels), sums[..., -1]
        if self.kind == "number":
            absolute, square, total, total_square = (sums[..., at * V : (at + 1) * V] / count[..., None] for at in range(4))
            spread = total_square - total**2
            # As scikit-learn has it: a constant truth is explained fully (1) or not at all (0).
            flat = spread <= 1e-15 * total_square
            r2 = np.where(flat, square == 0, 1 - square / np.where(flat, 1, spread))
            return {"mae": absolute.mean(-1), "rmse": np.sqrt(square).mean(-1), "r2": r2.mean(-1)}
        both, truth, answered = (sums[..., at * V : (at + 1) * V] for at in range(3))
        occurs = (truth + answered) > 0
        f1 = 2 * both / np.where(occurs, truth + answered, 1)
        macro = f1.sum(-1) / np.maximum(1, occurs.sum(-1))
        right, loss = sums[..., 3 * V] / count, sums[..., 3 * V + 1] / count
        if self.kind == "one":
            return {"accuracy": right, "macro_f1": macro, "loss": loss}
        micro = 2 * both.sum(-1) / np.maximum(1, (truth + answered).sum(-1))
        return {"micro_f1": micro, "macro_f1": macro, "exact_match": right, "loss": loss}

    def table(self) -> list[dict[str, Any]]:
        """One row per label, or per target.

        Returns:
            Labels: `label`, `precision`, `recall`, `f1` (0 to 1; None where nothing was answered or nothing is true),
            `support` (items that truly have it), `answered`. Targets: `label`, `mae`, `rmse`, `r2`, `mean`, `deviation`
            (of the truth).
        """
        if self.kind == "number":
            return [self._target_row(at) for at in range(len(self.labels))]
        if self.kind == "one":
            V = len(self.labels)
            answered, support = np.bincount(self.answers, minlength=V), np.bincount(self.truth, minlength=V)
            both = np.bincount(self.truth[self.right], minlength=V)
        else:
            answered, support = self.answers.sum(axis=0), self.truth.sum(axis=0)
            both = (self.answers & self.truth).sum(axis=0)
        return [
            {
                "label": name,
                "precision": int(b) / int(a) if a else None,
                "recall": int(b) / int(s) if s else None,
                "f1": 2 * int(b) / int(a + s) if a + s else None,
                "support": int(s),
                "answered": int(a),
            }
            for name, b, a, s in zip(self.labels, both, answered, support, strict=True)
        ]

    def confusion(self) -> Confusion:
        """How labels are taken for each other. Only for kind `one`."""
        from carousel.tasks.confusion import Confusion

        if self.kind != "one":
            raise ShapeError(f"an evaluation of kind {self.kind!r} has no confusion of labels.")
        V = len(self.labels)
        counts = np.bincount(self.truth * V + self.answers, minlength=V * V).reshape(V, V)
        return Confusion(self.labels, counts.tolist(), float(self.losses.mean()))

    def take(self, rows: NDArray[np.int64]) -> Evaluation:
        """Some of the items.

        Args:
            rows: (n,), their numbers.
        """
        at = rows.tolist()
        return Evaluation(
            kind=self.kind,
            labels=self.labels,
            truth=self.truth[rows],
            logits=self.logits[rows],
            lengths=self.lengths[rows],
            texts=tuple(self.texts[i] for i in at),
            attention=None if self.attention is None else [self.attention[i] for i in at],
            places=tuple(self.places[i] for i in at) if self.places else (),
        )

    def _target_row(self, at: int) -> dict[str, Any]:
        one = Evaluation(
            kind="number",
            labels=(self.labels[at],),
            truth=self.truth[:, at : at + 1],
            logits=self.logits[:, at : at + 1],
            lengths=self.lengths,
            texts=self.texts,
        ).scores()
        column = self.truth[:, at]
        return {"label": self.labels[at], **{name: one[name] for name in ("mae", "rmse", "r2")}} | {
            "mean": float(column.mean()),
            "deviation": float(column.std()),
        }

    def _require_labels(self, name: str) -> None:
        if self.kind == "number":
            raise ShapeError(f"Evaluation.{name}: numbers have no labels.")
