"""The eager engine: walks a cell's schedule with torch operations.

The reference for every other engine: any device, any floating dtype, any order of derivative.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence

from torch import Tensor

from carousel.engines.eager.execute import Executor, Run
from carousel.graph.differentiate import forward_program
from carousel.graph.kinds import Role
from carousel.graph.schedule import schedule
from carousel.graph.shapes import Sizes
from carousel.graph.step import Step

__all__ = ["EagerEngine", "Executor", "Run"]

_executors: weakref.WeakKeyDictionary[Step, Executor] = weakref.WeakKeyDictionary()


class EagerEngine:
    """Runs a cell over time with torch operations; torch's autograd differentiates what ran."""

    name = "eager"

    def run(
        self,
        step: Step,
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor],
        batch_sizes: Sequence[int],
        sizes: Sizes,
        *,
        reverse: bool = False,
        context: Mapping[str, Tensor] | None = None,
        ambient: Mapping[Role, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run `step` over packed rows.

        Args:
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

        Returns:
            The output of every step (sum of batch_sizes, ...), and what each sequence's last step left, (B, ...).
        """
        executor = _executors.get(step)
        if executor is None:
            executor = _executors[step] = Executor(schedule(forward_program(step)))
        given = {step.parameters[name].node: parameters[name] for name in step.parameters}
        given.update({step.inputs[name]: tensor for name, tensor in inputs.items()})
        given.update({step.context[name]: tensor for name, tensor in (context or {}).items()})
        given.update({step.ambient[role]: tensor for role, tensor in (ambient or {}).items() if role in step.ambient})
        run = executor.run(given, states, batch_sizes, sizes, reverse=reverse)
        return run.emitted["output"], run.carried
