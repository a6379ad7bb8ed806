"""Poems by ``carousel generate DIR``, where DIR is the run of a poet."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, TypeGuard

from carousel.errors import ConfigError, explain

if TYPE_CHECKING:
    from carousel.tasks.lm import LanguageModel
    from carousel.tasks.poem import Poet

__all__ = ["add_poem_options", "is_poet", "refuse_poem_options", "write_poems"]

TEXT_OPTIONS = ("prompt", "no_prompt", "length", "stop", "type_ahead")
POEM_OPTIONS = ("title", "form", "lines", "tune", "acrostic", "first", "rhymes", "no_rhyme", "count", "json")


def add_poem_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a poem shall be."""
    group = parser.add_argument_group("poems (DIR is a run of the task poem)")
    group.add_argument("--title", metavar="TEXT", help="the title")
    group.add_argument("--form", metavar="NAME", help="wujue, qijue, wulü or qilü (wulv and qilv are understood)")
    group.add_argument("--lines", metavar="N,N,...", help="the lengths of the lines instead, such as 5,5,7")
    group.add_argument("--tune", metavar="NAME", help="a tune of a ci instead, one that the training data have")
    group.add_argument("--acrostic", metavar="TEXT", help="the first characters of the lines")
    group.add_argument("--first", metavar="TEXT", help="the first line, or several")
    scheme = "which lines rhyme, a sign for each: the same letter for those that do, - for none; by default as is usual"
    group.add_argument("--rhymes", metavar="SCHEME", help=scheme)
    group.add_argument("--no_rhyme", action="store_true", help="let lines end as they like")
    group.add_argument("--count", metavar="N", type=int, help="so many poems [1]")
    group.add_argument("--json", action="store_true", help="print one JSON object for each poem, or line (--type-ahead)")


def is_poet(model: LanguageModel) -> TypeGuard[Poet]:
    """Whether a model writes poems."""
    return model.task == "poem"


def refuse_poem_options(given: argparse.Namespace) -> None:
    """Refuse what is for poems alone.

    Raises:
        ConfigError: such an option is given.
    """
    _refuse(given, POEM_OPTIONS, "is for poems.", "carousel fit poem --train FILE --out DIR makes a model of poems")


def write_poems(poet: Poet, given: argparse.Namespace) -> int:
    """Write and print poems.

    Args:
        poet: the model.
        given: the arguments.

    Returns:
        The exit code.

    Raises:
        ConfigError: an option is not possible, or is for other language models.
    """
    _refuse(given, TEXT_OPTIONS, "is not for poems, which are written whole.", "--title, --first, --form; see --help")
    if given.form is not None and given.lines is not None:
        raise ConfigError(explain("--lines is a form.", got=f"--form {given.form}, --lines {given.lines}"))
    named = ("temperature", "top_k", "top_p", "repetition_penalty")
    manner = {name: getattr(given, name) for name in named if getattr(given, name) is not None}
    poems = poet.write(
        given.title or "",
        form=given.lines if given.form is None else given.form,
        tune=given.tune or "",
        acrostic=given.acrostic or "",
        first=given.first or "",
        rhymes=given.rhymes,
        count=1 if given.count is None else given.count,
        rhyme=not given.no_rhyme,
        seed=given.seed,
        **manner,
    )
    for number, poem in enumerate(poems):
        if given.json:
            told = {"title": poem.title, "tune": poem.tune, "lines": list(poem.lines), "text": poem.text}
            print(json.dumps(told, ensure_ascii=False))
        else:
            print(f"\n{poem}" if number else poem)
    return 0


def _refuse(given: argparse.Namespace, names: tuple[str, ...], what: str, advice: str) -> None:
    for name in names:
        if getattr(given, name) not in (None, False):
            raise ConfigError(explain(f"--{name} {what}", got=given.directory, advice=advice))
