"""Tagging: a label for every word or character of a sentence (many to many, of one length)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.tasks.tag.options import TaggerOptions
    from carousel.tasks.tag.task import Tagger

__all__ = ["Tagger", "TaggerOptions"]

_MODULES = {"Tagger": "task", "TaggerOptions": "options"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module("carousel.tasks.tag." + _MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
