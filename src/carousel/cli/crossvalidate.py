"""``carousel crossvalidate TASK``: how good a kind of model is on a kind of data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from carousel.cli.console import print_table, say
from carousel.cli.fit import make_model, parse_options
from carousel.cli.fit import task_parser as fit_parser
from carousel.cli.parsing import VerbParser
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from carousel.tasks import Estimator
    from carousel.tasks.cross_validation import CrossValidation

__all__ = ["run", "task_parser"]


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    from carousel.tasks import TASKS, load_task

    if not arguments or arguments[0].startswith("-"):
        tasks = "tasks:\n" + "\n".join(f"  {name:<12}{task.summary}" for name, task in TASKS.items())
        overview = VerbParser("crossvalidate", "Train on all folds of the data but one, and measure on that one.", tasks)
        overview.add_argument("task", metavar="TASK", help="carousel crossvalidate TASK --help lists its options")
        overview.parse(arguments)
    name, rest = arguments[0], list(arguments[1:])
    task = load_task(name)
    given = parse_options(name, task, task_parser(name, task), rest)
    for option in ("train", "out"):
        if not given[option]:
            advice = f"carousel crossvalidate {name} --help"
            raise ConfigError(explain(f"crossvalidate {name} needs --{option}.", advice=advice))
    if given["valid"] is not None:
        raise ConfigError(explain("crossvalidate takes no --valid: each model holds out a tenth of its training data."))

    from carousel.tasks.cross_validation import cross_validate

    model = make_model(task, given)
    try:
        found = cross_validate(
            model,
            given["train"],
            folds=given["folds"],
            seed=given["fold_seed"],
            out=given["out"],
            overwrite=given["overwrite"],
            resume=given["resume"],
        )
    except KeyboardInterrupt:
        words = [word for word in arguments if word != "--overwrite"]
        again = shlex.join(words if "--resume" in words else [*words, "--resume"])
        say(f"\nInterrupted: finished folds are kept. Go on with:\n  carousel crossvalidate {again}")
        return 130
    if given["json"]:
        print(json.dumps(found.to_dict()))
    else:
        _print(found, given)
    return 0


def task_parser(name: str, task: type[Estimator[Any]]) -> ArgumentParser:
    """What the verb takes for a task: what `fit` takes, and the folds.

    Args:
        name: the task's name.
        task: the task.
    """
    parser = fit_parser(name, task)
    parser.prog = f"carousel crossvalidate {name}"
    parser.usage = f"carousel crossvalidate {name} --train FILE --out DIR [--folds N] [--OPTION VALUE ...]"
    parser.description = "Train on all folds of the data but one, and measure on that one; each record is measured once."
    folds = parser.add_argument_group("folds")
    folds.add_argument("--folds", metavar="N", type=int, default=5, help="how many parts, and models.")
    folds.add_argument("--fold_seed", metavar="N", type=int, default=0, help="shares the records out over the folds.")
    folds.add_argument("--json", type=bool, nargs="?", const=True, default=False, help="print one JSON object.")
    return parser


def _print(found: CrossValidation, given: Mapping[str, Any]) -> None:
    scores = found.scores
    header = ["fold", "records", "best epoch", "minutes", *scores]
    rows = [
        [
            str(fold.number),
            str(fold.count),
            f"{fold.best_epoch} of {fold.epochs}",
            f"{fold.seconds / 60:.1f}",
            *(f"{fold.scores[name]:.4f}" for name in scores),
        ]
        for fold in found.folds
    ]
    rows.append(["mean", "", "", "", *(f"{interval.value:.4f}" for interval in scores.values())])
    for word in ("low", "high"):
        rows.append([f"95 % {word}", "", "", "", *(f"{getattr(interval, word):.4f}" for interval in scores.values())])
    print_table(header, rows)
    print(f"result: {given['out']}/crossvalidation.json")
    say("The models share most of their training data, so the intervals (Student's, over the folds) are somewhat too narrow.")
    if found.always_in_training:
        say(f"{found.always_in_training} record(s) were always trained on: without them a label would have been unknown.")
