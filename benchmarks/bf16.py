"""What weights in bfloat16 gain, and what they cost: ``python benchmarks/bf16.py``.

The gain: forward passes of whole layers without gradients, float32 and bfloat16 in turns. The cost: classifiers of surnames are
trained in float32 (a minute or so each); then the same weights answer for names they have not seen, as they are and rounded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from products import many
from report import duration
from timing import Spread, interleaved, keep_freed_memory, machine, progress, ratios, table

from carousel.nn import Recurrent
from carousel.tasks import Classifier

NAMES = Path(__file__).parents[1] / "examples" / "names"
#: Cell, T, B, I and H; T 0 is one step of a stream.
SHAPES = (
    ("lstm", 100, 1, 128, 128), ("lstm", 100, 1, 256, 256), ("lstm", 100, 1, 512, 512), ("lstm", 100, 1, 640, 640),
    ("lstm", 100, 1, 1024, 1024), ("gru", 100, 1, 512, 512),
    ("lstm", 0, 1, 128, 128), ("lstm", 0, 1, 256, 256), ("lstm", 0, 1, 512, 512), ("gru", 0, 1, 256, 256),
    ("lstm", 100, 8, 512, 512), ("lstm", 100, 32, 256, 256),
)  # fmt: skip
#: Cell and H of the classifiers.
MODELS = (("lstm", 64), ("lstm", 256), ("gru", 256))


def speed(repeats: int, shapes: tuple[tuple[str, int, int, int, int], ...]) -> list[list[str]]:
    """Rows of the first table."""
    rows = []
    for cell, T, B, I, H in shapes:  # noqa: E741 - the field's letters
        progress(f"{cell}, T {T}, B {B}, I {I}, H {H}")
        torch.manual_seed(0)
        layers = [Recurrent(cell, I, H, engine="cpu").eval() for _ in range(2)]
        layers[1].load_state_dict(layers[0].state_dict())
        layers[1].inference_weights = "bfloat16"
        x, runs, calls = torch.randn(T or 1, B, I), [*layers], 1
        if not T:
            x, runs, calls = x[0], [layer.stream(batch=B) for layer in layers], 100
        with torch.inference_mode():
            outputs = [run(x) if not T else run(x)[0] for run in runs]
            error = (outputs[0] - outputs[1]).abs()
            actions = {name: partial(many, calls, partial(run, x)) for name, run in zip(("full", "half"), runs, strict=True)}
            taken = interleaved(actions, repeats, dict.fromkeys(actions, 1))
        times = [duration(Spread.of([t / calls for t in taken[name]])) for name in taken]
        quicker = ratios(taken["full"], taken["half"]).text(2)
        what = f"{cell} {f'T {T}' if T else 'one step of a stream'} B {B} I {I} H {H}"
        rows.append([what, *times, quicker, f"{error.max():.1e}", f"{error.mean():.1e}"])
    return rows


def answers(model: Classifier) -> dict[str, Any]:
    """What a trained classifier says about the names for validation."""
    path = NAMES / "valid.tsv"
    names = [line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    states: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    network: Any = model.network_
    hooks = [
        network.recurrent.register_forward_hook(lambda _m, _i, out: states.append(out[0].flatten())),
        network.register_forward_hook(lambda _m, _i, out: logits.append(out[0].flatten())),
    ]
    labels = [answer["label"] for answer in model.predict(names)]
    for hook in hooks:
        hook.remove()
    scores = model.evaluate(path)
    return {**scores, "labels": labels, "outputs": torch.cat(states), "logits": torch.cat(logits)}


def cost(epochs: int, models: tuple[tuple[str, int], ...]) -> list[list[str]]:
    """Rows of the second table."""
    rows = []
    for cell, H in models:
        progress(f"training a classifier: {cell}, H {H}")
        model = Classifier(
            cell=cell, hidden_size=H, embedding_size=32, dropout=0.2, word_dropout=0.0, unit="char", batch_size=128, lr=5e-3,
            epochs=epochs, max_minutes=3.0, threads=1, engine="cpu",
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as out:
            model.fit(NAMES / "train.tsv", NAMES / "valid.tsv", out=Path(out) / "run")
            full = answers(model)
            network: Any = model.network_
            network.recurrent.inference_weights = "bfloat16"
            half = answers(model)
        changed = sum(a != b for a, b in zip(full["labels"], half["labels"], strict=True))
        row = [f"{cell} H {H}", *(f"{each['accuracy']:.2%}" for each in (full, half))]
        row += [f"{each['macro_f1']:.4f}" for each in (full, half)]
        row.append(f"{changed} of {len(full['labels'])}")
        for what in ("outputs", "logits"):
            error = (full[what] - half[what]).abs()
            row.append(f"{error.max():.1e} / {error.mean():.1e}")
        rows.append(row)
    return rows


SPEED = ("without gradients", "float32", "bfloat16", "times as fast [quartiles]", "largest |Δ|", "mean |Δ|")
COST = (
    "names classifier", "accuracy float32", "bfloat16", "macro F1 float32", "bfloat16", "other answers",
    "outputs |Δ| max / mean", "logits |Δ| max / mean",
)  # fmt: skip


def shown(head: tuple[str, ...], rows: list[list[str]], *, markdown: bool) -> str:
    """A table for a terminal or for `docs/performance.md`."""
    if not markdown:
        return table(head, rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What weights in bfloat16 gain and cost.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--epochs", type=int, default=8, help="of training the classifiers")
    parser.add_argument("--only", choices=("speed", "cost"), help="one of the two tables")
    parser.add_argument("--markdown", action="store_true", help="tables for docs/performance.md")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    if given.quick:
        given.repeats, given.epochs = 1, 1
    before = os.getloadavg()[0]
    if given.only != "cost":
        shapes = (("lstm", 5, 1, 20, 40), ("gru", 0, 1, 20, 40)) if given.quick else SHAPES
        print(shown(SPEED, speed(given.repeats, shapes), markdown=given.markdown), end="\n\n")
    if given.only != "speed":
        print(shown(COST, cost(given.epochs, (("gru", 8),) if given.quick else MODELS), markdown=given.markdown), end="\n\n")
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), f"(load {before:.1f} before)")


if __name__ == "__main__":
    main()
