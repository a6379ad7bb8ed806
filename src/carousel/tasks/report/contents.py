"""The numbers of a report, as plain values that go into JSON and onto the page alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carousel import __version__
from carousel.tasks.evaluation import Evaluation
from carousel.tasks.intervals import Interval, bootstrap, student, wilson
from carousel.tasks.report.calibration import calibrate

__all__ = ["FORMAT", "SHOWN_CHARACTERS", "collect", "plain"]

FORMAT = 1
MISTAKES = 25
PAIRS = 10
SLICES = 5
POINTS = 400  # of a scatter plot
RESIDUAL_BINS = 21
SHOWN_CHARACTERS = 600
SHOWN_TOKENS = 150
CONFUSION_UP_TO = 500  # labels: a million counts would make a large file


def collect(
    evaluation: Evaluation,
    history: Sequence[Mapping[str, float]],
    config: Mapping[str, Any],
    *,
    data: str,
    best_epoch: int,
    facts: Mapping[str, Any],
    temperature: tuple[float, str] | None,
) -> dict[str, Any]:
    """Work out everything that a report says.

    Args:
        evaluation: the answers beside the truth.
        history: one row per epoch, as in ``metrics.csv``.
        config: the resolved configuration.
        data: what the items are: a file's name, say.
        best_epoch: the epoch whose weights answered, 0 if not known.
        facts: what else is known of the model, by name.
        temperature: one from other data and the name of these; None fits one.

    Returns:
        What ``report.json`` holds; ``docs/reports.md`` explains the keys.
    """
    intervals = bootstrap(evaluation)
    found: dict[str, Any] = {
        "format": FORMAT,
        "carousel": __version__,
        "task": config.get("task"),
        "kind": evaluation.kind,
        "data": data,
        "count": len(evaluation),
        "labels": list(evaluation.labels),
        "scores": {name: interval.to_dict() for name, interval in intervals.items()},
        "baseline": _baseline(evaluation),
        "training": {"best_epoch": best_epoch, "epochs": len(history), "history": [dict(row) for row in history]},
        "table": evaluation.table(),
        "confusion": _confusion(evaluation) if evaluation.kind == "one" else None,
        "numbers": _numbers(evaluation) if evaluation.kind == "number" else None,
        "mistakes": _mistakes(evaluation),
        "lengths": _lengths(evaluation),
        "calibration": None,
        "facts": dict(facts),
        "settings": dict(config),
    }
    if evaluation.kind != "number" and len(evaluation) > 1:
        found["calibration"] = asdict(calibrate(evaluation, known=temperature))
    result: dict[str, Any] = plain(found)
    return result


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: names, lists, texts, numbers; what is no finite number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value).encode("utf-8", "replace").decode("utf-8")  # half of a surrogate pair cannot be written


def _baseline(evaluation: Evaluation) -> dict[str, Any]:
    """What an answer that looks at nothing would reach."""
    truth = evaluation.truth
    if evaluation.kind == "number":
        constant = np.median(truth, axis=0)
        return {"answer": "the median", "score": "mae", "value": float(np.abs(truth - constant).mean())}
    if evaluation.kind == "several":
        sets, counts = np.unique(np.packbits(truth, axis=1), axis=0, return_counts=True)
        most = np.unpackbits(sets[counts.argmax()], count=len(evaluation.labels)).astype(bool)
        named = [name for name, there in zip(evaluation.labels, most, strict=True) if there]
        return {"answer": " + ".join(named) or "no label", "score": "exact_match", "value": int(counts.max()) / len(truth)}
    counts = np.bincount(truth, minlength=len(evaluation.labels))
    best = int(counts.argmax())
    return {"answer": evaluation.labels[best], "score": "accuracy", "value": int(counts[best]) / len(truth)}


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    V = len(evaluation.labels)
    cells, counts = np.unique(evaluation.truth * V + evaluation.answers, return_counts=True)
    wrong = cells // V != cells % V
    order = np.argsort(-counts[wrong], kind="stable")[:PAIRS]
    pairs = [
        {"truth": evaluation.labels[cell // V], "answer": evaluation.labels[cell % V], "count": count}
        for cell, count in zip(cells[wrong][order].tolist(), counts[wrong][order].tolist(), strict=True)
    ]
    full = evaluation.confusion().counts if V <= CONFUSION_UP_TO else None
    return {"counts": full, "pairs": pairs}


def _mistakes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The items that lose most; with labels, only those answered wrongly."""
    if evaluation.kind == "number":
        deviation = evaluation.truth.std(axis=0)
        badness = (np.abs(evaluation.logits - evaluation.truth) / np.where(deviation > 0, deviation, 1)).max(axis=1)
    else:
        badness = np.where(evaluation.right, -1.0, evaluation.losses)
    order = np.argsort(-badness, kind="stable")[:MISTAKES].tolist()
    return [_mistake(evaluation, at) for at in order if badness[at] >= 0]


def _mistake(evaluation: Evaluation, at: int) -> dict[str, Any]:
    text = evaluation.texts[at]
    found: dict[str, Any] = {
        "place": evaluation.places[at] if evaluation.places else None,
        "text": text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…",
        "truth": _said(evaluation, evaluation.truth[at]),
        "answer": _said(evaluation, evaluation.answers[at]),
        "loss": evaluation.losses[at],
    }
    if evaluation.kind == "one":
        row = evaluation.probabilities[at]
        found |= {"confidence": row.max(), "truth_probability": row[evaluation.truth[at]]}
    if evaluation.attention is not None:
        pairs = list(evaluation.attention[at])[:SHOWN_TOKENS]
        found["attention"] = [[str(token), round(float(weight), 5)] for token, weight in pairs]
    return found


def _said(evaluation: Evaluation, value: Any) -> Any:
    if evaluation.kind == "one":
        return evaluation.labels[int(value)]
    if evaluation.kind == "several":
        return [name for name, there in zip(evaluation.labels, value.tolist(), strict=True) if there]
    return value.tolist()


def _lengths(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The score by length, in slices of about equally many items."""
    lengths = evaluation.lengths
    # The upper ends are lengths that occur, so that no slice is empty.
    ends = np.unique(np.quantile(lengths, np.linspace(0, 1, SLICES + 1)[1:], method="inverted_cdf"))
    slice_of = np.searchsorted(ends, lengths)
    found = []
    for at in range(len(ends)):
        mine = slice_of == at
        score = _slice_score(evaluation, mine)
        row = {"shortest": int(lengths[mine].min()), "longest": int(lengths[mine].max()), "count": int(mine.sum())}
        found.append(row | {"score": "mae" if evaluation.kind == "number" else "right", **score.to_dict()})
    return found


def _slice_score(evaluation: Evaluation, mine: NDArray[np.bool_]) -> Interval:
    if evaluation.kind == "number":
        return student(evaluation.losses[mine].tolist())
    return wilson(int(evaluation.right[mine].sum()), int(mine.sum()))


def _numbers(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each target: some points (truth, answer) and the histogram of the residuals ``answer - truth``."""
    found = []
    rows = np.sort(np.random.default_rng([0, 4]).permutation(len(evaluation))[:POINTS])
    for at, name in enumerate(evaluation.labels):
        truth, answers = evaluation.truth[:, at], evaluation.logits[:, at]
        residuals = answers - truth
        counts, edges = np.histogram(residuals, bins=RESIDUAL_BINS)
        found.append(
            {
                "label": name,
                "points": np.stack([truth[rows], answers[rows]], axis=1).tolist(),
                "residuals": {"mean": residuals.mean(), "edges": edges.tolist(), "counts": counts.tolist()},
            }
        )
    return found
