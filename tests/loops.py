"""Small programs written by hand, to look at one stage of compiling at a time."""

from dataclasses import replace

import torch

from carousel.engines.cpu.layout import build_loop
from carousel.engines.cpu.run import CpuExecutor
from carousel.engines.cpu.team import Team
from carousel.engines.eager import Executor
from carousel.graph.kinds import Leaf, Role
from carousel.graph.program import Carried, Level, Program
from carousel.graph.schedule import schedule
from carousel.graph.symbol import Builder

LEVEL = {
    Role.PARAMETER: Level.ONCE,
    Role.CONTEXT: Level.ONCE,
    Role.INPUT: Level.STEPS,
    Role.SEED: Level.ONCE,
    Role.ROW: Level.ONCE,
}
LEVEL[Role.TIME] = Level.STEPS
#: Sizes of axes that no lane count divides; H is what the tests change.
SIZES = {"H": 17, "N": 3, "E": 5}


def looped(step, *, states=None, inputs=None, parameters=None, context=None, ambient=()) -> Program:
    """A program from a function of symbols, by name: it returns the new states, and what is emitted.

    The shapes of states, inputs, parameters and contexts are given by name; `ambient` lists roles.
    """
    builder = Builder()
    groups = {Role.STATE: states or {"h": ("H",)}, Role.INPUT: inputs, Role.PARAMETER: parameters, Role.CONTEXT: context}
    leaves = {n: builder.node(Leaf(role, n, tuple(s))) for role, group in groups.items() for n, s in (group or {}).items()}
    leaves |= {role.value: builder.node(Leaf(role, role.value, (2,) if role is Role.SEED else (1,))) for role in ambient}
    new, emitted = step(**{name: builder.wrap(leaf) for name, leaf in leaves.items()})
    given = {leaf: LEVEL[leaf.kind.role] for leaf in leaves.values() if leaf.kind.role is not Role.STATE}

    def node(value):
        return builder.constant(value).node if isinstance(value, float) else value.node

    carried = {name: Carried(leaves[name], node(value)) for name, value in new.items()}
    return Program(given, carried, {name: node(value) for name, value in emitted.items()}, {}, builder)


def loop_of(program, *, trajectory=False, fuse=False):
    """Its loop program."""
    return build_loop(schedule(program), trajectory=trajectory, fuse=fuse)


def of_function(function, shape=("H",), **more) -> Program:
    """A program that emits a function of its state, computed in the loop, and hands the state on unchanged."""
    return looped(lambda h, **rest: ({"h": h}, {"y": function(h, **rest)}), states={"h": shape}, **more)


def execute(program, values, batch_sizes=(2, 1), sizes=None, *, dtype=torch.float64, reverse=False, team=None, eager=False):
    """Run it compiled (or eager) on values by name; floating ones in `dtype`."""
    sizes = {**SIZES, **(sizes or {})}
    executor = (Executor if eager else CpuExecutor)(schedule(program))
    values = {n: (v.to(dtype) if v.is_floating_point() else v) for n, v in values.items()}
    by_node = {node: values[node.kind.name] for node in program.given}
    carried = {name: values[name] for name in program.carried}
    how = {} if eager else {"team": team or Team(1, columns=False)}
    with torch.no_grad():
        return executor.run(by_node, carried, batch_sizes, sizes, reverse=reverse, **how)


def without(program, *names) -> Program:
    """The program without some of what it emits."""
    return replace(program, emitted={name: node for name, node in program.emitted.items() if name not in names})
