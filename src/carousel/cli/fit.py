"""``carousel fit TASK``: train a model. Options come from the task's dataclasses, a configuration file, the command line."""

from __future__ import annotations

import re
import shlex
import typing
from argparse import HelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carousel.cli.console import print_table, say
from carousel.cli.parsing import CODE_HELP, VerbParser, check_option_names
from carousel.errors import ConfigError, explain, unknown_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from carousel.tasks import Estimator
    from carousel.tasks.options import Option
    from carousel.tasks.run_directory import ConfigFile

__all__ = ["make_model", "parse_options", "run", "task_parser"]

# What a configuration holds besides the task's options. `code` is not among them on purpose.
DATA_KEYS = ("train", "valid")
NOTES = ("task", "carousel", "custom_cell", "cell_fingerprint")
CONFIG_HELP = "options from a file, or from a recipe of the task by its name; the command line wins."
FILES = {
    "train": "the data to learn from.",
    "valid": "the data to choose the best epoch on; without it, a tenth of the training data is held out.",
    "out": "the run directory to write.",
}


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    from carousel.tasks import TASKS, load_task

    if not arguments or arguments[0].startswith("-"):
        overview = VerbParser(
            "fit", "Train a model.", "tasks:\n" + "\n".join(f"  {n:<12}{t.summary}" for n, t in TASKS.items())
        )
        overview.add_argument("task", metavar="TASK", help="carousel fit TASK --help lists its options")
        overview.parse(arguments)
    name, rest = arguments[0], list(arguments[1:])
    task = load_task(name)
    return _fit(name, task, parse_options(name, task, task_parser(name, task), rest))


