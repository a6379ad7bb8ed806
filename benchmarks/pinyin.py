"""Pinyin to characters on held-back sentences of the People's Daily.

The lines of the file (``word/tag word/tag ...``) are cut into sentences: the first 85 % to learn from (shuffled, since each is
typed by itself), the next 5 % to choose on, the last 10 % held back. What is typed are the syllables without tones that
pypinyin gives for the whole sentence; counted is every Chinese character.

    python benchmarks/pinyin.py pd199801.shared.txt.gz --work DIR                # trains into DIR/forward and DIR/backward
    python benchmarks/pinyin.py pd199801.shared.txt.gz --work DIR --run RUN      # measures RUN
    python benchmarks/pinyin.py pd199801.shared.txt.gz --work DIR --run RUN --part valid
    python benchmarks/pinyin.py pd199801.shared.txt.gz --work DIR --run RUN --more dh_msra.txt.gz

With --more, a file of characters with tags (MSRA), its sentences are counted as phrases, too, but for those that share ten
characters in a row with what is measured or chosen on.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import time
from pathlib import Path

import numpy as np
import torch

from carousel.tasks import LanguageModel
from carousel.tasks.lm.inputs import UNKNOWN
from carousel.tasks.lm.ngrams import NGrams
from carousel.tasks.lm.pinyin import PinyinInput
from carousel.tasks.lm.readings import Readings, sentence_syllables

SENTENCE = re.compile(r"[^。！？]*(?:[。！？]+[”’」』）》]*|$)")
SHARED = 10
OPTIONS = {
    "unit": "char", "min_count": 2, "hidden_size": 512, "embedding_size": 200, "batch_size": 32, "bptt": 48,
    "input_dropout": 0.1, "output_dropout": 0.3,
    "lr": 2.5e-3, "schedule": "cosine", "warmup_steps": 100, "threads": 1, "progress": False,
}  # fmt: skip


def make_files(source: Path, work: Path) -> dict[str, Path]:
    """Sentences to learn from, to choose on and held back."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        lines = ["".join(token.rsplit("/", 1)[0] for token in line.split()) for line in file]
    lines = [line for line in lines if line]
    bounds = [0, int(0.85 * len(lines)), int(0.9 * len(lines)), len(lines)]
    paths = {}
    for name, start, end in zip(("train", "valid", "test"), bounds, bounds[1:], strict=False):
        found = [sentence for line in lines[start:end] for sentence in SENTENCE.findall(line) if sentence]
        if name == "train":
            random.Random(0).shuffle(found)
        paths[name] = work / f"{name}.txt"
        paths[name].write_text("\n".join(found) + "\n", encoding="utf-8")
    return paths


def add_more(source: Path, paths: dict[str, Path]) -> Path:
    """The training sentences, and those of another file that have nothing in common with the rest."""
    held = {
        line[at : at + SHARED]
        for name in ("valid", "test")
        for line in paths[name].read_text(encoding="utf-8").splitlines()
        for at in range(max(1, len(line) - SHARED + 1))
    }
    with gzip.open(source, "rt", encoding="utf-8") as file:
        text = "".join(line[0] if line.strip() else "\n" for line in file)
    found = [line for line in text.splitlines() if line]
    kept = [line for line in found if not any(line[at : at + SHARED] in held for at in range(max(1, len(line) - SHARED + 1)))]
    print(f"{source.name}: {len(kept)} of {len(found)} sentences, {sum(map(len, kept))} characters")
    path = paths["train"].with_name("more.txt")
    path.write_text(paths["train"].read_text(encoding="utf-8") + "\n".join(kept) + "\n", encoding="utf-8")
    return path


def typed(sentence: str, blank: str) -> str:
    """A sentence in pinyin."""
    found, before = [], False
    for sign, syllable in zip(sentence, sentence_syllables(sentence), strict=True):
        found.append((blank if before and syllable else "") + (syllable or sign))
        before = bool(syllable)
    return "".join(found)


def distance(one: str, other: str) -> int:
    """Insertions, deletions and replacements between two texts."""
    row = list(range(len(other) + 1))
    for place, sign in enumerate(one):
        before, row = row, [place + 1]
        for at, mine in enumerate(other):
            row.append(min(before[at + 1] + 1, row[at] + 1, before[at] + (sign != mine)))
    return row[-1]


