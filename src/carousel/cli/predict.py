"""``carousel predict DIR [FILE|-]``: one prediction for every record."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from carousel.cli.console import say
from carousel.cli.parsing import VerbParser, add_data_options, add_model_options

__all__ = ["parser", "run"]


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)

    from carousel.cli.user_code import open_run

    model = open_run(given.directory, code=given.code, cell=given.cell, device=given.device)
    model.read_with(text_field=given.text_field, label_field=given.label_field)
    if given.file == "-" and sys.stdin is not None and sys.stdin.isatty():
        say("Reading texts, one a line; end with Ctrl-D.")
    records = model.read_records(given.file, format=given.format)
    for record, prediction in zip(records, model.predict_records(records), strict=True):
        print(json.dumps(prediction, ensure_ascii=False) if given.json else model.plain(record, prediction))
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("predict", "Give one prediction for every record: a line of plain text, or a record of a data file.")
    made.add_argument("directory", metavar="DIR", help="the run directory")
    made.add_argument("file", metavar="FILE", nargs="?", default="-", help="the records; - or nothing reads stdin")
    made.add_argument("--json", action="store_true", help="print one JSON object for each record")
    add_data_options(made)
    add_model_options(made)
    return made
