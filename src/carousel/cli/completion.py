"""``carousel completion SHELL``: a script that completes verbs, tasks, options, cells and files, made from the parsers.

The script holds all words itself, so pressing the tab key starts no Python.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carousel.cli.parsing import VerbParser

__all__ = ["Place", "Values", "parser", "places", "run"]

EPILOG = """
bash:  carousel completion bash > ~/.local/share/bash-completion/completions/carousel
zsh:   carousel completion zsh > DIR/_carousel     where DIR is one of $fpath, before compinit is called
fish:  carousel completion fish > ~/.config/fish/completions/carousel.fish

or for this shell only, bash and zsh: source <(carousel completion bash)
"""
_WORD = re.compile(r"[\w.:|=+-]+")


@dataclass(frozen=True)
class Values:
    """What may stand at one place of the command line.

    Args:
        words: these words, if there are any.
        paths: `file`, `dir`, or None.
    """

    words: tuple[str, ...] = ()
    paths: str | None = None


@dataclass
class Place:
    """What may follow some first words of the command line.

    Args:
        words: the verb, and the task if the verb has one.
        summary: one line.
        positional: what stands without an option; the last one may be repeated.
        options: option to what follows it, None for an option without a value; the help of each in `helps`.
        helps: option to one line.
    """

    words: tuple[str, ...]
    summary: str
    positional: list[Values] = field(default_factory=list)
    options: dict[str, Values | None] = field(default_factory=dict)
    helps: dict[str, str] = field(default_factory=dict)


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    from carousel.cli.shells import SHELLS

    given = parser().parse(arguments)
    print(SHELLS[given.shell](places()), end="")
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    made = VerbParser("completion", "Print a script that completes this command in a shell.", EPILOG)
    made.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")
    return made


def places() -> list[Place]:
    """All places of the command line, from the parsers of the verbs."""
    from carousel.cli.main import VERBS
    from carousel.tasks import TASKS, load_task

    found = []
    for verb, entry in VERBS.items():
        module = importlib.import_module(entry.module)
        if not hasattr(module, "task_parser"):
            found.append(_place((verb,), entry.summary, module.parser()))
            continue
        found.append(Place((verb,), entry.summary, [Values(words=tuple(TASKS))], {"--help": None}, {"--help": "what there is"}))
        for task, known in TASKS.items():
            found.append(_place((verb, task), known.summary, module.task_parser(task, load_task(task))))
    return found


def _place(words: tuple[str, ...], summary: str, made: argparse.ArgumentParser) -> Place:
    place = Place(words, summary)
    for action in made._actions:
        if not action.option_strings:
            place.positional.append(_values(action))
            continue
        for option in action.option_strings:
            if option.startswith("--") and "." not in option and _WORD.fullmatch(option):
                values = _values(action)
                flag = action.nargs == 0 or (action.nargs == "?" and not values.words)
                place.options[option] = None if flag else values
                place.helps[option] = (action.help or "").replace("%%", "%")
    return place


def _values(action: argparse.Action) -> Values:
    """What an argument takes, told by its choices or by how it is written in the help."""
    from carousel.cells import CELLS
    from carousel.tasks import TASKS

    metavar = action.metavar if isinstance(action.metavar, str) else ""
    known: Mapping[str, Iterable[str]] = {"CELL": CELLS, "TASK": TASKS}
    if action.choices is not None:
        return Values(words=_plain(action.choices))
    if metavar in known:
        return Values(words=_plain(known[metavar]))
    if action.option_strings == ["--cell"]:
        return Values(words=_plain(CELLS))
    if metavar.startswith("FILE"):
        return Values(paths="file")
    if metavar in ("DIR", "RUN"):
        return Values(paths="dir")
    return Values(words=_plain(metavar.split("|")) if "|" in metavar else ())


def _plain(words: Iterable[Any]) -> tuple[str, ...]:
    """Words that every shell takes as they are, and not stand-ins such as X."""
    return tuple(word for word in map(str, words) if _WORD.fullmatch(word) and not word.isupper())
