"""``carousel tasks``: what can be trained."""

from __future__ import annotations

from collections.abc import Sequence

from carousel.cli.console import print_table
from carousel.cli.parsing import VerbParser

__all__ = ["parser", "run"]


def run(arguments: Sequence[str]) -> int:
    """Run the verb on what follows it."""
    parser().parse(arguments)

    from carousel.tasks import TASKS

    print_table(
        ["task", "in Python", "what it does", "data files"],
        [[name, f"carousel.tasks.{task.class_name}", task.summary, task.reads] for name, task in TASKS.items()],
    )
    return 0


def parser() -> VerbParser:
    """What the verb takes."""
    return VerbParser("tasks", "List the tasks, and the files they read.")
