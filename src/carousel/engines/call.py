"""What an engine is asked to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from carousel.graph.kinds import Role
from carousel.graph.node import Node
from carousel.graph.shapes import Sizes
from carousel.graph.step import Step

#: The output of every step (sum of batch_sizes, ...), and by name what each sequence's last step left, (B, ...).
Result = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Call:
    """A cell over time, on packed rows.

    Attributes:
        step: the traced cell.
        inputs: by name, the rows of all steps, (sum of batch_sizes, ...), the longest sequence first in each step.
        states: by name, what each sequence starts with, (B, ...), in the same order.
        parameters: by name.
        batch_sizes: how many sequences reach each step, never growing.
        sizes: the size of each axis letter.
        reverse: run each sequence from its last step to its first; results stay in their places.
        context: by name, what each sequence sees at every step, (B, ...), in the same order.
        ambient: what the cell asks its layer for: the packed numbers of the steps (sum of batch_sizes, 1), the numbers of
            the rows (B, 1), the seed (2,).
        weights: the type in which an engine may read the loop's matrices where no gradient is asked; None for their own.
    """

    step: Step
    inputs: Mapping[str, Tensor]
    states: Mapping[str, Tensor]
    parameters: Mapping[str, Tensor]
    batch_sizes: Sequence[int]
    sizes: Sizes
    reverse: bool = False
    context: Mapping[str, Tensor] = field(default_factory=dict)
    ambient: Mapping[Role, Tensor] = field(default_factory=dict)
    weights: str | None = None

    def given(self) -> dict[Node, Tensor]:
        """Everything but the states, by node."""
        step = self.step
        known = {step.parameters[name].node: self.parameters[name] for name in step.parameters}
        known.update({step.inputs[name]: tensor for name, tensor in self.inputs.items()})
        known.update({step.context[name]: tensor for name, tensor in self.context.items()})
        known.update({step.ambient[role]: tensor for role, tensor in self.ambient.items() if role in step.ambient})
        return known


class Engine(Protocol):
    """What runs cells over time."""

    name: str

    def run(self, call: Call) -> Result:
        """Run one cell."""

    def run_together(self, calls: Sequence[Call]) -> list[Result]:
        """Run several cells that do not need each other: the two directions of a layer."""
