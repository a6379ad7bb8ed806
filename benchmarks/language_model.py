"""A whole training step of a small language model: ours against the same script with torch's layers.

The model is that of Zaremba et al. (2014), small: 10,000 words, 2 layers of 200, windows of 20 steps for 20 rows; a step is
embedding, layers, output, loss, backward pass, clipping and plain descent, with states carried on. Our network's step is
what our trainer does; all others clip with `clip_grad_norm_` and step with torch's fused SGD. First it is checked that all
compute the same: equal weights give equal losses and gradients, window after window. (After a step they differ a little:
torch's LSTM has two biases where ours has one, and plain descent moves both.) The check is always made with exact float32
products; ``--matmul_precision medium`` lets everybody's large products round what they multiply to bfloat16 while it is timed,
which a CPU with AMX does about five times as fast; ``low`` lets our loops over time do so, too (torch's are exact).

    python benchmarks/language_model.py --threads 1,2
    python benchmarks/language_model.py --threads 1,2 --matmul_precision medium
    python benchmarks/language_model.py --quick      # only whether everything runs and is right

Rows: our network against `torch.nn.LSTM` with torch's Linear and cross-entropy; the same with our Linear and torch's loss on
both sides, so that only the recurrent layers differ; and with a peephole cell against that cell written in torch operations.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Spread, interleaved, keep_freed_memory, machine, progress, ratios, table
from torch import Tensor, nn
from torch.nn import functional

import carousel.nn
from carousel.bench.compare import torch_threads
from carousel.bench.torch_loops import WRITTEN, loop
from carousel.cells import CELLS
from carousel.data.token_stream import TokenStream, Window
from carousel.engines.cpu.outside import rounded_loops
from carousel.export import to_torch
from carousel.tasks.lm import LanguageModelOptions
from carousel.tasks.lm.network import LanguageNetwork
from carousel.training import TrainingConfig
from carousel.training.optim import build_optimizer, clip_gradients, shrinking

RATE, CLIP = 20.0, 0.25
TOLERANCE = 1e-4  # of a loss; float32, measured differences are below 2e-6
CHECKED = 3  # windows


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: is compared.
        cell: of the layers.
        required: how many times as long as ours the other may at least take.
        ours: makes our side from the network.
        theirs: makes the other.
    """

    what: str
    cell: str
    required: float
    ours: Callable[[LanguageNetwork], nn.Module]
    theirs: Callable[[LanguageNetwork], nn.Module]


class Script(nn.Module):
    """What a user of torch would write around some recurrent layers."""

    def __init__(self, network: LanguageNetwork, layers: nn.Module, linear: type[nn.Linear]) -> None:
        super().__init__()
        V, F = network.output_weight.shape
        self.embedding = nn.Embedding(V, network.embedding.embedding_dim)
        self.layers = layers
        self.output = linear(F, V)
        with torch.no_grad():
            self.embedding.weight.copy_(network.embedding.weight)
            self.output.weight.copy_(network.output_weight)
            self.output.bias.copy_(network.bias)
        self.state: Any = None

    def loss(self, window: Window) -> Tensor:
        if window.first:
            self.state = None
        hidden, state = self.layers(self.embedding(window.inputs.t()), self.state)
        self.state = detached(state)
        return functional.cross_entropy(self.output(hidden).flatten(0, 1), window.targets.t().flatten())


class Ours(nn.Module):
    """The network of the task, as training runs it."""

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        self.network = clone(network).train()

    def loss(self, window: Window) -> Tensor:
        return self.network.measure(window).loss


class OurLayers(nn.Module):
    """Our recurrent layers, called as torch's LSTM is."""

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        self.layers = clone(network).layers

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        after = []
        for number, layer in enumerate(self.layers):
            x, left = layer(x, None if state is None else state[number])
            after.append(tuple(left))
        return x, tuple(after)


class TorchLayers(nn.Module):
    """`torch.nn.LSTM` of as many layers, with the same weights."""

    def __init__(self, network: LanguageNetwork) -> None:
        super().__init__()
        singles = [to_torch(layer) for layer in network.layers]
        self.lstm = nn.LSTM(singles[0].input_size, singles[0].hidden_size, len(singles))
        with torch.no_grad():
            for number, single in enumerate(singles):
                for name, parameter in single.named_parameters():
                    getattr(self.lstm, name.replace("_l0", f"_l{number}")).copy_(parameter)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.lstm(x, state)


class WrittenLayers(nn.Module):
    """The cell in torch operations: a loop over steps for each layer."""

    def __init__(self, network: LanguageNetwork, cell: str) -> None:
        super().__init__()
        self.cell = WRITTEN[cell]
        self.weights = nn.ModuleList()
        for layer in network.layers:
            values = layer.layers[0].values()
            stacked = {name: torch.cat([values[part].detach() for part in parts]) for name, parts in self.cell.layout.items()}
            self.weights.append(nn.ParameterDict({name: nn.Parameter(tensor) for name, tensor in stacked.items()}))

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        last: list[tuple[Tensor, ...]] = []

        def step(w: Any, z: Tensor, before: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            last[-1:] = [self.cell.step(w, z, before)]
            return last[-1]

        after = []
        for number, weights in enumerate(self.weights):
            size = weights["U"].shape[1]
            start = tuple(x.new_zeros(x.shape[1], size) for _ in range(self.cell.states)) if state is None else state[number]
            last = [start]
            x = loop(self.cell, step, weights, x, start)
            after.append(last[-1])
        return x, tuple(after)


ROWS = (
    Row("lstm: our network against torch's layers", "lstm", 1.6, Ours, lambda n: Script(n, TorchLayers(n), nn.Linear)),
    Row(
        "lstm: our Linear, torch's loss on both sides",
        "lstm",
        1.0,
        lambda n: Script(n, OurLayers(n), carousel.nn.Linear),
        lambda n: Script(n, TorchLayers(n), carousel.nn.Linear),
    ),
    Row(
        "peephole_lstm: our network against torch operations",
        "peephole_lstm",
        3.0,
        Ours,
        lambda n: Script(n, WrittenLayers(n, "peephole_lstm"), nn.Linear),
    ),
)


def detached(state: Any) -> Any:
    """The state without its history."""
    return state.detach() if isinstance(state, Tensor) else tuple(map(detached, state))


def clone(network: LanguageNetwork) -> LanguageNetwork:
    """The same network with the same weights."""
    other = LanguageNetwork(network.layers[0].cell, network.vocab_size, network.options)
    other.load_state_dict(network.state_dict())
    return other


def stepper(model: nn.Module, windows: Sequence[Window]) -> Callable[[], float]:
    """Runs one training step after another, and returns the loss of each."""
    if isinstance(model, Ours):
        return our_stepper(model, windows)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=RATE, fused=True)
    at = 0

    def step() -> float:
        nonlocal at
        optimizer.zero_grad()
        loss = model.loss(windows[at % len(windows)])
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        at += 1
        return loss.item()

    return step


