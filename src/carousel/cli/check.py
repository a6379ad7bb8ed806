"""``carousel check FILE``: what a data file holds, and what is wrong with it, before an hour is spent on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.cli.console import print_table, say
from carousel.cli.parsing import VerbParser, add_field_options

if TYPE_CHECKING:
    from carousel.data import FileReport

__all__ = ["parser", "run"]

SHOWN_LABELS = 20
EPILOG = """
exit code: 0, also with warnings; 2 if the file cannot be trained on, or the validation file cannot be measured on
"""


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it; 2 if a file is of no use."""
    given = parser().parse(arguments)

    from carousel.data import describe_file

    words = {"format": given.format, "label_separator": given.label_separator}
    fields = {name: getattr(given, name) for name in ("text_field", "label_field", "id_field")}
    words |= {name: value for name, value in fields.items() if value is not None}
    reports = [describe_file(given.file, **words)]
    if given.valid is not None:
        reports.append(describe_file(given.valid, other=given.file, **words))
    faults = [fault for number, report in enumerate(reports) for fault in _faults(report, training=number == 0)]
    if given.json:
        print(json.dumps({"files": [_plain(report) for report in reports], "faults": faults}, ensure_ascii=False))
    else:
        _print(reports)
    for fault in faults:
        say(f"carousel: {fault}")
    return 2 if faults else 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("check", "Say what a data file holds, and what is wrong with it.", EPILOG)
    made.add_argument("file", metavar="FILE", help="the data to learn from; - reads stdin")
    made.add_argument("--valid", metavar="FILE", help="the data to validate on: also what both have in common")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    add_field_options(made)
    made.add_argument("--id_field", metavar="NAME", help="column of the name of a table's series [id]")
    made.add_argument("--label_separator", metavar="TEXT", help="what stands between the labels of a record; | say")
    return made


def _faults(report: FileReport, *, training: bool) -> list[str]:
    """Why a file is of no use."""
    found = []
    if report.problem_count:
        found.append(f"{report.path}: {report.problem_count:,} records cannot be read.")
    if not report.records:
        found.append(f"{report.path}: there is nothing to read in it.")
    elif not report.labels:
        found.append(f"{report.path}: no record has a label.")
    elif training and len(report.labels) < 2:
        found.append(f"{report.path}: all labels are the same, so there is nothing to learn.")
    elif report.new_labels:
        found.append(f"{report.path}: holds labels that {report.other} does not: {', '.join(report.new_labels[:5])}.")
    return found


def _plain(report: FileReport) -> dict[str, Any]:
    return dataclasses.asdict(report) | {"warnings": report.warnings}


def _print(reports: Sequence[FileReport]) -> None:
    files = [Path(report.path).name for report in reports]
    if len(set(files)) < len(files):
        files = [report.path for report in reports]
    facts = [_facts(report) for report in reports]
    names = list(dict.fromkeys(name for each in facts for name in each))
    print_table(["what", *files], [[n, *(each.get(n, "") for each in facts)] for n in names])
    labels = reports[0].labels
    if labels:
        print()
        shares = [[label, *(_share(report, label) for report in reports)] for label in list(labels)[:SHOWN_LABELS]]
        print_table(["label", *files], shares)
        if len(labels) > SHOWN_LABELS:
            print(f"and {len(labels) - SHOWN_LABELS:,} more labels")
    for report in reports:
        for warning in report.warnings:
            print(f"\n{report.path}: {warning}")
        for problem in report.problems:
            print(f"  {problem.message.splitlines()[0]}")


def _facts(report: FileReport) -> dict[str, str]:
    """What is known of a file, in words."""
    mark = dict.fromkeys(report.guessed, " (a guess)")
    facts = {"holds": f"{report.kind}, written as {report.format}", "records": f"{report.records:,}"}
    if report.text_field is not None:
        facts["text in"] = report.text_field + mark.get(report.text_field, "")
    if report.label_field is not None:
        facts["label in"] = report.label_field + mark.get(report.label_field, "")
    if report.channels is not None:
        facts["channels"] = f"{report.channels:,}"
    facts["labels"] = f"{len(report.labels):,}"
    if report.unlabelled:
        facts["without a label"] = f"{report.unlabelled:,}"
    if report.lengths is not None:
        spread = report.lengths
        quantiles = f"{spread.shortest:,} to {spread.longest:,}; half at most {spread.median:,}, 99 % at most {spread.p99:,}"
        facts[f"length in {spread.unit}"] = quantiles
    facts["repeated"] = f"{report.repeats.similar:,} ({report.repeats.exact:,} exactly)"
    if report.other is not None:
        facts["also in the other"] = f"{report.overlap:,}"
    facts["cannot be read"] = f"{report.problem_count:,}"
    return facts


def _share(report: FileReport, label: str) -> str:
    count = report.labels.get(label, 0)
    return f"{count:,} ({count / report.records:.1%})" if report.records else "0"
