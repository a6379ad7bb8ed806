"""``carousel compare RUN...``: runs side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.cli.console import print_table, say
from carousel.cli.parsing import VerbParser, add_data_options, add_model_options
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks.comparison import Difference, Run
    from carousel.tasks.evaluation import Evaluation
    from carousel.tasks.intervals import Interval

__all__ = ["parser", "run"]

EPILOG = """
With --data all models answer the same file, and the differences to the first run get 95 % intervals (paired bootstrap) and,
for labels, McNemar's exact test. An interval that does not hold 0 is a difference that chance alone rarely makes; of twenty
comparisons one looks like that anyway.

example: carousel compare runs/lstm runs/gru --data test.tsv --plot curves.png

With --task tag in place of runs, several kinds of models are trained on one data set, networks and structured models, and put
into one table: carousel compare --task tag --help
"""


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    if any(argument == "--task" or argument.startswith("--task=") for argument in arguments):
        from carousel.cli import compare_methods

        return compare_methods.run(arguments)
    given = parser().parse(arguments)
    if given.data == "-" and len(given.runs) > 1:
        raise ConfigError(explain("--data: the standard input can be read only once.", advice="name a file"))
    from carousel.tasks.comparison import check_picture, compare_answers, differing, names_of, plot_runs, read_run

    if given.plot:
        check_picture(given.plot)
    runs = [read_run(directory) for directory in given.runs]
    names, settings = names_of(runs), differing(runs)
    answers = compare_answers([_evaluate(directory, given) for directory in given.runs]) if given.data else []
    if given.json:
        found: dict[str, Any] = {"runs": [one.to_dict() for one in runs], "settings": settings}
        if answers:
            found["data"] = {"path": given.data, "models": [answer.to_dict() for answer in answers]}
        print(json.dumps(found))
    else:
        print_table(["", *names], _facts(runs))
        if settings:
            print()
            print_table(["setting", *names], [[name, *map(_plain, values)] for name, values in settings.items()])
        if answers:
            print()
            _print_answers(names, answers, given.data)
    if given.plot:
        plot_runs(runs, given.plot)
        say(f"learning curves: {given.plot}")
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("compare", "Put runs side by side: scores, time, size, and the settings that differ.", EPILOG)
    made.add_argument("runs", metavar="RUN", nargs="+", help="run directories; the others are compared with the first")
    made.add_argument("--data", metavar="FILE", help="labelled data that all models are to answer")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    made.add_argument("--task", metavar="NAME", help="train several kinds of models instead; see below")
    made.add_argument("--plot", metavar="FILE.png", type=Path, help="draw the learning curves of all runs")
    add_data_options(made)
    add_model_options(made)
    return made


def _evaluate(directory: str, given: argparse.Namespace) -> Evaluation:
    from carousel.cli.user_code import open_run
    from carousel.tasks.run_directory import CONFIG_FILE, read_config

    own = read_config(Path(directory) / CONFIG_FILE).values.get("custom_cell")  # the others need no code
    model = open_run(directory, code=given.code if own else None, cell=given.cell if own else None, device=given.device)
    model.read_with(format=given.format, text_field=given.text_field, label_field=given.label_field)
    return model.judge(given.data)


def _facts(runs: Sequence[Run]) -> list[list[str]]:
    scores = dict.fromkeys(name for one in runs for name in one.scores)
    rows = [[name, *(_form(one.scores.get(name), ".4f") for one in runs)] for name in scores]
    rows.append(["best epoch", *(f"{_form(one.best_epoch, 'd')} of {len(one.history)}" for one in runs)])
    rows.append(["minutes", *(_form(one.minutes, ".2f") for one in runs)])
    rows.append(["tokens per second", *(_form(one.tokens_per_second, ",.0f") for one in runs)])
    rows.append(["parameters", *(_form(one.parameters, ",d") for one in runs)])
    rows.append(["model, MB", *(_form(one.model_bytes, ".2f", 1e-6) for one in runs)])
    rows.append(["directory, MB", *(_form(one.directory_bytes, ".2f", 1e-6) for one in runs)])
    return rows


def _print_answers(names: Sequence[str], answers: Sequence[Difference], data: str) -> None:
    first = answers[0]
    header = [f"on {data}", *names]
    rows = [[name, *(_interval(answer.scores[name], ".4f") for answer in answers)] for name in first.scores]
    for name in first.scores:
        differences = [_interval(answer.differences[name], "+.4f") for answer in answers[1:]]
        rows.append([f"{name}, difference", "", *differences])
    if len(answers) > 1 and answers[1].p_value is not None:
        pairs = [f"{answer.only_first} / {answer.only_this}" for answer in answers[1:]]
        rows.append(["right: only first / only this", "", *pairs])
        rows.append(["McNemar's p", "", *(_form(answer.p_value, ".3g") for answer in answers[1:])])
    print_table(header, rows if len(answers) > 1 else rows[: len(first.scores)])


def _interval(interval: Interval, form: str) -> str:
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _form(value: float | None, form: str, factor: float | None = None) -> str:
    if value is None:
        return "-"
    return format(value if factor is None else value * factor, form)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
