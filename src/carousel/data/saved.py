"""What saved vocabularies and sets of labels have in common: a list of different strings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from carousel.data.files import StrPath, parse_json, read_text, shown_path
from carousel.errors import CheckpointError, explain

__all__ = ["load_strings", "naming", "saved_strings"]

_SMALL = 1 << 20  # characters of a file that any JSON parser may see
_BLANKS = re.compile(r"[ \t\n\r]*")


def saved_strings(kind: str, key: str, content: object) -> list[str]:
    """The list under `key`, checked: strings, none empty, none twice."""
    expected = f'{{"{key}": [strings, none empty, none twice]}}'
    if not isinstance(content, Mapping) or content.keys() != {key}:
        got = f"keys {', '.join(map(repr, content))}"[:200] if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(explain(f"this is not a saved {kind}.", got=got, expected=expected))
    strings = content[key]
    if not isinstance(strings, list):
        raise CheckpointError(explain(f"this is not a saved {kind}.", got=type(strings).__name__, expected=expected))
    seen: set[str] = set()
    for number, string in enumerate(strings):
        if not isinstance(string, str) or not string or string in seen:
            got = f"{string!r:.80} at position {number}"
            raise CheckpointError(explain(f"this is not a saved {kind}.", got=got, expected=expected))
        seen.add(string)
    return list(strings)


@contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Put the file's name before a message about what it holds."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{shown_path(path)}: {error}") from error


def load_strings(path: StrPath, kind: str, key: str) -> Any:
    """The JSON value ``{key: [strings]}`` of a file.

    A large file is read by a parser that makes strings and nothing else: other values take much more memory than their
    file, and a file can be made to be full of them.

    Args:
        path: the file.
        kind: what is saved in it, for messages.
        key: the one key.

    Returns:
        The value. Of a small file, any value: check it.

    Raises:
        DataError: the file cannot be read, or is not JSON.
        CheckpointError: a large file holds something else.
    """
    text = read_text(path)
    if len(text) <= _SMALL:
        return parse_json(path, text)
    start = re.match(rf'\s*{{\s*"{key}"\s*:\s*\[', text)
    strings, place, parse = [], start.end() if start else 0, json.JSONDecoder().raw_decode
    try:
        while start:
            place = _after_blanks(text, place)
            if text[place] != '"':
                break
            string, place = parse(text, place)
            strings.append(string)
            place = _after_blanks(text, place)
            if text[place] == "]" and re.compile(r"\s*}\s*").fullmatch(text, place + 1):
                return {key: strings}
            if text[place] != ",":
                break
            place += 1
    except (ValueError, IndexError):
        pass  # the same as any other text that is not as expected
    got, expected = f"{text[place : place + 40]!r} at character {place + 1}", f'{{"{key}": [strings]}}'
    raise CheckpointError(explain(f"this is not a saved {kind}.", got=got, expected=expected))


def _after_blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    return found.end() if found else place
