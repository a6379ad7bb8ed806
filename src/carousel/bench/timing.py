"""How the benchmarks measure: in turns, with medians and quartiles, against what the machine can do at that moment."""

from __future__ import annotations

import ctypes
import datetime
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

Action = Callable[[], object]


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory, and say whether it could be asked: page faults may hit one side of a comparison only."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return False
    trim, mapped = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return bool(libc.mallopt(trim, 1 << 30)) and bool(libc.mallopt(mapped, 1 << 30))


def machine() -> dict[str, str]:
    """What the numbers were measured on, and when."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
    }


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of some numbers."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def text(self, digits: int) -> str:
        """Median and quartiles."""
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def seconds(action: Action) -> float:
    """What one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def settle(actions: Mapping[str, Action], duration: float = 0.3) -> None:
    """Run everything for a while: caches, page tables, clocks and libraries' own choices settle."""
    end = time.perf_counter() + duration
    while True:
        for action in actions.values():
            action()
        if time.perf_counter() > end:
            return


def interleaved(
    actions: Mapping[str, Action],
    repeats: int,
    warm: Mapping[str, int] | None = None,
    before: Mapping[str, Action] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each call of each action; the actions take turns, and each round starts with another one.

    Args:
        actions: by name.
        repeats: rounds; before a single one nothing settles, and it says only that all runs.
        warm: how often an action runs in each round before it is timed, since the one before took the caches; 0 if not named.
        before: what else runs, untimed, before each call of an action.
    """
    before = before or {}

    def prepared(name: str) -> Action:
        first, then = before.get(name), actions[name]
        return (lambda: (first(), then())) if first else then

    if repeats > 1:
        settle({name: prepared(name) for name in actions})
    names = list(actions)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            for _ in range((warm or {}).get(name, 0)):
                prepared(name)()
            if name in before:
                before[name]()
            taken[name].append(seconds(actions[name]))
    return taken


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of two lists of the same rounds, how many times the first is the second."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


@dataclass(frozen=True)
class Gemm:
    """The quickest large product of this machine.

    Attributes:
        name: what computes it.
        run: computes it once.
        operations: of one run: additions and multiplications.
        rate: operations in a second, the best of several.
        rates: of all that were tried, by name.
    """

    name: str
    run: Action
    operations: float
    rate: float
    rates: Mapping[str, float] = field(default_factory=dict)


LARGE = ((768, 768, 768), (1024, 1024, 1024), (256, 2560, 640))


def best_gemm(
    dtype: torch.dtype = torch.float32,
    others: Mapping[str, tuple[Action, float]] | None = None,
    shapes: Sequence[tuple[int, int, int]] = LARGE,
    repeats: int = 25,
) -> Gemm:
    """Find it.

    Args:
        dtype: of the numbers.
        others: more candidates by name, each with its operations.
        shapes: M, N and K of torch's products that are tried.
        repeats: rounds.
    """
    candidates: dict[str, tuple[Action, float]] = dict(others or {})
    for M, N, K in shapes:
        x, w = torch.randn(M, K, dtype=dtype), torch.randn(N, K, dtype=dtype)
        turned, shape, operations = w.t().contiguous(), f"({M}, {K}) x ({K}, {N})", 2.0 * M * N * K
        candidates[f"torch.mm {shape}"] = partial(torch.mm, x, turned), operations
        candidates[f"linear {shape}"] = partial(torch.nn.functional.linear, x, w), operations
        if dtype is torch.float32 and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            run = partial(torch.ops.mkldnn._linear_pointwise, x, w, None, "none", [], "")
            candidates[f"oneDNN {shape}"] = run, operations
    taken = interleaved({name: run for name, (run, _) in candidates.items()}, repeats)
    rates = {name: candidates[name][1] / min(times) for name, times in taken.items()}
    name = max(rates, key=rates.__getitem__)
    return Gemm(name, *candidates[name], rates[name], rates)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * w for w in widths], *rows]:
        cells = [text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def progress(text: str) -> None:
    """Say what is being measured."""
    sys.stderr.write(f"  {text} ...\n")
    sys.stderr.flush()


def gemm_with(threads: int) -> Gemm:
    """The quickest large product with so many threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return best_gemm()
    finally:
        torch.set_num_threads(before)
