"""Side by side: this library's engines and what else computes recurrent layers, on the same weights and numbers.

`carousel bench` and `benchmarks/peers.py` call :func:`compare` for each :class:`Work`. It first checks the values, and in
training the gradients, of every contestant against the eager engine in float64; only what is right is timed. The contestants
then take turns in one process. A speed is the median of the ratios within a round, with quartiles: clocks that wander do so
for all.

- `timing.py`: turns, medians, the rate of large matrix products; what `benchmarks/` measures with too.
- `work.py`: what is computed, and the right results.
- `ours.py`, `torch_loops.py`, `onnx.py`, `jax.py`: the contestants, built by name from the table in `peers.py`.
- `compare.py`: checks and times them. `report.py`: the table, the numbers as JSON, and the chart.
"""

from carousel.bench.compare import Comparison, Entry, compare
from carousel.bench.peers import PEERS
from carousel.bench.report import chart, markdown, numbers, table
from carousel.bench.work import MODES, Work

__all__ = ["MODES", "PEERS", "Comparison", "Entry", "Work", "chart", "compare", "markdown", "numbers", "table"]
