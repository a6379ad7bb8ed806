"""What every task shares: options, the life of a run directory, saving and loading."""

from __future__ import annotations

import abc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar, cast

from carousel import __version__
from carousel.errors import CheckpointError, ConfigError, explain
from carousel.tasks import run_directory as disk
from carousel.tasks.answers import Answering
from carousel.tasks.cell_choice import describe_cell, restore_cell
from carousel.tasks.labels import LabelForm, fit_arguments
from carousel.tasks.parameters import Parameters
from carousel.tasks.weights import build_checked, check_sizes, outline_of, read_weights, write_weights
from carousel.training import TrainableModel
from carousel.training.config import MAY_CHANGE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from carousel.graph import Cell
    from carousel.tasks.evaluation import Evaluation, Kind
    from carousel.training import TrainingResult

__all__ = ["Estimator", "PathLike", "Prepared"]

PathLike = str | os.PathLike[str]
Inputs = TypeVar("Inputs")
# What may differ between the saved run and the one that goes on: nothing that shapes the network or its inputs.
FREE_WHEN_RESUMING = frozenset({*MAY_CHANGE, "engine"})


@dataclass(frozen=True)
class Prepared(Generic[Inputs]):
    """Data made ready for training.

    Args:
        inputs: what turns records into numbers.
        train: batches to learn from; a sized iterable.
        valid: batches to measure on.
        sources: what the configuration says of the data: the paths under `train` and `valid`, None for lists.
    """

    inputs: Inputs
    train: Any
    valid: Any
    sources: dict[str, str | None]


