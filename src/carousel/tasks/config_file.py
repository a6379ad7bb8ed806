"""Configuration files: YAML with plain values only, bounded in size, read without importing or calling anything."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from carousel import __version__
from carousel.data import replacing
from carousel.errors import ConfigError, explain

__all__ = ["CODE_ADVICE", "ConfigFile", "as_yaml", "read_config", "write_config"]

CODE_ADVICE = "pass your class on the command line: --code FILE.py --cell NAME (in Python: cell=NAME)"

# Far beyond what people write; the reader needs about a second for that much.
MAX_BYTES = 1 << 16
MAX_DEPTH = 20
MAX_WHOLE = 1 << 63


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, reading 1e-3 as a number as YAML 1.2 does; without aliases, and not nested without end.

    A few lines of aliases of aliases can stand for gigabytes, and brackets in brackets for a stack without end.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not for configurations", mark)
        if self._depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Dumper(yaml.SafeDumper):
    """YAML's safe writer, for what :class:`_Loader` reads: a text that looks like a number gets its quotes; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\d+[eE][-+]?\d+$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
        for first, resolvers in _kind.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


@dataclass(frozen=True)
class ConfigFile:
    """What a configuration file says, and on which line it says it.

    Args:
        path: the file.
        values: option to value.
        lines: option to line, counted from 1.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[str, int]

    def place(self, name: str) -> str:
        """Where option `name` stands, as ``file:line``."""
        return f"{self.path}:{self.lines[name]}" if name in self.lines else str(self.path)


def read_config(path: str | os.PathLike[str]) -> ConfigFile:
    """Read a configuration file. Nothing that it says is imported or called.

    Raises:
        ConfigError: not YAML, not names with plain values, larger than 64 KiB, or an attempt to name code; the message
            names file and line.
        OSError: the file cannot be read.
    """
    path = Path(path)
    node, values = _parse(path, _text(path))
    if node is None:
        return ConfigFile(path, {}, {})
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, str) for key in values):
        raise ConfigError(explain(f"{path}:1: not a configuration.", expected="lines `option: value`"))
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    found = ConfigFile(path, values, lines)
    for name, value in values.items():
        if name == "code":
            raise ConfigError(f"{found.place(name)}: a configuration cannot name code to run.\n  try:      {CODE_ADVICE}")
        if name == "class_path" or _names_class(value):
            raise ConfigError(f"{found.place(name)}: a configuration cannot name a class to import (class_path).")
        if (strange := _strange(value)) is not None:
            what = f"{found.place(name)}: {name}: not a value for a configuration."
            expected = "text, numbers of 64 bits, true, false, null, and lists and mappings of these"
            raise ConfigError(explain(what, got=strange, expected=expected))
    return found


def write_config(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as YAML, in their order, atomically."""
    head = f"# Written by carousel {__version__}. `carousel fit TASK --config THIS_FILE --out DIR` trains it again.\n"
    with replacing(path) as temporary:
        temporary.write_text(head + as_yaml(values), encoding="utf-8")


def as_yaml(values: Mapping[str, Any]) -> str:
    """`values` as YAML that :func:`read_config` reads, in their order."""
    return str(yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        got = f"more than {MAX_BYTES:,} bytes"
        raise ConfigError(explain(f"{path}: too large for a configuration.", got=got, expected="lines `option: value`"))
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start}).") from error


def _parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}.") from error
    # What YAML takes for a number, a date or bytes may be none: 1:99999..., 2001-99-99.
    except (ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(explain(f"{path}: holds a value that cannot be read.", got=str(error)[:200])) from error
    finally:
        if loader is not None:
            loader.dispose()


def _names_class(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "class_path" in value or any(_names_class(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_names_class(item) for item in value)
    return False


def _strange(value: Any) -> str | None:
    """What in `value` is not plain, for a message; None if all is."""
    if isinstance(value, Mapping):
        return next((found for pair in value.items() for part in pair if (found := _strange(part)) is not None), None)
    if isinstance(value, list):
        return next((found for item in value if (found := _strange(item)) is not None), None)
    if isinstance(value, str):
        return "half of a surrogate pair" if any("\ud800" <= letter <= "\udfff" for letter in value) else None
    if isinstance(value, int):  # also bool
        return None if -MAX_WHOLE <= value < MAX_WHOLE else f"a whole number of {value.bit_length()} bits"
    return None if value is None or isinstance(value, float) else f"{type(value).__name__} {str(value)[:80]}"
