"""Trains a model: :func:`train`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from carousel.engines import engines
from carousel.errors import CarouselError, ConfigError, explain, unknown_name
from carousel.files import writing
from carousel.training.checkpoint import load_weights
from carousel.training.config import TrainingConfig
from carousel.training.device import choose_device, choose_threads
from carousel.training.distributed import Shares, process_count
from carousel.training.generators import own_generators
from carousel.training.interrupts import Interrupted, StopRequest, stop_on_sigint
from carousel.training.learning_rate import settle_rate
from carousel.training.optim import sparse_gradients
from carousel.training.processes import Worker, as_worker, check_worker, this_worker, with_workers
from carousel.training.quiet import quiet
from carousel.training.result import Batches, TrainableModel, TrainingResult
from carousel.training.run_state import MALFORMED, RunState, malformed
from carousel.training.saved import SavedRun, find_run, forget_beginning, refuse_used

if TYPE_CHECKING:
    from carousel.training.keeper import Keeper
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
    pictures: bool = True,
) -> TrainingResult:
    """Train a model, and leave it with the weights of its best epoch.

    The run directory gets ``metrics.csv`` (one row per epoch), ``tensorboard/``, ``learning_curve.png`` and the
    checkpoints ``last/`` and ``best/`` (see :mod:`carousel.training.checkpoint`; no pickle). Every file is whole at any
    moment. A resumed run gives, bit for bit, what an uninterrupted one gives: weights, metrics, order of batches.
    ``last/`` is written after each epoch, inside one as `save_minutes` and `save_steps` say, and on Ctrl-C, which loses
    nothing; the one before it is kept, and used with a warning if ``last/`` is damaged. A time limit ends an epoch early.

    With several of `trainer.devices` this process starts the others with its own command line; they run the program up to
    here, train with it and end (:mod:`carousel.training.processes`). Batches then need ``part(rank, world)``, which returns
    every world-th row from row rank on, and a length. The result is that of one process with the same batches, to rounding.

    Torch's, NumPy's and Python's generators are seeded with `config.seed` for the run, and set back to the caller's
    states after it; so is torch's number of threads. The model comes back on the device and in the mode (training or
    evaluation) it came with. With recurrent layers that run compiled on the CPU, the number of threads changes no bit: it
    is that of our kernels, and torch's own operations take one.

    Args:
        model: a ``torch.nn.Module`` with ``measure(batch) -> Measured``. Changed: it is trained.
        train_batches: ``set_epoch(n)`` is called before each epoch, with n from 0.
        valid_batches: measured after each epoch, always in the order of ``set_epoch(0)``; None to do without, and
            judge epochs by the training metric.
        config: the options.
        run_dir: the run directory; made if it does not exist.
        monitor: the metric that chooses the best epoch: "loss", or a name in ``Measured.sums``.
        mode: whether a larger ("max") or a smaller ("min") value of it is better.
        resume: continue from ``last/``. Only `epochs`, `max_minutes`, `patience`, `save_minutes`, `save_steps`, `threads`,
            `device`, `trainer`, `logger` and `progress` may then differ from the run's.
        pictures: whether to draw ``learning_curve.png``, which takes longer than a small training.

    Returns:
        How it ended. After Ctrl-C ``interrupted`` is true, and ``last/`` is the step it came after.

    Raises:
        ConfigError: an option is not possible, or `run_dir` holds a run and `resume` is false.
        CheckpointError: there is nothing to resume, it is damaged, or it belongs to another model.
        OutputError: something cannot be written (a full disk, say); the checkpoints from before stay.
        TrainingError: a loss, a gradient or a weight is not a finite number, or another process of the run ended; the
            checkpoints from before stay.

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
    worker = this_worker()
    if worker is not None:
        check_worker(worker, process_count(config))
    saved = find_run(run_dir, model, config, monitor, mode) if resume else None
    if not resume and worker is None:
        refuse_used(run_dir)
    with (
        quiet(),
        _threads(threads := choose_threads(config, model)),
        own_generators(config.seed),
        _products(config.matmul_precision),
        _same_bits(model, device),
        _as_it_came(model),
        stop_on_sigint() as request,
    ):
        if worker is not None:
            config = replace(config, lr=worker.plan["lr"], progress=False)
        elif config.lr == "auto":
            config = replace(config, lr=settle_rate(model, train_batches, config, run_dir, saved))
        run = _Run(model, config, run_dir, device, request, worker, pictures, threads)
        with sparse_gradients(model, config, device) if process_count(config) == 1 else nullcontext():
            return run.go(train_batches, valid_batches, monitor, mode, saved)