def parse_options(name: str, task: type[Estimator[Any]], parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Read options from the command line, the configuration file below it, and the run that goes on below that.

    Args:
        name: the task's name.
        task: the task.
        parser: what :func:`task_parser` made.
        arguments: what follows the task's name.

    Raises:
        ConfigError: an unknown option or an impossible value; the message names where it stands.
    """
    check_option_names(arguments, parser._option_string_actions)
    return _parse(parser, task, arguments, _base_values(name, task, parser, arguments))


def _fit(name: str, task: type[Estimator[Any]], given: Mapping[str, Any]) -> int:
    for option in ("out",) if given["resume"] else ("train", "out"):
        if not given[option]:
            advice = f"carousel fit {name} --help"
            raise ConfigError(explain(f"fit {name} needs --{option}.", expected=FILES[option], advice=advice))
    if given["train"] is None:
        raise ConfigError(explain(f"fit {name} needs --train: the run was trained from Python.", expected=FILES["train"]))
    model = make_model(task, given)
    model.fit(given["train"], given["valid"], out=given["out"], overwrite=given["overwrite"], resume=given["resume"])
    return _tell(name, model, given)


def make_model(task: type[Estimator[Any]], given: Mapping[str, Any]) -> Estimator[Any]:
    """The estimator that options ask for, with the user's own cell if they name one.

    Args:
        task: the task.
        given: what :func:`parse_options` gave.

    Raises:
        ConfigError: impossible options, or a cell that is not there.
    """
    options = {option.name: given[option.name] for option in task.option_list()}
    if given["code"] is not None:
        from carousel.cli.user_code import load_cell

        options["cell"] = load_cell(given["code"], options["cell"] if given["cell_was_named"] else None)
    elif given["custom_cell"]:
        from carousel.tasks.run_directory import CODE_ADVICE

        raise ConfigError(
            explain(f"option cell: {options['cell']!r} is a cell of your own, not of the library.", advice=CODE_ADVICE)
        )
    return task(**options)


def _tell(name: str, model: Estimator[Any], given: Mapping[str, Any]) -> int:
    """Print the results, and the commands to go on with."""
    out, result = given["out"], model.result_
    rows = [[key, _number(value)] for key, value in model.scores_.items()]
    rows += [["best epoch", f"{result.best_epoch} of {result.epochs_run}"], ["minutes", f"{result.seconds / 60:.1f}"]]
    print_table(["measure", "on the validation data"], rows)
    print(f"run directory: {out}")
    code = f" --code {shlex.quote(given['code'])}" if given["code"] else ""
    run_dir = shlex.quote(str(out))
    if result.interrupted:
        say(f"Interrupted: the best epoch so far is kept. Go on with:\n  carousel fit {name} --out {run_dir} --resume{code}")
        return 130
    say("Next:")
    say(f"  carousel evaluate {run_dir} --data FILE --json{code}")
    say(f"  echo 'a text of yours' | carousel predict {run_dir} -{code}")
    return 0


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def task_parser(name: str, task: type[Estimator[Any]]) -> ArgumentParser:
    """The parser of ``carousel fit NAME``: its files, and every option of the task.

    Args:
        name: the task's name.
        task: the task.
    """
    import jsonargparse

    # No value, wherever it comes from, may lead to an import outside of this library.
    jsonargparse.set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=["carousel"], instantiate_subclass_spec_in_any=False
    )
    parser = jsonargparse.ArgumentParser(
        prog=f"carousel fit {name}",
        usage=f"carousel fit {name} --train FILE --out DIR [--OPTION VALUE ...]",
        description=f"Train: {task.__doc__.splitlines()[0] if task.__doc__ else name}",
        formatter_class=_Formatter,
        exit_on_error=False,
        default_env=False,
        allow_abbrev=False,
    )
    files = parser.add_argument_group("files")
    for option in ("train", "valid"):
        files.add_argument(f"--{option}", metavar="FILE", type=str | None, help=FILES[option])
    files.add_argument("--out", metavar="DIR", type=str | None, help=FILES["out"])
    files.add_argument("--overwrite", type=bool, nargs="?", const=True, default=False, help="replace a run that is at --out.")
    files.add_argument("--resume", type=bool, nargs="?", const=True, default=False, help="go on with the run that is at --out.")
    files.add_argument("--config", metavar="FILE.yaml", type=str | None, help=CONFIG_HELP)
    files.add_argument("--code", metavar="FILE.py", type=str | None, help=CODE_HELP + ".")
    groups: dict[str, Any] = {}
    for item in task.option_list():
        if item.group not in groups:
            groups[item.group] = parser.add_argument_group(item.group)
        groups[item.group].add_argument(f"--{item.name}", **_argument(item))
    return parser


def _argument(option: Option) -> dict[str, Any]:
    kind = str if option.name == "cell" else option.type
    if typing.get_origin(kind) is not None and _is_mapping(kind):
        kind = dict[str, Any]
    words: dict[str, Any] = {"type": kind, "default": option.default, "help": option.help.replace("`", "").replace("%", "%%")}
    if kind is bool:
        return words | {"nargs": "?", "const": True, "metavar": "true|false"}
    if kind == dict[str, Any]:
        said = f"{words['help'].rstrip('.')}; or one by one: --{option.name}.NAME VALUE."
        return words | {"metavar": "{NAME: VALUE}", "help": said}
    choices = _choices(kind)
    plain = [part for part in typing.get_args(kind) or (kind,) if part is not type(None)]
    letter = {int: "N", str: "FILE" if option.help.startswith("file ") else "NAME", float: "X", bool: "true|false"}
    letters = [letter.get(part, "X") for part in plain if part in letter or not choices]
    return words | {"metavar": "|".join([*letters, *choices])}


def _is_mapping(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _choices(kind: Any) -> list[str]:
    if typing.get_origin(kind) is Literal:
        return [str(choice) for choice in typing.get_args(kind)]
    return [choice for part in typing.get_args(kind) for choice in _choices(part)]


class _Formatter(HelpFormatter):
    """Every option with its default, said as a configuration file would."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _get_help_string(self, action: Any) -> str:
        text = action.help or ""
        hidden = action.dest in ("help", "train", "valid", "out", "config", "code", "overwrite", "resume")
        return text if hidden else f"{text} [{_yaml(action.default)}]"


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "{}" if value == {} else str(value)


def _base_values(name: str, task: type[Estimator[Any]], parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """What stands below the command line: the run that goes on, and the configuration file above it."""
    from carousel.tasks.run_directory import CONFIG_FILE, read_config

    early = VerbParser(f"fit {name}", "")
    early.add_argument("--out")
    early.add_argument("--config")
    early.add_argument("--resume", nargs="?", const="true", default="false")
    known, _ = early.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])
    values: dict[str, Any] = {}
    if known.resume.lower() == "true" and known.out and (Path(known.out) / CONFIG_FILE).is_file():
        values |= _checked(name, task, parser, read_config(Path(known.out) / CONFIG_FILE))
    if known.config is not None:
        from carousel.tasks.registry import recipe

        shipped = None if Path(known.config).exists() else recipe(name, known.config)
        values |= _checked(name, task, parser, read_config(shipped or known.config))
    return values


