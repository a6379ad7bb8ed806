"""``carousel bench``: this library's engines beside what else computes recurrent layers, on this machine."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carousel.cli.console import print_table, say
from carousel.cli.parsing import VerbParser
from carousel.errors import ConfigError, explain, unknown_name

if TYPE_CHECKING:
    from carousel.bench import Comparison, Work

__all__ = ["parser", "run"]

CELLS = "lstm,gru_reset_after,gru,elman,peephole_lstm"
SHAPES = "100x32x256x256,200x16x64x64"
QUICK = "3x2x5x6"
EPILOG = """
Values, and gradients in training, are checked first, against float64. Then all take turns in this process, --repeats times:
times are medians, ratios the medians of those within a round. Peers that are not installed, or cannot do it, are named.

example: carousel bench --cells lstm,gru --shapes 100x32x256x256 --threads 1,2 --peers torch,ops --plot bars.png
"""


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it; 1 if any result is wrong."""
    given = parser().parse(arguments)
    from carousel.bench import report, timing
    from carousel.bench.compare import compare
    from carousel.bench.work import Problem

    report.check_files(given.json, given.plot)
    works, threads, peers = _works(given), _threads(given.threads), _peers(given.peers)
    if given.repeats < 1:
        raise ConfigError(explain("--repeats must be at least 1.", got=str(given.repeats)))
    repeats = 1 if given.quick else given.repeats
    kept = not given.quick and timing.keep_freed_memory()
    about = {**timing.machine(), "threads": ", ".join(map(str, threads)), "freed memory is kept": "yes" if kept else "no"}
    for key, value in about.items():
        say(f"{key}: {value}")
    gemms = {count: None if given.quick else timing.gemm_with(count) for count in threads}
    for count, gemm in gemms.items():
        if gemm:
            about[f"GEMM with {count}"] = f"{gemm.rate / 1e9:.0f} GFLOP/s, {gemm.name}"
            say(f"GEMM with {count} thread(s): {about[f'GEMM with {count}']}")
    comparisons: list[Comparison] = []
    for work in works:
        problem = Problem.draw(work)
        for count in threads:
            say(f"  {work.text}, {count} thread(s) ...")
            comparisons.append(compare(problem, peers, count, repeats, gemms[count]))
    header, rows = report.table(comparisons)
    if given.markdown:
        print(report.markdown(header, rows))
    else:
        print_table(header, rows)
    for line in report.missing(comparisons):
        if given.peers or "not installed" in line:  # of those nobody asked for, what can be mended
            say(line)
    if given.json:
        given.json.write_text(json.dumps(report.numbers(comparisons, about), indent=1))
    if given.plot:
        report.chart(comparisons, given.plot, f"{about['cpu']}, {about['date']}")
    wrong = any(comparison.wrong for comparison in comparisons)
    say("Some results are wrong; those were not timed." if wrong else "All results are right.")
    return int(wrong)


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("bench", "How fast cells run here, beside torch, ONNX Runtime and JAX.", EPILOG)
    made.add_argument("--cells", metavar="NAME,...", default=CELLS, help=f"cells of the library [{CELLS}]")
    made.add_argument("--shapes", metavar="TxBxIxH,...", default=None, help=f"steps, rows, inputs, units [{SHAPES}]")
    made.add_argument("--threads", metavar="N,...", default="1", help="how many each has [1]")
    made.add_argument("--mode", metavar="NAME,...", default="train", help="train, forward, step, ragged [train]")
    made.add_argument("--peers", metavar="NAME,...", default=None, help="with whom; a wrong name lists them [all but compile]")
    made.add_argument("--repeats", metavar="N", type=int, default=15, help="rounds [15]")
    made.add_argument("--json", metavar="FILE", type=Path, help="write all numbers here")
    made.add_argument("--plot", metavar="FILE.png", type=Path, help="draw a bar chart")
    made.add_argument("--markdown", action="store_true", help="print the table as a page of documentation has it")
    made.add_argument("--quick", action="store_true", help="one round of tiny sizes: only whether all is right")
    return made


def _works(given: argparse.Namespace) -> list[Work]:
    from carousel.bench import Work

    usual = QUICK if given.quick else SHAPES
    shapes = [_shape(text) for text in _list(usual if given.shapes is None else given.shapes)]
    modes, cells = _list(given.mode), _list(given.cells)
    return [Work(cell, *shape, mode=mode) for mode in modes for cell in cells for shape in shapes]


def _shape(text: str) -> tuple[int, int, int, int]:
    parts = text.split("x")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        expected = "TxBxIxH: steps, rows of the batch, inputs, units; 100x32x256x256, say"
        raise ConfigError(explain("--shapes: this is no shape.", got=text, expected=expected))
    T, B, I, H = map(int, parts)  # noqa: E741
    return T, B, I, H


def _threads(text: str) -> list[int]:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = []
    for part in _list(text):
        if not part.isdecimal() or not 1 <= int(part) <= here:
            raise ConfigError(explain("--threads: not possible here.", got=part, expected=f"1 to {here}, the processors here"))
        counts.append(int(part))
    return counts


def _peers(text: str | None) -> list[str]:
    from carousel.bench import PEERS

    if text is None:
        return [name for name, peer in PEERS.items() if peer.usual]
    names = _list(text)
    for name in names:
        if name not in PEERS:
            raise ConfigError(unknown_name("peer", name, PEERS))
    return names


def _list(text: str) -> list[str]:
    """What stands between commas, each once; nothing is an error of the value, not the default."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))
