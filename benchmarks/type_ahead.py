"""How many keystrokes completions save on a text, and how long each keystroke takes.

A word is typed letter by letter until it stands among the first K completions; taking it, with the blank behind it, is one
keystroke. Typed in full, a word costs its letters and a blank. Unknown words (``<unk>``) are read and not counted.

    python benchmarks/type_ahead.py RUN ptb.test.txt --words 5000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from carousel.tasks import LanguageModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a language model of words")
    parser.add_argument("text", type=Path)
    parser.add_argument("--words", type=int, default=5000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    session = LanguageModel.load(given.run, device="cpu").type_ahead(5)
    tops = (1, 3, 5)
    used, full, counted, times = dict.fromkeys(tops, 0), 0, 0, []
    for line in given.text.read_text(encoding="utf-8").splitlines():
        for word in line.split():
            found = session.type("")
            if word != "<unk>":
                full, counted = full + len(word) + 1, counted + 1
                taken = dict.fromkeys(tops, len(word) + 1)
                for size in range(len(word)):
                    names = [one.text for one in found.best]
                    for top in tops:
                        if word in names[:top]:
                            taken[top] = min(taken[top], size + 1)
                    found = session.type(word[size])
                    times.append(found.milliseconds)
                found = session.type(" ")
                times.append(found.milliseconds)
                for top in tops:
                    used[top] += taken[top]
            else:
                session.type("<unk> ")
        session.type("\n")
        if counted >= given.words:
            break
    print(f"{counted} words, {full} keystrokes in full")
    print("| completions shown | keystrokes saved |\n| --- | --- |")
    for top in tops:
        print(f"| {top} | {1 - used[top] / full:.1%} |")
    print(f"{len(times)} keystrokes: median {np.median(times):.2f} ms, 95 % within {np.percentile(times, 95):.2f} ms")


if __name__ == "__main__":
    main()
