"""Two plain interpreters of a cell's graph: what a compiled engine must agree with.

`run` executes a schedule exactly as it says, and can read nothing that the schedule does not keep: a value that is needed
and was not kept is a KeyError. `naive_forward` and `naive_backward` know nothing of plans and schedules: they compute one
node after another, one step after another.

All sequences have the same length here; ragged batches are the layer's business. Values of every step are (T, B, ...).
Nothing is used from `carousel.engines`.
"""

from dataclasses import dataclass, field

import torch

from carousel.graph.differentiate import differentiate, plan, saved_name
from carousel.graph.kinds import Eager, Role, TotalKind
from carousel.graph.node import reachable
from carousel.graph.program import Level
from carousel.graph.schedule import Group, Section, schedule
from carousel.graph.shapes import concrete


@dataclass
class Call:
    """What a step is run with: by name, inputs (T, B, ...), states and context (B, ...), parameters, and so on."""

    inputs: dict
    states: dict
    parameters: dict
    sizes: dict
    shape: tuple  # (T, B)
    d_output: torch.Tensor  # the direction in which the output is differentiated, (T, B, ...)
    d_final: dict  # likewise of the final states
    context: dict = field(default_factory=dict)
    ambient: dict = field(default_factory=dict)  # by role: the step's number (T, B, 1), the row's (B, 1), the seed (2,)


@dataclass
class Result:
    """Values and gradients of a sequence."""

    output: torch.Tensor
    final: dict
    inputs: dict
    states: dict
    parameters: dict
    context: dict


@dataclass
class Ran:
    """What running a program gives, and which groups were computed."""

    emitted: dict  # by name, (T, B, ...)
    carried: dict  # by name, what the last step left, (B, ...)
    trail: dict  # by name, what each step left, (T, B, ...)
    totals: dict  # by name
    computed: list  # (section, group), each time one is computed


def with_rows(value, node, rows, sizes, like=None):
    """A value as a tensor with rows, even if the equations made it a number or a parameter; `like` has its shape."""
    if node.rows and isinstance(value, torch.Tensor):
        return value
    return torch.as_tensor(value, dtype=torch.float64).expand(*rows, *concrete((like or node).shape, sizes))


def compute(group, read, write, on):
    """One group: one call of the eager form, with the first operands joined if there are several nodes."""
    first = group.nodes[0]
    if len(group.nodes) == 1:
        write(first, first.kind.eager(on, *map(read, first.args)))
        return
    assert {(node.kind, node.args[1:]) for node in group.nodes} == {(first.kind, first.args[1:])}
    join, cut = first.kind.stacking
    operands = [read(node.args[0]) for node in group.nodes]
    together = first.kind.eager(on, torch.cat(operands, join), read(first.args[1]))
    for node, part in zip(group.nodes, together.split([o.shape[join] for o in operands], cut), strict=True):
        write(node, part)


def run(cut, given, carried, sizes, shape, *, reverse=False, likes=None):
    """Run a schedule over `shape` = (T, B); `likes` are nodes with the shapes of results that may be plain numbers."""
    (T, B), program, likes = shape, cut.program, likes or {}
    once = {node: value for node, value in given.items() if program.given[node] is Level.ONCE}
    every = {node: value for node, value in given.items() if program.given[node] is Level.STEPS}  # (T, B, ...)
    one_step = Eager(torch, sizes, torch.float64, B, torch.arange(B))
    all_steps = Eager(torch, sizes, torch.float64, B, torch.arange(B).repeat(T))
    computed = []

    def section(which, read, write, on):
        for stage in cut.sections[which]:
            for group in [*stage.groups, *(Group((node,)) for node in stage.region)]:
                computed.append((which, group))
                compute(group, read, write, on)

    def read_all(node):
        value = once[node] if node in once else every[node].flatten(0, 1)
        spread = node in once and node.rows and isinstance(value, torch.Tensor)  # one value for each row, at all steps
        return value.expand(T, *value.shape).flatten(0, 1) if spread else value

    def write_all(node, value):
        if node.rows and isinstance(value, torch.Tensor) and not isinstance(node.kind, TotalKind):
            every[node] = value.unflatten(0, (T, B))
        else:
            once[node] = value

    section(Section.ONCE, once.__getitem__, once.__setitem__, one_step)
    section(Section.BEFORE, read_all, write_all, all_steps)

    state, trail = dict(carried), {name: [None] * T for name in carried}
    kept = {node: [None] * T for node in cut.kept}
    for t in range(T - 1, -1, -1) if reverse else range(T):
        here = {c.before: state[name] for name, c in program.carried.items()}

        def read(node, here=here, t=t):
            return here[node] if node in here else once[node] if node in once else every[node][t]

        section(Section.LOOP, read, here.__setitem__, one_step)
        for node in kept:
            kept[node][t] = with_rows(read(node), node, (B,), sizes)
        state = {name: with_rows(read(c.after), c.after, (B,), sizes, c.before) for name, c in program.carried.items()}
        for name in trail:
            trail[name][t] = state[name]

    every.update({node: torch.stack(values) for node, values in kept.items()})
    section(Section.AFTER, read_all, write_all, all_steps)
    section(Section.FINISH, once.__getitem__, once.__setitem__, one_step)

    def emitted(name, node):
        if node in every:
            return every[node]
        value = with_rows(once[node], node, (B,), sizes, likes.get(name))
        return value.expand(T, *value.shape)

    def total(name, node):
        by_row = name in likes and likes[name].rows
        return with_rows(once[node], node, (B,) if by_row else (), sizes, likes.get(name))

    return Ran(
        emitted={name: emitted(name, node) for name, node in program.emitted.items()},
        carried=state,
        trail={name: torch.stack(values) for name, values in trail.items()},
        totals={name: total(name, node) for name, node in program.totals.items()},
        computed=computed,
    )


