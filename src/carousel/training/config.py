"""The options of a training run, checked when they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from carousel.errors import ConfigError, explain, unknown_name

__all__ = [
    "AVERAGES",
    "DEVICES",
    "LOGGERS",
    "MATMUL_PRECISIONS",
    "MAY_CHANGE",
    "OPTIMIZERS",
    "PLANNED_SCHEDULES",
    "PRECISIONS",
    "SCHEDULES",
    "TrainingConfig",
]

OPTIMIZERS = ("adadelta", "adagrad", "adam", "adamw", "nadam", "rmsprop", "sgd")
WITH_MOMENTUM = ("rmsprop", "sgd")
SCHEDULES = ("constant", "cosine", "one_cycle", "plateau", "step")
# Those laid out for a number of steps, so that a run cannot be made longer when it is resumed.
PLANNED_SCHEDULES = ("cosine", "one_cycle")
AVERAGES = ("ema", "none", "nt_asgd", "swa")
MATMUL_PRECISIONS = ("high", "highest", "low", "medium")
PRECISIONS = ("16-mixed", "16-true", "32-true", "64-true", "bf16-mixed", "bf16-true")
LOGGERS = ("comet", "csv", "mlflow", "tensorboard", "wandb")
# Options that may change when a run is resumed. Any other would make it another run.
MAY_CHANGE = (
    "epochs",
    "max_minutes",
    "patience",
    "save_minutes",
    "save_steps",
    "threads",
    "device",
    "trainer",
    "logger",
    "logger_options",
    "progress",
)
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
    "logger": "use `logger` and `logger_options`; metrics.csv and tensorboard/ are always written",
    "max_epochs": "use `epochs`",
    "max_time": "use `max_minutes`",
    "model_registry": "leave it out: nothing is uploaded",
    "num_sanity_val_steps": "leave it out: validation starts after the first epoch",
    "plugins": "leave it out: checkpoints are written without pickle by a plugin of ours",
    "reload_dataloaders_every_n_epochs": "leave it out: batches are reshuffled every epoch",
    "use_distributed_sampler": "leave it out: every process takes its rows of each batch",
    "val_check_interval": "leave it out: validation runs at the end of every epoch",
}


@dataclass(frozen=True)
class TrainingConfig:
    """The options of a training run. They are checked here; a wrong one never reaches the training loop.

    Args:
        epochs: the largest number of passes over the training data.
        max_minutes: stop after this many minutes, in the middle of an epoch if need be, and still validate; a resumed
            run counts anew.
        lr: the learning rate; auto measures one before training, on the training data (see lr_finder.png).
        optimizer: adam, adamw, sgd, rmsprop, adagrad, adadelta or nadam.
        momentum: the momentum of sgd and rmsprop.
        schedule: how the learning rate goes: constant, plateau (cut by `lr_factor` after `lr_epochs` epochs without a
            better monitored metric), step (cut by `lr_factor` every `lr_epochs` epochs, from `lr_hold` on), cosine
            (falls to `lr_end` over the run) or one_cycle (rises in the first 30 % of the run, then falls to `lr_end`).
        warmup_steps: optimizer steps in which the rate rises from almost 0 to `lr`; not with one_cycle, which has its own.
        lr_factor: what plateau and step multiply the rate by.
        lr_epochs: the epochs of plateau and step.
        lr_hold: so many epochs step waits before it begins to count.
        lr_end: the rate that cosine and one_cycle end at, and that plateau and step never go below.
        average: what validation and the best checkpoint use: the weights themselves (none), their exponential average
            over steps (ema), their mean over the ends of epochs (swa), or their mean over all steps since the monitored
            metric stopped getting better (nt_asgd).
        average_decay: how much of itself ema keeps at each step.
        average_from: the epoch, counted from 1, that swa begins with.
        average_patience: nt_asgd begins when the monitored metric is worse than its best of more than so many epochs ago.
        accumulate: add up the gradients of this many batches for each optimizer step, as one larger batch would.
        clip_norm: scale the gradient down to this 2-norm over all parameters; null for no limit.
        clip_value: cut every component of the gradient to this magnitude (before `clip_norm`); null for no limit.
        weight_decay: the penalty on the weights (decoupled in adamw, added to the gradient elsewhere).
        patience: stop after this many epochs without a better monitored metric; null for never.
        save_minutes: also save inside an epoch, after this many minutes since the last time; null for never.
        save_steps: also save inside an epoch, after this many optimizer steps since the last time; null for never.
        seed: the seed of every generator that the run draws from.
        threads: how many CPU threads torch may use during the run, shared by its processes; auto takes one for a model
            that is too small to gain from more, else torch's setting, which null always leaves.
        device: auto, cpu, cuda or mps.
        precision: the floats to compute with: 32-true, bf16-mixed, 16-mixed (on cuda), 64-true, bf16-true or 16-true;
            null for 32-true.
        matmul_precision: what large products in float32 may do, as torch.set_float32_matmul_precision has it: highest is
            exact; medium rounds what is multiplied to bfloat16, and high to TF32, where the device has units for it (AMX in
            a CPU, tensor cores), and adds up in float32. A CPU with AMX does them about five times as fast. low is medium that
            reaches into the loops of the recurrent layers (CPUs with AMX).
        trainer: further options of Lightning's Trainer by their names there, such as devices or limit_train_batches.
        logger: also send the rows of metrics.csv to this logger of Lightning: csv, tensorboard, wandb, mlflow, or comet;
            null for none.
        logger_options: options of that logger, by their names in Lightning.
        progress: whether to show progress on the standard error stream.

    Raises:
        ConfigError: a value is not possible. The message names the option, the value and what to do.

    Example:
        >>> TrainingConfig(lr=-1.0)
        Traceback (most recent call last):
        carousel.errors.ConfigError: lr must be a number above 0.
          got:      -1.0
          try:      give a number such as 0.001, or auto to measure one
        >>> TrainingConfig(epochs=3, optimizer="sgd", momentum=0.9).patience
        5
    """

    epochs: int = 20
    max_minutes: float | None = None
    lr: float | Literal["auto"] = 1e-3
    optimizer: str = "adam"
    momentum: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    lr_factor: float = 0.5
    lr_epochs: int = 3
    lr_hold: int = 0
    lr_end: float = 0.0
    average: str = "none"
    average_decay: float = 0.999
    average_from: int = 1
    average_patience: int = 5
    accumulate: int = 1
    clip_norm: float | None = 5.0
    clip_value: float | None = None
    weight_decay: float = 0.0
    patience: int | None = 5
    save_minutes: float | None = 10.0
    save_steps: int | None = None
    seed: int = 1
    threads: int | Literal["auto"] | None = "auto"
    device: str = "auto"
    precision: str | None = None
    matmul_precision: str = "highest"
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: str | None = None
    logger_options: dict[str, Any] = field(default_factory=dict)
    progress: bool = True

    def identity(self) -> dict[str, Any]:
        """The options that make a run what it is: those that cannot change when it is resumed."""
        free = [name for name in MAY_CHANGE if name != "epochs" or self.schedule not in PLANNED_SCHEDULES]
        return {name: value for name, value in vars(self).items() if name not in free}

    def __post_init__(self) -> None:
        _whole("epochs", self.epochs, least=1, advice="give a whole number such as 20")
        if self.lr != "auto":
            _number("lr", self.lr, above=True, advice="give a number such as 0.001, or auto to measure one")
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
        if self.save_minutes is not None:
            _number("save_minutes", self.save_minutes, above=True, advice="give minutes such as 10, or null for none")
        if self.save_steps is not None:
            _whole("save_steps", self.save_steps, least=1, advice="give a number of steps such as 1000, or null for none")
        if self.threads not in (None, "auto"):
            _whole(
                "threads",
                self.threads,
                least=1,
                advice="give a number of threads such as 2, auto, or null for torch's own choice",
            )
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        _choice("device", self.device, DEVICES)
        self._check_rate_and_weights()
        if self.momentum and self.optimizer not in WITH_MOMENTUM:
            what = f"momentum is not an option of the optimizer {self.optimizer}."
            advice = "leave momentum at 0, or choose the optimizer sgd or rmsprop"
            raise ConfigError(explain(what, got=f"momentum={self.momentum}", advice=advice))
        _check_trainer(self.trainer)
        if self.precision is not None:
            _choice("precision", self.precision, PRECISIONS)
        _choice("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        _check_twice("accumulate", self.accumulate != 1, "accumulate_grad_batches", self.trainer)
        _check_twice("precision", self.precision is not None, "precision", self.trainer)
        _check_logger(self.logger, self.logger_options)

    @property
    def batches_per_step(self) -> int:
        """How many batches an optimizer step takes its gradient from: `accumulate`, or Lightning's name for it."""
        return max(self.accumulate, int(self.trainer.get("accumulate_grad_batches", 1)))

    def _check_rate_and_weights(self) -> None:
        _choice("schedule", self.schedule, SCHEDULES)
        _whole("warmup_steps", self.warmup_steps, least=0, advice="give a number of optimizer steps such as 500, or 0 for none")
        _number("lr_factor", self.lr_factor, above=True, below=1.0, advice="give a number such as 0.5")
        _whole("lr_epochs", self.lr_epochs, least=1, advice="give a number of epochs such as 3")
        _whole("lr_hold", self.lr_hold, least=0, advice="give a number of epochs such as 4, or 0")
        _number("lr_end", self.lr_end, advice="give a number below lr, such as 0")
        _choice("average", self.average, AVERAGES)
        _number("average_decay", self.average_decay, above=True, below=1.0, advice="give a number such as 0.999")
        _whole("average_from", self.average_from, least=1, advice="give an epoch such as 3")
        _whole("average_patience", self.average_patience, least=1, advice="give a number of epochs such as 5")
        _whole("accumulate", self.accumulate, least=1, advice="give a number of batches such as 4, or 1")
        if self.lr != "auto" and self.lr_end >= self.lr:
            got = f"lr_end={self.lr_end}, lr={self.lr}"
            raise ConfigError(explain("lr_end must be below lr.", got=got, advice="leave it at 0, or lower it"))
        if self.schedule == "one_cycle" and self.warmup_steps:
            what = "warmup_steps is not an option of the schedule one_cycle, which begins with a warm-up of its own."
            raise ConfigError(explain(what, got=f"warmup_steps={self.warmup_steps}", advice="leave warmup_steps at 0"))


def _check_twice(option: str, given: bool, name: str, trainer: dict[str, Any]) -> None:
    if given and name in trainer:
        what = f"{option} and trainer.{name} are the same option."
        raise ConfigError(explain(what, got=f"trainer.{name}={trainer[name]!r}", advice=f"give {option} only"))


def _check_logger(name: object, options: object) -> None:
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        advice = "give names and values such as {project: mine}"
        raise ConfigError(explain("logger_options must map option names to values.", got=repr(options), advice=advice))
    if name is not None:
        _choice("logger", name, LOGGERS)
    elif options:
        advice = "name the logger, or leave logger_options out"
        raise ConfigError(explain("logger_options needs a logger.", got=repr(options), advice=advice))


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
