"""What happens between epochs: record, keep the best and the last, decide whether to go on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from carousel.errors import TrainingError, explain
from carousel.training import generators
from carousel.training.config import TrainingConfig
from carousel.training.curves import draw_learning_curve
from carousel.training.interrupts import StopRequest
from carousel.training.logs import EventLog, write_metrics
from carousel.training.module import Module

__all__ = ["Keeper", "RunState"]

SECONDS_BETWEEN_PICTURES = 30.0


class RunState:
    """What a run has learned about itself so far. It travels in every checkpoint.

    Args:
        monitor: the metric that decides which epoch is the best.
        mode: "max" or "min".
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        self.mode = mode
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.waited = 0
        self.seconds = 0.0

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch, empty before there is one."""
        return self.history[self.best_epoch - 1] if self.best_epoch else {}

    @property
    def last(self) -> dict[str, float]:
        """The row of the last epoch, empty before there is one."""
        return self.history[-1] if self.history else {}

    def monitored(self, row: dict[str, float]) -> float:
        """The monitored value of a row: of validation, or of training where there is none."""
        value = row.get(f"valid_{self.monitor}", row.get(f"train_{self.monitor}"))
        return math.nan if value is None else value

    def record(self, row: dict[str, float]) -> bool:
        """Add an epoch, and return whether it is the best so far. What is not a number is never the best."""
        value = self.monitored(row)
        bar = self.monitored(self.best) if self.best_epoch else (-math.inf if self.mode == "max" else math.inf)
        better = value > bar if self.mode == "max" else value < bar
        self.history.append(row)
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best_epoch = len(self.history)
        return better

    def exhausted(self, patience: int | None) -> bool:
        """Whether patience has run out."""
        return patience is not None and self.waited >= patience

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return dict(vars(self))

    def load_dict(self, state: dict[str, Any]) -> None:
        """Take over a state from :meth:`to_dict`."""
        vars(self).update(state)


class Keeper(Callback):
    """Keeps a run's files up to date, and stops it when patience, time, steps or the user say so.

    Between two epochs everything is written: best/ first, then last/ (whose state names the best epoch), so that a
    crash at any moment leaves a run that can be continued.

    Args:
        config: the options of the run.
        run_dir: the run directory.
        state: the state, filled by the checkpoint when the run is resumed.
        request: Ctrl-C, as a flag.
    """

    state_key = "carousel"
    # See Module: hooks that do nothing cost time at every step.
    on_train_batch_start = on_validation_batch_start = None  # type: ignore[assignment]

    def __init__(self, config: TrainingConfig, run_dir: Path, state: RunState, request: StopRequest) -> None:
        self.config = config
        self.run_dir = run_dir
        self.state = state
        self.request = request
        self.events: EventLog | None = None
        self.max_steps: int = config.trainer.get("max_steps", -1)
        self.train_seconds = 0.0
        self.valid_seconds = 0.0
        self._generators: dict[str, Any] | None = None
        self._seconds_before = 0.0
        self._start = self._epoch_start = self._train_end = self._drawn = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since this part of the run began."""
        return time.monotonic() - self._start

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs beside weights and optimizer."""
        self.state.seconds = self._seconds_before + self.elapsed
        return {"run": self.state.to_dict(), "config": self.config.identity(), "generators": generators.capture()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint. The generators wait until the first epoch starts."""
        self.state.load_dict(state_dict["run"])
        self._seconds_before = self.state.seconds
        self._generators = state_dict["generators"]

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start the clock, and write a checkpoint of the very beginning, so that every run can be resumed."""
        self._start = time.monotonic()
        module.steps = int(self.state.last.get("step", 0))
        purge_step = module.steps + 1 if self.state.history else None
        self.events = EventLog(self.run_dir / "tensorboard", purge_step=purge_step)
        if self.state.history:
            write_metrics(self.run_dir / "metrics.csv", self.state.history)
        elif self._generators is None:
            trainer.save_checkpoint(self.run_dir / "last", weights_only=False)

    def on_train_epoch_start(self, _trainer: Trainer, module: Any) -> None:
        """Reset the sums; put the generators where the checkpoint left them."""
        module.start_epoch()
        if self._generators is not None:
            generators.restore(self._generators)
            self._generators = None
        self._epoch_start = self._train_end = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Stop here if Ctrl-C, the clock or the number of steps say so."""
        self.request.check()
        self._train_end = time.monotonic()
        limit = self.config.max_minutes
        late = limit is not None and self._train_end - self._start + self.valid_seconds >= 60 * limit
        if late or 0 < self.max_steps <= module.steps:
            trainer.should_stop = True  # the library then validates and ends the epoch

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop here on Ctrl-C."""
        self.request.check()

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Write the epoch down."""
        self.train_seconds += self._train_end - self._epoch_start
        self.valid_seconds = time.monotonic() - self._train_end
        row = self._row(trainer, module)
        if math.isnan(row.get("valid_loss", 0.0)):
            raise _not_a_number(int(row["epoch"]))
        better = self.state.record(row)
        if better:
            trainer.save_checkpoint(self.run_dir / "best", weights_only=False)
        trainer.save_checkpoint(self.run_dir / "last", weights_only=False)
        write_metrics(self.run_dir / "metrics.csv", self.state.history)
        if self.events is not None:
            self.events.write(row)
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_PICTURES:
            self.draw()
        if self.state.exhausted(self.config.patience):
            trainer.should_stop = True
        self.request.check()

    def draw(self) -> None:
        """Draw the learning curve, if there is an epoch to draw."""
        if self.state.history:
            path = self.run_dir / "learning_curve.png"
            draw_learning_curve(path, self.state.history, metric=self.state.monitor, best_epoch=self.state.best_epoch)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Finish the files, however the run ended."""
        if self.events is not None:
            self.events.close()
        self.draw()

    def _row(self, trainer: Trainer, module: Module) -> dict[str, float]:
        row: dict[str, float] = {
            "epoch": trainer.current_epoch + 1,
            "step": module.steps,
            "seconds": round(self._seconds_before + self.elapsed, 3),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        row |= {f"train_{name}": value for name, value in module.train_tally.means().items()}
        module.check_finite()
        row |= {f"valid_{name}": value for name, value in module.valid_tally.means().items()}
        seconds = max(self._train_end - self._epoch_start, 1e-9)
        row["tokens_per_second"] = round(module.train_tally.tokens / seconds, 1)
        return row


def _not_a_number(epoch: int) -> TrainingError:
    what = f"the validation loss is not a number after epoch {epoch}."
    advice = "lower lr, clip harder (clip_norm, clip_value), or look at the data; last/ and best/ hold the epochs before"
    return TrainingError(explain(what, got="NaN", advice=advice))
