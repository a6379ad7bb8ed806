"""Parsers of the small verbs: the standard library's, with our error messages."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from carousel.errors import ConfigError, explain

__all__ = ["CODE_HELP", "VerbParser", "add_data_options", "add_field_options", "add_model_options", "check_option_names"]

CODE_HELP = "a Python file of yours that defines the cell; it is run"


class VerbParser(argparse.ArgumentParser):
    """A parser that raises :class:`~carousel.errors.ConfigError` instead of leaving the process.

    Args:
        verb: the verb, for the usage line.
        description: what the verb does.
        epilog: printed after the options.
    """

    def __init__(self, verb: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"carousel {verb}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `message` as a :class:`~carousel.errors.ConfigError`."""
        raise ConfigError(explain(message, advice=f"{self.prog} --help"))

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse `arguments`; an unknown option is an error that names the nearest known one."""
        check_option_names(arguments, self._option_string_actions)
        return self.parse_args(list(arguments))


def check_option_names(arguments: Sequence[str], known: Sequence[str] | dict[str, argparse.Action]) -> None:
    """Raise for the first option in `arguments` that is not known, naming the nearest one that is.

    ``--trainer.NAME`` is known when ``--trainer`` is. Everything after a bare ``--`` is left alone.
    """
    for argument in arguments:
        if argument == "--":
            return
        name = argument.split("=", 1)[0]
        if not name.startswith("--") or name in known or name.split(".", 1)[0] in known:
            continue
        names = [option for option in known if option.startswith("--")]
        near = difflib.get_close_matches("--" + name[2:].split(".")[0].replace("-", "_").lower(), names, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ConfigError(explain(f"unknown option '{name}'.{hint}", advice="--help lists the options"))


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that a model needs to be loaded."""
    group = parser.add_argument_group("model")
    group.add_argument("--code", metavar="FILE.py", help=CODE_HELP)
    group.add_argument("--cell", metavar="NAME", help="the cell in it; by default the one that the run names")
    group.add_argument("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="where to compute")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a data file is written; None keeps what the model was trained with."""
    group = parser.add_argument_group("data file")
    add_field_options(group)
    group.add_argument("--column", metavar="NAME", help="tagged sentences: column of the tags, by number or name")


def add_field_options(parser: argparse._ActionsContainer) -> None:
    """Add the options that say how a file is written and where in it things stand."""
    how = "how the file is written; by default its suffix or first line tells"
    formats = ["tsv", "csv", "jsonl", "txt", "ts", "columns", "conllu", "word/tag", "raw"]
    parser.add_argument("--format", choices=formats, help=how)
    parser.add_argument("--text_field", metavar="NAME", help="column or key of the text")
    parser.add_argument("--label_field", metavar="NAME", help="column or key of the label")
