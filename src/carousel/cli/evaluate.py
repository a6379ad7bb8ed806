"""``carousel evaluate DIR --data FILE``: measure a trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from carousel.cli.console import print_table
from carousel.cli.parsing import VerbParser, add_data_options, add_model_options

__all__ = ["parser", "run"]


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)

    from carousel.cli.user_code import open_run

    model = open_run(given.directory, code=given.code, cell=given.cell, device=given.device)
    model.read_with(format=given.format, text_field=given.text_field, label_field=given.label_field, column=given.column)
    scores = model.evaluate_file(given.data, Path(given.directory))
    if given.json:
        print(json.dumps(scores))
    else:
        print_table(
            ["measure", "value"],
            [[name, str(value) if isinstance(value, int) else f"{value:.4f}"] for name, value in scores.items()],
        )
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("evaluate", "Measure a trained model on labelled data.")
    made.add_argument("directory", metavar="DIR", help="the run directory")
    made.add_argument("--data", metavar="FILE", required=True, help="labelled data; - reads stdin")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    add_data_options(made)
    add_model_options(made)
    return made
