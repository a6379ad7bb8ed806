"""The options of a training run, checked when they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from carousel.errors import ConfigError, explain, unknown_name

__all__ = ["DEVICES", "OPTIMIZERS", "TrainingConfig"]

OPTIMIZERS = ("adadelta", "adagrad", "adam", "adamw", "nadam", "rmsprop", "sgd")
WITH_MOMENTUM = ("rmsprop", "sgd")
# Options that may change when a run is resumed. Any other would make it another run.
MAY_CHANGE = ("epochs", "max_minutes", "patience", "threads", "device", "trainer", "progress")
DEVICES = ("auto", "cpu", "cuda", "mps")

# What a run decides itself, and the option (or the reason) to give instead.
OWNED = {
    "accelerator": "use `device`",
    "barebones": "leave it out: nothing that slows a step down is on",
    "callbacks": "leave it out: early stopping is `patience`, a time limit is `max_minutes`",
    "check_val_every_n_epoch": "leave it out: every epoch is validated",
    "default_root_dir": "use the run directory",
    "enable_autolog_hparams": "leave it out: the options are written by the task",
    "enable_checkpointing": "leave it out: last/ and best/ are always written",
    "enable_model_summary": "leave it out: print the model instead",
    "enable_progress_bar": "use `progress`",
    "fast_dev_run": "use `epochs: 1` with `trainer: {limit_train_batches: 1, limit_val_batches: 1}`",
    "gradient_clip_algorithm": "use `clip_norm` or `clip_value`, or both",
    "gradient_clip_val": "use `clip_norm` or `clip_value`, or both",
    "log_every_n_steps": "leave it out: metrics.csv has one row per epoch",
    "logger": "leave it out: metrics.csv and tensorboard/ are always written",
    "max_epochs": "use `epochs`",
    "max_time": "use `max_minutes`",
    "model_registry": "leave it out: nothing is uploaded",
    "num_sanity_val_steps": "leave it out: validation starts after the first epoch",
    "plugins": "leave it out: checkpoints are written without pickle by a plugin of ours",
    "reload_dataloaders_every_n_epochs": "leave it out: batches are reshuffled every epoch",
    "use_distributed_sampler": "leave it out: a run uses one device",
    "val_check_interval": "leave it out: validation runs at the end of every epoch",
}


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a training run. They are checked here; a wrong one never reaches the training loop.

    Args:
        epochs: the largest number of passes over the training data.
        max_minutes: stop after this many minutes, in the middle of an epoch if need be, and still validate; a resumed
            run counts anew.
        lr: the learning rate.
        optimizer: adam, adamw, sgd, rmsprop, adagrad, adadelta or nadam.
        momentum: the momentum of sgd and rmsprop.
        clip_norm: scale the gradient down to this 2-norm over all parameters; null for no limit.
        clip_value: cut every component of the gradient to this magnitude (before `clip_norm`); null for no limit.
        weight_decay: the penalty on the weights (decoupled in adamw, added to the gradient elsewhere).
        patience: stop after this many epochs without a better monitored metric; null for never.
        seed: the seed of every generator that the run draws from.
        threads: how many CPU threads torch may use during the run; null leaves torch's setting.
        device: auto, cpu, cuda or mps.
        trainer: further options of Lightning's Trainer by their names there, such as precision or limit_train_batches.
        progress: whether to show progress on the standard error stream.

    Raises:
        ConfigError: a value is not possible. The message names the option, the value and what to do.

    Example:
        >>> TrainingConfig(lr=-1.0)
        Traceback (most recent call last):
        carousel.errors.ConfigError: lr must be a number above 0.
          got:      -1.0
          try:      give a number such as 0.001
        >>> TrainingConfig(epochs=3, optimizer="sgd", momentum=0.9).patience
        5
    """

    epochs: int = 20
    max_minutes: float | None = None
    lr: float = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.0
    clip_norm: float | None = 5.0
    clip_value: float | None = None
    weight_decay: float = 0.0
    patience: int | None = 5
    seed: int = 1
    threads: int | None = None
    device: str = "auto"
    trainer: dict[str, Any] = field(default_factory=dict)
    progress: bool = True

    def identity(self) -> dict[str, Any]:
        """The options that make a run what it is: those that cannot change when it is resumed."""
        return {name: value for name, value in vars(self).items() if name not in MAY_CHANGE}

    def __post_init__(self) -> None:
        _whole("epochs", self.epochs, least=1, advice="give a whole number such as 20")
        _number("lr", self.lr, above=True, advice="give a number such as 0.001")
        _number("momentum", self.momentum, below=1.0, advice="give a number from 0 up to, not including, 1")
        _number("weight_decay", self.weight_decay, advice="give a number such as 0.0001, or 0 for none")
        _whole("seed", self.seed, least=0, advice="give a whole number such as 1")
        if self.max_minutes is not None:
            _number(
                "max_minutes",
                self.max_minutes,
                above=True,
                advice="give minutes such as 10 or 0.5, or null for no limit",
            )
        if self.clip_norm is not None:
            _number("clip_norm", self.clip_norm, above=True, advice="give a number such as 5, or null for no clipping")
        if self.clip_value is not None:
            _number("clip_value", self.clip_value, above=True, advice="give a number such as 1, or null for no clipping")
        if self.patience is not None:
            _whole(
                "patience",
                self.patience,
                least=1,
                advice="give a number of epochs such as 5, or null to never stop early",
            )
        if self.threads is not None:
            _whole(
                "threads",
                self.threads,
                least=1,
                advice="give a number of threads such as 2, or null for torch's own choice",
            )
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        _choice("device", self.device, DEVICES)
        if self.momentum and self.optimizer not in WITH_MOMENTUM:
            what = f"momentum is not an option of the optimizer {self.optimizer}."
            advice = "leave momentum at 0, or choose the optimizer sgd or rmsprop"
            raise ConfigError(explain(what, got=f"momentum={self.momentum}", advice=advice))
        _check_trainer(self.trainer)


