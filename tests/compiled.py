"""A cell's programs in both engines, on the same packed rows and the same numbers."""

import torch
from torch import Tensor

from backward import Packed, compiled, given_backwards
from carousel.engines.cpu.run import CpuExecutor
from carousel.engines.cpu.team import Team
from carousel.graph.step import Step
from carousel.nn import Recurrent
from cases import Given, floating, random_layer

ALONE = Team(1, columns=False)
#: Ways to share a loop, by a name for test ids.
TEAMS = {
    "2 by rows": Team(2, columns=False),
    "3 by rows": Team(3, columns=False),
    "2 by columns": Team(2, columns=True),
    "3 by columns": Team(3, columns=True),
}


class Sides:
    """A step's forward and backward programs: eager, and compiled.

    The forward one also emits the states before and after each step, so that both sides' backward programs are given the same
    values: those that the eager forward program found in float64.
    """

    def __init__(self, step: Step) -> None:
        self.plan, *self.eager = compiled(step)
        self.compiled = [CpuExecutor(executor.schedule) for executor in self.eager]

    def eager_results(self, run: Packed, *, reverse: bool) -> tuple[dict[str, Tensor], tuple]:
        """Everything that the eager engine computes, by name; and what is needed to run backwards on the same values."""
        ahead, back = self.eager
        with torch.no_grad():
            forward = ahead.run(run.given, run.states, run.batch_sizes, run.sizes, reverse=reverse)
            d_final = {name: torch.randn_like(value) for name, value in forward.carried.items()}
            given = given_backwards(run, self.plan, forward, torch.randn_like(forward.emitted["output"]))
            behind = back.run(given, d_final, run.batch_sizes, run.sizes, reverse=not reverse)
        return named(forward, behind), (given, d_final)

    def compiled_results(
        self, run: Packed, known: tuple, *, reverse: bool, team: Team, dtype=torch.float64
    ) -> dict[str, Tensor]:
        """The same of the compiled loops; `known` is what `eager_results` returned. Nothing that they are given may change."""
        (ahead, back), (given, d_final) = self.compiled, known
        with torch.no_grad():
            handed = [as_dtype(part, dtype) for part in (run.given, run.states, given, d_final)]
            before = [{key: value.clone() for key, value in part.items()} for part in handed]
            values, states, given, d_final = handed
            forward = ahead.run(values, states, run.batch_sizes, run.sizes, reverse=reverse, team=team)
            behind = back.run(given, d_final, run.batch_sizes, run.sizes, reverse=not reverse, team=team)
        for part, old in zip(handed, before, strict=True):
            for key, value in part.items():
                assert torch.equal(value.nan_to_num(7e7), old[key].nan_to_num(7e7)), f"{key} was changed"
        return named(forward, behind)


def as_dtype(values: dict, dtype: torch.dtype) -> dict:
    """The floating values in another dtype."""
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in values.items()}


def named(forward, behind) -> dict[str, Tensor]:
    """Both runs' results in one mapping."""
    runs = {"forward": forward, "backward": behind}
    return {
        f"{way} {part} {name}": value
        for way, run in runs.items()
        for part in ("emitted", "carried", "totals")
        for name, value in getattr(run, part).items()
    }


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor to `tolerance` of 1 + its largest number. What is not finite must be so in both."""
    assert got.keys() == expected.keys()
    for name, wanted in expected.items():
        atol = tolerance * (1 + wanted.abs().max().item()) if wanted.numel() else 0.0
        torch.testing.assert_close(
            got[name].double(), wanted, rtol=0.0, atol=atol, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}"
        )


def distance(got: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, relative to 1 + each tensor's largest number."""
    pairs = [(got[name].double(), wanted.double()) for name, wanted in expected.items() if wanted.numel()]
    return max((((a - b).abs().max() / (1 + b.abs().max())).item() for a, b in pairs), default=0.0)


def assert_same_bits(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """All tensors are equal to the bit; NaN equals NaN."""
    assert got.keys() == expected.keys()
    for name, wanted in expected.items():
        torch.testing.assert_close(
            got[name], wanted, rtol=0.0, atol=0.0, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}"
        )


# --- layers -----------------------------------------------------------------------------------------------------------


def twins(cell, input_size=3, hidden_size=4, *, dtype=torch.float64, scale=0.6, **options) -> tuple[Recurrent, Recurrent]:
    """A layer on the compiled engine and one on the eager engine, with the same random weights."""
    layer = random_layer(cell, input_size, hidden_size, dtype=dtype, scale=scale, engine="cpu", **options)
    eager = Recurrent(layer.cell, input_size, hidden_size, dtype=dtype, engine="eager", **options)
    eager.load_state_dict(layer.state_dict())
    return layer, eager


def outcome(layer: Recurrent, given: Given, lengths=None, *, seed=3, directions=None) -> dict[str, Tensor]:
    """Output, final states and all gradients of a call by name, for the same random directions whatever the layer."""
    given, asked = given.with_gradients()
    for parameter in layer.parameters():
        parameter.grad = None
    output, final = given_call(layer, given, lengths)
    results = [output, *floating(final)]
    generator = torch.Generator().manual_seed(seed)
    directions = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
    pairs = [(result, d) for result, d in zip(results, directions, strict=True) if result.requires_grad]
    torch.autograd.backward(*zip(*pairs, strict=True))
    found = {"output": output.detach()}
    found |= {f"final {i}": part.detach() for i, part in enumerate(floating(final))}
    leaves = {f"given {i}": value for i, value in enumerate(asked)} | dict(layer.named_parameters())
    # Where no step runs, the eager engine has no gradient for what a step would read, and the compiled one has zeros.
    return found | {f"d {n}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for n, leaf in leaves.items()}


def given_call(layer: Recurrent, given: Given, lengths=None, **more):
    """A call with everything by name."""
    return layer(given.inputs or None, given.state, lengths, context=given.context or None, **more)
