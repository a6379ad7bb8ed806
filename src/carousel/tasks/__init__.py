"""Estimators: data, model and metric of one task each, with the same verbs in Python and on the command line.

.. code-block:: python

    from carousel.tasks import Classifier

    model = Classifier(cell="gru", hidden_size=64).fit("train.tsv", "valid.tsv", out="runs/mine")
    model.evaluate("test.tsv")
    model.predict(["a moving film"])            # array(['positive'], ...)
    model.predict_records(["a moving film"])    # with probabilities and attention

Importing this package is cheap: a task's module is imported when its class is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carousel.tasks.registry import TASKS, TaskEntry, load_task

if TYPE_CHECKING:
    from carousel.tasks.base import Estimator
    from carousel.tasks.classify import Classifier
    from carousel.tasks.cross_validation import cross_validate
    from carousel.tasks.keyterms import KeyTerms
    from carousel.tasks.lm import LanguageModel
    from carousel.tasks.poem import Poet
    from carousel.tasks.tag import Tagger

__all__ = [
    "TASKS",
    "Classifier",
    "Estimator",
    "KeyTerms",
    "LanguageModel",
    "Poet",
    "Tagger",
    "TaskEntry",
    "cross_validate",
    "load_task",
]


def __getattr__(name: str) -> Any:
    if name == "Estimator":
        from carousel.tasks.base import Estimator

        return Estimator
    if name == "cross_validate":
        from carousel.tasks.cross_validation import cross_validate

        return cross_validate
    for entry in TASKS.values():
        if entry.class_name == name:
            return entry.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
