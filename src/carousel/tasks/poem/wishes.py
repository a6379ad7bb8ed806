"""What a poem is wanted to be, and what follows for its form and its first characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.poem.forms import FORMS, MAX_LENGTH, MAX_LINES, Form, choose_form, find_tune
from carousel.tasks.poem.poems import Poem, is_han, tune_names

__all__ = ["Plan", "Wish", "plan"]

MAX_TITLE = 200  # characters that are shown again


@dataclass(frozen=True)
class Wish:
    """What a poem shall be. Everything may be left out.

    Args:
        title: its title; the Chinese characters in it are read.
        form: `wujue`, `qijue`, `wulü`, `qilü`, the lengths of lines (``5,5,7`` or a list), or a :class:`Form`.
        tune: a tune of a ci that stands in the training data, instead of a form.
        acrostic: the first characters of the lines, from the first line on.
        first: the first line; or several, with marks between them.
        rhymes: which lines rhyme, a sign for each: lines with the same letter do, `-` does not; None for what is usual in
            the form.
    """

    title: str = ""
    form: str | Form | Sequence[int] | None = None
    tune: str = ""
    acrostic: str = ""
    first: str = ""
    rhymes: str | None = None


@dataclass(frozen=True)
class Plan:
    """A poem before it is written.

    Args:
        form: its form.
        begun: for each line the characters that are given.
        title: its title.
        tune: its tune.
    """

    form: Form
    begun: tuple[str, ...]
    title: str
    tune: str


def plan(wish: Wish, tunes: Mapping[str, Form]) -> Plan:
    """Find the form of a poem, and which of its characters are given.

    Without form and tune, a quatrain or regulated verse is taken whose lines fit `first` and are as many as `acrostic` has
    characters; seven characters a line where nothing is said.

    Args:
        wish: what is wanted.
        tunes: the form of each tune that is known.

    Raises:
        ConfigError: the parts of the wish contradict each other, or one is not possible.
    """
    for name in ("title", "tune", "acrostic", "first"):
        if not isinstance(getattr(wish, name), str):
            raise ConfigError(explain(f"{name} must be a text.", got=repr(getattr(wish, name))[:80]))
    acrostic = "".join(wish.acrostic.split())
    if acrostic and not is_han(acrostic):
        raise ConfigError(explain("acrostic must be Chinese characters.", got=repr(acrostic[:80])))
    given = _lines(wish.first)
    form = _form(wish, given, acrostic, tunes)
    count = len(form.lengths)
    if len(given) > count or len(acrostic) > count:
        got = f"{len(given)} lines given first" if len(given) > count else f"an acrostic of {len(acrostic)} characters"
        raise ConfigError(explain(f"the form {form} has {count} lines.", got=got))
    begun = [acrostic[place : place + 1] for place in range(count)]
    for place, line in enumerate(given):
        if len(line) != form.lengths[place]:
            what = f"line {place + 1} of the form {form} has {form.lengths[place]} characters."
            raise ConfigError(explain(what, got=f"{line[:80]}: {len(line)}"))
        if begun[place] and line[0] != begun[place]:
            got = f"{line[:80]}, and {begun[place]} in the acrostic"
            raise ConfigError(explain(f"line {place + 1} does not begin as the acrostic has it.", got=got))
        begun[place] = line
    return Plan(form, tuple(begun), _title(wish.title), form.name if wish.tune else "")


def _lines(first: str) -> tuple[str, ...]:
    if not first.strip():
        return ()
    try:
        return Poem.parse(first).lines
    except DataError as error:
        raise ConfigError(f"first: {error}") from error


def _form(wish: Wish, given: Sequence[str], acrostic: str, tunes: Mapping[str, Form]) -> Form:
    if wish.tune:
        if wish.form is not None:
            raise ConfigError(explain("a tune is a form.", got=f"tune {wish.tune[:80]!r} and a form", advice="leave one out"))
        if not tune_names(wish.tune):
            raise ConfigError(explain("tune must be the name of a tune.", got=repr(wish.tune[:80])))
        return choose_form(find_tune(tunes, wish.tune), wish.rhymes)
    if wish.form is not None:
        return choose_form(wish.form, wish.rhymes)
    length = len(given[0]) if given else 7
    count = max(len(acrostic), len(given))
    count = count if acrostic else max(4, count)
    if length > MAX_LENGTH or count > MAX_LINES:
        expected = f"at most {MAX_LINES} lines of {MAX_LENGTH} characters"
        raise ConfigError(explain("that is too long for a poem.", got=f"{count} lines of {length}", expected=expected))
    lengths = [len(line) for line in given] + [length] * (count - len(given))
    named = (form for form in FORMS.values() if list(form.lengths) == lengths)
    return choose_form(next(named, None) or Form.of(lengths), wish.rhymes)


def _title(title: str) -> str:
    """A title as it can be shown: in one line, not too long, without what cannot be printed."""
    text = title.encode("utf-8", "replace").decode()
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:MAX_TITLE]
