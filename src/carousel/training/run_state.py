"""What a run knows about itself: the epochs so far, and how far it is into the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from carousel.errors import CheckpointError, explain

__all__ = ["MALFORMED", "Place", "RunState", "malformed"]

# What reading a state that is none can raise.
MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Place:
    """How far a run is into an epoch.

    Args:
        batch: batches of the epoch that it has learned from.
        step: optimizer steps of the whole run so far.
        seconds: spent on training in this epoch.
        tally: the sums of the epoch so far; see :meth:`carousel.training.tally.Tally.state_dict`.
        before: the state of the generators when the epoch began, from which its order of batches comes.
        ended: whether the epoch's training is over, and its validation is to come.
    """

    batch: int
    step: int
    seconds: float
    tally: dict[str, Any]
    before: dict[str, Any]
    ended: bool

    def to_dict(self) -> dict[str, Any]:
        """The place as plain values and tensors."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Any) -> Place:
        """Take over a place from :meth:`to_dict`.

        Raises:
            ValueError: it is none.
        """
        _check(saved, {"batch": int, "step": int, "seconds": float, "tally": dict, "before": dict, "ended": bool})
        if saved["batch"] < 1 or saved["step"] < 0:
            raise ValueError("a place before the first batch")
        return cls(**saved)


class RunState:
    """What a run has learned about itself so far. It travels in every checkpoint.

    Args:
        monitor: the metric that decides which epoch is the best.
        mode: "max" or "min".
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor = monitor
        self.mode = mode
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.waited = 0
        self.seconds = 0.0

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch, empty before there is one."""
        return self.history[self.best_epoch - 1] if self.best_epoch else {}

    @property
    def last(self) -> dict[str, float]:
        """The row of the last epoch, empty before there is one."""
        return self.history[-1] if self.history else {}

    def monitored(self, row: Mapping[str, float]) -> float:
        """The monitored value of a row: of validation, or of training where there is none."""
        value = row.get(f"valid_{self.monitor}", row.get(f"train_{self.monitor}"))
        return math.nan if value is None else value

    def record(self, row: dict[str, float]) -> bool:
        """Add an epoch, and return whether it is the best so far. What is not a number is never the best."""
        value = self.monitored(row)
        bar = self.monitored(self.best) if self.best_epoch else (-math.inf if self.mode == "max" else math.inf)
        better = value > bar if self.mode == "max" else value < bar
        self.history.append(row)
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best_epoch = len(self.history)
        return better

    def exhausted(self, patience: int | None) -> bool:
        """Whether patience has run out."""
        return patience is not None and self.waited >= patience

    def to_dict(self) -> dict[str, Any]:
        """The state as plain values."""
        return dict(vars(self))

    def load_dict(self, state: Any) -> None:
        """Take over a state from :meth:`to_dict`.

        Raises:
            ValueError: it is none.
        """
        kinds = {"monitor": str, "mode": str, "history": list, "best_epoch": int, "waited": int, "seconds": float}
        _check(state, kinds)
        for row in state["history"]:
            _check_row(row)
        if not 0 <= state["best_epoch"] <= len(state["history"]) or state["waited"] < 0 or state["mode"] not in ("max", "min"):
            raise ValueError("numbers of epochs that cannot be")
        vars(self).update(state)


def malformed(error: object) -> CheckpointError:
    """The error for a checkpoint that is whole, but is not that of a run.

    Args:
        error: what reading it raised, or what is wrong in words.
    """
    what = "the checkpoint does not hold the state of a run."
    got = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    return CheckpointError(explain(what, got=got, advice="continue from another checkpoint of the run, or train again"))


def _check(saved: Any, kinds: Mapping[str, type]) -> None:
    if not isinstance(saved, dict) or set(saved) != set(kinds):
        raise ValueError(f"not the entries {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(saved[name]) is not kind:
            raise ValueError(f"{name} is of type {type(saved[name]).__name__}")


def _check_row(row: Any) -> None:
    numbers = isinstance(row, dict) and all(isinstance(key, str) and type(value) in (int, float) for key, value in row.items())
    if not numbers or not {"epoch", "step"} <= set(row):
        raise ValueError("a row of the history is not one")
