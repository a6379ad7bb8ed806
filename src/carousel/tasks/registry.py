"""The tasks by name. Listing them imports none of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from carousel.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from carousel.tasks.base import Estimator

__all__ = ["TASKS", "TaskEntry", "load_task", "recipe"]


@dataclass(frozen=True)
class TaskEntry:
    """What a listing of the tasks says about one of them.

    Args:
        module: the module of its class.
        class_name: its class.
        summary: one line.
        reads: what its data files hold.
    """

    module: str
    class_name: str
    summary: str
    reads: str

    def load(self) -> type[Estimator[Any]]:
        """Import the task and return its class."""
        found: type[Estimator[Any]] = getattr(importlib.import_module(self.module), self.class_name)
        return found


TASKS: Mapping[str, TaskEntry] = MappingProxyType(
    {
        "classify": TaskEntry(
            module="carousel.tasks.classify",
            class_name="Classifier",
            summary="labels or numbers for a text or a series (many to one)",
            reads="tsv or csv with a header naming text and label, jsonl with these keys, lines `label text`, .ts series",
        ),
        "lm": TaskEntry(
            module="carousel.tasks.lm",
            class_name="LanguageModel",
            summary="the next token of a text: perplexity, generation, scores of sentences",
            reads="plain text, one sentence, verse or paragraph a line",
        ),
        "tag": TaskEntry(
            module="carousel.tasks.tag",
            class_name="Tagger",
            summary="a tag for every word or character: parts of speech, names, chunks, word segmentation",
            reads="CoNLL-U, columns of CoNLL, word/tag text, segmented text",
        ),
        "keyterms": TaskEntry(
            module="carousel.tasks.keyterms",
            class_name="KeyTerms",
            summary="the key terms of a document, ranked: marked in its text, or from a vocabulary",
            reads="columns of words and tags, a blank line between documents; jsonl, tsv or csv with text and keyterms",
        ),
        "poem": TaskEntry(
            module="carousel.tasks.poem",
            class_name="Poet",
            summary="Chinese poems that keep a given form: a quatrain, a tune, any lengths of lines",
            reads="jsonl with paragraphs (a list of texts) and title, or rhythmic for the tune of a ci",
        ),
    }
)


def load_task(name: str) -> type[Estimator[Any]]:
    """Import a task by its name.

    Raises:
        ConfigError: no such task; the message names the nearest one.
    """
    if name not in TASKS:
        raise ConfigError(unknown_name("task", name, TASKS))
    return TASKS[name].load()


def recipe(task: str, name: str) -> Path | None:
    """The file of a configuration that ships with a task.

    Args:
        task: the task's name.
        name: the recipe's, without its suffix: `zaremba_small`, say.

    Returns:
        The file; None if there is no such recipe.
    """
    found = importlib.util.find_spec(TASKS[task].module)
    for folder in (found.submodule_search_locations if found else None) or ():
        path = Path(folder) / "recipes" / f"{name}.yaml"
        if name.isidentifier() and path.is_file():
            return path
    return None
