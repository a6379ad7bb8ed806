"""Rows about fresh processes: how long a new cell's first steps take, and whether memory grows over many calls.

As a program (`python benchmarks/starts.py compile NUMBER`, or `calls COUNT`) this is what runs in the fresh process.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from report import Bench, Row

COLD, CACHED = 2.0, 0.2  # required, in seconds
GROWTH = 1.0  # required, in MiB
CALLS = 10_000
REPEATS = 5


# --- in the fresh process -------------------------------------------------------------------------------------------------


def compile_new_cell(number: float) -> dict[str, float]:
    """Seconds from after `import torch` until a cell that nobody has seen ran forwards and backwards."""
    import torch

    torch.set_num_threads(1)
    x = torch.randn(3, 2, 8, requires_grad=True)
    torch.autograd.backward((x * x).sum())  # autograd's own first steps are torch's
    times = [time.perf_counter()]
    from carousel.graph import Cell, sigmoid, tanh
    from carousel.nn import Recurrent

    class Fresh(Cell):
        """An LSTM with another candidate."""

        state = ("h", "c")

        def step(self, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
            i, f = sigmoid(self.affine("i", x, h)), sigmoid(self.affine("f", x, h))
            o = sigmoid(self.affine("o", x, h))
            c = f * c + i * tanh(self.affine("g", x, h) * number + c * 0.1)
            return o * tanh(c), c

    times.append(time.perf_counter())
    layer = Recurrent(Fresh, 8, 8, engine="cpu")
    times.append(time.perf_counter())
    output, _ = layer(x)
    times.append(time.perf_counter())
    output.sum().backward()
    times.append(time.perf_counter())
    parts = {name: b - a for name, a, b in zip(("import", "layer", "forward", "backward"), times, times[1:], strict=False)}
    return {"all": times[-1] - times[0], **parts}


def memory_over_calls(count: int) -> dict[str, float]:
    """MiB of this process before and after many forwards and backwards of a small layer, and their seconds."""
    import torch

    from carousel.nn import Recurrent

    torch.set_num_threads(1)
    layer, x = Recurrent("lstm", 8, 8, engine="cpu"), torch.randn(5, 2, 8, requires_grad=True)

    def step() -> None:
        layer(x)[0].sum().backward()
        layer.zero_grad()
        x.grad = None

    for _ in range(max(1, count // 5)):  # what is allocated once is allocated
        step()
    before, start = resident(), time.perf_counter()
    for _ in range(count):
        step()
    return {"before": before, "seconds": time.perf_counter() - start, "after": resident()}


def resident() -> float:
    """MiB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- rows -----------------------------------------------------------------------------------------------------------------


def fresh(*arguments: str, cache: str, bytecode: str | None = None) -> dict[str, float]:
    """What this file prints in a process of its own.

    Args:
        arguments: of the program.
        cache: the folder of compiled loops.
        bytecode: a folder for Python's compiled modules, which an installed package has; if None, as this process does.
    """
    environment = {**os.environ, "CAROUSEL_CACHE": cache, "OMP_NUM_THREADS": "1"}
    if bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = bytecode
    done = subprocess.run([sys.executable, __file__, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"starts.py {' '.join(arguments)} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(bench: Bench) -> list[Row]:
    """The first steps of a new cell, with an empty cache and again."""
    from report import Row
    from timing import Spread, progress

    found: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
    with tempfile.TemporaryDirectory() as modules:
        bytecode = None if bench.quick else modules
        if bytecode:
            progress("Python's byte-code")
            with tempfile.TemporaryDirectory() as cache:
                fresh("compile", "1.0", cache=cache, bytecode=bytecode)
        for turn in range(1 if bench.quick else REPEATS):
            progress(f"new cell {turn + 1}")
            number = repr(random.uniform(0.5, 1.5))  # another cell each time
            with tempfile.TemporaryDirectory() as cache:
                for parts in found.values():
                    parts.append(fresh("compile", number, cache=cache, bytecode=bytecode))
                if not any(Path(cache).iterdir()):
                    raise SystemExit("nothing was kept in the cache")
    rows = []
    for name, required in (("cold", COLD), ("cached", CACHED)):
        spreads = {key: Spread.of([each[key] for each in found[name]]) for key in found[name][0]}
        limits = {key: each.median / spreads["all"].median for key, each in spreads.items() if key != "all"}
        what = f"a new cell's first forward + backward, {name}"
        rows.append(Row(what, None, spreads["all"], "s", required, at_most=True, limits=limits, more=spreads))
    return rows


def measure_memory(bench: Bench) -> list[Row]:
    """Memory over many calls."""
    from report import Row
    from timing import Spread, progress

    count = 50 if bench.quick else CALLS
    progress(f"memory over {count} calls")
    with tempfile.TemporaryDirectory() as cache:
        found = fresh("calls", str(count), cache=cache)
    grown, each = found["after"] - found["before"], found["seconds"] / count
    what = f"memory gained in {count:,} forwards and backwards (from {found['before']:.0f} MiB)"
    return [Row(what, Spread.of([each]), Spread.of([grown]), "MiB", GROWTH, at_most=True, more=found)]


if __name__ == "__main__":
    work, argument = sys.argv[1:]
    print(json.dumps(compile_new_cell(float(argument)) if work == "compile" else memory_over_calls(int(argument))))
