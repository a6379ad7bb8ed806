"""Check the contestants, then let them take turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from carousel.bench.jax import processors
from carousel.bench.peers import OUR_OWN, OURS, PEERS
from carousel.bench.timing import Gemm, Spread, interleaved, ratios
from carousel.bench.work import Problem, Results, Side, Unavailable, Work
from carousel.errors import KernelUnavailable

# Each tensor's distance from float64's, as a part of its norm. Hundreds of steps in float32 gave 1e-7 to 1e-5. Where the
# problem itself is worse (sums that cancel, in norms over hundreds of steps), what others lose by rounding is allowed thrice.
TOLERANCE, TIMES, MOST = 1e-4, 3.0, 1e-2


@dataclass(frozen=True)
class Entry:
    """What one contestant needs for a piece of work.

    Attributes:
        seconds: of one run, all T steps.
        ratio: how many times our compiled engine's time that is, round by round.
        share: of the large product's rate, round by round; None where that was not measured.
        error: the largest of its tensors' distances from the right ones, each as a part of its norm; None if not compared.
        times: the seconds of each round.
    """

    seconds: Spread
    ratio: Spread
    share: Spread | None
    error: float | None
    times: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """One piece of work, done by all.

    Attributes:
        work: what it was.
        threads: how many everyone had.
        entries: by contestant.
        missing: why a contestant that was asked for is not among them.
        wrong: which contestants' results are wrong, and how; these are not timed.
    """

    work: Work
    threads: int
    entries: Mapping[str, Entry]
    missing: Mapping[str, str]
    wrong: Mapping[str, str]


def compare(problem: Problem, peers: Sequence[str], threads: int, repeats: int, gemm: Gemm | None = None) -> Comparison:
    """Check and time contestants.

    Args:
        problem: the work with its numbers.
        peers: names in :data:`PEERS`; our compiled engine is always among them.
        threads: for each.
        repeats: rounds.
        gemm: a large product that takes its turn too, with as many threads, to tell the share of its rate.

    Raises:
        KernelUnavailable: our compiled engine cannot run the cell.
    """
    names = [OURS, *(name for name in peers if name != OURS)]
    sides: dict[str, Side] = {}
    errors: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    wrong: dict[str, str] = {}
    worst: dict[str, str] = {}
    with torch_threads(threads), processors(threads) if "jax" in names else nullcontext():
        # Every second time the others are built first: who comes first may get the better memory.
        for name in names if threads % 2 else names[::-1]:
            try:
                side = PEERS[name].build(problem)
            except Unavailable as reason:
                if name == OURS:
                    raise KernelUnavailable(str(reason)) from reason
                missing[name] = str(reason)
                continue
            distances = far_off(side.results(), problem.expected())
            sides[name], worst[name] = side, max(distances, key=distances.__getitem__, default="")
            errors[name] = distances[worst[name]] if worst[name] else None
        bound = allowed([error for name, error in errors.items() if name not in OUR_OWN and error is not None])
        for name, error in errors.items():
            if error is not None and not error < bound:
                wrong[name] = f"{worst[name]} is off by {error:.1e} of its norm"
                del sides[name]
        if OURS not in sides:
            return Comparison(problem.work, threads, {}, missing, wrong)
        actions = {name: sides[name].run for name in names if name in sides}
        whole = {**actions, **({"gemm": gemm.run} if gemm else {})}
        taken = interleaved(whole, repeats, dict.fromkeys(whole, 1))
    entries = {
        name: Entry(
            Spread.of(taken[name]),
            ratios(taken[name], taken[OURS]),
            share(problem, gemm, taken[name], taken["gemm"]) if gemm and name != "dense" else None,
            errors[name],
            taken[name],
        )
        for name in actions
    }
    return Comparison(problem.work, threads, entries, missing, wrong)


def allowed(errors: Sequence[float]) -> float:
    """How far off a result may be, from how far those are that others compute."""
    return max([TOLERANCE, *(TIMES * error for error in sorted(errors)[:1] if error < MOST)])


def far_off(found: Results, expected: Results) -> dict[str, float]:
    """Each tensor's distance from the right one, as a part of its norm; infinite for a wrong shape or NaN."""
    distances = {}
    for name, tensor in found.items():
        right = expected[name]
        distance = float("inf")
        if tensor.shape == right.shape:
            distance = ((tensor.double() - right).norm() / right.norm().clamp_min(1e-30)).item()
        distances[name] = distance if distance == distance else float("inf")
    return distances


def share(problem: Problem, gemm: Gemm, times: Sequence[float], product: Sequence[float]) -> Spread:
    """Of the large product's rate, in each round."""
    work = problem.operations / gemm.operations
    return Spread.of([work * b / a for a, b in zip(times, product, strict=True)])


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads in torch for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
