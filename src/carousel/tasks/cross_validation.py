"""Cross-validation: how good a kind of model is on a kind of data, with all of the data measured once.

.. code-block:: text

    DIR/crossvalidation.json   what was asked for, the scores of each finished fold, mean and interval
    DIR/fold-1/ ...            the run directory of each fold
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel import __version__
from carousel.data import read_json, write_json
from carousel.errors import CheckpointError, ConfigError, DataError, explain
from carousel.tasks import run_directory as disk
from carousel.tasks.intervals import Interval, student
from carousel.tasks.labels import fit_arguments

if TYPE_CHECKING:
    from carousel.tasks.base import Estimator

__all__ = ["CrossValidation", "Fold", "cross_validate", "split_folds"]

RESULT_FILE = "crossvalidation.json"
FORMAT = 1
# What may differ between the folds that are there and those still to come.
FREE = frozenset({"carousel", "device", "progress", "threads"})


@dataclass(frozen=True)
class Fold:
    """One model, and how it measures on the part of the data that it has not seen.

    Args:
        number: which, counted from 1.
        count: records that were measured.
        best_epoch: the epoch whose weights the model has.
        epochs: epochs that were run.
        seconds: of training and validation.
        scores: on the fold, by name.
    """

    number: int
    count: int
    best_epoch: int
    epochs: int
    seconds: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class CrossValidation:
    """All folds.

    Args:
        folds: in their order.
        always_in_training: records that were in no fold, because a label would have been missing in training without them.
    """

    folds: tuple[Fold, ...]
    always_in_training: int = 0

    @property
    def scores(self) -> dict[str, Interval]:
        """The mean of each score over the folds, with Student's 95 % interval.

        The folds are not independent: any two models share most of their training data. So the interval is too narrow,
        and no better one without bias exists [1]. It is good for seeing that a difference is *not* clear.

        References:
            [1] Bengio and Grandvalet, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation", JMLR 5, 2004.
        """
        return {name: student([fold.scores[name] for fold in self.folds]) for name in self.folds[0].scores if name != "count"}

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it; an interval without ends has null there."""
        scores = {name: _finite(interval.to_dict()) for name, interval in self.scores.items()} if self.folds else {}
        return {
            "results": [asdict(fold) for fold in self.folds],
            "scores": scores,
            "always_in_training": self.always_in_training,
        }


