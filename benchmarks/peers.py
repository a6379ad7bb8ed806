"""Whole layers beside what else computes them: what is required, what was measured, and whether it is reached.

python benchmarks/peers.py [--only NAME,...] [--threads 1,2] [--repeats N] [--json FILE] [--plot FILE.png] [--markdown]
                           [--quick]

Values, and gradients in training, are checked before anything is timed; x requires a gradient. Every number is the median, with
quartiles, of the ratios within a round in which all took turns. Where this library has two forms of a layer (`Recurrent`, and
`nn.LSTM`, `GRU`, `RNN`), the slower one counts. `docs/performance.md` explains the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import around
from around import Row
from timing import Gemm, Spread, keep_freed_memory, machine, progress, ratios

from carousel.bench import Comparison, Work, chart, markdown, numbers
from carousel.bench.compare import compare
from carousel.bench.timing import gemm_with, table
from carousel.bench.work import Problem

WIDE, LARGE, NARROW, SMALL, ALONE = (100, 32, 256), (35, 20, 640), (100, 64, 128, 64), (200, 16, 64), (500, 1, 256)
OWN = ("peephole_lstm", "coupled_lstm", "layer_norm_lstm", "gru")
PACKAGES = ("onnxruntime", "jax", "jaxlib", "onnx")


@dataclass(frozen=True)
class Goal:
    """What is required of some rows.

    Attributes:
        cells: each is a row, at every shape.
        shapes: T, B, I and H; three numbers where I is H.
        peer: who must be slower.
        times: by how many threads, how many times slower.
        share: of the GEMM rate with one thread, which serves as well; None where it does not.
        mode: how the layers are used.
        also: who else takes a turn, for the table.
    """

    cells: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    peer: str
    times: Mapping[int, float]
    share: float | None = None
    mode: str = "train"
    also: Sequence[str] = ()


GOALS: dict[str, tuple[Goal, ...]] = {
    "lstm": (
        Goal(("lstm",), (WIDE,), "torch", {1: 1.2, 2: 1.1}, 0.78),
        Goal(("lstm",), (LARGE,), "torch", {1: 1.0, 2: 1.0}, 0.85),
        Goal(("lstm",), (NARROW,), "torch", {1: 1.6, 2: 1.4}),
    ),
    "gru": (
        Goal(("gru_reset_after",), (WIDE, LARGE), "torch", {1: 2.2, 2: 2.0}, 0.78),
        Goal(("gru_reset_after",), (SMALL,), "torch", {1: 6.0, 2: 6.0}),
        Goal(("gru_reset_after",), (ALONE,), "torch", {1: 7.0, 2: 7.0}),
    ),
    "rnn": (
        Goal(("elman",), (WIDE,), "torch", {1: 2.0, 2: 1.8}),
        Goal(("elman",), (SMALL, ALONE), "torch", {1: 4.0, 2: 4.0}),
    ),
    "own": (Goal(OWN, (WIDE,), "ops", {1: 4.5, 2: 4.5}), Goal(OWN, (SMALL,), "ops", {1: 10.0, 2: 10.0})),
    "jax": (Goal(("peephole_lstm",), (WIDE, SMALL), "jax", {1: 1.8, 2: 1.8}),),
    "onnxruntime": (
        Goal(
            ("lstm", "gru", "gru_reset_after"),
            [(100, B, H) for B in (1, 32) for H in (128, 256, 512)],
            "onnxruntime",
            {1: 1.0, 2: 1.0},
            mode="forward",
        ),
    ),
    "step": (
        Goal(
            ("lstm", "gru", "gru_reset_after"), ((200, 1, 256),), "onnxruntime", {1: 1.3, 2: 1.5}, mode="step", also=("calls",)
        ),
    ),
    "ragged": (Goal(("lstm", "gru"), ((100, 64, 256),), "dense", {1: 1 / 0.6}, mode="ragged", also=("torch",)),),
}
GEOMETRIC = 1.2  # of all ratios to ONNX Runtime
SIMILAR = {
    "regularised": around.regularised,
    "words": around.words,
    "bf16": around.rounded_weights,
    "memory": around.memory,
}


def judge(comparison: Comparison, goal: Goal) -> Row:
    """What was measured, beside what is required."""
    work, entries = comparison.work, comparison.entries
    ours = [entries[name] for name in ("cpu", "nn") if name in entries]
    times = goal.times[comparison.threads]
    row = Row(f"{work.cell} {work.mode} {work.shape}", comparison.threads, goal.peer, times, share_required=goal.share)
    if comparison.wrong:
        return row.left_out(f"wrong: {comparison.wrong}")
    if goal.peer not in entries:
        return row.left_out(comparison.missing[goal.peer])
    theirs = entries[goal.peer]
    slowest = min(ours, key=lambda entry: ratios(theirs.times, entry.times).median)
    shares = [entry.share for entry in ours if entry.share]
    share = min(shares, key=lambda share: share.median) if shares else None
    row = row.measured(slowest.seconds, theirs.seconds, ratios(theirs.times, slowest.times), share)
    return replace(row, needed=None) if problem_differs(goal) else row


def problem_differs(goal: Goal) -> bool:
    """Whether the peer does other work than we do, so that its share of the GEMM rate says nothing about ours."""
    return goal.mode == "ragged"


def works(goal: Goal) -> list[Work]:
    """All pieces of work of a goal."""
    sizes = [shape if len(shape) == 4 else (*shape, shape[-1]) for shape in goal.shapes]
    return [Work(cell, *shape, mode=goal.mode) for shape in sizes for cell in goal.cells]


def quickly(goal: Goal) -> list[Work]:
    """The same with tiny sizes, for every cell once."""
    return [Work(cell, 3, 2, 5, 6, goal.mode) for cell in goal.cells]


def measure(name: str, threads: Sequence[int], repeats: int, gemms: Mapping[int, Gemm | None], quick: bool) -> Any:
    """The comparisons of a group of goals, and their rows."""
    comparisons, rows = [], []
    for goal in GOALS[name]:
        for work in quickly(goal) if quick else works(goal):
            problem = Problem.draw(work)
            for count in [count for count in threads if count in goal.times]:
                progress(f"{work.text}, {count} thread(s)")
                # The more often, the shorter one run is: about as long for all.
                rounds = repeats if quick or work.T * work.B * work.H**2 > 1e8 else 3 * repeats
                comparisons.append(compare(problem, ["nn", goal.peer, *goal.also], count, rounds, gemms[count]))
                rows.append(judge(comparisons[-1], goal))
    if name == "onnxruntime":
        rows += [geometric(rows, count) for count in threads]
    return comparisons, rows


def geometric(rows: Sequence[Row], threads: int) -> Row:
    """The geometric mean of rows."""
    found = [row.ratio.median for row in rows if row.ratio and row.threads == threads]
    row = Row("geometric mean of these", threads, "onnxruntime", GEOMETRIC)
    if not found:
        return row.left_out("nothing was measured")
    mean = math.exp(sum(map(math.log, found)) / len(found))
    return row.measured(None, None, Spread(mean, mean, mean), None)


def second_processor_taken(gemms: Mapping[int, Gemm | None]) -> bool:
    """Whether large products gain too little from two threads: something else runs, and rows with two threads say nothing."""
    one, two = gemms.get(1), gemms.get(2)
    return bool(one and two and two.rate < 1.5 * one.rate)


def facts(threads: Sequence[int]) -> dict[str, Any]:
    """What the numbers were measured on."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {**machine(), "threads": ", ".join(map(str, threads)), "load before": f"{os.getloadavg()[0]:.1f}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*GOALS, *SIMILAR]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=f"of {', '.join(names)}")
    parser.add_argument("--threads", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2])
    parser.add_argument("--repeats", type=int, default=15, help="rounds; three times as many for short work")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--plot", type=Path, help="draw a bar chart here")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/performance.md has it")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether everything runs and is right")
    given = parser.parse_args()
    if unknown := [name for name in given.only if name not in names]:
        parser.error(f"unknown: {', '.join(unknown)}; of {', '.join(names)}")
    about = facts(given.threads)
    if not given.quick:
        about["freed memory is kept"] = str(keep_freed_memory())
    gemms = {count: None if given.quick else gemm_with(count) for count in given.threads}
    about |= {f"GEMM, {n}": f"{gemm.rate / 1e9:.0f} GFLOP/s, {gemm.name}" for n, gemm in gemms.items() if gemm}
    print("  ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    comparisons: list[Comparison] = []
    rows: list[Row] = []
    repeats = 1 if given.quick else given.repeats
    for name in given.only:
        if name in GOALS:
            found, judged = measure(name, given.threads, repeats, gemms, given.quick)
            comparisons, rows = comparisons + found, rows + judged
        else:
            rows += SIMILAR[name](given.threads, repeats, given.quick)
        if given.json:  # what is there is kept if a later row fails
            report = {**numbers(comparisons, about), "rows": [{**asdict(row), "reached": row.reached} for row in rows]}
            given.json.write_text(json.dumps(report, indent=1))
    wrong = [f"{one.work.text}: {one.wrong}" for one in comparisons if one.wrong]
    if wrong:
        raise SystemExit("\n".join(wrong))
    about["load after"] = f"{os.getloadavg()[0]:.1f}"
    lines = [row.cells() for row in rows]
    if given.quick:
        print(f"all results are right ({len(rows)} rows; times so short say nothing)")
    else:
        print(markdown(around.HEAD, lines) if given.markdown else table(around.HEAD, lines))
        judged = [row.reached for row in rows if row.reached is not None]
        print(f"\nreached: {sum(judged)} of {len(judged)}; load after: {about['load after']}")
    if second_processor_taken(gemms):
        print("two threads were hardly faster than one at large products: what is said of two threads does not count")
    for row in rows:
        if row.why_not:
            print(f"without {row.what} against {row.peer}, {row.threads} thread(s): {row.why_not}")
    if given.plot:
        chart(comparisons, given.plot, f"{about['cpu']}, {about['date']}")


if __name__ == "__main__":
    main()
