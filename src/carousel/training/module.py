"""A model as the training library wants to see it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from carousel.errors import CheckpointError, ConfigError, explain, unknown_name
from carousel.training.averaging import WeightAverage
from carousel.training.blame import bad_gradient, bad_gradient_read_late, bad_loss, bad_weight, bad_weights_error
from carousel.training.config import TrainingConfig
from carousel.training.distributed import Ranks, measure_share
from carousel.training.feed import NOTHING_LEFT
from carousel.training.optim import build_optimizer, clip_gradients, descends_plainly, shrinking
from carousel.training.result import Measured, TrainableModel
from carousel.training.schedules import Schedule
from carousel.training.tally import Tally

__all__ = ["Module"]


class Module(LightningModule):
    """One step of training and of validation around ``model.measure``.

    The step is our own ("manual optimization"): the library's way around it, and its logging, cost more than a small
    model does. Sums go to two tallies, which the callbacks read.

    Args:
        model: the model; its weights keep their own names in checkpoints.
        config: the options of the run.
        monitor: the metric that the model must measure.
        mode: whether a larger ("max") or a smaller ("min") value of it is better.
    """

    # The training library calls every hook at every step, whether or not it does anything; None is what it leaves out.
    on_train_batch_start = on_train_batch_end = None  # type: ignore[assignment]

    def __init__(self, model: nn.Module, config: TrainingConfig, monitor: str, mode: Literal["max", "min"] = "max") -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.config = config
        self.monitor = monitor
        self.mode = mode
        self.accumulate = config.batches_per_step
        self.ranks = Ranks()
        self.train_tally = Tally()
        self.valid_tally = Tally()
        self.steps = 0
        self.lr = 0.0
        self._measure: Callable[[Any], Measured] = model.measure  # type: ignore[assignment]
        self._waiting = 0
        # With several batches or processes a step, gradients count by items: in units of the first batch's, as 16-bit
        # floats do not hold large sums.
        self._weighted = self.accumulate > 1
        self._unit = 1.0
        self._weight = 0.0
        self._rate = 1.0
        self._average: WeightAverage | None = None
        self._closed = 0
        self._saved: dict[str, Any] = {}
        self._with_gradient: list[Tensor] = []
        self._scaler: Any = None
        self._plain = False
        self._optimizer: Optimizer
        self._schedule: Schedule
        self._full_precision: Callable[[], AbstractContextManager[Any]] = nullcontext

    def start_epoch(self) -> None:
        """Forget the sums, and gradients that a time limit kept from their step."""
        self.train_tally.reset()
        self.valid_tally.reset()
        self._waiting = 0
        self._optimizer.zero_grad()

    def training_step(self, batch: Any, index: int) -> None:
        """Measure a batch and learn from it."""
        if batch is NOTHING_LEFT:
            return
        if self.ranks.world > 1:
            self.ranks.seed_step(self.config.seed, self.current_epoch, index)
        measured = self._measure(batch)
        total = self.ranks.total(measured)
        self.train_tally.add(total)
        self.check_finite(batch)
        self._rate = measured.rate
        if self.train_tally.batches == 1:
            self._check_monitor(measured)
        with self._full_precision():
            loss = measured.loss if not self._weighted else self._weigh(measured, total)
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            self._waiting += 1
            if self._waiting == self.accumulate or index + 1 == self.trainer.num_training_batches:
                self._step()

    def validation_step(self, batch: Any, _index: int) -> None:
        """Measure a batch."""
        self.valid_tally.add(self.ranks.total(self._measure(batch)))

    def on_validation_start(self) -> None:
        """Validate the averaged weights."""
        self._close_training()
        if self._average is not None:
            self._average.swap()

    def on_validation_end(self) -> None:
        """Go on with the weights themselves."""
        if self._average is not None:
            self._average.swap()

    def finish_epoch(self, monitored: float) -> None:
        """Tell the schedule and the average that an epoch is over.

        Args:
            monitored: the value of the monitored metric.
        """
        self._close_training()
        self._schedule.after_epoch(monitored)
        if self._average is not None:
            self._average.after_validation(monitored)

    def configure_optimizers(self) -> Optimizer:
        """Make the optimizer, on the device of the run."""
        self._with_gradient = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        sparse = [part.weight for part in self.model.modules() if isinstance(part, nn.Embedding) and part.sparse]
        self._optimizer = build_optimizer(self.config, self._with_gradient, scaled=self._scaler is not None, sparse=sparse)
        self._plain = self._scaler is None and self.device.type == "cpu" and descends_plainly(self.config)
        if self.trainer.world_size > 1:
            self.ranks = Ranks(self.trainer.global_rank, self.trainer.world_size, self.device)
            self._weighted = True
            self._measure = partial(measure_share, cast(TrainableModel, self.model).measure)
        self._prepare_schedule()
        if self.config.average != "none":
            self._average = WeightAverage(
                self.model,
                self.config.average,
                decay=self.config.average_decay,
                start=self.config.average_from,
                patience=self.config.average_patience,
                mode=self.mode,
            )
            if self._saved:
                self._average.load_state_dict(self._saved["average"])
        mixed = str(self.trainer.precision).endswith("-mixed")
        self._full_precision = partial(torch.autocast, self.device.type, enabled=False) if mixed else nullcontext
        return self._optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _dataloader: int) -> Any:
        """Move a batch by its own method; the library would copy a dataclass field by field."""
        return batch.to(device)

    @property
    def waiting(self) -> bool:
        """Whether gradients wait for their optimizer step."""
        return self._waiting > 0

    def check_finite(self, batch: Any = None) -> None:
        """Raise if a training loss or a gradient that has been read is not a finite number.

        Args:
            batch: the newest one.
        """
        number = self.train_tally.bad_batch
        if number is not None:
            newest = batch if number == self.train_tally.batches else None
            raise bad_loss(self.model, self._measure, newest, epoch=self.current_epoch + 1, number=number)
        number = self.train_tally.bad_gradient
        if number is not None:  # found when it had reached the weights
            raise bad_gradient_read_late(epoch=self.current_epoch + 1, number=number)

    def means(self, tally: Tally) -> dict[str, float]:
        """The means of a tally, and what the model derives from them, without what is there for that alone."""
        found = tally.means()
        derive = getattr(self.model, "derive", None)
        if derive is None:
            return found
        return {name: value for name, value in (found | derive(found)).items() if not name.startswith("_")}

    def check_weights(self) -> None:
        """Raise if a weight is not finite: a step can overflow though its gradient was finite."""
        name = bad_weight(self.model)
        if name is not None:
            raise bad_weights_error(name, epoch=self.current_epoch + 1, number=self.train_tally.batches)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the name of the current hook, some twenty times a step, without torch's search for parameters."""
        if name in ("_current_fx_name", "_unit", "_weight", "_rate", "lr", "steps", "_waiting"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's weights under its own names: their average where one is asked for."""
        weights = self.model.state_dict(*args, **kwargs)
        return weights if self._average is None else self._average.averaged(weights)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Set the model's weights."""
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the schedule and the average have to go on with."""
        checkpoint["module"] = {
            "lr": self.lr,
            "closed": self._closed,
            "schedule": self._schedule.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "model": self._run_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep that until the optimizer is made; the library loads the weights in between."""
        self._saved = checkpoint.get("module", {})
        if self.trainer.precision == "64-true":
            self.model.double()  # the library would do so after it has loaded, and rounded, the weights

    def _prepare_schedule(self) -> None:
        total = per_epoch = 1
        if self.config.schedule not in ("constant", "plateau"):
            _ = self.trainer.estimated_stepping_batches  # reads how many batches there are, which is not known before
            per_epoch = math.ceil(self.trainer.num_training_batches / self.accumulate)
            total = self.config.epochs * per_epoch
            max_steps = self.config.trainer.get("max_steps", -1)
            total = min(total, max_steps) if max_steps > 0 else total
        self._schedule = Schedule(self._optimizer, self.config, total_steps=total, steps_per_epoch=per_epoch, mode=self.mode)
        if self._saved:
            self._schedule.load_state_dict(self._saved["schedule"])
            self.lr, self._closed = self._saved["lr"], self._saved["closed"]
            if self._saved.get("model") is not None:
                try:
                    cast(Any, self.model).load_run_state(self._saved["model"])
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    what = "the checkpoint does not hold what the model carries from batch to batch."
                    raise CheckpointError(explain(what, got=f"{type(error).__name__}: {error}")) from error

    def _run_state(self) -> dict[str, Any] | None:
        """What the model carries from batch to batch. On several processes each has its own, which no checkpoint holds."""
        method: Callable[[], dict[str, Any]] | None = getattr(self.model, "run_state", None)
        return None if method is None or self.ranks.world > 1 else method()

    def _weigh(self, measured: Measured, total: Measured) -> Tensor:
        """The loss of a batch, or of this process's share of it, times its items."""
        if not self._waiting:
            self._unit, self._weight = float(total.items), 0.0
        weight = measured.items / self._unit
        self._weight += weight
        return measured.loss * weight

    def _close_training(self) -> None:
        """Take the end of an epoch's training into the average, once."""
        if self._average is not None and self._closed <= self.current_epoch:
            self._closed = self.current_epoch + 1
            self._average.after_epoch(self._closed)

    def _step(self) -> None:
        if self._weighted:
            self.ranks.average_gradients(self._with_gradient, self._weight)
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        bound = None if self._plain else self.config.clip_norm
        norm = clip_gradients(self._with_gradient, value=self.config.clip_value, norm=bound)
        if self._scaler is None:
            self._check_gradient(norm)
        rate = self._rate * (shrinking(norm, self.config.clip_norm) if self._plain else 1.0)
        rates = [group["lr"] for group in self._optimizer.param_groups]
        if rate != 1.0:
            for group in self._optimizer.param_groups:
                group["lr"] *= rate
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._optimizer.zero_grad()
        self._waiting = 0
        self.steps += 1
        if rate != 1.0:
            for group, before in zip(self._optimizer.param_groups, rates, strict=True):
                group["lr"] = before
        self.lr = self._optimizer.param_groups[0]["lr"]
        self._schedule.after_step()
        if self._average is not None:
            self._average.after_step()

    def _check_gradient(self, norm: Tensor) -> None:
        """Stop before a gradient that is not finite reaches the weights; on an accelerator, one step later."""
        if norm.device.type != "cpu":
            self.train_tally.watch(norm)
        elif not math.isfinite(norm.item()):
            error = bad_gradient(self.model, epoch=self.current_epoch + 1, number=self.train_tally.batches)
            if error is not None:
                raise error

    def _check_monitor(self, measured: Measured) -> None:
        if self.monitor not in ("loss", *measured.sums):
            raise ConfigError(unknown_name("metric to monitor", self.monitor, ("loss", *measured.sums)))


# The training library looks at the signature at every step; this way it need not be worked out anew.
Module.training_step.__signature__ = inspect.signature(Module.training_step)  # type: ignore[attr-defined]