def cross_validate(
    estimator: Estimator[Any],
    data: Any,
    y: Any = None,
    *,
    folds: int = 5,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> CrossValidation:
    """Train as many models as there are folds, each on all folds but one, and measure it on that one.

    Each model holds out a tenth of its training data to choose its best epoch, so that a fold is seen only when it is
    measured. Labels are shared out evenly over the folds.

    Args:
        estimator: what to train; it is not changed, each model is a fresh copy.
        data: a file, a list of pairs (item, label), or items whose labels are `y`. It is held in memory.
        y: see `data`.
        folds: how many, at least 2.
        seed: shares the records out.
        out: a directory for the result and the run of each fold; None keeps nothing on disk.
        overwrite: replace a cross-validation that is at `out`.
        resume: go on with the one that is at `out`; folds that are finished stay.

    Returns:
        The scores of each fold, and their means.

    Raises:
        ConfigError: `out` cannot be used, or something differs from the cross-validation to go on with.
        DataError: the data cannot be read, or are too few.
        KeyboardInterrupt: Ctrl-C; finished folds stay at `out`.
    """
    if folds < 2:
        raise ConfigError(explain("cross-validation needs at least 2 folds.", got=str(folds)))
    pairs, valid, _ = fit_arguments(data, y, None, numbers=estimator.sklearn_kind == "regressor")
    if valid is not None:
        raise ConfigError("cross_validate takes no data to validate on: each model holds out its own.")
    records, kind = estimator.labelled_records(pairs)
    fold_of = split_folds([_labels(record, kind) for record in records], folds, seed=seed)
    options = estimator.get_params()
    if options.get("target") == "auto":  # decided once, by all of the data
        options["target"] = kind
    about = {
        "format": FORMAT,
        "carousel": __version__,
        "task": estimator.task,
        "data": os.fspath(data) if isinstance(data, str | os.PathLike) else None,
        "count": len(records),
        "fingerprint": _fingerprint(records),
        "folds": folds,
        "seed": seed,
        "settings": type(estimator)(**options)._config(None),
    }
    path = None if out is None else Path(out)
    done = [] if path is None else _open(path, about, overwrite=overwrite, resume=resume)
    always = fold_of.count(0)
    for number in range(len(done) + 1, folds + 1):
        train = [record for record, fold in zip(records, fold_of, strict=True) if fold != number]
        test = [record for record, fold in zip(records, fold_of, strict=True) if fold == number]
        estimator._note(f"Fold {number} of {folds}: {len(train)} records to train on, {len(test)} to measure.")
        done.append(_run(type(estimator)(**options), number, train, test, None if path is None else path / f"fold-{number}"))
        if path is not None:
            write_json(path / RESULT_FILE, about | CrossValidation(tuple(done), always).to_dict())
    return CrossValidation(tuple(done), always)


def split_folds(labels: Sequence[tuple[str, ...]], folds: int, *, seed: int) -> list[int]:
    """Share records out over folds, each label evenly.

    Records are laid out by label, in random order within one, and dealt to the folds in turn: the folds' sizes differ by
    one at most, and so do their shares of a label. Sets of several labels that occur only once are dealt as one group.

    Args:
        labels: the labels of each record; nothing for records that need not be balanced.
        folds: how many.
        seed: chooses the order.

    Returns:
        The fold of each record, from 1; 0 for one that is always trained on, because otherwise some label would be
        unknown to the model that is measured on it.

    Raises:
        DataError: there are too few records.

    Example:
        >>> split_folds([("a",), ("b",), ("a",), ("b",), ("c",)], 2, seed=0)
        [1, 2, 2, 1, 0]
    """
    import numpy as np

    sizes = Counter(labels)
    order = np.random.default_rng([seed, 5]).permutation(len(labels)).tolist()
    group = [labels[place] if len(labels[place]) < 2 or sizes[labels[place]] > 1 else ("", "") for place in range(len(labels))]
    held: dict[str, int] = Counter(label for names in labels for label in names)
    fold_of, turn = [0] * len(labels), 0
    for place in sorted(order, key=lambda place: group[place]):  # stable: random within a group
        if any(held[label] == 1 for label in labels[place]):
            continue  # the only record of a label
        fold_of[place] = turn % folds + 1
        turn += 1
    _keep_labels_known(fold_of, labels)
    if len({fold for fold in fold_of if fold}) < folds:
        raise DataError(
            explain("too few records for cross-validation.", got=f"{len(labels)} records, {folds} folds", advice="fewer folds")
        )
    return fold_of


def _keep_labels_known(fold_of: list[int], labels: Sequence[tuple[str, ...]]) -> None:
    """Take a record out of its fold where all records of one of its labels lie in that fold."""
    where: dict[str, set[int]] = {}
    for place, names in enumerate(labels):
        for label in names:
            where.setdefault(label, set()).add(fold_of[place])
    for place, names in enumerate(labels):
        if fold_of[place] and any(where[label] == {fold_of[place]} for label in names):
            fold_of[place] = 0
            for label in names:
                where[label].add(0)


def _run(estimator: Estimator[Any], number: int, train: list[Any], test: list[Any], out: Path | None) -> Fold:
    from carousel.training.saved import is_begun

    going_on = out is not None and disk.is_run_directory(out) and is_begun(out)
    estimator.fit(train, out=out, resume=going_on, overwrite=out is not None and not going_on)
    result = estimator.result_
    if result.interrupted:
        raise KeyboardInterrupt
    scores = estimator.judge(test).scores()
    return Fold(number, len(test), result.best_epoch, result.epochs_run, result.seconds, scores)


def _labels(record: Any, kind: str) -> tuple[str, ...]:
    if kind == "number":
        return ()
    several = getattr(record, "labels", None)
    return tuple(sorted(several)) if several is not None else (str(record.label),)


def _fingerprint(records: Sequence[Any]) -> str:
    """A hash of the records and their labels, in order."""
    digest = hashlib.sha256()
    for record in records:
        content = record.text.encode("utf-8", "surrogatepass") if hasattr(record, "text") else record.values.tobytes()
        answer = repr((len(content), record.label, getattr(record, "labels", None), record.targets))
        digest.update(content + answer.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _open(path: Path, about: Mapping[str, Any], *, overwrite: bool, resume: bool) -> list[Fold]:
    """Make the directory ready, and return the folds in it that are finished."""
    file = path / RESULT_FILE
    if overwrite and resume:
        raise ConfigError("overwrite and resume exclude each other: begin anew, or go on.")
    if resume:
        return _recall(file, about)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not file.is_file():
            raise ConfigError(explain(f"{path}: exists and is no cross-validation; it is never overwritten."))
        if not overwrite:
            advice = "--overwrite to replace it, --resume to go on, or another directory"
            raise ConfigError(explain(f"{path}: a cross-validation is already there.", advice=advice))
        for old in path.glob("fold-*"):
            if old.is_dir() and not old.is_symlink():
                shutil.rmtree(old)
    path.mkdir(parents=True, exist_ok=True)
    write_json(file, dict(about) | CrossValidation(()).to_dict())
    return []


def _recall(file: Path, about: Mapping[str, Any]) -> list[Fold]:
    if not file.is_file():
        raise ConfigError(explain(f"{file.parent}: no cross-validation to go on with.", advice="leave out --resume"))
    saved = read_json(file)
    try:
        for name in ("format", "task", "folds", "seed", "count", "fingerprint"):
            if saved[name] != about[name]:
                what = "the data have changed" if name == "fingerprint" else f"{name} cannot change"
                raise ConfigError(
                    explain(f"{file}: {what} when a cross-validation goes on.", got=str(about[name]), expected=str(saved[name]))
                )
        for name, value in about["settings"].items():
            if name not in FREE and saved["settings"].get(name) != value:
                what = f"option {name}: cannot change when a cross-validation goes on ({file})."
                raise ConfigError(explain(what, got=repr(value), expected=repr(saved["settings"].get(name))))
        folds = [Fold(**result) for result in saved["results"]]
        good = all(
            fold.number == at and all(isinstance(value, int | float) for value in fold.scores.values())
            for at, fold in enumerate(folds, start=1)
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: damaged ({error!r}).") from error
    if not good or len(folds) > about["folds"]:
        raise CheckpointError(f"{file}: damaged (its folds are not those asked for).")
    return folds


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
