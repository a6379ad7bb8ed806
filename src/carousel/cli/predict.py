"""``carousel predict DIR [FILE|-]``: one prediction for every record."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from carousel.cli.console import say
from carousel.cli.parsing import VerbParser, add_data_options, add_model_options
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks import Estimator

__all__ = ["parser", "run"]


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)

    from carousel.cli.user_code import open_run

    model = open_run(given.directory, code=given.code, cell=given.cell, device=given.device)
    model.read_with(text_field=given.text_field, label_field=given.label_field, column=given.column)
    if given.input is not None:
        given.file = given.input
    if given.file == "-" and sys.stdin is not None and sys.stdin.isatty():
        say("Reading texts, one a line; end with Ctrl-D.")
    model.answer_with(top=given.top)
    shown: Any = model if not (given.probabilities or given.html) else _tagger(model, given)
    records = model.read_records(given.file, format=given.format)
    predictions = model.predict_records(records)
    if given.html is not None:
        shown.write_html(given.html, records, predictions)
        print(f"{given.html}: {len(records):,} sentences")
        return 0
    more = {"probabilities": True} if given.probabilities else {}
    for record, prediction in zip(records, predictions, strict=True):
        print(json.dumps(prediction, ensure_ascii=False) if given.json else shown.plain(record, prediction, **more))
    return 0


def _tagger(model: Estimator[Any], given: argparse.Namespace) -> Any:
    """The model, which must be one that tags."""
    from carousel.tasks.tag import Tagger

    if not isinstance(model, Tagger):
        name = "probabilities" if given.probabilities else "html"
        raise ConfigError(explain(f"--{name}: this belongs to sentences with tags.", got=f"a run of the task {model.task!r}"))
    if given.json and given.html is not None:
        raise ConfigError(explain("predict writes one thing at a time.", got="--json and --html"))
    return model


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("predict", "Give one prediction for every record: a line of plain text, or a record of a data file.")
    made.add_argument("directory", metavar="DIR", help="the run directory")
    made.add_argument("file", metavar="FILE", nargs="?", default="-", help="the records; - or nothing reads stdin")
    made.add_argument("--top", metavar="N", type=int, help="key terms: the N best of each document, whatever their scores")
    made.add_argument("--input", metavar="FILE", help="the same as FILE")
    made.add_argument("--probabilities", action="store_true", help="tags: a last column with the probability of each tag")
    made.add_argument("--html", metavar="FILE", help="tags: write a page of the sentences with their spans in colour")
    made.add_argument("--json", action="store_true", help="print one JSON object for each record")
    add_data_options(made)
    add_model_options(made)
    return made
