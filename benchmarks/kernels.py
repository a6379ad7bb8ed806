"""How fast the CPU engine's kernels are, next to the best matrix product of this machine.

python benchmarks/kernels.py [--only NAME] [--cells A,B] [--shapes TxBxH,...] [--repeats N] [--json FILE] [--markdown] [--quick]

Results are checked first, against float64. Every number is the median, with quartiles, of rounds in which the candidates and a
large matrix product take turns; a share or a speed-up is that of the ratios within a round: clocks that wander do so for all.
One thread, where a row does not say two. `docs/performance.md` explains the rows.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import over_time
import products
import starts
import torch
from report import Bench, Row, Shape, best_of_each, markdown_table, text_table
from timing import best_gemm, keep_freed_memory, machine

from carousel.engines.cpu.target import target
from carousel.engines.cpu.team import second_level_cache
from carousel.engines.cpu.threads import available

MEASURES: dict[str, Callable[[Bench], list[Row]]] = {
    "product": products.measure,
    "loops": over_time.measure,
    "threads": over_time.measure_threads,
    "compile": starts.measure,
    "memory": starts.measure_memory,
}
QUICK: tuple[Shape, ...] = ((4, 9, 20),)


def shape(text: str) -> Shape:
    """Three numbers with an x between them."""
    T, B, H = (int(part) for part in text.split("x"))
    return T, B, H


def facts() -> dict[str, str]:
    """What the numbers were measured on."""
    found = machine()
    found["threads"] = "1, or as the row says"
    cache, load = second_level_cache() // 1024, os.getloadavg()[0]
    return {**found, "target": str(target()), "L2": f"{cache} KiB", "threads by": available(), "load before": f"{load:.1f}"}


def prepare(arguments: argparse.Namespace) -> Bench:
    """Build what all rows need."""
    kernels = products.Kernels()
    large = products.Operands(kernels, 512, 256, 1024)
    large.check("product")
    ours = {"packed product (512, 256) x (256, 1024)": (large.action("product", 1), large.operations)}
    gemm = best_gemm(others=ours, shapes=((64, 64, 64),), repeats=1) if arguments.quick else best_gemm(others=ours)
    repeats = 1 if arguments.quick else arguments.repeats
    shapes = QUICK if arguments.quick else arguments.shapes
    cells = arguments.cells or (over_time.THREADED if arguments.quick else over_time.CELLS)
    return Bench(gemm, kernels, repeats, cells, shapes, arguments.quick)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--markdown", action="store_true", help="print the table at the end as docs/performance.md has it")
    parser.add_argument("--repeats", type=int, default=25, help="rounds")
    parser.add_argument("--only", choices=sorted(MEASURES), action="append", help="measure these rows only")
    parser.add_argument("--cells", type=lambda text: text.split(","), help="whose loops")
    parser.add_argument("--shapes", type=lambda t: tuple(map(shape, t.split(","))), default=over_time.SHAPES, help="T x B x H")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only whether everything runs and is right")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    about = {**facts(), "freed memory is kept": str(keep_freed_memory())}
    print("  ".join(f"{key}: {value}" for key, value in about.items()))
    bench = prepare(arguments)
    if not arguments.quick:
        print(best_of_each(bench.gemm))
        print(f"shares are of {bench.gemm.name}, timed in each round\n", flush=True)
    rows: list[Row] = []
    for name, measure in MEASURES.items():
        if not arguments.only or name in arguments.only:
            rows += measure(bench)
    if arguments.quick:
        print(f"all results are right ({len(rows)} rows; times so short say nothing)")
    else:
        print(markdown_table(rows) if arguments.markdown else text_table(rows))
        judged = [row.reached for row in rows if row.reached is not None]
        print(
            f"\nreached: {sum(judged)} of {len(judged)}; load at the end {os.getloadavg()[0]:.1f} (this program alone: 1 to 2)"
        )
    if arguments.json:
        rates = {name: rate / 1e9 for name, rate in bench.gemm.rates.items()}
        report = {"machine": about, "gflops": rates, "share of": bench.gemm.name, "rows": [row.as_dict() for row in rows]}
        arguments.json.write_text(json.dumps(report, indent=1, default=vars))


if __name__ == "__main__":
    main()
