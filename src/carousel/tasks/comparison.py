"""Runs side by side: what their directories tell, and what the same data say about their models."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.errors import CheckpointError, ConfigError, DataError, explain
from carousel.tasks import run_directory as disk

if TYPE_CHECKING:
    from carousel.tasks.evaluation import Evaluation
    from carousel.tasks.intervals import Interval

__all__ = ["Difference", "Run", "check_picture", "compare_answers", "differing", "names_of", "plot_runs", "read_run"]

NOTES = ("carousel", "cell_fingerprint")  # of a configuration: not settings
MAX_REPORT = 1 << 24  # bytes; ours are smaller
PICTURES = (".pdf", ".png", ".svg")


@dataclass(frozen=True)
class Run:
    """What a run directory tells without loading its model.

    Args:
        path: the directory.
        settings: its configuration.
        scores: on its validation data; empty if training has not finished.
        best_epoch: None if training has not finished.
        history: the rows of ``metrics.csv``.
        parameters: how many numbers the model has; None without a model.
        model_bytes: size of the model's file; None without a model.
        directory_bytes: size of all files.
    """

    path: Path
    settings: Mapping[str, Any]
    scores: Mapping[str, float]
    best_epoch: int | None
    history: Sequence[Mapping[str, float]] = field(repr=False)
    parameters: int | None
    model_bytes: int | None
    directory_bytes: int

    @property
    def minutes(self) -> float | None:
        """Of training and validation."""
        return self.history[-1]["seconds"] / 60 if self.history and "seconds" in self.history[-1] else None

    @property
    def tokens_per_second(self) -> float | None:
        """In training: the median over the epochs."""
        speeds = [row["tokens_per_second"] for row in self.history if "tokens_per_second" in row]
        return statistics.median(speeds) if speeds else None

    def to_dict(self) -> dict[str, Any]:
        """All of it but the history and the settings, as JSON can hold it."""
        return {
            "path": str(self.path),
            "task": self.settings.get("task"),
            "scores": dict(self.scores),
            "best_epoch": self.best_epoch,
            "epochs": len(self.history),
            "minutes": self.minutes,
            "tokens_per_second": self.tokens_per_second,
            "parameters": self.parameters,
            "model_bytes": self.model_bytes,
            "directory_bytes": self.directory_bytes,
        }


@dataclass(frozen=True)
class Difference:
    """A model beside the first one, on the same data.

    Args:
        scores: of this model, with bootstrap intervals.
        differences: this model's score minus the first one's, with paired bootstrap intervals; empty for the first.
        only_first: items that only the first model answers right; None for the first, and for numbers.
        only_this: items that only this one answers right.
        p_value: of McNemar's exact test, two-sided.
    """

    scores: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    only_first: int | None = None
    only_this: int | None = None
    p_value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "scores": {name: interval.to_dict() for name, interval in self.scores.items()},
            "differences": {name: interval.to_dict() for name, interval in self.differences.items()},
            "only_first": self.only_first,
            "only_this": self.only_this,
            "p_value": self.p_value,
        }


def read_run(directory: str | os.PathLike[str]) -> Run:
    """Read what a run directory tells. Nothing in it is executed, and links in it are not followed.

    Args:
        directory: the run directory; its training may still go on.

    Raises:
        ConfigError: not a run directory, or its configuration cannot be read.
        CheckpointError: its model is damaged.
        DataError: ``metrics.csv`` is damaged.
    """
    path = Path(directory)
    if not disk.is_run_directory(path):
        what = "not a run directory" if path.exists() else "no such directory"
        raise ConfigError(
            explain(f"{path}: {what}.", expected=f"what `carousel fit` wrote: a directory with {disk.CONFIG_FILE}")
        )
    scores, best_epoch = _reported(path / "report.json")
    weights = path / disk.WEIGHTS_FILE
    return Run(
        path=path,
        settings=disk.read_config(path / disk.CONFIG_FILE).values,
        scores=scores,
        best_epoch=best_epoch,
        history=_history(path / "metrics.csv"),
        parameters=_count_parameters(weights) if _own(weights) else None,
        model_bytes=weights.stat().st_size if _own(weights) else None,
        directory_bytes=_size(path),
    )


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs.

    Args:
        runs: at least one.

    Returns:
        Option to its value in each run, None where a run does not name it.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in NOTES)
    found = {}
    for name in names:
        values = [run.settings.get(name) for run in runs]
        if any(value != values[0] for value in values[1:]):
            found[name] = values
    return found


def compare_answers(evaluations: Sequence[Evaluation]) -> list[Difference]:
    """Compare what several models say about the same data, item by item.

    Two models that meet the same items share the luck of which items these are. So the interval of a difference is narrower
    than the intervals of the scores suggest: the same draws of items are used for both (a paired bootstrap), and McNemar's
    test looks only at the items on which the two disagree.

    Args:
        evaluations: one for each model, of the same items in the same order.

    Returns:
        One entry for each, the first without differences.

    Raises:
        ConfigError: the models answer with different kinds of things, or about different targets.
        ShapeError: the evaluations are of different items.
    """
    from carousel.tasks.intervals import bootstrap, mcnemar, paired_bootstrap

    first, *others = _with_the_same_labels(evaluations)
    found = [Difference(bootstrap(first), {})]
    for other in others:
        difference = Difference(bootstrap(other), paired_bootstrap(first, other))
        if first.kind != "number":
            only_first, only_this, p_value = mcnemar(first, other)
            difference = replace(difference, only_first=only_first, only_this=only_this, p_value=p_value)
        found.append(difference)
    return found


def check_picture(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before any work is done.

    Raises:
        ConfigError: no such kind of picture, or no such folder.
    """
    if path.suffix not in PICTURES:
        raise ConfigError(explain("--plot: this kind of picture cannot be drawn.", got=str(path), expected=", ".join(PICTURES)))
    if not path.absolute().parent.is_dir():
        raise ConfigError(explain(f"--plot: there is no folder {path.absolute().parent}.", got=str(path)))