class Estimator(Parameters, Answering, Generic[Inputs]):
    """A task with its verbs. A subclass says what its records, its network and its metrics are.

    Every option is a keyword; :meth:`option_list` lists them, ``help(CLASS)`` shows them. Names that end in ``_`` exist
    once the estimator is fitted or loaded.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.
    """

    task: ClassVar[str]

    inputs_: Inputs
    network_: nn.Module
    result_: TrainingResult
    scores_: dict[str, float]

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        valid: Any = None,
        out: PathLike | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train, choosing the best epoch on validation data.

        Both ``fit(train, valid)`` and scikit-learn's ``fit(X, y)`` are understood: items without labels of their own make
        `y` their labels.

        Args:
            X: what to learn from: a file, or a list of pairs (item, label), or a list of items.
            y: labels of the items, or data to validate on like `valid`.
            valid: a file, a list of pairs or a tuple (items, labels); None holds out a tenth of `X`, always the same one
                for the same seed.
            out: the run directory; None keeps nothing on disk.
            overwrite: replace a run that is at `out`. It stays until the new one has saved its first checkpoint.
            resume: go on from the last checkpoint at `out`, as if training had never stopped.

        Returns:
            This estimator. `result_` tells how training went, `scores_` how it measures on the validation data.

        Raises:
            ConfigError: `out` cannot be used, or an option differs from the run to resume.
            DataError: a file cannot be read; the message names file and line.
            TrainingError: training cannot go on; checkpoints saved before stay.
        """
        train, check, form = fit_arguments(X, y, valid, numbers=self.sklearn_kind == "regressor")
        if out is not None:
            self._fit_into(Path(out), train, check, form, overwrite=overwrite, resume=resume)
        elif resume:
            raise ConfigError(explain("resume needs the run directory.", advice="fit(..., out=DIR, resume=True)"))
        else:
            with tempfile.TemporaryDirectory(prefix="carousel-") as scratch:
                self._fit_into(Path(scratch) / "run", train, check, form, kept=False)
        return self

    def _fit_into(
        self,
        out: Path,
        train: Any,
        valid: Any,
        form: LabelForm | None,
        *,
        overwrite: bool = False,
        resume: bool = False,
        kept: bool = True,
    ) -> None:
        from carousel.training import train as run_training
        from carousel.training.processes import this_worker

        worker = this_worker()
        if worker is None:
            disk.check_destination(out, overwrite=overwrite, resume=resume)
            recalled = self._recall_for_resuming(out) if resume else None
        else:  # the process that started this one has made the run directory, and learned what is in it
            out = Path(worker.plan["run_dir"])
            recalled = self._recall_for_resuming(out) if resume else self._recall(out)
        prepared = self._prepare(train, valid, recalled)
        with seeded(self.training.seed):
            network = self._build(prepared.inputs)
        config = self._config(form) | prepared.sources
        publication = None if resume or worker is not None else self._announce(out, prepared.inputs, config)
        try:
            monitor, mode = self._monitor(prepared.inputs)
            result = run_training(
                cast(TrainableModel, network),
                prepared.train,
                prepared.valid,
                self.training,
                out,
                monitor=monitor,
                mode=mode,
                resume=resume,
                pictures=kept,
            )
        except BaseException:
            if publication is not None:
                self._settle(publication, interrupted=False)
            raise
        if publication is not None:
            self._settle(publication, interrupted=result.interrupted)
        if result.interrupted and not result.best_epoch:
            raise KeyboardInterrupt  # before the first epoch ended: there is no model yet
        if self.training.lr == "auto":
            config["lr"] = result.lr
        if resume or self.training.lr == "auto":  # the epochs may have been raised; the learning rate was found
            disk.write_config(out / disk.CONFIG_FILE, config)
        write_weights(out / disk.WEIGHTS_FILE, network.state_dict(), task=self.task, config=config)
        self.inputs_, self.network_, self.result_, self._form = prepared.inputs, network, result, form
        self._device = self.training.device
        self.scores_ = self._report(prepared, out if kept else None)

    def _settle(self, publication: disk.Publication, *, interrupted: bool) -> None:
        """Keep the new run directory if it holds a trained epoch, or replaced nothing and can be resumed."""
        from carousel.training.saved import has_best, holds_progress

        replaced = publication.previous is not None
        if has_best(publication.out) or (not replaced and (interrupted or holds_progress(publication.out))):
            publication.commit()
            return
        publication.rollback()
        if publication.previous is not None:
            self._note(f"{publication.out}: the run that was there before is put back.")

    def _announce(self, out: Path, inputs: Inputs, config: Mapping[str, Any]) -> disk.Publication:
        staging = disk.stage(out)
        try:
            self._write_description(staging, inputs, config)
            return disk.publish(staging, out)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _recall_for_resuming(self, out: Path) -> Inputs:
        saved = disk.read_config(out / disk.CONFIG_FILE)
        if saved.values.get("task") != self.task:
            raise ConfigError(f"{out}: a run of the task {saved.values.get('task')!r}, not of {self.task!r}.")
        from carousel.training.saved import is_begun

        if not is_begun(out):
            raise ConfigError(
                explain(f"{out}: training stopped before its first checkpoint.", advice="begin anew with --overwrite")
            )
        mine = self._config(None)
        for name, value in mine.items():
            if name in saved.values and name not in FREE_WHEN_RESUMING and saved.values[name] != value and name != "carousel":
                if (name, value) == ("lr", "auto"):
                    continue  # the rate that was found
                raise ConfigError(
                    explain(
                        f"option {name}: cannot change when a run goes on ({saved.place(name)}).",
                        got=repr(value),
                        expected=repr(saved.values[name]),
                    )
                )
        return self._recall(out)

    def save(self, directory: PathLike, *, overwrite: bool = False) -> Path:
        """Write the model as a run directory, whole or not at all.

        Args:
            directory: where; a run that is there already is refused unless `overwrite`.
            overwrite: replace it.

        Returns:
            The directory.

        Raises:
            NotFittedError: there is nothing to save yet.
            ConfigError: the directory cannot be used.
        """
        self._require_fitted("save")
        out = Path(directory)
        disk.check_destination(out, overwrite=overwrite)
        config = self._config(self._form)
        staging = disk.stage(out)
        try:
            self._write_description(staging, self.inputs_, config)
            write_weights(staging / disk.WEIGHTS_FILE, self.network_.state_dict(), task=self.task, config=config)
            disk.publish(staging, out).commit()
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return out

    @classmethod
    def load(cls, directory: PathLike, cell: type[Cell] | Cell | None = None, *, device: str = "auto") -> Self:
        """Read a run directory. Nothing in it is executed.

        Args:
            directory: the run directory. One whose training did not finish gives its best checkpoint.
            cell: your cell's class, if the model was trained with a cell of your own.
            device: where to compute, `auto`, `cpu`, `cuda` or `mps`.

        Returns:
            A fitted estimator.

        Raises:
            ConfigError: the model needs a class that was not given, or its configuration is not possible.
            CheckpointError: the directory is not a run, or is damaged.
        """
        path = Path(directory)
        if not disk.is_run_directory(path):
            raise CheckpointError(explain(f"{path}: not a run directory.", expected=f"a directory with {disk.CONFIG_FILE}"))
        disk.check_files(path)
        saved = disk.read_config(path / disk.CONFIG_FILE)
        if saved.values.get("task") != cls.task:
            raise CheckpointError(f"{path}: a run of the task {saved.values.get('task')!r}, not of {cls.task!r}.")
        weights_file = _trained_weights(path)
        outline = outline_of(weights_file)
        check_sizes(saved, outline)
        names = [option.name for option in cls.option_list()]
        options = {name: value for name, value in saved.values.items() if name in names}
        self = cls(**options | {"cell": restore_cell(saved, cell), "cell_options": {}})
        self._device = device
        inputs = self._recall(path)
        network = build_checked(lambda: self._build(inputs), outline, weights_file)
        network.load_state_dict(read_weights(weights_file))
        self.inputs_, self.network_ = inputs, network.eval()
        self._form = LabelForm.parse(saved.values.get("label_form"))
        return self

    def _config(self, form: LabelForm | None) -> dict[str, Any]:
        params = self._values() | describe_cell(self.cell)
        notes: dict[str, Any] = {name: params.pop(name) for name in ("custom_cell", "cell_fingerprint") if name in params}
        if form is not None and form != LabelForm():
            notes["label_form"] = str(form)
        return {"task": self.task, "carousel": __version__, **notes, **_plain(params)}

    def _note(self, line: str) -> None:
        if self.training.progress:
            sys.stderr.write(line + "\n")

    @abc.abstractmethod
    def evaluate(self, data: Any) -> dict[str, float]:
        """Measure on labelled data."""

    @abc.abstractmethod
    def judge(self, data: Any) -> Evaluation:
        """Answer labelled data and keep the answers beside the truth."""

    @abc.abstractmethod
    def labelled_records(self, data: Any) -> tuple[list[Any], Kind]:
        """Read labelled data into a list that :meth:`fit` takes, and tell what they are to be answered with."""

    @abc.abstractmethod
    def predict_records(self, X: Any) -> list[dict[str, Any]]:
        """Tell all that there is to tell of each item: one record for each, fit for JSON."""

    @abc.abstractmethod
    def encode(self, records: Any) -> NDArray[np.float32]:
        """Turn each item into one vector, (N, F)."""

    @abc.abstractmethod
    def evaluate_file(self, path: PathLike, directory: Path) -> dict[str, float]:
        """Measure on a file, and draw what belongs to that into `directory`."""

    @abc.abstractmethod
    def read_records(self, path: PathLike, format: str | None = None) -> list[Any]:  # noqa: A002 - the option's name
        """Read the records of a file to predict for; ``-`` is standard input."""

    @abc.abstractmethod
    def plain(self, record: Any, prediction: Mapping[str, Any]) -> str:
        """A prediction as one line of plain text."""

    @abc.abstractmethod
    def _prepare(self, train: Any, valid: Any, inputs: Inputs | None) -> Prepared[Inputs]:
        """Read the data and learn what turns records into numbers, unless `inputs` (a run that goes on) says it."""

    @abc.abstractmethod
    def _build(self, inputs: Inputs) -> nn.Module:
        """Make the network, untrained."""

    def _monitor(self, inputs: Inputs) -> tuple[str, Literal["max", "min"]]:  # noqa: ARG002 - a task may go by what it learned
        """The metric that the best epoch is chosen by, and whether more or less of it is better."""
        return "accuracy", "max"

    @abc.abstractmethod
    def _write_inputs(self, directory: Path, inputs: Inputs) -> None:
        """Write `inputs` as JSON files."""

    @abc.abstractmethod
    def _recall(self, directory: Path) -> Inputs:
        """Read what :meth:`_write_inputs` wrote."""

    @abc.abstractmethod
    def _report(self, prepared: Prepared[Inputs], out: Path | None) -> dict[str, float]:
        """Measure the trained model on the validation data and draw what belongs into the run directory, if one is kept."""

    def _write_description(self, directory: Path, inputs: Inputs, config: Mapping[str, Any]) -> None:
        disk.write_config(directory / disk.CONFIG_FILE, config)
        self._write_inputs(directory, inputs)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(
        explain("an option holds a value that cannot be written to config.yaml.", got=repr(value), advice="use plain values")
    )


def _trained_weights(path: Path) -> Path:
    if (path / disk.WEIGHTS_FILE).is_file():
        return path / disk.WEIGHTS_FILE
    from carousel.training.saved import checked_best

    best = checked_best(path)  # training has not finished
    if best is not None:
        return best / disk.WEIGHTS_FILE
    advice = f"carousel fit TASK --out {path} --resume, or --overwrite to begin anew"
    raise CheckpointError(explain(f"{path}: holds no trained weights.", advice=advice))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside, and leave its generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
