"""A model as the training library wants to see it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from carousel.errors import ConfigError, TrainingError, explain, unknown_name
from carousel.training.config import TrainingConfig
from carousel.training.optim import build_optimizer, clip_gradients
from carousel.training.result import Batches, Measured
from carousel.training.tally import Tally

__all__ = ["Feed", "Module"]


class Module(LightningModule):
    """One step of training and of validation around ``model.measure``.

    The step is our own ("manual optimization"): the library's way around it, and its logging, cost more than a small
    model does. Sums go to two tallies, which the callbacks read.

    Args:
        model: the model; its weights keep their own names in checkpoints.
        config: the options of the run.
        monitor: the metric that the model must measure.
    """

    # The training library calls every hook at every step, whether or not it does anything; None is what it leaves out.
    on_train_batch_start = on_train_batch_end = None  # type: ignore[assignment]

    def __init__(self, model: nn.Module, config: TrainingConfig, monitor: str) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.config = config
        self.monitor = monitor
        self.accumulate = int(config.trainer.get("accumulate_grad_batches", 1))
        self.train_tally = Tally()
        self.valid_tally = Tally()
        self.steps = 0
        self._measure: Callable[[Any], Measured] = model.measure  # type: ignore[assignment]
        self._waiting = 0
        self._with_gradient: list[Tensor] = []
        self._scaler: Any = None
        self._optimizer: Optimizer
        self._full_precision: Callable[[], AbstractContextManager[Any]] = nullcontext

    def start_epoch(self) -> None:
        """Forget the sums, and gradients that a time limit kept from their step."""
        self.train_tally.reset()
        self.valid_tally.reset()
        self._waiting = 0
        self._optimizer.zero_grad()

    def training_step(self, batch: Any, index: int) -> None:
        """Measure a batch and learn from it."""
        measured = self._measure(batch)
        self.train_tally.add(measured)
        self.check_finite()
        if self.train_tally.batches == 1:
            self._check_monitor(measured)
        with self._full_precision():
            loss = measured.loss if self.accumulate == 1 else measured.loss / self.accumulate
            (loss if self._scaler is None else self._scaler.scale(loss)).backward()
            self._waiting += 1
            if self._waiting == self.accumulate or index + 1 == self.trainer.num_training_batches:
                self._step()

    def validation_step(self, batch: Any, _index: int) -> None:
        """Measure a batch."""
        self.valid_tally.add(self._measure(batch))

    def configure_optimizers(self) -> Optimizer:
        """Make the optimizer, on the device of the run."""
        self._with_gradient = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self._optimizer = build_optimizer(self.config, self._with_gradient, scaled=self._scaler is not None)
        mixed = str(self.trainer.precision).endswith("-mixed")
        self._full_precision = partial(torch.autocast, self.device.type, enabled=False) if mixed else nullcontext
        return self._optimizer

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _dataloader: int) -> Any:
        """Move a batch by its own method; the library would copy a dataclass field by field."""
        return batch.to(device)

    def check_finite(self) -> None:
        """Raise if a training loss that has been read is not a finite number."""
        if self.train_tally.bad_batch is not None:
            raise _not_finite(self.current_epoch + 1, self.train_tally.bad_batch)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the name of the current hook, some twenty times a step, without torch's search for parameters."""
        if name in ("_current_fx_name", "_waiting", "steps"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The model's weights under its own names."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Set the model's weights."""
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    def _step(self) -> None:
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        clip_gradients(self._with_gradient, value=self.config.clip_value, norm=self.config.clip_norm)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        self._optimizer.zero_grad()
        self._waiting = 0
        self.steps += 1

    def _check_monitor(self, measured: Measured) -> None:
        if self.monitor not in ("loss", *measured.sums):
            raise ConfigError(unknown_name("metric to monitor", self.monitor, ("loss", *measured.sums)))


# The training library looks at the signature at every step; this way it need not be worked out anew.
Module.training_step.__signature__ = inspect.signature(Module.training_step)  # type: ignore[attr-defined]


class Feed:
    """Batches for the training library: tells them the epoch before they are read.

    Args:
        batches: the batches of a caller.
        epoch: returns the epoch, counted from 0, when an epoch starts to be read.
    """

    def __init__(self, batches: Batches, epoch: Callable[[], int]) -> None:
        self.batches = batches
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        # A generator, so that this runs at the first batch: the library makes its iterators before the epoch is known.
        self.batches.set_epoch(self.epoch())
        yield from self.batches


def _not_finite(epoch: int, batch: int) -> TrainingError:
    what = f"the training loss is not a finite number in epoch {epoch}, batch {batch}."
    advice = "lower lr, clip harder (clip_norm, clip_value), or look at that batch; last/ and best/ hold the epochs before"
    return TrainingError(explain(what, got="NaN or infinity", advice=advice))
