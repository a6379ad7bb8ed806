"""What a run directory holds of an earlier part of the run: found, checked, and the newest that is whole chosen."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from carousel.errors import CheckpointError, ConfigError, explain
from carousel.files import settle_directory, sweep
from carousel.training.checkpoint import load_checkpoint, one_before
from carousel.training.config import TrainingConfig
from carousel.training.manifest import DamagedError, read_manifest, read_sealed
from carousel.training.run_state import Place, RunState

__all__ = [
    "SavedRun",
    "checked_best",
    "find_run",
    "forget_beginning",
    "has_best",
    "holds_progress",
    "is_begun",
    "refuse_used",
]


class SavedRun:
    """A run that goes on.

    Args:
        checkpoint: the whole of its newest checkpoint.
        where: the directory that it was read from.
    """

    def __init__(self, checkpoint: dict[str, Any], where: Path) -> None:
        self.where = where
        self._checkpoint = checkpoint
        self._keeper = checkpoint["callbacks"]["carousel"]
        RunState("", "max").load_dict(self._keeper["run"])
        if self._keeper["place"] is not None:
            Place.from_dict(self._keeper["place"])
        self.run: dict[str, Any] = self._keeper["run"]
        self.config: dict[str, Any] = dict(self._keeper["config"])
        if len(checkpoint["optimizer_states"]) != 1 or not {"state_dict", "module"} <= set(checkpoint):
            raise ValueError("not a model with its optimizer")

    def take(self) -> dict[str, Any]:
        """The whole checkpoint, once: whoever takes it decides how long its tensors stay."""
        checkpoint, self._checkpoint = self._checkpoint, {}
        return checkpoint

    @property
    def weights(self) -> Mapping[str, Any]:
        """The weights by name."""
        weights: Mapping[str, Any] = self._checkpoint["state_dict"]
        return weights

    @property
    def progress(self) -> bool:
        """Whether anything was learned: it is more than the beginning of a run."""
        return bool(self.run["history"]) or self._keeper["place"] is not None


def find_run(run_dir: Path, model: nn.Module, config: TrainingConfig, monitor: str, mode: str) -> SavedRun:
    """Find the newest whole checkpoint of a run, and make sure that this call continues it.

    Args:
        run_dir: the run directory.
        model: the model to go on with.
        config: the options to go on with.
        monitor: the monitored metric.
        mode: "max" or "min".

    Raises:
        CheckpointError: there is none, all are damaged, or they belong to another model.
        ConfigError: an option makes it another run.
    """
    last = run_dir / "last"
    saved = _newest(last)
    _check_same_model(saved.where, saved.weights, model.state_dict())
    options = config.identity() | {"monitor": monitor, "mode": mode}
    stored = saved.config | {name: saved.run[name] for name in ("monitor", "mode")}
    for name, value in options.items():
        if stored.get(name, value) != value and (name, value) != ("lr", "auto"):  # auto: the rate that was found
            what = f"{name} cannot change when a run is resumed."
            got, expected = f"{name}={value!r}", f"{name}={stored[name]!r}, as {last} was trained"
            advice = "give the value of the run, or start a new run in another directory"
            raise ConfigError(explain(what, got=got, expected=expected, advice=advice))
    settle_directory(run_dir / "best")
    sweep(run_dir)
    return saved


def is_begun(run_dir: Path) -> bool:
    """Whether a run directory holds a checkpoint to go on from, be it of the very beginning.

    Args:
        run_dir: the run directory. A save that was cut short is finished first.
    """
    last = run_dir / "last"
    settle_directory(last, one_before(last))
    return last.is_dir() or one_before(last).is_dir()


def has_best(run_dir: Path) -> bool:
    """Whether a run directory holds the checkpoint of a best epoch.

    Args:
        run_dir: the run directory. A save that was cut short is finished first.
    """
    settle_directory(run_dir / "best")
    return (run_dir / "best").is_dir()


def checked_best(run_dir: Path) -> Path | None:
    """The checkpoint of the best epoch, each of its files compared with what was written; None if there is none.

    Args:
        run_dir: the run directory.

    Raises:
        CheckpointError: a byte has changed.
    """
    if not has_best(run_dir):
        return None
    best = run_dir / "best"
    manifest = read_manifest(best)
    for name in manifest:
        read_sealed(best, name, manifest)
    return best


def holds_progress(run_dir: Path) -> bool:
    """Whether a run directory holds a checkpoint to go on from in which anything was learned.

    Args:
        run_dir: the run directory.
    """
    with warnings.catch_warnings(), suppress(CheckpointError):
        warnings.simplefilter("ignore")
        return _newest(run_dir / "last").progress
    return False


def refuse_used(run_dir: Path) -> None:
    """Refuse a directory that holds a run, before anything is written into it.

    Args:
        run_dir: the run directory.

    Raises:
        ConfigError: it does.
    """
    begun = is_begun(run_dir) or has_best(run_dir)
    names = ("last", one_before(run_dir / "last").name, "best", "metrics.csv")
    found = [run_dir / name for name in names if (run_dir / name).exists()]
    if begun or found:
        what = f"the run directory {run_dir} already holds a run."
        advice = "continue it (resume), choose another directory, or delete it first"
        raise ConfigError(explain(what, got=str(found[0]), advice=advice))


def forget_beginning(run_dir: Path) -> None:
    """Take back what was written before anything was learned, so that a better call can use the directory.

    Args:
        run_dir: the run directory.
    """
    last = run_dir / "last"
    for path in (last, one_before(last)):
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # somebody else's files are in it
        run_dir.rmdir()


def _newest(last: Path) -> SavedRun:
    before = one_before(last)
    settle_directory(last, before)
    if not last.exists() and not before.exists():
        what = f"there is no run to resume: {last} does not exist."
        raise CheckpointError(explain(what, advice="leave resume out to start a run, or name the directory of one"))
    try:
        return _read(last)
    except DamagedError as error:
        if not before.exists():
            raise
        try:
            saved = _read(before)
        except CheckpointError:
            raise error from None
        warnings.warn(f"{error}\nThe checkpoint before it, {before}, is whole: the run goes on from there.", stacklevel=4)
        return saved


def _read(directory: Path) -> SavedRun:
    checkpoint = load_checkpoint(directory)
    try:
        saved = SavedRun(checkpoint, directory)
        dict(saved.weights)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"the checkpoint {directory} does not hold the state of a run."
        got = f"{type(error).__name__}: {error}"
        advice = "continue from another checkpoint of the run, or train again"
        raise DamagedError(explain(what, got=got, advice=advice)) from error
    return saved


def _check_same_model(where: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    here = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    there = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    for name in [*here, *there]:
        if here.get(name) != there.get(name):
            what = f"the checkpoint {where} belongs to another model: they differ in {name}."
            got = f"{there[name]} in the checkpoint" if name in there else "nothing of that name in the checkpoint"
            expected = str(here[name]) if name in here else "nothing of that name"
            advice = "build the model with the options and the data of the run"
            raise CheckpointError(explain(what, got=got, expected=expected, advice=advice))
