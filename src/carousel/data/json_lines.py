"""JSON lines: one object on each line."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from carousel.data.source import Source, hint, listed
from carousel.errors import DataError

__all__ = ["json_label", "json_object", "json_text"]

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

Object = dict[str, Any]


def json_object(line: int, content: str, advice: str, source: Source) -> Object:
    """The object that stands on a line."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise source.error(line, "the line is not valid JSON.", got=str(error), advice=advice) from error
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise source.error(line, "the line is not a JSON object.", got=f"JSON of type {kind}", advice=advice)
    return record


def json_text(line: int, record: Object, name: str, *, allow_empty: bool, source: Source) -> str:
    """The text under a key."""
    if name not in record:
        raise _missing_key(name, "text_field", line, record, source)
    text = record[name]
    if text is None and allow_empty:
        return ""
    if not isinstance(text, str):
        got = "null" if text is None else f"{json.dumps(text)[:80]} of type {type(text).__name__}"
        raise source.error(line, f"key '{name}' is not a string.", got=got, advice="put the text in double quotes")
    _check_string(name, text, line, source)
    return text


def json_label(
    line: int, record: Object, name: str, *, required: bool, several: bool, source: Source
) -> str | list[str] | None:
    """The label under a key, as the other formats would spell it; with `several`, also a list of labels."""
    if name not in record:
        if required:
            raise _missing_key(name, "label_field", line, record, source)
        return None
    label = record[name]
    if several and isinstance(label, list):
        return [_spelled(name, item, line, source) for item in label]
    return None if label is None else _spelled(name, label, line, source)


def _spelled(name: str, label: object, line: int, source: Source) -> str:
    if isinstance(label, float) and math.isnan(label):
        return "NaN"
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, str):
        _check_string(name, label, line, source)
    elif not isinstance(label, int | float):
        got = f"{json.dumps(label)[:80]} of type {type(label).__name__}"
        raise source.error(line, f"key '{name}' is not a label.", got=got, advice="give a string, a number or a boolean")
    return str(label)


def _check_string(name: str, content: str, line: int, source: Source) -> None:
    if "\0" in content or _LONE_SURROGATE.search(content):
        advice = r"remove \u0000, and write characters above \uffff as themselves or as two escapes"
        got = "a NUL character" if "\0" in content else "half of a surrogate pair"
        raise source.error(line, f"key '{name}' is not plain text.", got=got, advice=advice)


def _missing_key(name: str, option: str, line: int, record: Object, source: Source) -> DataError:
    keys = list(record)
    what = f"key '{name}' is missing.{hint(name, keys)}"
    return source.error(line, what, got=listed(keys), advice=f"choose another key with {option}")
