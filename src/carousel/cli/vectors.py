"""``carousel vectors DIR``: the word vectors of a language model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carousel.cli.console import print_table
from carousel.cli.generate import open_language_model
from carousel.cli.parsing import VerbParser, add_model_options
from carousel.errors import ConfigError, explain

__all__ = ["parser", "run"]


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    if not (given.out or given.near or given.test):
        raise ConfigError(explain("vectors: nothing to do.", advice="--out FILE, --near WORD or --test FILE"))

    from carousel.tasks.lm.vectors import correlation, nearest, write_vectors

    model = open_language_model(given)
    told: dict[str, Any] = {}
    if given.out:
        told["written"] = write_vectors(model, given.out)
    for word in given.near or []:
        told.setdefault("near", {})[word] = [list(pair) for pair in nearest(model, word, given.count)]
    for path in given.test or []:
        value, known, total = correlation(model, path)
        told.setdefault("test", {})[Path(path).name] = {"spearman": value, "pairs": known, "of": total}
    if given.json:
        print(json.dumps(told, ensure_ascii=False))
        return 0
    if given.out:
        print(f"{given.out}: {told['written']} vectors")
    for word, pairs in told.get("near", {}).items():
        print_table([f"near {word}", "cosine"], [[token, f"{cosine:.4f}"] for token, cosine in pairs])
    if given.test:
        rows = [[name, f"{one['spearman']:.4f}", f"{one['pairs']} of {one['of']}"] for name, one in told["test"].items()]
        print_table(["judgements", "Spearman", "pairs known"], rows)
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("vectors", "The input embeddings of a language model as word vectors.")
    made.add_argument("directory", metavar="DIR", help="the run directory of a language model")
    made.add_argument("--out", metavar="FILE", help="write them in word2vec's text format")
    made.add_argument("--near", metavar="WORD", action="append", help="the words nearest to this one")
    made.add_argument("--count", metavar="N", type=int, default=10, help="how many of them [10]")
    judged = "correlation with people's judgements: lines of two words and a number"
    made.add_argument("--test", metavar="FILE", action="append", help=judged)
    made.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(made)
    return made
