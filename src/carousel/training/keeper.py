"""What happens between steps and epochs: record, keep the best and the last, decide whether to go on."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from carousel.errors import TrainingError, explain
from carousel.files import writing
from carousel.training import generators
from carousel.training.config import TrainingConfig
from carousel.training.curves import draw_learning_curve
from carousel.training.feed import NOTHING_LEFT, Feed, start_at
from carousel.training.interrupts import Interrupted, StopRequest
from carousel.training.loggers import Logs, open_logs
from carousel.training.logs import write_metrics
from carousel.training.module import Module
from carousel.training.run_state import MALFORMED, Place, RunState, malformed

__all__ = ["Keeper"]

SECONDS_BETWEEN_PICTURES = 30.0


class Keeper(Callback):
    """Keeps a run's files up to date, and stops it when patience, time, steps or the user say so.

    Between two epochs everything is written: best/ first, then last/ (whose state names the best epoch), so that a
    crash at any moment leaves a run that can be continued. Inside an epoch last/ is written after so many minutes or
    steps and on Ctrl-C, always between two optimizer steps; the one before it is kept.

    Args:
        config: the options of the run.
        run_dir: the run directory.
        state: the state, filled by the checkpoint when the run is resumed.
        request: Ctrl-C, as a flag.
        feed: the training batches.
    """

    state_key = "carousel"
    # See Module: hooks that do nothing cost time at every step.
    on_train_batch_start = on_validation_batch_start = None  # type: ignore[assignment]

    def __init__(self, config: TrainingConfig, run_dir: Path, state: RunState, request: StopRequest, feed: Feed) -> None:
        self.config = config
        self.run_dir = run_dir
        self.state = state
        self.request = request
        self.feed = feed
        self.events: Logs | None = None
        self.writes = self.pictures = True
        self.max_steps: int = config.trainer.get("max_steps", -1)
        self.train_seconds = 0.0
        self.valid_seconds = 0.0
        self.kept = "nothing was learned yet"
        self.worth_keeping = self.resuming = False
        self._place: Place | None = None
        self._resumed = False
        self._generators: dict[str, Any] | None = None
        self._before: dict[str, Any] = {}
        self._trained: dict[str, Any] | None = None
        self._seconds_before = self._epoch_before = 0.0
        self._saved_step = 0
        self._start = self._epoch_start = self._train_end = self._drawn = self._saved = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since this part of the run began."""
        return time.monotonic() - self._start

    @property
    def epoch_seconds(self) -> float:
        """Seconds of training in this epoch so far, those before a resume included."""
        return self._epoch_before + self._train_end - self._epoch_start

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs beside weights and optimizer."""
        self.state.seconds = self._seconds_before + self.elapsed
        return {
            "run": self.state.to_dict(),
            "config": self.config.identity(),
            "generators": generators.capture() if self._trained is None else self._trained,
            "place": None if self._place is None else self._place.to_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint. Generators and sums wait until the epoch starts."""
        self.state.load_dict(state_dict["run"])
        self._seconds_before = self.state.seconds
        self._generators = state_dict["generators"]
        self._place = None if state_dict["place"] is None else Place.from_dict(state_dict["place"])
        self._resumed = True

    def on_save_checkpoint(self, _trainer: Trainer, _module: Any, checkpoint: dict[str, Any]) -> None:
        """Leave the library's own counters out: they follow from `run` and `place`."""
        del checkpoint["loops"]

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start the clock, and write a checkpoint of the very beginning, so that every run can be resumed."""
        self._start = self._saved = time.monotonic()
        module.steps = self._saved_step = int(self.state.last.get("step", 0)) if self._place is None else self._place.step
        started = bool(self.state.history) or self._place is not None
        self.kept = self._whole_epochs() if self._place is None else self._place_in_words(trainer, self._place)
        self.writes = module.ranks.rank == 0
        purge_step = module.steps + 1 if started else None
        self.events = open_logs(self.config, self.run_dir, purge_step=purge_step, silent=not self.writes)
        if self._resumed:
            _check_optimizer(trainer)
            self._write_metrics()
        else:
            self._save(trainer, module, "last")

    def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
        """Reset the sums; put sums, batches and generators where the checkpoint left them."""
        module.start_epoch()
        self._epoch_before = 0.0
        place, self._place = self._place, None
        if place is not None:
            self._go_on_inside(trainer, module, place)
        elif self._generators is not None:
            _restore(self._generators)
            self._generators = None
        self._before = generators.capture() if place is None else place.before
        self._epoch_start = self._train_end = time.monotonic()
        self.resuming = False

    def on_train_batch_end(self, trainer: Trainer, module: Any, _outputs: Any, batch: Any, *_: Any) -> None:
        """Stop here if Ctrl-C, the clock or the number of steps say so, and save if it is time to."""
        if batch is NOTHING_LEFT:
            trainer.should_stop = 0 < self.max_steps <= module.steps
            return
        now = self._train_end = time.monotonic()
        limit, every = self.config.max_minutes, self.config.save_minutes
        asked, late, due = module.ranks.agree(
            self.request.asked,
            limit is not None and now - self._start + self.valid_seconds >= 60 * limit,
            every is not None and now - self._saved >= 60 * every,
        )
        if module.waiting:
            asked = due = False  # gradients wait for their step: after that
        elif self.config.save_steps is not None:
            due = due or module.steps - self._saved_step >= self.config.save_steps
        if asked or due:
            self._save_inside(trainer, module)
        if asked:
            raise Interrupted
        if late or 0 < self.max_steps <= module.steps:
            trainer.should_stop = True  # the library then validates and ends the epoch

    def on_validation_start(self, *_: Any) -> None:
        """Remember what the generators were when training ended: validation may draw from them."""
        self._trained = generators.capture()

    def on_validation_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """Stop here on Ctrl-C; resumed, the run validates again."""
        if module.ranks.agree(self.request.asked)[0]:
            self._save_inside(trainer, module)
            raise Interrupted

    def on_validation_end(self, *_: Any) -> None:
        """Go on with the generators as they are."""
        self._trained = None

    def on_train_epoch_end(self, trainer: Trainer, module: Any) -> None:
        """Write the epoch down."""
        self.train_seconds += self._train_end - self._epoch_start
        self.valid_seconds = time.monotonic() - self._train_end
        row = self._row(trainer, module)
        if math.isnan(row.get("valid_loss", 0.0)):
            raise _not_a_number(int(row["epoch"]))
        better = self.state.record(row)
        module.finish_epoch(self.state.monitored(row))
        if better:
            self._save(trainer, module, "best")
        self._save(trainer, module, "last")
        self.worth_keeping = True
        self.kept = self._whole_epochs()
        self._saved_step = module.steps
        self._write_metrics()
        self._log(row)
        if time.monotonic() - self._drawn > SECONDS_BETWEEN_PICTURES:
            self.draw()
        if self.state.exhausted(self.config.patience):
            trainer.should_stop = True
        if module.ranks.agree(self.request.asked)[0]:
            raise Interrupted

    def complete(self) -> None:
        """Write what a run that is over lacks if it was stopped right after its last checkpoint."""
        self._write_metrics()
        self.draw()

    def draw(self) -> None:
        """Draw the learning curve, if there is an epoch to draw."""
        if self.writes and self.pictures and self.state.history:
            path = self.run_dir / "learning_curve.png"
            draw_learning_curve(path, self.state.history, metric=self.state.monitor, best_epoch=self.state.best_epoch)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Finish the files, however the run ended."""
        if self.events is not None:
            with writing(self.events.directory, "directory"):
                self.events.close()
        self.draw()

    def _go_on_inside(self, trainer: Trainer, module: Module, place: Place) -> None:
        here, self._generators = self._generators, None
        _restore(place.before)  # the batches may draw their order from them
        try:
            module.train_tally.load_state_dict(place.tally)
        except MALFORMED as error:
            raise malformed(error) from error
        self._epoch_before = place.seconds
        ended = place.ended or place.batch >= int(trainer.num_training_batches) or 0 < self.max_steps <= place.step

        def skipped() -> None:
            _restore(here)
            start_at(trainer, batch=place.batch)

        self.feed.begin_at(None if ended else place.batch, skipped)

    def _save_inside(self, trainer: Trainer, module: Module) -> None:
        seconds, tally = self.epoch_seconds, module.train_tally
        place = Place(tally.batches, module.steps, seconds, tally.state_dict(), self._before, ended=trainer.validating)
        self._place = place
        try:
            self._save(trainer, module, "last")
        finally:
            self._place = None
        self.worth_keeping = True
        self.kept = self._place_in_words(trainer, place)
        self._saved_step = module.steps

    def _save(self, trainer: Trainer, module: Module, name: str) -> None:
        module.check_finite()
        module.check_weights()
        trainer.save_checkpoint(self.run_dir / name, weights_only=False)
        if name == "last":
            self._saved = time.monotonic()

    def _whole_epochs(self) -> str:
        done = len(self.state.history)
        return f"epoch {done} is kept in {self.run_dir / 'last'}" if done else "nothing was learned yet"

    def _place_in_words(self, trainer: Trainer, place: Place) -> str:
        where = self.run_dir / "last"
        return f"all up to batch {place.batch} of {int(trainer.num_training_batches)} is kept in {where}"

    def _write_metrics(self) -> None:
        path = self.run_dir / "metrics.csv"
        if not self.writes:
            return
        if self.state.history:
            write_metrics(path, self.state.history)
        else:
            path.unlink(missing_ok=True)  # of a later checkpoint, which was damaged

    def _log(self, row: dict[str, float]) -> None:
        if self.events is not None:
            with writing(self.events.directory, "directory"):
                self.events.write(row)

    def _row(self, trainer: Trainer, module: Module) -> dict[str, float]:
        row: dict[str, float] = {
            "epoch": trainer.current_epoch + 1,
            "step": module.steps,
            "seconds": round(self._seconds_before + self.elapsed, 3),
            "lr": module.lr,
        }
        row |= {f"train_{name}": value for name, value in module.means(module.train_tally).items()}
        module.check_finite()
        row |= {f"valid_{name}": value for name, value in module.means(module.valid_tally).items()}
        row["tokens_per_second"] = round(module.train_tally.tokens / max(self.epoch_seconds, 1e-9), 1)
        return row


def _restore(state: Any) -> None:
    try:
        generators.restore(state)
    except MALFORMED as error:
        raise malformed(error) from error


def _check_optimizer(trainer: Trainer) -> None:
    """A state of the wrong shape would be found by the optimizer's machine code, or not at all."""
    for optimizer in trainer.optimizers:
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                    raise malformed(f"{name} is {tuple(value.shape)} for a weight that is {tuple(parameter.shape)}")


def _not_a_number(epoch: int) -> TrainingError:
    what = f"the validation loss is not a number after epoch {epoch}."
    advice = "lower lr, clip harder (clip_norm, clip_value), or look at the data; last/ and best/ hold what was good"
    return TrainingError(explain(what, got="NaN", advice=advice))
