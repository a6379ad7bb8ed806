"""What the numbers of a report suggest to do next, by a few plain rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["advise"]

FEW = 100  # items: intervals are wide
UNSURE = 0.05  # of expected calibration error
APART = 0.1  # of accuracy, between training and validation


def advise(contents: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that stands out.

    Args:
        contents: what :func:`carousel.tasks.report.contents.collect` made.
    """
    lines = [*_about_baseline(contents), *_about_size(contents), *_about_training(contents)]
    return [*lines, *_about_labels(contents), *_about_calibration(contents)]


def _about_baseline(contents: Mapping[str, Any]) -> list[str]:
    baseline = contents["baseline"]
    score, value = contents["scores"][baseline["score"]], baseline["value"]
    better = score["high"] < value if baseline["score"] == "mae" else score["low"] > value
    if better:
        return []
    name = baseline["score"].replace("_", " ")
    return [
        f"The {name} is not clearly better than that of always answering {baseline['answer']} ({value:.4g}): "
        "the model has learnt little, or the data do not say more."
    ]


def _about_size(contents: Mapping[str, Any]) -> list[str]:
    count = contents["count"]
    return [f"Only {count} items were measured: the intervals are wide. More data to measure on help."] if count < FEW else []


def _about_training(contents: Mapping[str, Any]) -> list[str]:
    training, lines = contents["training"], []
    history, best = training["history"], training["best_epoch"]
    if len(history) > 1 and best == len(history):
        lines.append(
            "The last epoch was the best one: training may not have been over. More epochs (--resume --epochs N) may help."
        )
    row: Mapping[str, float] = next((row for row in history if row.get("epoch") == best), {})
    learnt, measured = row.get("train_accuracy"), row.get("valid_accuracy")
    if learnt is not None and measured is not None and learnt - measured > APART:
        lines.append(
            f"Accuracy is {learnt:.1%} in training and {measured:.1%} in validation: it knows its training data by heart. "
            "More data, more dropout or a smaller model may help."
        )
    return lines


def _about_labels(contents: Mapping[str, Any]) -> list[str]:
    if contents["kind"] == "number":
        return []
    never = [row["label"] for row in contents["table"] if row["support"] and not row["answered"]]
    if not never:
        return []
    named = ", ".join(never[:5]) + (f" and {len(never) - 5} more" if len(never) > 5 else "")
    return [f"Never answered though it occurs: {named}. More examples of it, or class weights, may help."]


def _about_calibration(contents: Mapping[str, Any]) -> list[str]:
    found = contents["calibration"]
    if found is None or found["ece_before"] < UNSURE or found["ece_after"] >= found["ece_before"]:
        return []
    how = "too sure of itself" if found["temperature"] > 1 else "less sure of itself than it could be"
    return [
        f"The model is {how}: its confidence is {found['ece_before']:.1%} off on average. Divided by the temperature "
        f"{found['temperature']:.2f}, the scores before the softmax would be {found['ece_after']:.1%} off."
    ]
