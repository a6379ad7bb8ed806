"""Learning rates over a run: warm-up, then constant, falling or cut when nothing gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from carousel.errors import ConfigError, explain
from carousel.training.config import PLANNED_SCHEDULES, TrainingConfig

__all__ = ["Schedule", "rate_at"]

RISING = 0.3  # the share of a one-cycle run in which the rate rises
FIRST = 1 / 25  # what it rises from, as a share of the rate


def rate_at(step: int, config: TrainingConfig, *, total_steps: int, steps_per_epoch: int) -> float:
    r"""The share of `lr` that an optimizer step uses; what `plateau` cuts off is not in it.

    With :math:`s` the step after the warm-up, :math:`S` the last one and :math:`e` the share `lr_end / lr`:

    .. math::
        \text{cosine}\colon\ e + (1 - e) \tfrac{1}{2} (1 + \cos(\pi s / S)) \qquad
        \text{step}\colon\ \max(e, \gamma^{\lfloor \max(0, \text{epoch} - m) / n \rfloor})

    `one_cycle` [1] rises from a 25th of the rate along half a cosine in the first 30 % of the steps, and falls along
    another to `lr_end`. Differs from [1]: cosines instead of lines, and the momentum stays.

    Args:
        step: optimizer steps before this one.
        config: its `schedule`, `lr` (a number), `warmup_steps`, `lr_end`, `lr_factor`, `lr_epochs` (n) and `lr_hold` (m).
        total_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of an epoch.

    Example:
        >>> config = TrainingConfig(lr=1.0, schedule="cosine", warmup_steps=2)
        >>> [round(rate_at(step, config, total_steps=7, steps_per_epoch=7), 3) for step in range(7)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]

    References:
        [1] Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
        arXiv:1708.07120.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    end = config.lr_end / float(config.lr)
    last = max(1, total_steps - 1 - config.warmup_steps)
    share = min(1.0, (step - config.warmup_steps) / last)
    if config.schedule == "cosine":
        return _between(1.0, end, share)
    if config.schedule == "one_cycle":
        top = RISING * total_steps - 1
        if step < top:
            return _between(FIRST, 1.0, step / top)
        return _between(1.0, end, min(1.0, (step - top) / (total_steps - 1 - top)) if total_steps > 1 else 0.0)
    if config.schedule == "step":
        return max(end, config.lr_factor ** (max(0, step // steps_per_epoch - config.lr_hold) // config.lr_epochs))
    return 1.0


def _between(first: float, last: float, share: float) -> float:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


class Schedule:
    """Sets the learning rate of an optimizer before each of its steps.

    The rate is worked out from the number of the step, not from the rate before, so that nothing can drift; the cuts of
    `plateau` are torch's.

    Args:
        optimizer: all its groups share one rate.
        config: the options of the run.
        total_steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of an epoch.
        mode: whether a larger ("max") or a smaller ("min") value of the monitored metric is better.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        config: TrainingConfig,
        *,
        total_steps: int,
        steps_per_epoch: int,
        mode: Literal["max", "min"],
    ) -> None:
        self.config = config
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.step = 0
        self._optimizer = optimizer
        self._plateau: ReduceLROnPlateau | None = None
        # Nothing to do at any step, which is the usual case.
        self._constant = not config.warmup_steps and config.schedule in ("constant", "plateau")
        if config.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(
                optimizer,
                mode=mode,
                factor=config.lr_factor,
                patience=config.lr_epochs - 1,  # torch counts the epochs that are let pass
                min_lr=config.lr_end,
                threshold=0.0,
                eps=0.0,
            )

        self._set_rate()

    def after_step(self) -> None:
        """Set the rate of the next optimizer step."""
        self.step += 1
        if not self._constant:
            self._set_rate()

    def after_epoch(self, monitored: float) -> None:
        """Judge an epoch by its monitored metric; the warm-up is not judged."""
        if self._plateau is not None and self.step >= self.config.warmup_steps:
            self._plateau.step(monitored)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs beside the optimizer's state, as plain values."""
        plateau = None if self._plateau is None else self._plateau.state_dict()
        return {"step": self.step, "total_steps": self.total_steps, "plateau": plateau}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state; the optimizer's own brings the rate.

        Raises:
            ConfigError: the schedule was laid out for another number of steps.
        """
        if self.config.schedule in PLANNED_SCHEDULES and state["total_steps"] != self.total_steps:
            what = f"the length of a run with the schedule {self.config.schedule} cannot change when it is resumed."
            got, expected = f"{self.total_steps} optimizer steps in all", f"{state['total_steps']}, as the run was begun"
            advice = "keep epochs, batch_size, accumulate, devices and trainer.max_steps as they were"
            raise ConfigError(explain(what, got=got, expected=expected, advice=advice))
        self.step = state["step"]
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])

    def _set_rate(self) -> None:
        if self._plateau is not None and self.step >= self.config.warmup_steps:
            return  # the last warm-up step has reached the rate, and from there on it is the plateau's
        share = rate_at(self.step, self.config, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = float(self.config.lr) * share
