"""Options of a task: frozen dataclasses whose fields carry their limits, and whose docstrings carry their help.

One declaration serves the Python constructor, the command line and the configuration file, so that a name, a default or
an error cannot differ between them. Imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from carousel.errors import ConfigError, explain, unknown_name

__all__ = ["Option", "check_names", "check_values", "describe", "type_text", "within"]


@dataclass(frozen=True)
class Option:
    """One option of a task.

    Args:
        name: its flat name, the same everywhere.
        type: its type, as annotated.
        default: its default for this task.
        help: one line.
        group: the heading it stands under in ``--help``.
    """

    name: str
    type: Any
    default: Any
    help: str
    group: str


def within(
    group: str, *, at_least: float | None = None, at_most: float | None = None, below: float | None = None
) -> Mapping[str, Any]:
    """Metadata of a dataclass field: its heading in the help and the range of its values; see :func:`check_values`."""
    bounds = {"at_least": at_least, "at_most": at_most, "below": below}
    return {"group": group} | {key: bound for key, bound in bounds.items() if bound is not None}


def describe(options_type: type, *, group: str = "options", defaults: Mapping[str, Any] | None = None) -> tuple[Option, ...]:
    """List the options that a dataclass declares, in its order.

    Args:
        options_type: the dataclass; its docstring has an ``Args:`` section.
        group: the heading of the options that do not name one.
        defaults: what a task sets differently from the dataclass.

    Returns:
        One :class:`Option` per field.
    """
    changed = defaults or {}
    hints = _hints(options_type)
    helps = _documented(options_type)
    found = []
    for item in dataclasses.fields(options_type):
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        heading = item.metadata.get("group", group)
        found.append(Option(item.name, hints[item.name], changed.get(item.name, default), helps.get(item.name, ""), heading))
    return tuple(found)


def check_names(names: Sequence[str], known: Sequence[str], *, where: str) -> None:
    """Raise :class:`~carousel.errors.ConfigError` for the first of `names` that is not `known`, naming the nearest."""
    for name in names:
        if name not in known:
            raise ConfigError(f"{where}: {unknown_name('option', name, known)}")


def check_values(options: Any) -> None:
    """Check every field of an options dataclass against its type and limits.

    Raises:
        ConfigError: a value of another type, not among the choices or out of range; the message names the option.
    """
    kind: type = type(options)
    hints = _hints(kind)
    for item in dataclasses.fields(options):
        _check_value(item.name, getattr(options, item.name), hints[item.name], item.metadata)


def _check_value(name: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> None:
    if not _fits(value, hint):
        choices = _choices(hint)
        if choices and isinstance(value, str):
            raise ConfigError(f"option {name}: {unknown_name('value', value, choices)}")
        raise ConfigError(explain(f"option {name}: not a possible value.", got=repr(value), expected=type_text(hint)))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high, below = metadata.get("at_least"), metadata.get("at_most"), metadata.get("below")
    wrong = (
        math.isnan(value)
        or (low is not None and value < low)
        or (high is not None and value > high)
        or (below is not None and value >= below)
    )
    if wrong:
        said = [
            f"{word} {bound}" for word, bound in (("at least", low), ("at most", high), ("below", below)) if bound is not None
        ]
        raise ConfigError(explain(f"option {name}: out of range.", got=repr(value), expected=" and ".join(said)))


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is type(None) or hint is None:
        return value is None
    if origin is type:
        return isinstance(value, type)
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return isinstance(value, kind)


def type_text(hint: Any) -> str:
    """Say a type in a user's words.

    Example:
        >>> type_text(int | None), type_text(Literal["last", "mean", "max"]), type_text(bool)
        ('a whole number or null', 'last, mean or max', 'true or false')
    """
    words = _words(hint)
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _words(hint: Any) -> list[str]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [word for part in typing.get_args(hint) for word in _words(part)]
    if origin is Literal:
        return [str(choice) for choice in typing.get_args(hint)]
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    if hint in words:
        return [words[hint]]
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return ["names with values"]
    return [getattr(hint, "__name__", str(hint))]


def _choices(hint: Any) -> list[str]:
    if typing.get_origin(hint) is Literal:
        return [str(choice) for choice in typing.get_args(hint)]
    return [choice for part in typing.get_args(hint) for choice in _choices(part)]


@functools.cache
def _hints(options_type: type) -> dict[str, Any]:
    return typing.get_type_hints(options_type)


def _documented(options_type: type) -> dict[str, str]:
    """Read the ``Args:`` section of a class's docstring: name to one line of help."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", inspect.getdoc(options_type) or "", re.MULTILINE)
    helps: dict[str, str] = {}
    name = ""
    for line in section.group(1).splitlines() if section else []:
        entry = re.match(r"    (\w+)(?: \([^)]*\))?: (.*)", line)
        if entry:
            name = entry.group(1)
            helps[name] = entry.group(2).strip()
        elif name and line.strip():
            helps[name] += " " + line.strip()
    return helps