class _Run:
    """One call of :func:`train`, once everything that can be refused has been refused."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        run_dir: Path,
        device: str,
        request: StopRequest,
        worker: Worker | None,
        pictures: bool,
        threads: int,
    ) -> None:
        self.model = model
        self.config = config
        self.run_dir = run_dir
        self.device = device
        self.request = request
        self.worker = worker
        self.pictures = pictures
        self.threads = threads

    def go(
        self,
        train_batches: Batches,
        valid_batches: Batches | None,
        monitor: str,
        mode: Literal["max", "min"],
        saved: SavedRun | None,
    ) -> TrainingResult:
        from carousel.training.feed import Feed, start_at
        from carousel.training.keeper import Keeper
        from carousel.training.module import Module
        from carousel.training.progress import Progress
        from carousel.training.trainer import build_trainer

        state = RunState(monitor, mode)
        if saved is not None:
            state.load_dict(saved.run)
        world, rank = process_count(self.config), 0 if self.worker is None else self.worker.rank
        if world > 1:
            train_batches = Shares(train_batches, rank, world)
            valid_batches = None if valid_batches is None else Shares(valid_batches, rank, world)
        train_feed = Feed(train_batches, lambda: len(state.history))
        valid_feed = None if valid_batches is None else Feed(valid_batches, lambda: 0)
        keeper = Keeper(self.config, self.run_dir, state, self.request, train_feed)
        keeper.worth_keeping = keeper.resuming = saved is not None
        keeper.pictures = self.pictures
        progress = Progress(self.config, keeper)
        interrupted = False
        if not self._finished(state):
            callbacks = [keeper, progress]
            trainer = build_trainer(self.config, self.device, self.run_dir, callbacks, rank=rank, world=world, saved=saved)
            with writing(self.run_dir, "directory"):
                self.run_dir.mkdir(parents=True, exist_ok=True)
            self.model.train()
            module = Module(self.model, self.config, monitor, mode)
            start_at(trainer, epochs=len(state.history))
            last = None if saved is None else saved.where

            def fit() -> None:
                with self._together(world):
                    trainer.fit(module, train_feed, valid_feed, ckpt_path=last)

            interrupted = self._fit(keeper, progress, fit)
        elif self.worker is None:
            keeper.complete()
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
            lr=float(self.config.lr),
        )

    def _together(self, world: int) -> AbstractContextManager[None]:
        """Connect the processes of the run, whichever of them this is."""
        backend, threads = "nccl" if self.device == "cuda" else "gloo", self.threads
        if self.worker is not None:
            return as_worker(self.worker, backend=backend, threads=threads)
        plan = {"run_dir": str(self.run_dir.absolute()), "lr": self.config.lr}
        return with_workers(world, plan, backend=backend, threads=threads, check=self.request.check)

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
            except Exception as error:
                if not keeper.worth_keeping and self.worker is None:
                    forget_beginning(self.run_dir)
                if keeper.resuming and isinstance(error, MALFORMED) and not isinstance(error, CarouselError):
                    raise malformed(error) from error
                raise
            else:
                return False
            progress.close()
            done = len(keeper.state.history)
            again = "To continue, run the same again with resume=True (on the command line: --resume)."
            progress.say(f"Interrupted in epoch {done + 1}; {keeper.kept}. {again}")
            return True


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """How exact float32 products are."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "low" else precision)
    try:
        with _rounded_loops() if precision == "low" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _rounded_loops() -> AbstractContextManager[None]:
    if not any(info.name == "cpu" and info.usable for info in engines()):
        return nullcontext()
    from carousel.engines.cpu import outside

    return outside.rounded_loops()


def _same_bits(model: nn.Module, device: str) -> AbstractContextManager[None]:
    """Compute alike with any number of threads, if the model's recurrent layers run in our own kernels."""
    compiled = any(getattr(getattr(part, "engine", None), "name", None) == "cpu" for part in model.modules())
    if device != "cpu" or not compiled:
        return nullcontext()
    from carousel.engines.cpu import outside

    return outside.same_bits()


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
