"""Key terms by all methods on one data set: trains each, chooses on valid, measures once on test.

    python benchmarks/keyterms.py FOLDER                      # train.txt.gz, valid.txt.gz, test.txt.gz: words and tags
    python benchmarks/keyterms.py FOLDER --only tags,tfidf --minutes 8 --json keyterms.json --runs DIR

Precision, recall and F1 are those of `carousel evaluate`: terms that match word by word in small letters, each once a document,
counted over all documents. `spans` is F1 of the best tagging as conlleval counts it, every place of a term by itself, which is
what papers on tagging report; it needs no threshold. One thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timing import machine, table

from carousel.data.tagged import convert
from carousel.tasks import KeyTerms
from carousel.tasks.keyterms.documents import Document, open_documents
from carousel.tasks.tag.measures import TagEvaluation

METHODS = ("tags", "terms", "tfidf", "textrank")
COLUMNS = ("method", "precision", "recall", "f1", "f1_at_5", "f1_at_10", "spans", "minutes", "documents_per_second")


def find(folder: Path, name: str) -> Path | None:
    """The file of a part, gzip or not."""
    for suffix in (".txt.gz", ".txt"):
        if (folder / (name + suffix)).is_file():
            return folder / (name + suffix)
    return None


def span_f1(model: KeyTerms, documents: Sequence[Document]) -> float:
    """F1 of the spans of the best taggings, as conlleval counts them."""
    sentences = model.inputs_.tagged(documents)
    answers = [convert(tags, "bioes", "bio") for tags in model.finder().taggings(documents)]
    truth = [sentence.tags or () for sentence in sentences]
    return TagEvaluation([sentence.words for sentence in sentences], truth, answers, scheme="bio").scores()["f1"]


def measure(method: str, folder: Path, out: Path, given: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(given.options)
    if method in ("tags", "terms"):
        options = {"max_minutes": given.minutes, "threads": 1, "seed": given.seed, **options}
    began = time.monotonic()
    model = KeyTerms(method=method, progress=given.progress, **options)
    model.fit(find(folder, "train"), valid=find(folder, "valid"), out=out / method)
    minutes = (time.monotonic() - began) / 60
    documents = open_documents(find(folder, "test"), model.options, labelled=True)
    began = time.monotonic()
    scores = model.evaluate(documents)
    speed = len(documents) / (time.monotonic() - began)
    spans = span_f1(model, documents) if method == "tags" else None
    row = {"method": method, **scores, "spans": spans, "minutes": minutes, "documents_per_second": speed}
    return {
        **row,
        "valid_f1": model.scores_["f1"],
        "threshold": model.inputs_.threshold,
        "best_epoch": model.result_.best_epoch,
    }


def text(value: object) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(METHODS), help="methods, with commas between")
    parser.add_argument("--minutes", type=float, default=8.0, help="the most that a network trains")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", default="{}", help="options of KeyTerms, as JSON")
    parser.add_argument("--runs", type=Path, help="where the run directories are kept")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    parser.add_argument("--progress", action="store_true")
    given = parser.parse_args()
    for name in ("train", "test"):
        if find(given.folder, name) is None:
            raise SystemExit(f"{given.folder}: no {name}.txt or {name}.txt.gz")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for method in given.only.split(","):
            rows.append(measure(method, given.folder, given.runs or Path(scratch), given))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(machine())
    print(table(COLUMNS, [[text(row[name]) for name in COLUMNS] for row in rows]))
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
