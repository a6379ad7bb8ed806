"""The tasks by name. Listing them imports none of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from carousel.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from carousel.tasks.base import Estimator

__all__ = ["TASKS", "TaskEntry", "load_task"]


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
            summary="one label for a text (many to one)",
            reads="tsv or csv with a header naming text and label, jsonl with these keys, or lines `label text`",
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
