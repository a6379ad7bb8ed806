"""From which language does a surname come? `make demo` runs this file.

It trains a recurrent network on the characters of 16,209 surnames of 18 languages, shows how well it does on 1,802 others,
and which characters decided about a few names. Everything it does is also one command away; the last lines say which.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from carousel.tasks import Classifier

HERE = Path(__file__).resolve().parent
RUN = HERE.parents[1] / "runs" / "names-demo"
NAMES = ["Takahashi", "O'Sullivan", "Papadopoulos", "Kowalczyk", "Müller", "Vlasenko", "Nguyen", "Esposito", "Lefèvre"]
BARS = " ▁▂▃▄▅▆▇█"


def main() -> None:
    """Train, measure, show, and say what to do next."""
    parser = argparse.ArgumentParser(description="Train a classifier of surnames and show what it learned.")
    parser.add_argument("--epochs", type=int, default=11, help="passes over the data")
    parser.add_argument("--out", type=Path, default=RUN, help="the run directory; a run that is there is replaced")
    given = parser.parse_args()
    console = Console(highlight=False)
    began = time.perf_counter()

    console.rule("1. Train: a bidirectional LSTM with attention reads the characters of a name")
    model = Classifier(
        cell="lstm",
        hidden_size=64,
        bidirectional=True,
        embedding_size=32,
        embedding_scale=1.0,  # few characters, each seen often: nothing rare to learn by heart
        summary="attention",
        dropout=0.2,
        word_dropout=0.0,
        unit="char",
        batch_size=128,
        lr=5e-3,
        epochs=given.epochs,
        max_minutes=1.3,
        threads=1,
    )
    model.fit(HERE / "train.tsv", HERE / "valid.tsv", out=given.out, overwrite=True)

    console.rule("2. Measure: names that it has not seen")
    scores = model.evaluate(HERE / "valid.tsv")
    console.print(f"accuracy {scores['accuracy']:.1%} of {scores['count']} names, macro F1 {scores['macro_f1']:.3f}")
    console.print("(always answering Russian would be right for 51.9 % of them; its macro F1 would be 0.038)")
    console.print(f"which language is taken for which: {shown(given.out / 'confusion.png')}")

    console.rule("3. Ask: new names, and the characters that decided")
    for name, answer in zip(NAMES, model.predict_records(NAMES), strict=True):
        show(console, name, answer)

    console.rule(f"Done in {time.perf_counter() - began:.0f} seconds. Now try")
    command, run = shlex.quote(shown(Path(sys.executable).with_name("carousel"))), shlex.quote(shown(given.out))
    train, valid = shown(HERE / "train.tsv"), shown(HERE / "valid.tsv")
    for line in (
        f"echo 'Rossellini' | {command} predict {run} - --json",
        f"{command} evaluate {run} --data {valid} --json",
        f"{command} fit classify --train {train} --valid {valid} --out runs/names-gru --cell gru --epochs 3",
        f"{command} cells lstm",
    ):
        print(f"  {line}")


def show(console: Console, name: str, answer: dict) -> None:
    """Print a name, its language, and how much attention each character got."""
    label, attention = answer["label"], answer["attention"]
    most = max(weight for _, weight in attention)
    said = f"{label:<11}{answer['probabilities'][label]:>4.0%}"
    if console.is_terminal:
        text = Text()
        for character, weight in attention:
            text.append(character, style=f"black on rgb(255,{255 - int(155 * weight / most)},{255 - int(255 * weight / most)})")
        console.print(f"  {said}  ", text, sep="")
        return
    console.print(f"  {said}  {name}")
    console.print(f"  {'':<15}  " + "".join(BARS[round(weight / most * (len(BARS) - 1))] for _, weight in attention))


def shown(path: Path) -> str:
    """A path as it can be pasted here."""
    absolute = os.path.abspath(path)  # not resolved: a virtual environment's interpreter is a link
    near = os.path.relpath(absolute)
    return absolute if near.startswith("..") else near


if __name__ == "__main__":
    main()
