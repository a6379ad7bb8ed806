"""Reverse-mode differentiation of a step. The backward step is a graph too, made of the same kinds.

Through time, the gradient of a state arrives from the step after; the gradient of a parameter is a sum over all steps.
Values of the forward step appear in the backward graph as the same nodes. :func:`plan` decides which of them are saved and
which are computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carousel.graph.kinds import Constant, Elementwise, Leaf, Role, Stretch, Sum, Total, TotalByRow, TotalKind
from carousel.graph.node import Node, reachable
from carousel.graph.program import Carried, Level, Program, depends_on, leaves
from carousel.graph.step import Step
from carousel.graph.symbol import Symbol

# Saving a value costs a store and a load of memory that is no longer in the cache, for each element. On the machines we
# know that is the time of about this many vector operations, so cheaper values are computed again.
SAVE_COST = 16.0


@dataclass(frozen=True)
class Gradients:
    """The backward step.

    Attributes:
        of_output: the leaf: the gradient of this step's output.
        of_new_states: the leaves: the gradient of each state, from the step after.
        inputs: the gradient of each input.
        states: the gradient of each state as the step found it.
        parameters: the gradient of each parameter, summed over rows and steps.
        context: the gradient of each value constant over time, summed over the steps of its row.
    """

    of_output: Node
    of_new_states: Mapping[str, Node]
    inputs: Mapping[str, Node]
    states: Mapping[str, Node]
    parameters: Mapping[str, Node]
    context: Mapping[str, Node]


def differentiate(step: Step) -> Gradients:
    """Derive the backward step of a traced step."""
    build = step.builder
    nodes = step.nodes
    moving = varying(step)
    learned = [p.node for p in step.parameters.values() if p.learned]
    wanted = depends_on(nodes, [*step.inputs.values(), *step.states.values(), *step.context.values(), *learned])

    def leaf(name: str, like: Node) -> Symbol:
        node = build.node(Leaf(Role.GRADIENT, name, like.shape))
        node.name = name
        return build.wrap(node)

    of_output = leaf("d_output", step.output)
    of_states = {name: leaf(f"d_{name}_next", node) for name, node in step.new_states.items()}

    shares: dict[Node, list[Symbol]] = {}

    def give(node: Node, share: Symbol) -> None:
        if node in wanted:
            shares.setdefault(node, []).append(_fit(share, node, constant=node not in moving))

    give(step.output, of_output)
    for name, node in step.new_states.items():
        give(node, of_states[name])
    gradient: dict[Node, Symbol] = {}
    for node in reversed(nodes):
        if node not in shares:
            continue
        gradient[node] = _sum(shares[node])
        arguments = [build.wrap(arg) for arg in node.args]
        found = node.kind.adjoint(arguments, build.wrap(node), gradient[node])
        for arg, share in zip(node.args, found, strict=True):
            if share is not None:
                give(arg, share)

    def result(node: Node) -> Node:
        return gradient[node].node if node in gradient else build.constant(0.0).node

    return Gradients(
        of_output=of_output.node,
        of_new_states={name: symbol.node for name, symbol in of_states.items()},
        inputs={name: result(node) for name, node in step.inputs.items()},
        states={name: result(node) for name, node in step.states.items()},
        parameters={name: result(parameter.node) for name, parameter in step.parameters.items()},
        context={name: result(node) for name, node in step.context.items()},
    )


def varying(step: Step) -> set[Node]:
    """The nodes that may differ from step to step."""
    moving = [node for node, level in leaves(step).items() if level is not Level.ONCE]
    return depends_on(step.nodes, [*moving, *step.states.values()])


def _sum(shares: Sequence[Symbol]) -> Symbol:
    return shares[0] if len(shares) == 1 else shares[0].builder.apply(Elementwise("add"), *shares)


def _fit(share: Symbol, node: Node, constant: bool) -> Symbol:
    """Give a gradient exactly its value's shape: sum what was stretched, stretch what was summed."""
    build = share.builder
    for place in range(-len(share.shape), 0):
        if node.shape[place] == 1 and share.shape[place] != 1:
            share = build.apply(Sum(share.shape[place], place), share)
    if share.shape != node.shape:
        share = build.apply(Stretch(node.shape), share)
    if constant and (not _is_total(share.node) or (share.node.rows and not node.rows)):
        share = build.apply(TotalByRow() if node.rows else Total(), share)
    return share


def _is_total(node: Node) -> bool:
    return any(isinstance(below.kind, TotalKind) for below in reachable([node]))


@dataclass(frozen=True)
class Plan:
    """The forward and the backward step as programs that fit each other.

    Attributes:
        forward: emits ``output`` and the saved values.
        backward: given inputs, states before and after, output and saved values for each step, carries the states'
            gradients against time, emits the inputs' gradients and sums up the parameters'.
        gradients: the backward step's nodes.
        saved: forward values kept for the backward step, beside inputs, states and output.
        recomputed: forward values that the backward step computes again.
    """

    forward: Program
    backward: Program
    gradients: Gradients
    saved: tuple[Node, ...]
    recomputed: tuple[Node, ...]


def forward_program(step: Step, saved: Sequence[Node] = ()) -> Program:
    """The step as a program, which also emits `saved`."""
    return Program(
        given=leaves(step),
        carried={name: Carried(step.states[name], step.new_states[name]) for name in step.states},
        emitted={"output": step.output, **{saved_name(node): node for node in saved}},
        totals={},
        builder=step.builder,
    )


def saved_name(node: Node) -> str:
    """What a saved value is called among the emitted ones."""
    return f"saved {node.name or ''}#{node.number}"


def plan(step: Step) -> Plan:
    """Differentiate `step` and decide what is saved and what is computed again."""
    gradients = differentiate(step)
    forward = set(step.nodes)
    constant = forward - varying(step)
    moving = [node for node, level in leaves(step).items() if level is not Level.ONCE]
    free = {*moving, *step.states.values(), *step.new_states.values(), step.output} - constant
    totals = {**gradients.parameters, **gradients.context}
    backward_results = [*gradients.inputs.values(), *gradients.states.values(), *totals.values()]
    needed = [n for n in reachable(backward_results, stop=frozenset(forward)) if n in forward and n not in constant]

    available, saved, recomputed = set(free), [], []
    for node in needed:
        if node in available:
            continue
        missing = reachable([node], stop=frozenset(available | constant))
        missing = [n for n in missing if n not in available and n not in constant]
        if sum(n.kind.cost for n in missing) <= SAVE_COST:
            recomputed.append(node)
        else:
            saved.append(node)
        available.add(node)

    given = leaves(step)
    given.update(dict.fromkeys([*free, *saved, gradients.of_output], Level.STEPS))
    backward = Program(
        given={node: level for node, level in given.items() if not isinstance(node.kind, Constant)},
        carried={n: Carried(gradients.of_new_states[n], gradients.states[n]) for n in step.states},
        emitted=dict(gradients.inputs),
        totals=totals,
        builder=step.builder,
    )
    return Plan(forward_program(step, saved), backward, gradients, tuple(saved), tuple(recomputed))
