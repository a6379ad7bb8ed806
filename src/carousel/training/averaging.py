"""Averages of the weights over a run, which often generalise better than the weights of its last step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    r"""The average of a model's parameters beside the parameters themselves.

    ``ema`` follows each optimizer step: :math:`a \leftarrow a + (1 - d)\,(w - a)`, where the decay is
    :math:`d = \min(\text{decay}, (1 + n) / (10 + n))` at step :math:`n`, so that the start is soon forgotten.
    ``swa`` [1] is the plain mean of the weights at the ends of the epochs. ``nt_asgd`` [2] is their plain mean over all
    steps since it was triggered: when the validation metric is worse than the best that was seen before the last n
    epochs, :math:`v_t > \min_{s < t - n} v_s` for one that falls. Buffers (the statistics of a batch norm,
    say) are those of the model.

    Args:
        model: its parameters are averaged; :meth:`swap` exchanges them with the average.
        kind: ``ema``, ``swa`` or ``nt_asgd``.
        decay: of ``ema``.
        start: ``swa`` begins with this epoch, counted from 1.
        patience: n of ``nt_asgd``.
        mode: whether a larger ("max") or a smaller ("min") value of the metric is better.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(model, "swa", start=1)
        >>> for epoch, weight in enumerate([1.0, 3.0], start=1):
        ...     _ = nn.init.constant_(model.weight, weight)
        ...     average.after_epoch(epoch)
        >>> average.swap()
        >>> model.weight.item()
        2.0

    References:
        [1] Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
        [2] Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", ICLR 2018, arXiv:1708.02182.
    """

    def __init__(
        self, model: nn.Module, kind: str, *, decay: float = 0.999, start: int = 1, patience: int = 5, mode: str = "max"
    ) -> None:
        self.kind = kind
        self.decay = decay
        self.start = start
        self.patience = patience
        self.mode = mode
        self._seen: list[float] = []  # what validation said before the average began
        self._begun = False
        self.count = 0
        # A parameter under two names is averaged once.
        self._names = [name for name, _ in model.named_parameters()]
        self._aliases = [(name, parameter) for name, parameter in model.named_parameters(remove_duplicate=False)]
        self._parameters: list[Tensor] = list(model.parameters())
        self._other = [parameter.detach().clone() for parameter in self._parameters]
        self._swapped = False

    @torch.no_grad()
    def after_step(self) -> None:
        """Follow an optimizer step."""
        if self.kind == "ema":
            decay = min(self.decay, (1 + self.count) / (10 + self.count))
            self._move(1 - decay)
        elif self._begun:
            self._move(1 / (self.count + 1))

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> None:
        """Take the end of an epoch, counted from 1, into the mean."""
        if self.kind == "swa" and epoch >= self.start:
            self._move(1 / (self.count + 1))

    def after_validation(self, value: float) -> None:
        """Look whether ``nt_asgd`` has to begin.

        Args:
            value: of the monitored metric, after this epoch.
        """
        if self.kind != "nt_asgd" or self._begun:
            return
        before = self._seen[: len(self._seen) - self.patience] if len(self._seen) > self.patience else []
        best = max(before, default=value) if self.mode == "max" else min(before, default=value)
        self._begun = bool(before) and (value < best if self.mode == "max" else value > best)
        self._seen.append(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's parameters and the average. Nothing happens while there is none."""
        if not self.count:
            return
        raw = [parameter.detach().clone() for parameter in self._parameters]
        # In place: whoever keeps something worked out from the parameters sees that they changed.
        torch._foreach_copy_(self._parameters, self._other)
        self._other = raw
        self._swapped = not self._swapped

    def averaged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's state `weights` with the averaged parameters in place of its own; the same while there are none."""
        if not self.count or self._swapped:
            return dict(weights)
        place = {id(parameter): other for parameter, other in zip(self._parameters, self._other, strict=True)}
        return dict(weights) | {name: place[id(parameter)] for name, parameter in self._aliases if name in weights}

    def state_dict(self) -> dict[str, Any]:
        """The raw weights and how many are in the average; the average itself is the checkpoint's ``state_dict``."""
        raw = self._other if self._swapped else self._parameters
        weights = dict(zip(self._names, [one.detach() for one in raw], strict=True))
        return {"count": self.count, "raw": weights, "seen": list(self._seen), "begun": self._begun}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state, once the model holds the weights of the checkpoint, the averaged ones."""
        self.count, self._seen, self._begun = state["count"], [*state["seen"]], bool(state["begun"])
        self._swapped = False
        torch._foreach_copy_(self._other, self._parameters)
        for name, parameter in zip(self._names, self._parameters, strict=True):
            parameter.copy_(state["raw"][name])

    def _move(self, share: float) -> None:
        self.count += 1
        # lerp with the whole share is not exactly its end.
        if share == 1:
            torch._foreach_copy_(self._other, self._parameters)
        else:
            torch._foreach_lerp_(self._other, [parameter.detach() for parameter in self._parameters], share)
