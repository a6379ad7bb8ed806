"""Tokens per second of training a text classifier: `carousel.training.train` against the same model in plain loops.

Three contestants train on the same batches in the same order, and take turns in one process: our loop with our layer, a plain
loop with our layer (what our loop costs), and a plain loop with `torch.nn.LSTM` in its place (what a user would write).
First it is checked that they compute the same: equal weights give equal losses, our loop and the plain one over several steps.

    python benchmarks/training.py ../shared/data/sst/stsa.binary.train.gz --threads 1
    python benchmarks/training.py FILE --quick      # only whether everything runs and is right
    python benchmarks/training.py FILE --profile    # where the time of our loop goes
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import io
import json
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from timing import Spread, machine, progress, ratios, table
from torch import Tensor, nn

from carousel.export import to_torch
from carousel.tasks import Classifier
from carousel.training import TrainingConfig, train

OURS, PLAIN, TORCH = "carousel.training.train", "plain loop, our layer", "plain loop, torch.nn.LSTM"
CLIP = 5.0
TOLERANCE = 2e-4  # of a loss; float32, measured differences are below 2e-6


class Packed(nn.Module):
    """`torch.nn.LSTM` over padded sequences, as the layer of ours is called."""

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, None]:
        packed = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        output, _ = nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=features.shape[1])
        return output, None


def build(path: Path, hidden_size: int, dropout: float) -> tuple[nn.Module, Any]:
    """A new classifier, and its batches."""
    task = Classifier(
        hidden_size=hidden_size, bidirectional=True, dropout=dropout, word_dropout=0.1 if dropout else 0.0, progress=False
    )
    prepared = task._prepare(path, None, None)
    torch.manual_seed(1)
    return task._build(prepared.inputs), prepared.train


def with_torch_layer(model: nn.Module) -> nn.Module:
    """The same model with torch's LSTM in the place of ours, and the same weights."""
    other = copy.deepcopy(model)
    other.recurrent = Packed(to_torch(model.recurrent))
    return other


def adam(model: nn.Module) -> torch.optim.Optimizer:
    """What our loop uses, too: the fused Adam is the quicker one."""
    return torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)


def plain_loop(model: nn.Module, batches: Iterator[Any], optimizer: torch.optim.Optimizer) -> float:
    """What a user would write, the usual numbers for its progress included. Returns the mean loss."""
    losses = 0.0
    right = items = 0
    for batch in batches:
        optimizer.zero_grad()
        logits, _ = model(batch.inputs, batch.lengths)
        loss = nn.functional.cross_entropy(logits, batch.labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses += loss.item() * len(logits)
        right += (logits.argmax(-1) == batch.labels).sum().item()
        items += len(logits)
    return losses / items


def our_loop(model: nn.Module, batches: Any, steps: int, threads: int) -> tuple[float, float]:
    """Tokens per second of one epoch of `steps` batches, and the mean loss."""
    config = TrainingConfig(
        epochs=1, lr=3e-3, clip_norm=CLIP, threads=threads, device="cpu", progress=False, trainer={"limit_train_batches": steps}
    )
    with tempfile.TemporaryDirectory() as directory:
        row = train(model, batches, None, config, Path(directory) / "run").last
    return row["tokens_per_second"], row["train_loss"]


def check(path: Path, hidden_size: int) -> None:
    """The three compute the same, without dropout. After a step torch's layer, which has each bias twice, goes its own way."""
    model, batches = build(path, hidden_size, dropout=0.0)
    once, plain, other = copy.deepcopy(model), copy.deepcopy(model), with_torch_layer(model)
    batches.set_epoch(0)
    ours = our_loop(model, batches, 5, torch.get_num_threads())[1]
    batches.set_epoch(0)
    means = [plain_loop(one, islice(iter(batches), steps), adam(one)) for one, steps in ((once, 1), (plain, 5))]
    batches.set_epoch(0)
    first = plain_loop(other, islice(iter(batches), 1), adam(other))
    for name, loss, expected in ((OURS, ours, means[1]), (TORCH, first, means[0])):
        if abs(loss - expected) > TOLERANCE * expected:
            raise SystemExit(f"{name} is wrong: a loss of {loss}, {PLAIN} has {expected}")


def measure(path: Path, hidden_size: int, steps: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Tokens per second of each round."""
    model, batches = build(path, hidden_size, dropout=0.5)
    models = {OURS: model, PLAIN: copy.deepcopy(model), TORCH: with_torch_layer(model)}
    batches.set_epoch(0)
    tokens = sum(batch.token_count for batch in islice(iter(batches), steps))
    optimizers = {name: adam(models[name]) for name in (PLAIN, TORCH)}

    def plainly(name: str) -> Callable[[], float]:
        def run() -> float:
            models[name].train()
            batches.set_epoch(0)
            start = time.perf_counter()
            plain_loop(models[name], islice(iter(batches), steps), optimizers[name])
            return tokens / (time.perf_counter() - start)

        return run

    runs = {OURS: lambda: our_loop(models[OURS], batches, steps, threads)[0], PLAIN: plainly(PLAIN), TORCH: plainly(TORCH)}
    names = list(runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        runs[name]()  # libraries, caches and compiled code settle
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}")
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(runs[name]())
    return found


def profile(path: Path, hidden_size: int, steps: int, threads: int) -> str:
    """The functions that our loop spends the most time in."""
    model, batches = build(path, hidden_size, dropout=0.5)
    our_loop(model, batches, 10, threads)
    profiler = cProfile.Profile()
    profiler.enable()
    our_loop(model, batches, steps, threads)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(35)
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="a file of labelled texts")
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60, help="batches of a round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    steps, rounds = (3, 1) if given.quick else (given.steps, given.rounds)
    check(given.path, given.hidden_size)
    print("all results are right")
    if given.profile:
        print(profile(given.path, given.hidden_size, steps, given.threads))
        return
    found = measure(given.path, given.hidden_size, steps, rounds, given.threads)
    rows = []
    for name, rates in found.items():
        times = ratios(found[OURS], rates)
        rows.append([name, f"{Spread.of(rates).median:.0f}", times.text(3)])
    print(table(["", "tokens/s", "ours is so many times as fast [quartiles]"], rows))
    print(" ".join(f"{name}: {value}" for name, value in machine().items()))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "tokens_per_second": found}))


if __name__ == "__main__":
    main()
