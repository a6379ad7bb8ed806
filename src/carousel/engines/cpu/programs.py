"""The programs of a step that run compiled: forwards alone, forwards with what is saved, backwards to what is asked for."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass, replace

from carousel.engines.cpu.lowering import unsupported
from carousel.engines.cpu.run import CpuExecutor
from carousel.graph.differentiate import Plan, forward_program, plan, saved_name
from carousel.graph.node import Node, reachable
from carousel.graph.program import Program
from carousel.graph.schedule import schedule
from carousel.graph.step import Step


@dataclass(frozen=True)
class Wanted:
    """Whose gradients are asked for, by name."""

    inputs: frozenset[str]
    parameters: frozenset[str]
    context: frozenset[str]


class Programs:
    """A step's compiled programs, each made when it is first needed.

    Args:
        step: the traced cell.
    """

    def __init__(self, step: Step) -> None:
        self._step = weakref.ref(step)
        self._backward: dict[Wanted, CpuExecutor] = {}

    @functools.cached_property
    def plan(self) -> Plan:
        """The forward and the backward step that fit each other."""
        step = self._step()
        assert step is not None  # noqa: S101 - whoever asks holds it
        return plan(step)

    @functools.cached_property
    def alone(self) -> CpuExecutor:
        """Forwards, saving nothing."""
        return CpuExecutor(schedule(replace(self.plan.forward, emitted={"output": self.plan.forward.emitted["output"]})))

    @functools.cached_property
    def trail(self) -> dict[str, Node]:
        """By name, the states before and after each step that the backward step reads."""
        program = self.plan.backward
        read = set(reachable(program.results, stop=program.known))
        found = {}
        for name, carried in self.plan.forward.carried.items():
            for word, node in (("before", carried.before), ("after", carried.after)):
                if node in read and node not in self.plan.saved:
                    found[f"{word} {name}"] = node
        return found

    @functools.cached_property
    def owned(self) -> frozenset[Node]:
        """Saved values that nobody but the backward step has: their memory is free once it has read them."""
        shown = {self.plan.forward.emitted["output"], *(c.after for c in self.plan.forward.carried.values())}
        return frozenset(self.plan.saved) - shown

    @functools.cached_property
    def saving(self) -> CpuExecutor:
        """Forwards, with everything that the backward step reads."""
        forward = self.plan.forward
        return CpuExecutor(schedule(replace(forward, emitted={**forward.emitted, **self.trail})))

    def backward(self, wanted: Wanted) -> CpuExecutor:
        """Backwards: the gradients of all states, and of what is wanted."""
        if wanted not in self._backward:
            whole, found = self.plan.backward, self.plan.gradients
            totals = {name: found.parameters[name] for name in found.parameters if name in wanted.parameters}
            totals |= {name: found.context[name] for name in found.context if name in wanted.context}
            emitted = {name: node for name, node in whole.emitted.items() if name in wanted.inputs}
            self._backward[wanted] = CpuExecutor(schedule(_cut(whole, emitted, totals)), owned=self.owned)
        return self._backward[wanted]

    @property
    def saved_names(self) -> dict[str, Node]:
        """By the name under which the saving program emits it, each saved value."""
        return {saved_name(node): node for node in self.plan.saved}


def _cut(whole: Program, emitted: dict[str, Node], totals: dict[str, Node]) -> Program:
    """The program for some of its results."""
    program = replace(whole, emitted=emitted, totals=totals)
    nodes = set(program.nodes)
    return replace(program, given={node: level for node, level in whole.given.items() if node in nodes})


_programs: weakref.WeakKeyDictionary[Step, Programs] = weakref.WeakKeyDictionary()


def programs(step: Step) -> Programs:
    """The programs of a step."""
    found = _programs.get(step)
    if found is None:
        found = _programs[step] = Programs(step)
    return found


_reasons: weakref.WeakKeyDictionary[Step, str | None] = weakref.WeakKeyDictionary()


def why_not(step: Step) -> str | None:
    """Why a step cannot run compiled, or None."""
    if step not in _reasons:
        both = plan(step)
        _reasons[step] = unsupported(schedule(forward_program(step))) or unsupported(schedule(both.backward))
    return _reasons[step]