def _check_trainer(options: object) -> None:
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        advice = "give names and values such as {precision: bf16-mixed}"
        raise ConfigError(explain("trainer must map option names to values.", got=repr(options), advice=advice))
    for name, value in options.items():
        if name in OWNED:
            what = f"trainer.{name} is decided by the run itself."
            raise ConfigError(explain(what, got=f"trainer.{name}={value!r}", advice=OWNED[name]))
    _whole("trainer.accumulate_grad_batches", options.get("accumulate_grad_batches", 1), least=1, advice="leave it out for 1")
    if options.get("max_steps", 1) != -1:
        _whole("trainer.max_steps", options.get("max_steps", 1), least=1, advice="leave it out for no limit")
    if not options:
        return
    import inspect

    from carousel.training.quiet import quiet

    with quiet():
        from lightning.pytorch import Trainer  # slow to import, so only where an option has to be looked up

    known = [name for name in inspect.signature(Trainer.__init__).parameters if name not in {"self", *OWNED}]
    for name in options:
        if name not in known:
            raise ConfigError(unknown_name("trainer option", name, known))


def _whole(option: str, value: object, *, least: int, advice: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(explain(f"{option} must be a whole number, at least {least}.", got=repr(value), advice=advice))


def _number(option: str, value: object, *, above: bool = False, below: float = math.inf, advice: str) -> None:
    """Accept a finite number in [0, below), or in (0, below) if `above`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not 0 <= value < below or (above and value == 0):  # type: ignore[operator]
        limits = ("above 0" if above else "0 or more") + ("" if below == math.inf else f" and below {below:g}")
        raise ConfigError(explain(f"{option} must be a number {limits}.", got=repr(value), advice=advice))


def _choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(unknown_name(option, str(value), choices))
