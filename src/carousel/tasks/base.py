"""What every task shares: options, the life of a run directory, saving and loading."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, cast

from carousel import __version__
from carousel.errors import CheckpointError, ConfigError, NotFittedError, explain
from carousel.tasks import run_directory as disk
from carousel.tasks.cell_choice import choose_cell, describe_cell, restore_cell
from carousel.tasks.options import Option, check_names, describe
from carousel.training import TrainableModel, TrainingConfig

if TYPE_CHECKING:
    from torch import nn

    from carousel.graph import Cell
    from carousel.training import TrainingResult

__all__ = ["Estimator", "PathLike", "Prepared"]

PathLike = str | os.PathLike[str]
Inputs = TypeVar("Inputs")
# What may differ between the saved run and the one that goes on: nothing that shapes the network or its inputs.
FREE_WHEN_RESUMING = frozenset({"epochs", "max_minutes", "patience", "threads", "device", "progress", "engine", "trainer"})


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


class Estimator(abc.ABC, Generic[Inputs]):
    """A task with its verbs. A subclass says what its records, its network and its metrics are.

    Every option is a keyword; :meth:`option_list` lists them, ``help(CLASS)`` shows them. Names that end in ``_`` exist
    once the estimator is fitted or loaded.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.
    """

    task: ClassVar[str]
    options_type: ClassVar[type]
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    inputs_: Inputs
    network_: nn.Module
    result_: TrainingResult
    scores_: dict[str, float]

    def __init_subclass__(cls) -> None:
        parameters = [
            inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
            for option in cls.option_list()
        ]
        cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    # The options of two dataclasses, flat; a name that is in neither raises, so that no typo is swallowed.
    def __init__(self, **options: Any) -> None:
        known = self.option_list()
        check_names(list(options), [option.name for option in known], where=type(self).__name__)
        values = {option.name: option.default for option in known} | options
        self.options = self.options_type(**{f.name: values[f.name] for f in dataclasses.fields(self.options_type)})
        self.training = TrainingConfig(**{f.name: values[f.name] for f in dataclasses.fields(TrainingConfig)})
        self.cell: Cell = choose_cell(self.options.cell, self.options.cell_options)
        self._device = self.training.device

    @classmethod
    def option_list(cls) -> tuple[Option, ...]:
        """All options of this task with type, default and help."""
        return describe(cls.options_type) + describe(TrainingConfig, group="training", defaults=cls.training_defaults)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002 - the argument is scikit-learn's protocol
        """All options by name, as given or by default."""
        return {
            item.name: getattr(holder, item.name)
            for holder in (self.options, self.training)
            for item in dataclasses.fields(holder)
        }

    def set_params(self, **options: Any) -> Self:
        """Change options; what was fitted is kept until the next :meth:`fit`.

        Raises:
            ConfigError: an unknown option or an impossible value.
        """
        fresh = type(self)(**(self.get_params() | options))
        self.options, self.training, self.cell, self._device = fresh.options, fresh.training, fresh.cell, fresh._device
        return self

    def fit(
        self, train: Any, valid: Any = None, *, out: PathLike | None = None, overwrite: bool = False, resume: bool = False
    ) -> Self:
        """Train on `train`, choosing the best epoch on `valid`.

        Args:
            train: a file, or a list of records.
            valid: a file or a list; None holds out a tenth of `train`, always the same one for the same seed.
            out: the run directory; None keeps nothing on disk.
            overwrite: replace a run that is at `out`. It stays until the new one has saved its first checkpoint.
            resume: go on from the last checkpoint at `out`, as if training had never stopped.

        Returns:
            This estimator. `result_` tells how training went, `scores_` how it measures on `valid`.

        Raises:
            ConfigError: `out` cannot be used, or an option differs from the run to resume.
            DataError: a file cannot be read; the message names file and line.
            TrainingError: training cannot go on; checkpoints saved before stay.
        """
        if out is not None:
            self._fit_into(Path(out), train, valid, overwrite=overwrite, resume=resume)
        elif resume:
            raise ConfigError(explain("resume needs the run directory.", advice="fit(..., out=DIR, resume=True)"))
        else:
            with tempfile.TemporaryDirectory(prefix="carousel-") as scratch:
                self._fit_into(Path(scratch) / "run", train, valid, overwrite=False, resume=False)
        return self

    def _fit_into(self, out: Path, train: Any, valid: Any, *, overwrite: bool, resume: bool) -> None:
        from carousel.training import train as run_training

        disk.check_destination(out, overwrite=overwrite, resume=resume)
        recalled = self._recall_for_resuming(out) if resume else None
        prepared = self._prepare(train, valid, recalled)
        with seeded(self.training.seed):
            network = self._build(prepared.inputs)
        config = self._config() | prepared.sources
        publication = None if resume else self._announce(out, prepared.inputs, config)
        try:
            result = run_training(
                cast(TrainableModel, network), prepared.train, prepared.valid, self.training, out, resume=resume
            )
        except BaseException:
            if publication is not None:
                self._settle(publication, interrupted=False)
            raise
        if publication is not None:
            self._settle(publication, interrupted=result.interrupted)
        if result.interrupted and not result.best_epoch:
            raise KeyboardInterrupt  # before the first epoch ended: there is no model yet
        if resume:  # the epochs may have been raised
            disk.write_config(out / disk.CONFIG_FILE, config)
        disk.write_weights(out / disk.WEIGHTS_FILE, network.state_dict(), task=self.task, config=config)
        self.inputs_, self.network_, self.result_ = prepared.inputs, network, result
        self._device = self.training.device
        self.scores_ = self._report(prepared, out)

    def _settle(self, publication: disk.Publication, *, interrupted: bool) -> None:
        """Keep the new run directory if it holds a trained epoch, or can be resumed and replaced nothing."""
        if (publication.out / "best").is_dir() or (interrupted and publication.previous is None):
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
        if not (out / "last").is_dir():
            raise ConfigError(
                explain(f"{out}: training stopped before its first checkpoint.", advice="begin anew with --overwrite")
            )
        mine = self._config()
        for name, value in mine.items():
            if name in saved.values and name not in FREE_WHEN_RESUMING and saved.values[name] != value and name != "carousel":
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
        config = self._config()
        staging = disk.stage(out)
        try:
            self._write_description(staging, self.inputs_, config)
            disk.write_weights(staging / disk.WEIGHTS_FILE, self.network_.state_dict(), task=self.task, config=config)
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
        saved = disk.read_config(path / disk.CONFIG_FILE)
        if saved.values.get("task") != cls.task:
            raise CheckpointError(f"{path}: a run of the task {saved.values.get('task')!r}, not of {cls.task!r}.")
        names = [option.name for option in cls.option_list()]
        options = {name: value for name, value in saved.values.items() if name in names}
        self = cls(**options | {"cell": restore_cell(saved, cell), "cell_options": {}})
        self._device = device
        inputs = self._recall(path)
        network = self._build(inputs)
        weights_file = _trained_weights(path)
        try:
            network.load_state_dict(disk.read_weights(weights_file))
        except RuntimeError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{weights_file}: does not fit {disk.CONFIG_FILE}: {error}") from error
        self.inputs_, self.network_ = inputs, network.eval()
        return self

    def _config(self) -> dict[str, Any]:
        params = self.get_params() | describe_cell(self.cell)
        custom = {name: params.pop(name) for name in ("custom_cell", "cell_fingerprint") if name in params}
        return {"task": self.task, "carousel": __version__, **custom, **_plain(params)}

    def _require_fitted(self, verb: str) -> None:
        if not hasattr(self, "network_"):
            name = type(self).__name__
            raise NotFittedError(
                explain(f"{name}.{verb}: not fitted yet.", advice=f"{name}(...).fit(train), or {name}.load(DIR)")
            )

    def _note(self, line: str) -> None:
        if self.training.progress:
            sys.stderr.write(line + "\n")

    def read_with(self, **fields: str | None) -> Self:
        """Choose how data files are read from now on (`format`, `text_field`, ...); None keeps what is set.

        Raises:
            ConfigError: an impossible value.
        """
        self.options = dataclasses.replace(self.options, **{name: value for name, value in fields.items() if value is not None})
        return self

    @abc.abstractmethod
    def evaluate(self, data: Any) -> dict[str, float]:
        """Measure on labelled data."""

    @abc.abstractmethod
    def predict(self, texts: Any) -> list[dict[str, Any]]:
        """Give one prediction for each record."""

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

    @abc.abstractmethod
    def _write_inputs(self, directory: Path, inputs: Inputs) -> None:
        """Write `inputs` as JSON files."""

    @abc.abstractmethod
    def _recall(self, directory: Path) -> Inputs:
        """Read what :meth:`_write_inputs` wrote."""

    @abc.abstractmethod
    def _report(self, prepared: Prepared[Inputs], out: Path) -> dict[str, float]:
        """Measure the trained model on the validation data and draw what belongs into the run directory."""

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
    for file in (path / disk.WEIGHTS_FILE, path / "best" / disk.WEIGHTS_FILE):
        if file.is_file():
            return file
    advice = f"carousel fit TASK --out {path} --resume, or --overwrite to begin anew"
    raise CheckpointError(explain(f"{path}: holds no trained weights.", advice=advice))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside, and leave its generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