def our_stepper(model: Ours, windows: Sequence[Window]) -> Callable[[], float]:
    """The same as our trainer does it: the rows of a window alone of the embedding's gradient, clipping within the rate."""
    config = TrainingConfig(optimizer="sgd", lr=RATE, clip_norm=CLIP)
    parameters = list(model.parameters())
    model.network.embedding.sparse = True
    optimizer = build_optimizer(config, parameters, sparse=[model.network.embedding.weight])
    at = 0

    def step() -> float:
        nonlocal at
        optimizer.zero_grad()
        loss = model.loss(windows[at % len(windows)])
        loss.backward()
        rate = RATE * shrinking(clip_gradients(parameters, value=None, norm=None), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        at += 1
        return loss.item()

    return step


def check(what: str, ours: nn.Module, theirs: nn.Module, windows: Sequence[Window]) -> None:
    """Stop if losses, or the gradients of embedding and output bias, differ in one of the first windows."""
    for number, window in enumerate(windows[:CHECKED], start=1):
        found = []
        for model in (ours, theirs):
            model.zero_grad()
            loss = model.loss(window)
            loss.backward()
            embedding = next(part for part in model.modules() if isinstance(part, nn.Embedding)).weight.grad
            bias = (model.network.bias if isinstance(model, Ours) else model.output.bias).grad
            found.append({"loss": loss.detach(), "d embedding": embedding, "d bias": bias})
        for name, mine in found[0].items():
            other = found[1][name]
            error = (mine - other).norm() / other.norm()
            if not error <= TOLERANCE:
                raise SystemExit(f"{what}: {name} is wrong in window {number}, relative error {error:.2e}")


def measure(row: Row, threads: int, repeats: int, sizes: tuple[int, int, int, int], precision: str) -> dict[str, Any]:
    """One line: seconds of a step on both sides, and the ratio."""
    V, H, B, T = sizes
    options = LanguageModelOptions(
        cell=row.cell, hidden_size=H, num_layers=2, embedding_size=H, tie_weights=False, init_range=0.1, batch_size=B, bptt=T,
        input_dropout=0.0, dropout=0.0, output_dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(1)
    network = LanguageNetwork(CELLS[row.cell](), V, options)
    numbers = np.random.default_rng(1).integers(0, V, B * T * 8)
    windows = list(TokenStream(numbers, batch_size=B, window=T, start=0))
    with torch_threads(threads):
        models = {"ours": row.ours(network), "theirs": row.theirs(network)}
        check(row.what, *models.values(), windows)
        steps = {name: stepper(model, windows) for name, model in models.items()}
        progress(f"{row.what}, {threads} thread(s)")
        torch.set_float32_matmul_precision("medium" if precision == "low" else precision)
        with rounded_loops() if precision == "low" else nullcontext():
            taken = interleaved(steps, repeats)
        torch.set_float32_matmul_precision("highest")
    found = {name: Spread.of(values) for name, values in taken.items()}
    times = ratios(taken["theirs"], taken["ours"])
    return {
        "what": row.what, "threads": threads, "ours": found["ours"], "theirs": found["theirs"], "times": times,
        "required": row.required, "reached": times.median >= row.required,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", default="1", help="numbers of threads, with commas")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--matmul_precision", default="highest", choices=["highest", "high", "medium", "low"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: whether all runs and is right")
    given = parser.parse_args()
    keep_freed_memory()
    sizes = (50, 8, 3, 4) if given.quick else (10_000, 200, 20, 20)
    repeats = 1 if given.quick else given.repeats
    precision = given.matmul_precision
    rows = [measure(row, int(threads), repeats, sizes, precision) for threads in given.threads.split(",") for row in ROWS]
    print(" ".join(f"{name}: {value}." for name, value in machine().items()), f"float32 products: {precision}.")
    shown = [
        [
            row["what"],
            str(row["threads"]),
            f"{1e3 * row['ours'].median:.1f} ms",
            f"{1e3 * row['theirs'].median:.1f} ms",
            row["times"].text(2),
            f"{row['required']:.1f}",
            "yes" if row["reached"] else "no",
        ]
        for row in rows
    ]
    print(table(["a training step", "threads", "ours", "theirs", "times [quartiles]", "required", "reached"], shown))
    print("all results are right")
    if given.json:
        plain = [{name: vars(value) if isinstance(value, Spread) else value for name, value in row.items()} for row in rows]
        given.json.write_text(json.dumps({"machine": machine(), "matmul_precision": precision, "rows": plain}, indent=1))


if __name__ == "__main__":
    main()