def plot_runs(runs: Sequence[Run], path: Path) -> None:
    """Draw the validation curves of all runs.

    Args:
        runs: those without a finished epoch are left out.
        path: the picture, as its suffix says.

    Raises:
        ConfigError: no such kind of picture, or no such folder.
        OutputError: it cannot be written.
    """
    check_picture(path)
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from carousel.files import write_file

    metrics = list(dict.fromkeys(name for run in runs for row in run.history for name in row if name.startswith("valid_")))
    figure = Figure(figsize=(0.6 + 4.8 * max(1, len(metrics)), 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    for place, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(1, len(metrics), place)
        for name, run in zip(names_of(runs), runs, strict=True):
            points = [(row["epoch"], row[metric]) for row in run.history if metric in row]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o" if len(points) <= 40 else None, markersize=3, label=name)
        axes.set_title(metric.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format=path.suffix[1:], dpi=120)
    write_file(path, image.getvalue())


def names_of(runs: Sequence[Run]) -> list[str]:
    """A short name for each run: its directory's, or the whole path where two are alike."""
    short = [run.path.resolve().name for run in runs]
    return [name if short.count(name) == 1 else str(run.path) for name, run in zip(short, runs, strict=True)]


def _with_the_same_labels(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The evaluations over the labels that any of the models knows, in one order."""
    import numpy as np

    kinds = {evaluation.kind for evaluation in evaluations}
    if len(kinds) > 1:
        raise ConfigError(explain("runs that answer with different things cannot be compared.", got=", ".join(sorted(kinds))))
    labels = sorted({label for evaluation in evaluations for label in evaluation.labels})
    if kinds == {"number"}:
        if any(evaluation.labels != evaluations[0].labels for evaluation in evaluations):
            raise ConfigError("runs that answer with different targets cannot be compared.")
        return list(evaluations)
    found = []
    for evaluation in evaluations:
        places = np.array([labels.index(label) for label in evaluation.labels])
        logits = np.full((len(evaluation), len(labels)), -np.inf)  # what a model does not know, it never answers
        logits[:, places] = evaluation.logits
        if evaluation.kind == "one":
            truth = places[evaluation.truth]
        else:
            truth = np.zeros(logits.shape, dtype=bool)
            truth[:, places] = evaluation.truth
        found.append(replace(evaluation, labels=tuple(labels), truth=truth, logits=logits))
    return found


def _own(path: Path) -> bool:
    """Whether a file of the run is there and no link: a run directory may come from anyone."""
    return path.is_file() and not path.is_symlink()


def _reported(path: Path) -> tuple[dict[str, float], int | None]:
    """Scores and best epoch of ``report.json``; nothing if there is none that can be read."""
    if not _own(path) or path.stat().st_size > MAX_REPORT:
        return {}, None
    try:
        found = json.loads(path.read_bytes())
        scores = {str(name): float(score["value"]) for name, score in found["scores"].items() if score["value"] is not None}
        return scores, int(found["training"]["best_epoch"]) or None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}, None  # a report is not part of the model; it may have been edited


def _history(path: Path) -> list[dict[str, float]]:
    if not _own(path):
        return []
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                rows.append(_numbers(row, path, line))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"damaged: {error}.", path=path) from error
    return rows


def _numbers(row: Mapping[Any, Any], path: Path, line: int) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        if not isinstance(name, str) or not isinstance(text, str | None):
            raise DataError("damaged: too many columns.", path=path, line=line)
        try:
            value = float(text) if text else math.nan
        except ValueError as error:
            raise DataError(explain("damaged: not a number.", got=repr(text)[:80]), path=path, line=line) from error
        if math.isfinite(value):
            found[name] = value
    if "epoch" not in found:
        raise DataError("damaged: no epoch.", path=path, line=line)
    return found


def _count_parameters(path: Path) -> int:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - not a dict
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({error}).") from error


def _size(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return total
