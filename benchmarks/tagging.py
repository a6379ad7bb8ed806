"""What the recipes of the task `tag` reach: chunks, names, parts of speech, words.

Splits are made from the published files: CoNLL-2000 with the last tenth of the training file for validation; CoNLL-2003 and UD
English EWT with a tenth of the training file, drawn; People's Daily with the last tenth of its lines as test and the tenth
before for validation. The best epoch is chosen on the validation data; the test data is read once, at the end.

    python benchmarks/tagging.py DATA --out RUNS                     # all four, one after another
    python benchmarks/tagging.py DATA --out RUNS --only conll2000    # one
    python benchmarks/tagging.py DATA --out RUNS --only upos --option epochs=2

DATA holds the folders conll2000, conll2003, ud_english_ewt and peoples_daily_199801 with their files as they are published.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from timing import machine, table

from carousel.cli.fit import make_model, parse_options, task_parser
from carousel.tasks import Tagger


@dataclass(frozen=True)
class Job:
    """One recipe.

    Attributes:
        recipe: its name.
        prepare: makes the files from the folder of the data and a folder to write to: train, valid (or None), test.
        score: what is reported.
        required: the least that it must reach.
    """

    recipe: str
    prepare: Callable[[Path, Path], tuple[Path, Path | None, Path]]
    score: str
    required: float


def parts(source: Path, blank: bool, *cuts: float) -> list[str]:
    """The text of a file in consecutive parts, cut at shares of its sentences (blocks of rows, or lines)."""
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        text = stream.read()
    end = "\n\n" if blank else "\n"
    pieces = [piece for piece in text.strip("\n").split(end) if piece.strip() and not piece.startswith("-DOCSTART-")]
    bounds = [0, *(round(cut * len(pieces)) for cut in cuts), len(pieces)]
    return [end.join(pieces[a:b]) + end for a, b in itertools.pairwise(bounds)]


def written(folder: Path, names: Sequence[str], texts: Sequence[str]) -> list[Path]:
    """The parts as files."""
    paths = [folder / name for name in names]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def chunks(data: Path, folder: Path) -> tuple[Path, Path | None, Path]:
    """CoNLL-2000: the last tenth of the training file validates."""
    source = data / "conll2000"
    train, valid = written(folder, ["chunks.train.txt", "chunks.valid.txt"], parts(source / "train.txt.gz", True, 0.9))
    return train, valid, source / "test.txt.gz"


def names(data: Path, _folder: Path) -> tuple[Path, Path | None, Path]:
    """CoNLL-2003: a tenth of the training file is drawn for validation."""
    return data / "conll2003" / "eng.train.gz", None, data / "conll2003" / "eng.testa.gz"


def speech(data: Path, _folder: Path) -> tuple[Path, Path | None, Path]:
    """UD English EWT: likewise."""
    source = data / "ud_english_ewt"
    return source / "en_ewt-ud-train.conllu.gz", None, source / "en_ewt-ud-dev.conllu.gz"


def words(data: Path, folder: Path) -> tuple[Path, Path | None, Path]:
    """People's Daily: tenths of the lines."""
    texts = parts(data / "peoples_daily_199801" / "pd199801.shared.txt.gz", False, 0.8, 0.9)
    train, valid, test = written(folder, ["words.train.txt", "words.valid.txt", "words.test.txt"], texts)
    return train, valid, test


JOBS = [
    Job("conll2000", chunks, "f1", 0.938),
    Job("conll2003", names, "f1", 0.87),
    Job("upos", speech, "accuracy", 0.94),
    Job("segmentation", words, "f1", 0.955),
]


def run(job: Job, data: Path, out: Path, options: Sequence[str], threads: int) -> dict[str, float]:
    """Train one recipe and measure it.

    Args:
        job: which.
        data: the folder of the data.
        out: where files and runs are written.
        options: of the task, as NAME=VALUE.
        threads: CPU threads.
    """
    train, valid, test = job.prepare(data, out)
    words_ = ["--config", job.recipe, f"--threads={threads}", *(f"--{option}" for option in options)]
    model = make_model(Tagger, parse_options("tag", Tagger, task_parser("tag", Tagger), words_))
    begun, processor = time.perf_counter(), time.process_time()
    model.fit(train, valid=valid, out=out / job.recipe, overwrite=True)
    minutes, busy = (time.perf_counter() - begun) / 60, (time.process_time() - processor) / 60
    scores = model.evaluate(test)
    return scores | {"minutes": minutes, "processor_minutes": busy, "best_epoch": model.result_.best_epoch}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a number is not reached.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of the data")
    parser.add_argument("--out", type=Path, required=True, help="where files and runs are written")
    parser.add_argument("--only", action="append", choices=[job.recipe for job in JOBS], help="this recipe; may be repeated")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the task")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    print(" ".join(f"{name}: {value}." for name, value in machine().items()))
    rows, reached = [], True
    for job in JOBS:
        if given.only and job.recipe not in given.only:
            continue
        found = run(job, given.data, given.out, given.option, given.threads)
        sys.stderr.write(json.dumps({"recipe": job.recipe, **found}) + "\n")
        good = found[job.score] >= job.required
        reached &= good
        shown = [f"{100 * found[job.score]:.2f}", f"{100 * job.required:.1f}", "yes" if good else "NO"]
        rows.append([job.recipe, job.score, *shown, f"{found['minutes']:.1f}", f"{found['processor_minutes']:.1f}"])
    print(table(["recipe", "score", "reached", "required", "good", "minutes", "of processor"], rows))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
