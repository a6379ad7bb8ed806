"""``carousel init TASK [FILE]``: a configuration to start from, with every option, its default and what it means."""

from __future__ import annotations

import shlex
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.cli.console import say
from carousel.cli.parsing import VerbParser
from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks.options import Option

__all__ = ["run", "starter"]

WIDTH = 100
DATA = {
    "train": "the data to learn from; --train on the command line wins.",
    "valid": "the data to choose the best epoch on; null holds out a tenth of the training data.",
}


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    given = parser().parse(arguments)
    text = starter(given.task)
    path = Path(given.file or f"{given.task}.yaml")
    if given.file == "-":
        print(text, end="")
        return 0
    if path.exists() and not given.overwrite:
        advice = "--overwrite to replace it, or another name"
        raise ConfigError(explain(f"{path}: exists already.", advice=advice))
    from carousel.data import replacing

    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(path)
    say(f"Next:\n  carousel fit {given.task} --config {shlex.quote(str(path))} --train FILE --out DIR")
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("init", "Write a configuration to start from: every option, its default and what it means.")
    made.add_argument("task", metavar="TASK", help="a task that `carousel tasks` lists")
    made.add_argument("file", metavar="FILE.yaml", nargs="?", help="where to write it [TASK.yaml]; - prints it")
    made.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    return made


def starter(task: str) -> str:
    """The configuration file: the defaults, each under what it means.

    Args:
        task: the task's name.

    Raises:
        ConfigError: no such task; the message names the nearest one.
    """
    from carousel.tasks import load_task
    from carousel.tasks.config_file import as_yaml

    groups: dict[str, list[Option]] = {}
    for option in load_task(task).option_list():
        groups.setdefault(option.group, []).append(option)
    lines = [
        f"# What `carousel fit {task}` can be told, with its defaults. Change what you like, and leave out what you do not:",
        f"#   carousel fit {task} --config THIS_FILE --train FILE --out DIR",
        "# The command line wins over this file: --hidden_size 256, say.",
        "",
        f"task: {task}",
        "",
        *_heading("files"),
    ]
    for name, text in DATA.items():
        lines += [*_comment(text), f"{name}: null", ""]
    for group, options in groups.items():
        lines += _heading(group)
        for option in options:
            lines += [*_comment(_said(option)), as_yaml({option.name: option.default}).rstrip("\n"), ""]
    return "\n".join(lines[:-1]) + "\n"


def _heading(title: str) -> list[str]:
    return [f"# --- {title} ".ljust(WIDTH, "-"), ""]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _said(option: Option) -> str:
    """The help, and what values are possible where the default does not show it."""
    from carousel.tasks.options import type_text

    plain = str if option.name == "cell" else option.type
    shown = {bool: isinstance(option.default, bool), int: isinstance(option.default, int), str: isinstance(option.default, str)}
    if plain is Any or shown.get(plain, plain is float) or (option.default == {} and typing.get_origin(plain) is not None):
        return option.help
    return f"{option.help.rstrip('.')} ({type_text(plain)})."
