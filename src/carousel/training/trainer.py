"""Sets up the training library's Trainer for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from carousel.errors import ConfigError, explain
from carousel.training.config import TrainingConfig

if TYPE_CHECKING:
    from lightning.pytorch import Callback, Trainer

    from carousel.training.saved import SavedRun

__all__ = ["build_trainer"]


def build_trainer(
    config: TrainingConfig,
    device: str,
    run_dir: Path,
    callbacks: list[Callback],
    *,
    rank: int = 0,
    world: int = 1,
    saved: SavedRun | None = None,
) -> Trainer:
    """Make the Trainer of a run.

    Args:
        config: the options of the run.
        device: the kind of device, not `auto`.
        run_dir: the run directory.
        callbacks: called at every step.
        rank: this process, counted from 0.
        world: processes of the run.
        saved: the run that goes on, None for a new one.

    Raises:
        ConfigError: the options under `trainer` are not possible.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    from carousel.training.checkpoint_io import DirectoryCheckpoints
    from carousel.training.environment import OneMachine
    from carousel.training.lean import NoProfiler

    # These are done by us: at max_steps the library stops without validating, and the optimizer's step is ours.
    ours = ("max_steps", "accumulate_grad_batches")
    extra = {name: value for name, value in config.trainer.items() if name not in ours}
    if config.precision is not None:
        extra["precision"] = config.precision
    _check_processes(extra, world)
    if world > 1:
        extra["strategy"] = "ddp"
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
            plugins=[DirectoryCheckpoints(saved), OneMachine(rank)],
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        advice = "see the options of lightning.pytorch.Trainer"
        what = f"trainer: these options are not possible: {error}"
        raise ConfigError(explain(what, got=repr(config.trainer), advice=advice)) from error
    if trainer.world_size != world:
        advice = "give devices a number, and leave num_nodes out"
        what = f"trainer: the number of devices is not clear: {trainer.world_size} or {world}."
        raise ConfigError(explain(what, got=repr(config.trainer), advice=advice))
    if "precision" in extra:
        vars(trainer.precision_plugin)["convert_input"] = partial(_convert, trainer.precision_plugin.convert_input)
    return trainer


def _convert(convert: Callable[[Any], Any], batch: Any) -> Any:
    """Bring a batch to the floats of the run; the library itself refuses dataclasses that are frozen, as ours are."""
    if not is_dataclass(batch) or isinstance(batch, type):
        return convert(batch)
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: convert(value) for name, value in values.items() if isinstance(value, Tensor)})


def _check_processes(options: dict[str, object], world: int) -> None:
    if options.get("num_nodes", 1) != 1:
        what = "trainer: a run uses the devices of one machine."
        raise ConfigError(explain(what, got=f"num_nodes={options['num_nodes']!r}", advice="leave num_nodes out"))
    strategy = options.get("strategy", "auto")
    possible = ("auto", "ddp") if world > 1 else ("auto",)
    if strategy not in possible and not (world == 1 and strategy == "ddp"):
        what = "trainer: this strategy is not possible."
        got = f"strategy={strategy!r} with {world} device{'s' if world > 1 else ''}"
        raise ConfigError(explain(what, got=got, expected="ddp, with several devices", advice="leave strategy out"))
    if world == 1:
        options.pop("strategy", None)  # one process has nobody to talk to
