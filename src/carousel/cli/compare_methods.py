"""``carousel compare --task tag``: several kinds of models trained on one data set, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from carousel.cli.console import print_table, say
from carousel.cli.fit import make_model, parse_options
from carousel.cli.fit import task_parser as fit_parser
from carousel.cli.parsing import VerbParser
from carousel.errors import ConfigError, explain, unknown_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from carousel.tasks import Estimator

__all__ = ["TASKS", "run", "task_parser"]

TASKS = ("tag",)
"""The tasks that there are other methods for."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    from carousel.tasks import load_task

    early = VerbParser("compare --task", "")
    early.add_argument("--task")
    known, _ = early.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])
    if known.task not in TASKS:
        raise ConfigError(unknown_name("task to compare methods of", str(known.task), TASKS))
    task = load_task(known.task)
    given = parse_options(known.task, task, task_parser(known.task, task), arguments)
    for option in ("train", "out"):
        if not given[option]:
            advice = f"carousel compare --task {known.task} --help"
            raise ConfigError(explain(f"compare --task {known.task} needs --{option}.", advice=advice))
    if given["resume"]:
        raise ConfigError(explain("compare takes no --resume.", advice="leave out what is done with --methods"))
    return _compare(make_model(task, given), given)


def task_parser(name: str, task: type[Estimator[Any]]) -> ArgumentParser:
    """What the verb takes for a task: what `fit` takes, which are the network's options, and the methods.

    Args:
        name: the task's name.
        task: the task.
    """
    from carousel.tasks.tag.comparison import METHODS

    parser = fit_parser(name, task)
    parser.prog = f"carousel compare --task {name}"
    parser.usage = f"carousel compare --task {name} --train FILE --valid FILE [--test FILE] --out DIR [--OPTION VALUE ...]"
    parser.description = "Train several kinds of models on one data set and put them side by side: quality, time, speed, size."
    group = parser.add_argument_group("methods")
    group.add_argument("--task", metavar="NAME", type=str, help="the task.")
    group.add_argument("--test", metavar="FILE", type=str | None, help="what is measured; without it, the validation data.")
    group.add_argument("--methods", metavar="NAME,...", type=str, default=",".join(METHODS), help="which are trained.")
    group.add_argument("--cells", metavar="NAME,...", type=str | None, help="further cells, for networks with a CRF.")
    group.add_argument("--limit", metavar="N", type=int | None, help="learn from the first N sentences.")
    group.add_argument("--minutes", metavar="X", type=float | None, help="that each method may learn.")
    group.add_argument("--json", type=bool, nargs="?", const=True, default=False, help="print one JSON object.")
    return parser


def _compare(model: Any, given: Mapping[str, Any]) -> int:
    from carousel.tasks.tag.comparison import compare_taggers

    found = compare_taggers(
        model,
        given["train"],
        given["valid"],
        given["test"],
        methods=_names(given["methods"]),
        cells=_names(given["cells"]),
        out=given["out"],
        limit=given["limit"],
        minutes=given["minutes"],
        overwrite=given["overwrite"],
    )
    if given["json"]:
        print(json.dumps(found.to_dict()))
    else:
        print_table(*found.table())
        print(f"result: {given['out']}/comparison.json, comparison.txt, comparison.png")
    for row in found.rows:
        if row.error is not None:
            say(f"{row.name} failed: {row.error}")
    if found.interrupted:
        say("Interrupted: what was finished is kept.")
        return 130
    return 0 if any(row.error is None for row in found.rows) else 2


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