def _checked(name: str, task: type[Estimator[Any]], parser: ArgumentParser, config: ConfigFile) -> dict[str, Any]:
    """Check the names and values of a configuration, each against its line."""
    known = [option.name for option in task.option_list()] + list(DATA_KEYS)
    for key, value in config.values.items():
        if key == "task" and value != name:
            raise ConfigError(explain(f"{config.place(key)}: a configuration of another task.", got=str(value), expected=name))
        if key in NOTES:
            continue
        if key not in known:
            raise ConfigError(f"{config.place(key)}: {unknown_name('option', key, known)}")
        _parse_values(parser, task, {key: value}, f"{config.place(key)}: ")
    return dict(config.values)


def _parse(
    parser: ArgumentParser, task: type[Estimator[Any]], arguments: Sequence[str], base: Mapping[str, Any]
) -> dict[str, Any]:
    from argparse import ArgumentError

    namespace = _parse_values(parser, task, {key: value for key, value in base.items() if key not in NOTES}, "")
    try:
        found = parser.parse_args(list(arguments), namespace=namespace)
    except ArgumentError as error:
        raise _reworded(task, error, "") from error
    named = any(argument.split("=", 1)[0] == "--cell" for argument in arguments)
    given = {action.dest: found[action.dest] for action in parser._actions if action.dest in found}
    given["custom_cell"] = bool(base.get("custom_cell", False)) and not named
    given["cell_was_named"] = named or "cell" in base
    return given


def _parse_values(parser: ArgumentParser, task: type[Estimator[Any]], values: Mapping[str, Any], place: str) -> Any:
    from argparse import ArgumentError

    try:
        return parser.parse_object(dict(values))
    except ArgumentError as error:
        raise _reworded(task, error, place) from error


def _reworded(task: type[Estimator[Any]], error: Exception, place: str) -> ConfigError:
    """The parsing library's message in our words: the option, what was got, what is possible."""
    from carousel.tasks.options import type_text

    text = str(error)
    found = re.search(r'[Pp]arser key "([\w.]+)":.*?(?:Got|Given) value: (.*)', text, re.DOTALL)
    known = {option.name: option for option in task.option_list()}
    if found is None:
        return ConfigError(place + explain(text.removeprefix("argument ").strip(), advice="carousel fit TASK --help"))
    option, got = known.get(found.group(1).split(".")[0]), found.group(2).strip()
    if option is None:
        return ConfigError(place + explain(f"option {found.group(1)}: not a possible value.", got=got))
    choices = _choices(option.type)
    if choices:
        return ConfigError(f"{place}option {option.name}: {unknown_name('value', got, choices)}")
    expected = type_text(str if option.name == "cell" else option.type)
    return ConfigError(place + explain(f"option {option.name}: not a possible value.", got=got, expected=expected))