def leaf_values(step, call):
    """The value of every leaf but the states: (T, B, ...) where it changes with time."""
    known = {p.node: call.parameters[name] for name, p in step.parameters.items()}
    known |= {leaf: call.inputs[name] for name, leaf in step.inputs.items()}
    known |= {leaf: call.context[name] for name, leaf in step.context.items()}
    return known | {leaf: call.ambient[role] for role, leaf in step.ambient.items()}


def scheduled(step, call):
    """Forward by its schedule, keeping what the plan says; then backward by its schedule, against time."""
    both, known = plan(step), leaf_values(step, call)
    forward = run(schedule(both.forward), {n: known[n] for n in both.forward.given}, call.states, call.sizes, call.shape)

    for name, leaf in step.states.items():
        known[leaf] = torch.cat([call.states[name][None], forward.trail[name][:-1]])
    known |= {node: forward.trail[name] for name, node in step.new_states.items() if node not in known}
    known.setdefault(step.output, forward.emitted["output"])
    known |= {node: forward.emitted[saved_name(node)] for node in both.saved}
    known[both.gradients.of_output] = call.d_output
    given = {node: known[node] for node in both.backward.given}
    likes = {**step.inputs, **step.context, **{name: p.node for name, p in step.parameters.items()}}
    backward = run(schedule(both.backward), given, call.d_final, call.sizes, call.shape, reverse=True, likes=likes)
    totals = backward.totals
    return Result(
        forward.emitted["output"],
        forward.carried,
        backward.emitted,
        backward.carried,
        {name: totals[name] for name in step.parameters},
        {name: totals[name] for name in step.context},
    )


def naive_forward(step, call):
    """One node after another, one step after another. Returns the output, the final states and every value of every step."""
    T, B = call.shape
    on = Eager(torch, call.sizes, torch.float64, B, torch.arange(B))
    moving = {*step.inputs.values(), *(leaf for role, leaf in step.ambient.items() if role is Role.TIME)}
    states, steps = call.states, []
    for t in range(T):
        value = {leaf: v[t] if leaf in moving else v for leaf, v in leaf_values(step, call).items()}
        value |= {leaf: states[name] for name, leaf in step.states.items()}
        for node in step.nodes:
            if node not in value:
                value[node] = node.kind.eager(on, *[value[arg] for arg in node.args])
        steps.append(value)
        states = {n: with_rows(value[node], node, (B,), call.sizes, step.states[n]) for n, node in step.new_states.items()}
    output = torch.stack([with_rows(value[step.output], step.output, (B,), call.sizes) for value in steps])
    return output, states, steps


def naive_backward(step, call, steps):
    """The derived backward step, one node after another, against time, reading every value of the forward step."""
    T, B = call.shape
    on, found = Eager(torch, call.sizes, torch.float64, B, torch.arange(B)), differentiate(step)
    parts = [*found.inputs.values(), *found.states.values(), *found.parameters.values(), *found.context.values()]
    order, totals, d_states = reachable(parts, stop=frozenset(step.nodes)), {}, dict(call.d_final)
    d_inputs = {name: [None] * T for name in step.inputs}

    def rows(node, like, lead):
        return with_rows(value[node], node, lead, call.sizes, like)

    for t in range(T - 1, -1, -1):
        value = steps[t] | {found.of_output: call.d_output[t]} | {found.of_new_states[n]: d_states[n] for n in d_states}
        for node in order:
            if node in value or any(arg not in value for arg in node.args):
                continue  # what follows from a sum over all steps has to wait for the sum
            result = node.kind.eager(on, *[value[arg] for arg in node.args])
            if isinstance(node.kind, TotalKind):
                totals[node] = totals.get(node, 0.0) + result
            else:
                value[node] = result
        d_states = {name: rows(node, step.states[name], (B,)) for name, node in found.states.items()}
        for name, node in found.inputs.items():
            d_inputs[name][t] = rows(node, step.inputs[name], (B,))
    value |= totals  # what is left over is constant over time
    for node in order:
        if node not in value:
            value[node] = node.kind.eager(on, *[value[arg] for arg in node.args])
    d_parameters = {name: rows(node, step.parameters[name].node, ()) for name, node in found.parameters.items()}
    d_context = {name: rows(node, step.context[name], (B,)) for name, node in found.context.items()}
    return {name: torch.stack(each) for name, each in d_inputs.items()}, d_states, d_parameters, d_context


def naive(step, call):
    """The naive interpreters' values and gradients."""
    output, final, steps = naive_forward(step, call)
    return Result(output, final, *naive_backward(step, call, steps))


def autograd(step, call):
    """Values of the naive forward steps, and gradients by torch's autograd."""
    groups = [call.inputs, call.states, call.parameters, call.context]
    copies = [{name: v.detach().clone().requires_grad_() for name, v in group.items()} for group in groups]
    fields = dict(zip(("inputs", "states", "parameters", "context"), copies, strict=True))
    output, final, _ = naive_forward(step, Call(**{**vars(call), **fields}))
    pairs = [(output, call.d_output), *((part, call.d_final[name]) for name, part in final.items())]
    results, directions = zip(*[(r, d) for r, d in pairs if r.requires_grad], strict=True)
    sources = [source for group in copies for source in group.values()]
    gradients = torch.autograd.grad(results, sources, directions, allow_unused=True)
    filled = iter(torch.zeros_like(s) if g is None else g for s, g in zip(sources, gradients, strict=True))
    return Result(output.detach(), final, *({name: next(filled) for name in group} for group in copies))
