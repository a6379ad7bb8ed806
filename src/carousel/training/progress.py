"""What a user sees of a run: a bar in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, Trainer

from carousel.training.config import TrainingConfig
from carousel.training.keeper import Keeper

__all__ = ["Progress", "clock", "epoch_line", "short", "time_left"]

SECONDS_BETWEEN_FRAMES = 0.1


def time_left(
    *, done: float, epochs: int, train_seconds: float, valid_seconds: float, limit_seconds: float | None
) -> float | None:
    """Seconds until the end at the latest (patience may end a run earlier).

    Args:
        done: epochs trained in this part of the run, with the fraction of the current one.
        epochs: epochs this part of the run may take.
        train_seconds: spent on training for `done`.
        valid_seconds: of one validation.
        limit_seconds: what is left of the time limit, None for no limit.

    Returns:
        Seconds, None while nothing can be said.

    Example:
        >>> time_left(done=0.5, epochs=3, train_seconds=10.0, valid_seconds=2.0, limit_seconds=None)
        56.0
        >>> time_left(done=0.5, epochs=3, train_seconds=10.0, valid_seconds=2.0, limit_seconds=20.0)
        20.0
    """
    if done <= 0:
        return limit_seconds
    rest = (epochs - done) * train_seconds / done + (epochs - int(done)) * valid_seconds
    return rest if limit_seconds is None else max(0.0, min(rest, limit_seconds))


def clock(seconds: float) -> str:
    """Write seconds as a clock does.

    Example:
        >>> clock(8.4), clock(75), clock(3725)
        ('0:08', '1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(number: float) -> str:
    """Write a large number in three digits.

    Example:
        >>> short(874), short(41230), short(2.5e6)
        ('874', '41.2k', '2.5M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def epoch_line(row: dict[str, float], epochs: int, seconds: float, *, best: bool) -> str:
    """Put an epoch into one line.

    Example:
        >>> row = {"epoch": 3, "train_loss": 0.5, "train_accuracy": 0.75, "valid_loss": 0.61}
        >>> row["tokens_per_second"] = 41230.0
        >>> epoch_line(row, epochs=20, seconds=12.3, best=True)
        'epoch  3/20  train loss 0.5000 accuracy 0.7500  valid loss 0.6100  41.2k tokens/s  12.3 s  best so far'
    """
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"]
    for part in ("train", "valid"):
        values = [f"{name.removeprefix(part + '_')} {row[name]:.4f}" for name in row if name.startswith(part + "_")]
        if values:
            parts.append(" ".join([part, *values]))
    parts += [f"{short(row['tokens_per_second'])} tokens/s", f"{seconds:.1f} s"]
    return "  ".join([*parts, "best so far"] if best else parts)


class Progress(Callback):
    """Shows a run on the standard error stream.

    Args:
        config: the options of the run; `progress=False` is silent.
        keeper: knows the epochs so far and the clock.
    """

    # See Module: hooks that do nothing cost time at every step.
    on_train_batch_start = on_validation_batch_start = None  # type: ignore[assignment]

    def __init__(self, config: TrainingConfig, keeper: Keeper) -> None:
        self.config = config
        self.keeper = keeper
        self._bar: Any = None
        self._task: Any = None
        self._shown = 0.0
        self._epochs_before = 0
        self._epoch_start = 0.0

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self.config.progress:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress is for the eyes, not for a log

    def on_train_start(self, *_: Any) -> None:
        """Show the bar."""
        self._epochs_before = len(self.keeper.state.history)
        if self.config.progress and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("", total=1, step="", numbers="", rate="", left="")

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the epoch's clock."""
        self._epoch_start = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: Any, _outputs: Any, _batch: Any, index: int) -> None:
        """Draw a frame, a few times a second."""
        if self._bar is None or not self._due():
            return
        now, total = time.monotonic(), int(trainer.num_training_batches)
        seconds = now - self._epoch_start
        limit = self.config.max_minutes
        left = time_left(
            done=trainer.current_epoch - self._epochs_before + (index + 1) / total,
            epochs=self.config.epochs - self._epochs_before,
            train_seconds=self.keeper.train_seconds + seconds,
            valid_seconds=self.keeper.valid_seconds,
            limit_seconds=None if limit is None else 60 * limit - self.keeper.elapsed,
        )
        loss = module.train_tally.smooth_loss
        self._frame(
            f"epoch {trainer.current_epoch + 1}/{self.config.epochs}",
            index + 1,
            total,
            numbers="" if loss is None else f" loss {loss:.4f}" + self._best(),
            rate=f" {short(module.train_tally.tokens / max(seconds, 1e-9))} tokens/s",
            left="" if left is None else f" {clock(left)} left",
        )

    def on_validation_batch_end(self, trainer: Trainer, _module: Any, _outputs: Any, _batch: Any, index: int, *_: Any) -> None:
        """Draw a frame, a few times a second."""
        if self._bar is not None and self._due():
            self._frame("validation", index + 1, int(sum(trainer.num_val_batches)))

    def on_train_epoch_end(self, *_: Any) -> None:
        """Print the line of the epoch."""
        state = self.keeper.state
        row = state.last
        seconds = time.monotonic() - self._epoch_start
        self.say(epoch_line(row, self.config.epochs, seconds, best=state.best_epoch == row["epoch"]))

    def close(self) -> None:
        """Take the bar away, however the run ended."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _best(self) -> str:
        state = self.keeper.state
        if not state.history:
            return ""
        last, best = state.monitored(state.last), state.monitored(state.best or state.last)
        return f"  {state.monitor} {last:.4f} (best {best:.4f})"

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_FRAMES:
            return False
        self._shown = now
        return True

    def _frame(self, what: str, done: int, total: int, **texts: str) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total, step=f"{done}/{total}", **texts)
        self._bar.refresh()


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = [
        "{task.description}",
        "{task.fields[step]}",
        "{task.fields[numbers]}",
        "{task.fields[rate]}",
        "{task.fields[left]}",
    ]
    text = [TextColumn(column, markup=False) for column in columns]
    # Drawn by the training thread itself: a thread of its own would wake ten times a second to take the interpreter.
    return Bar(text[0], BarColumn(bar_width=24), *text[1:], console=Console(stderr=True), auto_refresh=False, transient=True)
