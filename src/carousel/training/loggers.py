"""Loggers of the training library, by name, as one more place for the rows of metrics.csv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carousel.errors import ConfigError, explain, unknown_name
from carousel.training.config import TrainingConfig
from carousel.training.logs import EventLog

__all__ = ["Logs", "open_logs"]

# Names only: a configuration never says what to import.
CLASSES = {
    "comet": "CometLogger",
    "csv": "CSVLogger",
    "mlflow": "MLFlowLogger",
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
}


class Logs:
    """Where a run sends its rows beside metrics.csv: TensorBoard's events, and a logger if one is named.

    Args:
        directory: where files are written.
        events: TensorBoard's events, or None to send nothing.
        logger: of the training library, or None.
    """

    def __init__(self, directory: Path, events: EventLog | None = None, logger: Any = None) -> None:
        self.directory = directory
        self.events = events
        self.logger = logger

    def write(self, row: Mapping[str, float]) -> None:
        """Send one epoch, at its optimizer step."""
        if self.events is not None:
            self.events.write(row)
        if self.logger is not None:
            self.logger.log_metrics({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
            self.logger.save()

    def close(self) -> None:
        """Finish."""
        if self.events is not None:
            self.events.close()
        if self.logger is not None:
            self.logger.finalize("success")


def open_logs(config: TrainingConfig, run_dir: Path, *, purge_step: int | None = None, silent: bool = False) -> Logs:
    """Make the logs of a run, and tell its logger the options.

    Args:
        config: its `logger` and `logger_options`.
        run_dir: gets ``tensorboard/``. A logger that writes files does so there, if `logger_options` say nothing else:
            under ``NAME-log/``, where each part of a run that was resumed has a version of its own.
        purge_step: events from this optimizer step on, left by a part of the run that is now repeated, are hidden.
        silent: send nothing: another process of the run does.

    Raises:
        ConfigError: the logger's library is not installed, or an option is not possible.
    """
    if silent:
        return Logs(run_dir)
    events = EventLog(run_dir / "tensorboard", purge_step=purge_step)
    return Logs(run_dir, events, None if config.logger is None else _logger(config, config.logger, run_dir))


def _logger(config: TrainingConfig, name: str, run_dir: Path) -> Any:
    import inspect

    from lightning.pytorch import loggers

    kind = getattr(loggers, CLASSES[name])
    options = dict(config.logger_options)
    known = [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "kwargs", "args")]
    for option in options:
        if option not in known and "kwargs" not in inspect.signature(kind.__init__).parameters:
            raise ConfigError(unknown_name("logger option", option, known))
    if "save_dir" in known:
        options.setdefault("save_dir", str(run_dir))
        if name in ("csv", "tensorboard"):
            options.setdefault("name", f"{name}-log")
    try:
        logger = kind(**options)
        logger.log_hyperparams(config.identity())
    except (ImportError, TypeError, ValueError) as error:
        what = f"logger: {name} is not possible here: {str(error).splitlines()[0] if str(error) else error!r}"
        advice = "install its library, or correct logger_options"
        raise ConfigError(explain(what, got=repr(config.logger_options), advice=advice)) from error
    return logger
