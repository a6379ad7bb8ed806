"""The derived backward step, run by the eager engine's own executor, beside torch's autograd through the forward one.

Batches are ragged and packed as layers pack them, so this sees what `interpreter` does not: rows that end, sequences without
any step, values constant over time that differ from row to row, and running against time.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from carousel.engines.eager import Executor, Run
from carousel.graph.differentiate import Plan, plan, saved_name
from carousel.graph.kinds import Role
from carousel.graph.schedule import schedule
from carousel.graph.step import Step
from carousel.graph.transforms import apply_transforms
from cases import SLOTS, each, random_given, random_layer

BATCH_SIZES, BATCH = (4, 3, 3, 1), 5  # the fifth sequence has no step


@dataclass
class Packed:
    """A traced step and everything that its program is given."""

    step: Step
    sizes: dict
    parameters: dict
    inputs: dict
    states: dict
    context: dict
    ambient: dict
    batch_sizes: tuple = BATCH_SIZES

    @property
    def sources(self) -> dict:
        """All values with a gradient, by name."""
        learned = {n: v for n, v in self.parameters.items() if self.step.parameters[n].learned}
        return {**learned, **self.inputs, **self.states, **self.context}

    @property
    def given(self) -> dict:
        """Everything but the states, by node."""
        step = self.step
        known = {step.parameters[name].node: value for name, value in self.parameters.items()}
        known |= {step.inputs[name]: value for name, value in self.inputs.items()}
        known |= {step.context[name]: value for name, value in self.context.items()}
        return known | {step.ambient[role]: value for role, value in self.ambient.items()}


def packed(case, transforms=(), *, training=True, widths=None, batch_sizes=BATCH_SIZES, batch=BATCH) -> Packed:
    """Random values for a cell and its transforms; constants that the cell fills itself are what a layer has."""
    transforms = tuple(transforms)
    layer = random_layer(case.cell, *(widths or case.sizes), transforms=transforms)
    step = apply_transforms(case.cell.graph, transforms, training)
    sizes = {**layer.layers[0].sizes}
    for node in step.context.values():
        sizes.update({axis: SLOTS for axis in node.shape if isinstance(axis, str) and axis not in sizes})
    given = random_given(layer, len(batch_sizes), batch)
    values = layer.layers[0].values()
    start = each(lambda part: part[0], given.state)._asdict()
    supplied = {
        Role.SEED: torch.tensor([1, 2]),
        Role.ROW: torch.arange(batch)[:, None],
        Role.TIME: torch.repeat_interleave(torch.arange(len(batch_sizes)), torch.tensor(batch_sizes))[:, None],
    }

    def leaf(value):
        return value.detach().clone().requires_grad_()

    return Packed(
        step,
        sizes,
        {name: leaf(values[name]) if p.learned else values[name] for name, p in step.parameters.items()},
        {n: leaf(torch.cat([v[t, :count] for t, count in enumerate(batch_sizes)])) for n, v in given.inputs.items()},
        {name: leaf(start[name]) for name in step.states},
        {name: leaf(value) for name, value in given.context.items()},
        {role: supplied[role] for role in step.ambient},
        tuple(batch_sizes),
    )


def compiled(step: Step) -> tuple[Plan, Executor, Executor]:
    """The plan, the forward program that also emits the states before and after each step, and the backward program."""
    both = plan(step)
    carried = both.forward.carried
    trail = {f"before {n}": c.before for n, c in carried.items()} | {f"after {n}": c.after for n, c in carried.items()}
    program = replace(both.forward, emitted={**both.forward.emitted, **trail})
    return both, Executor(schedule(program)), Executor(schedule(both.backward))


def given_backwards(run: Packed, both: Plan, forward: Run, d_output: Tensor) -> dict:
    """What the backward program is given, by node, after a forward run that emitted the states before and after each step."""
    step, known = run.step, dict(run.given)
    for name in step.states:
        known[step.new_states[name]] = forward.emitted[f"after {name}"]
    for name in step.states:  # a new state may be an old one: that leaf's value is the one before the step
        known[step.states[name]] = forward.emitted[f"before {name}"]
    for name, leaf in step.inputs.items():
        known[leaf] = run.inputs[name]
    known.setdefault(step.output, forward.emitted["output"])
    known |= {node: forward.emitted[saved_name(node)] for node in both.saved}
    known[both.gradients.of_output] = d_output
    return {node: known[node] for node in both.backward.given if node in known}


def gradients(run: Packed, made, *, reverse: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By name, the gradients that autograd finds and those that the derived backward step computes."""
    both, ahead, back = made
    forward = ahead.run(run.given, run.states, run.batch_sizes, run.sizes, reverse=reverse)
    d_output = torch.randn_like(forward.emitted["output"])
    d_final = {name: torch.randn_like(value) for name, value in forward.carried.items()}

    results = [forward.emitted["output"], *forward.carried.values()]
    directions = [d_output, *(d_final[name] for name in forward.carried)]
    results, directions = zip(*[(r, d) for r, d in zip(results, directions, strict=True) if r.requires_grad], strict=True)
    found = torch.autograd.grad(results, list(run.sources.values()), directions, allow_unused=True)
    auto = {n: torch.zeros_like(v) if g is None else g for (n, v), g in zip(run.sources.items(), found, strict=True)}

    with torch.no_grad():
        given = given_backwards(run, both, forward, d_output)
        found_back = back.run(given, d_final, run.batch_sizes, run.sizes, reverse=not reverse)
    derived = {**found_back.totals, **found_back.emitted, **found_back.carried}
    # Where nothing depends on a value, its gradient is the number 0, which has no axes.
    nothing = {name for name in auto if derived[name].dim() == 0 and derived[name] == 0}
    return auto, {name: derived[name].expand_as(auto[name]) if name in nothing else derived[name] for name in auto}


def assert_derived_equals_autograd(case, transforms=(), *, training=True) -> None:
    """Ragged, in both directions, to 1e-10 of the largest number of each gradient."""
    run = packed(case, transforms, training=training)
    made = compiled(run.step)
    for reverse in (False, True):
        auto, derived = gradients(run, made, reverse=reverse)
        assert any(g.abs().max() > 0 for g in auto.values()), "the check would compare nothing with nothing"
        for name, expected in auto.items():
            # float64 and a few hundred roundings in another order; 1e-13 was measured.
            torch.testing.assert_close(
                derived[name],
                expected,
                rtol=1e-10,
                atol=1e-10 * (1 + expected.abs().max().item()) if expected.numel() else 0.0,
                msg=lambda m, n=name, r=reverse: f"{n}, {'backwards' if r else 'forwards'}: {m}",
            )
