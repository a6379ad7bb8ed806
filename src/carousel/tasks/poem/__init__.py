"""Poems that keep a given form: quatrains, regulated verse, the tunes of ci, or any lengths of lines."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carousel.tasks.poem.checking import PoemScore, keeps_form, score_poems
    from carousel.tasks.poem.forms import FORMS, Form
    from carousel.tasks.poem.options import PoetOptions
    from carousel.tasks.poem.poems import Poem, read_poems
    from carousel.tasks.poem.task import Poet
    from carousel.tasks.poem.wishes import Wish

__all__ = ["FORMS", "Form", "Poem", "PoemScore", "Poet", "PoetOptions", "Wish", "keeps_form", "read_poems", "score_poems"]

_MODULES = {
    "FORMS": "forms",
    "Form": "forms",
    "Poem": "poems",
    "PoemScore": "checking",
    "Poet": "task",
    "PoetOptions": "options",
    "Wish": "wishes",
    "keeps_form": "checking",
    "read_poems": "poems",
    "score_poems": "checking",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module("carousel.tasks.poem." + _MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
