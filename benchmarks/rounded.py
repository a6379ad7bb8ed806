"""Layers forwards and backwards with exact products and with products in tiles of bfloat16, beside torch's.

    python benchmarks/rounded.py --threads 1 --markdown
    python benchmarks/rounded.py --quick      # only whether everything runs and is right

All four take turns: ours and torch's, each with exact products and where they may be rounded
(``torch.set_float32_matmul_precision("medium")``). torch's loops over time are exact either way. First it is checked that
exact and rounded outputs and gradients agree within what two roundings to 8 bits may do.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

import torch
from report import duration
from timing import Spread, best_gemm, interleaved, keep_freed_memory, machine, progress, ratios, table
from torch import Tensor

from carousel.engines.cpu.outside import rounded_loops
from carousel.engines.cpu.own import has_tiles
from carousel.export import to_torch
from carousel.nn import Recurrent

#: Cell, T, B, I and H.
SHAPES = (
    ("lstm", 20, 20, 200, 200), ("lstm", 35, 20, 640, 640), ("lstm", 100, 32, 256, 256), ("lstm", 100, 32, 512, 512),
    ("lstm", 100, 64, 512, 512), ("gru_reset_after", 100, 32, 512, 512),
)  # fmt: skip
QUICK = (("lstm", 5, 20, 64, 64),)
TOLERANCE = 0.03  # of the largest number; measured: 0.01
MODES = ("ours", "ours, rounded", "torch", "torch, rounded")


def step(layer: Any, x: Tensor, d: Tensor, precision: str) -> list[Tensor]:
    """Forwards and backwards."""
    torch.set_float32_matmul_precision(precision)
    with rounded_loops():
        y = layer(x)[0]
        parameters = list(layer.parameters())
        return [y, *torch.autograd.grad(y, [x, *parameters], d)]


def operations(layer: Recurrent, rows: int) -> float:
    """Floating-point operations of the products of a step."""
    return 6.0 * rows * sum(p.numel() for p in layer.parameters() if p.dim() == 2)


def row(cell: str, T: int, B: int, I: int, H: int, repeats: int, rate: float) -> list[str]:  # noqa: E741 - the field's letters
    """Check, then measure."""
    torch.manual_seed(0)
    ours = Recurrent(cell, I, H, engine="cpu")
    x, d = torch.randn(T, B, I, requires_grad=True), torch.randn(T, B, H)
    for exact, rounded in zip(step(ours, x, d, "highest"), step(ours, x, d, "medium"), strict=True):
        if (exact - rounded).abs().max() > TOLERANCE * exact.abs().max():
            sys.exit(f"{cell}: the rounded result is too far from the exact one")
    layers = dict.fromkeys(MODES[:2], ours) | dict.fromkeys(MODES[2:], to_torch(ours))
    actions = {
        name: partial(step, layer, x, d, "medium" if name.endswith("rounded") else "highest") for name, layer in layers.items()
    }
    taken = interleaved(actions, repeats, dict.fromkeys(actions, 1))
    times = [duration(Spread.of(taken[name])) for name in MODES]
    share = operations(ours, T * B) / Spread.of(taken["ours, rounded"]).median / 1e9 / rate
    quicker = [ratios(taken[other], taken["ours, rounded"]).text(2) for other in ("ours", "torch, rounded")]
    return [f"{cell} T {T} B {B} I {I} H {H}", *times, *quicker, f"{share:.1f}"]


HEAD = ("forward + backward", *MODES, "exact / rounded", "torch / ours, rounded", "of the exact GEMM's rate")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Layers with products in tiles of bfloat16.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--markdown", action="store_true", help="a table for docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    given = parser.parse_args()
    if not has_tiles():
        print("This CPU has no tiles of bfloat16: all products are exact.")
        return
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    torch.set_float32_matmul_precision("highest")
    rate = 100.0 if given.quick else best_gemm().rate / 1e9
    rows = []
    for shape in QUICK if given.quick else SHAPES:
        progress(" ".join(map(str, shape)))
        rows.append(row(*shape, 1 if given.quick else given.repeats, rate))
    if given.markdown:
        print("\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ["---"] * len(HEAD), *rows)))
    else:
        print(table(HEAD, rows))
    print(", ".join(f"{name} {value}" for name, value in machine().items()), f"(GEMM: {rate:.0f} GFLOP/s)")
    print("all results are right")


if __name__ == "__main__":
    main()