def han(text: str) -> str:
    return "".join(sign for sign, syllable in zip(text, sentence_syllables(text), strict=True) if syllable)


def measure(input_: PinyinInput, sentences: list[str], blank: str) -> tuple[float, float]:
    """The share of characters that are right, and milliseconds for each."""
    wrong = total = 0
    begin = time.perf_counter()
    for sentence in sentences:
        wrong += distance(han(sentence), han(input_.convert(typed(sentence, blank))[0].text))
        total += len(han(sentence))
    return 1 - wrong / total, 1000 * (time.perf_counter() - begin) / total


def by_counts(model: LanguageModel, text: Path, sentences: list[str], order: int) -> float:
    """Counted sequences alone: the most frequent characters (order 1), or the best way through bigrams."""
    inputs = model.inputs_
    names, readings = inputs.tokens, Readings(inputs.tokens)
    counted = NGrams(inputs, text.read_text(encoding="utf-8").splitlines(), order)
    right = total = 0
    for sentence in sentences:
        scores, last, backs, choices = np.zeros(1), [inputs.end], [], []
        syllables = sentence_syllables(sentence)
        for sign, syllable in zip(sentence, syllables, strict=True):
            known = readings.candidates(syllable) if syllable in readings else None
            numbers = np.array(inputs.encode(sign) if known is None else known.numbers)
            rare = np.zeros(len(numbers)) if known is None else 4.0 * known.rare
            before = [(number,) * (order - 1) for number in last]
            steps = scores[:, None] + np.log(counted.probabilities(before, numbers)) - rare
            backs.append(steps.argmax(0))
            choices.append(numbers)
            scores, last = steps.max(0), numbers.tolist()
        at, found = int(scores.argmax()), []
        for numbers, back in zip(choices[::-1], backs[::-1], strict=True):
            found.append(int(numbers[at]))
            at = int(back[at])
        for sign, syllable, number in zip(sentence, syllables, found[::-1], strict=True):
            if syllable:
                total += 1
                right += number != UNKNOWN and names[number] == sign
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where files and runs are written")
    parser.add_argument("--run", type=Path, help="a model that is trained already")
    parser.add_argument("--backward", type=Path, help="one that reads backward")
    parser.add_argument("--more", type=Path, help="another file whose phrases are counted")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--part", choices=["valid", "test"], default="test")
    parser.add_argument("--sentences", type=int, default=600)
    parser.add_argument("--beam", type=int, default=32)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    paths = make_files(given.file, given.work)
    if given.run is None:
        given.run, given.backward = given.work / "forward", given.work / "backward"
        for run in (given.run, given.backward):
            model = LanguageModel(**OPTIONS | {"epochs": given.epochs, "direction": run.name})
            model.fit(paths["train"], valid=paths["valid"], out=run)
    model = LanguageModel.load(given.run, device="cpu")
    backward = None if given.backward is None else LanguageModel.load(given.backward, device="cpu")
    lines = [line for line in paths[given.part].read_text(encoding="utf-8").splitlines() if len(han(line)) > 1]
    sentences = random.Random(1).sample(lines, min(given.sentences, len(lines)))
    print(
        f"{len(sentences)} sentences of {given.part}, {sum(len(han(line)) for line in sentences)} characters, beam {given.beam}"
    )
    print("| what | characters right | ms a character |\n| --- | --- | --- |")
    for order, name in ((1, "unigrams"), (2, "bigrams, Kneser-Ney")):
        print(f"| {name} | {by_counts(model, paths['train'], sentences, order):.4f} | |", flush=True)
    texts = [("", None), (" and phrases", paths["train"])]
    if given.more is not None:
        texts.append((" and phrases of both texts", add_more(given.more, paths)))
    rows = [("model" + name, None, path) for name, path in texts]
    if backward is not None:
        rows += [("both models" + name, backward, path) for name, path in texts]
    for name, second, phrases in rows:
        for blank, how in ((" ", "blanks between syllables"), ("", "no blanks")):
            input_ = PinyinInput(model, second, phrases=phrases, beam=given.beam, spaced=bool(blank))
            share, milliseconds = measure(input_, sentences, blank)
            print(f"| {name}, {how} | {share:.4f} | {milliseconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
