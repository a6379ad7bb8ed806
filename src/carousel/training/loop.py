"""Trains a model: :func:`train`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from carousel.errors import CheckpointError, ConfigError, explain, unknown_name
from carousel.training.checkpoint import load_checkpoint, load_weights
from carousel.training.config import TrainingConfig
from carousel.training.device import choose_device
from carousel.training.files import settle_directory
from carousel.training.generators import own_generators
from carousel.training.interrupts import Interrupted, StopRequest, stop_on_sigint
from carousel.training.quiet import quiet
from carousel.training.result import Batches, TrainableModel, TrainingResult

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from carousel.training.keeper import Keeper, RunState
    from carousel.training.progress import Progress

__all__ = ["train"]


def train(
    model: TrainableModel,
    train_batches: Batches,
    valid_batches: Batches | None,
    config: TrainingConfig,
    run_dir: str | Path,
    *,
    monitor: str = "accuracy",
    mode: Literal["max", "min"] = "max",
    resume: bool = False,
) -> TrainingResult:
    """Train a model, and leave it with the weights of its best epoch.

    The run directory gets ``metrics.csv`` (one row per epoch), ``tensorboard/``, ``learning_curve.png`` and the
    checkpoints ``last/`` and ``best/`` (see :mod:`carousel.training.checkpoint`; no pickle). Every file is whole at any
    moment. A resumed run gives, bit for bit, what an uninterrupted one gives: weights, metrics, order of batches.
    It goes on after the last epoch that ended; a time limit ends an epoch early, Ctrl-C gives the current one up.

    Torch's, NumPy's and Python's generators are seeded with `config.seed` for the run, and set back to the caller's
    states after it; so is torch's number of threads. The model comes back on the device and in the mode (training or
    evaluation) it came with.

    Args:
        model: a ``torch.nn.Module`` with ``measure(batch) -> Measured``. Changed: it is trained.
        train_batches: ``set_epoch(n)`` is called before each epoch, with n from 0.
        valid_batches: measured after each epoch, always in the order of ``set_epoch(0)``; None to do without, and
            judge epochs by the training metric.
        config: the options.
        run_dir: the run directory; made if it does not exist.
        monitor: the metric that chooses the best epoch: "loss", or a name in ``Measured.sums``.
        mode: whether a larger ("max") or a smaller ("min") value of it is better.
        resume: continue from ``last/``. Only `epochs`, `max_minutes`, `patience`, `threads`, `device`, `trainer` and
            `progress` may then differ from the run's.

    Returns:
        How it ended. After Ctrl-C ``interrupted`` is true, and ``last/`` is the last whole epoch.

    Raises:
        ConfigError: an option is not possible, or `run_dir` holds a run and `resume` is false.
        CheckpointError: there is nothing to resume, it is damaged, or it belongs to another model.
        TrainingError: the loss is not a finite number; the checkpoints of the epochs before stay.

    Gradients:
        Clipped by value, then by norm, before each optimizer step.
    """
    run_dir = Path(run_dir)
    if not isinstance(model, nn.Module) or not callable(getattr(model, "measure", None)):
        what = "train: the model must be a torch.nn.Module with a method measure(batch) -> Measured."
        raise ConfigError(explain(what, got=type(model).__qualname__, advice="add measure to the model"))
    if mode not in ("max", "min"):
        raise ConfigError(unknown_name("mode", mode, ("max", "min")))
    if not len(train_batches):
        raise ConfigError(explain("train: there is nothing to train on.", got="0 batches", advice="give at least one example"))
    device = choose_device(config.device)
    checkpoint = _saved_run(run_dir, model, config, monitor, mode) if resume else None
    if not resume:
        _refuse_used(run_dir)
    with (
        quiet(),
        _threads(config.threads),
        own_generators(config.seed),
        _as_it_came(model),
        stop_on_sigint() as request,
    ):
        return _Run(model, config, run_dir, device, request).go(train_batches, valid_batches, monitor, mode, checkpoint)


class _Run:
    """One call of :func:`train`, once everything that can be refused has been refused."""

    def __init__(self, model: nn.Module, config: TrainingConfig, run_dir: Path, device: str, request: StopRequest) -> None:
        self.model = model
        self.config = config
        self.run_dir = run_dir
        self.device = device
        self.request = request

    def go(
        self,
        train_batches: Batches,
        valid_batches: Batches | None,
        monitor: str,
        mode: str,
        checkpoint: Mapping[str, Any] | None,
    ) -> TrainingResult:
        from carousel.training.keeper import Keeper, RunState
        from carousel.training.module import Feed, Module
        from carousel.training.progress import Progress

        state = RunState(monitor, mode)
        if checkpoint is not None:
            state.load_dict(checkpoint["run"])
        keeper = Keeper(self.config, self.run_dir, state, self.request)
        progress = Progress(self.config, keeper)
        interrupted = False
        if not self._finished(state):
            trainer = _build_trainer(self.config, self.device, self.run_dir, [keeper, progress])
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self.model.train()
            module = Module(self.model, self.config, monitor)
            train_feed = Feed(train_batches, lambda: trainer.current_epoch)
            valid_feed = None if valid_batches is None else Feed(valid_batches, lambda: 0)
            last = None if checkpoint is None else self.run_dir / "last"
            interrupted = self._fit(keeper, progress, lambda: trainer.fit(module, train_feed, valid_feed, ckpt_path=last))
        if state.best_epoch:
            self.model.load_state_dict(load_weights(self.run_dir / "best"))
        return TrainingResult(
            best_epoch=state.best_epoch,
            best=dict(state.best),
            last=dict(state.last),
            epochs_run=len(state.history),
            seconds=state.seconds,
            interrupted=interrupted,
            history=[dict(row) for row in state.history],
        )

    def _finished(self, state: RunState) -> bool:
        max_steps = self.config.trainer.get("max_steps", -1)
        enough = len(state.history) >= self.config.epochs or 0 < max_steps <= state.last.get("step", 0)
        return enough or state.exhausted(self.config.patience)

    def _fit(self, keeper: Keeper, progress: Progress, fit: Any) -> bool:
        """Run the loop; return whether Ctrl-C ended it."""
        with ExitStack() as stack:
            stack.callback(keeper.close)
            stack.callback(progress.close)
            try:
                fit()
            except Interrupted:
                pass
            except SystemExit as error:  # what the library makes of a KeyboardInterrupt that somebody else raised
                if not isinstance(error.__context__, KeyboardInterrupt):
                    raise
            except Exception:
                if not keeper.state.history:
                    _forget_beginning(self.run_dir)
                raise
            else:
                return False
            progress.close()
            done = len(keeper.state.history)
            kept = f"epoch {done} is kept in {self.run_dir / 'last'}" if done else "no epoch was finished"
            again = "To continue, run the same again with resume=True (on the command line: --resume)."
            progress.say(f"Interrupted in epoch {done + 1}; {kept}. {again}")
            return True


def _build_trainer(config: TrainingConfig, device: str, run_dir: Path, callbacks: list[Callback]) -> Trainer:
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    from carousel.training.checkpoint_io import DirectoryCheckpoints
    from carousel.training.lean import NoProfiler

    # These two are done by us: at max_steps the library stops without validating, and the optimizer's step is ours.
    ours = ("max_steps", "accumulate_grad_batches")
    extra = {name: value for name, value in config.trainer.items() if name not in ours}
    try:
        trainer = Trainer(
            **{"devices": 1, "profiler": NoProfiler(), **extra},
            accelerator=device,
            max_epochs=config.epochs,
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=0,
            enable_autolog_hparams=False,
            use_distributed_sampler=False,
            plugins=[DirectoryCheckpoints(), LightningEnvironment()],
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        advice = "see the options of lightning.pytorch.Trainer"
        what = f"trainer: these options are not possible: {error}"
        raise ConfigError(explain(what, got=repr(config.trainer), advice=advice)) from error
    if trainer.world_size > 1:
        what = "trainer: a run uses one device."
        raise ConfigError(
            explain(what, got=f"{trainer.world_size} devices", advice="leave out devices, num_nodes and strategy")
        )
    return trainer


def _saved_run(run_dir: Path, model: nn.Module, config: TrainingConfig, monitor: str, mode: str) -> dict[str, Any]:
    """Return what last/ says about its run, once it is sure that this call continues it."""
    last = run_dir / "last"
    settle_directory(last)
    if not last.exists():
        what = f"there is no run to resume: {last} does not exist."
        raise CheckpointError(explain(what, advice="leave resume out to start a run, or name the directory of one"))
    checkpoint = load_checkpoint(last)
    try:
        saved: dict[str, Any] = checkpoint["callbacks"]["carousel"]
        weights = checkpoint["state_dict"]
    except KeyError as error:
        what = f"the checkpoint {last} is damaged or incomplete: it has no entry {error}."
        raise CheckpointError(explain(what, advice="continue from another checkpoint of the run, or train again")) from error
    _check_same_model(last, weights, model.state_dict())
    options = config.identity() | {"monitor": monitor, "mode": mode}
    stored = saved["config"] | {name: saved["run"][name] for name in ("monitor", "mode")}
    for name, value in options.items():
        if stored.get(name, value) != value:
            what = f"{name} cannot change when a run is resumed."
            got, expected = f"{name}={value!r}", f"{name}={stored[name]!r}, as {last} was trained"
            advice = "give the value of the run, or start a new run in another directory"
            raise ConfigError(explain(what, got=got, expected=expected, advice=advice))
    return saved


def _check_same_model(last: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    here = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    there = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    for name in [*here, *there]:
        if here.get(name) != there.get(name):
            what = f"the checkpoint {last} belongs to another model: they differ in {name}."
            got = f"{there[name]} in the checkpoint" if name in there else "nothing of that name in the checkpoint"
            expected = str(here[name]) if name in here else "nothing of that name"
            advice = "build the model with the options and the data of the run"
            raise CheckpointError(explain(what, got=got, expected=expected, advice=advice))


def _refuse_used(run_dir: Path) -> None:
    settle_directory(run_dir / "last")
    for name in ("last", "best", "metrics.csv"):
        if (run_dir / name).exists():
            what = f"the run directory {run_dir} already holds a run."
            advice = "continue it (resume), choose another directory, or delete it first"
            raise ConfigError(explain(what, got=str(run_dir / name), advice=advice))


def _forget_beginning(run_dir: Path) -> None:
    """Take back what was written before the first epoch failed, so that a better call can use the directory."""
    shutil.rmtree(run_dir / "last", ignore_errors=True)
    with suppress(OSError):  # somebody else's files are in it
        run_dir.rmdir()


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


@contextmanager
def _as_it_came(model: nn.Module) -> Iterator[None]:
    """Give the model back on its device and in its mode."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    training = model.training
    try:
        yield
    finally:
        model.to(device)
        model.train(training)
