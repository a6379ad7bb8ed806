"""The eager engine: walks a cell's schedule with torch operations.

The reference for every other engine: any device, any floating dtype, any order of derivative.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from carousel.engines.call import Call, Result
from carousel.engines.eager.execute import Executor, Run
from carousel.graph.differentiate import forward_program
from carousel.graph.schedule import schedule
from carousel.graph.step import Step

__all__ = ["EagerEngine", "Executor", "Run"]

_executors: weakref.WeakKeyDictionary[Step, Executor] = weakref.WeakKeyDictionary()


class EagerEngine:
    """Runs a cell over time with torch operations; torch's autograd differentiates what ran."""

    name = "eager"

    def run(self, call: Call) -> Result:
        """Run one cell over packed rows."""
        executor = _executors.get(call.step)
        if executor is None:
            executor = _executors[call.step] = Executor(schedule(forward_program(call.step)))
        run = executor.run(call.given(), call.states, call.batch_sizes, call.sizes, reverse=call.reverse)
        return run.emitted["output"], run.carried

    def run_together(self, calls: Sequence[Call]) -> list[Result]:
        """Run several cells, one after another."""
        return [self.run(call) for call in calls]
