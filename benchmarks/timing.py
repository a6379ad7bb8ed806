"""How the benchmarks measure: in turns, with medians and quartiles, against what the machine can do at that moment.

It lies in the package, where `carousel bench` uses it too.
"""

from carousel.bench.timing import (
    Action,
    Gemm,
    Spread,
    best_gemm,
    interleaved,
    keep_freed_memory,
    machine,
    progress,
    ratios,
    seconds,
    settle,
    table,
)

__all__ = [
    "Action",
    "Gemm",
    "Spread",
    "best_gemm",
    "interleaved",
    "keep_freed_memory",
    "machine",
    "progress",
    "ratios",
    "seconds",
    "settle",
    "table",
]
