"""The verbs of a fitted estimator as scikit-learn has them: ``predict``, ``predict_proba``, ``score``, ``classes_``."""

from __future__ import annotations

import abc
import sys
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from carousel.errors import ConfigError, DataError, NotFittedError, explain
from carousel.tasks.labels import LabelForm, form_of, items

__all__ = ["Answering"]


class Answering(abc.ABC):
    """Plain answers from what a task's network says.

    A task tells :meth:`_scores`, :meth:`_answer_kind` and :meth:`_answer_names`; everything here follows from them.
    """

    options: Any
    _form: LabelForm | None = None

    def predict(self, X: Any) -> NDArray[Any]:
        """Answer for each item.

        Args:
            X: the items: a list of texts, say.

        Returns:
            (N,): labels of the type that :meth:`fit` was given (texts, if it was given files). Several labels for an item:
            tuples, or rows of 0 and 1, (N, V), as they were given. Numbers: (N,), or (N, D) for several targets.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is not a list of items that the task reads.
        """
        scores = self._checked_scores("predict", X)
        kind, form, names = self._answer_kind(), self._form or LabelForm(), self._answer_names()
        if kind == "number":
            return scores[:, 0] if scores.shape[1] == 1 else scores
        if kind == "one":
            return form.back(names)[scores.argmax(axis=1)] if len(scores) else form.back(names)[:0]
        if form.kind == "matrix":
            return (self._spread(scores, form, -1.0) > 0).astype(np.int64)
        answers = np.empty(len(scores), dtype=object)
        answers[:] = [tuple(names[column] for column in np.flatnonzero(row > 0)) for row in scores]
        return answers

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of each label for each item.

        Args:
            X: the items.

        Returns:
            (N, V), in the order of :attr:`classes_`. Each row sums to 1, if an item has one label.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            ConfigError: the model answers with numbers.
            DataError: `X` is not a list of items that the task reads.
        """
        scores = self._checked_scores("predict_proba", X)
        kind, form = self._answer_kind(), self._form or LabelForm()
        if kind == "number":
            raise ConfigError(explain("predict_proba: this model answers with numbers, not labels.", advice="predict(X)"))
        if kind == "several":
            chances = np.exp(-np.logaddexp(0.0, -scores))
            return self._spread(chances, form, 0.0) if form.kind == "matrix" else chances
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
        chances = exponentials / exponentials.sum(axis=1, keepdims=True)
        return np.ascontiguousarray(chances[:, np.argsort(form.back(self._answer_names()), kind="stable")])

    def answer_with(self, *, top: int | None = None) -> Self:
        """Choose how much is answered from now on, in tasks that answer with a ranked list.

        Args:
            top: so many of the best; None: those that the model is sure enough of.

        Raises:
            ConfigError: there is no list, or `top` is not possible.
        """
        if top is not None:
            raise ConfigError(explain("option top: the answers of this task are no ranked list.", got=str(top)))
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """(V,): the labels, in sorted order; there is none before fitting, nor where the answers are numbers."""
        if not hasattr(self, "network_") or self._answer_kind() == "number":
            raise AttributeError(f"{type(self).__name__} has no classes_: not fitted, or fitted to numbers")
        form = self._form or LabelForm()
        if form.kind == "matrix":
            return np.arange(form.width)
        names = form.back(self._answer_names())
        return np.sort(names) if self._answer_kind() == "one" else names

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """How good the answers are.

        Args:
            X: the items.
            y: their labels, of the type that :meth:`fit` was given.
            sample_weight: (N,), how much each item counts; None for all the same.

        Returns:
            The share of items that are answered right (0 to 1). Several labels for an item: all of them must be. Numbers:
            the coefficient of determination (1 at best), the mean over the targets.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: lengths differ, or `y` is of another type.
        """
        records = items(X)
        answers = self.predict(records)
        numbers = self._answer_kind() == "number"
        form, values = form_of(y, numbers=numbers)
        if len(values) != len(answers):
            raise DataError(explain("X and y are not of one length.", got=f"{len(answers)} items, {len(values)} labels"))
        weights = np.ones(len(values)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        if numbers:
            return _determination(answers.reshape(len(values), -1), np.reshape(values, (len(values), -1)), weights)
        mine = self._form or LabelForm("sets" if self._answer_kind() == "several" else "text")
        if {form.kind, mine.kind} - {"int", "float"} and form != mine:
            raise DataError(explain("score: labels of another type than the model's.", got=str(form), expected=str(mine)))
        if form.kind == "sets":
            right = np.array([set(answer) == set(value) for answer, value in zip(answers, values, strict=True)])
        else:
            right = (answers == np.array(values)).reshape(len(values), -1).all(axis=1)
        return float(np.average(right, weights=weights))

    @property
    def sklearn_kind(self) -> Literal["classifier", "regressor"]:
        """What scikit-learn takes this estimator for."""
        return "regressor" if getattr(self.options, "target", None) == "number" else "classifier"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        # Only scikit-learn calls this, so it is there; nothing else here needs it.
        from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

        regressor, several = self.sklearn_kind == "regressor", getattr(self.options, "target", None) == "several"
        return Tags(
            estimator_type=self.sklearn_kind,
            target_tags=TargetTags(required=True, multi_output=regressor or several),
            classifier_tags=None if regressor else ClassifierTags(multi_label=several),
            regressor_tags=RegressorTags() if regressor else None,
            input_tags=InputTags(one_d_array=True, two_d_array=False, three_d_array=True, string=True, allow_nan=True),
        )

    def _require_fitted(self, verb: str) -> None:
        if hasattr(self, "network_"):
            return
        name = type(self).__name__
        message = explain(f"{name}.{verb}: not fitted yet.", advice=f"{name}(...).fit(train), or {name}.load(DIR)")
        known = sys.modules.get("sklearn.exceptions")
        if known is None:
            raise NotFittedError(message)
        # Who uses scikit-learn may catch its error.
        raise type("NotFittedError", (NotFittedError, known.NotFittedError), {"__module__": __name__})(message)

    def _checked_scores(self, verb: str, X: Any) -> NDArray[np.float64]:
        self._require_fitted(verb)
        if isinstance(X, str):
            raise DataError(explain(f"{verb} takes a list of items.", got="one text", advice=f"{verb}([text])"))
        return self._scores(items(X))

    def _spread(self, columns: NDArray[np.float64], form: LabelForm, nothing: float) -> NDArray[np.float64]:
        """The columns that training knew, at their places among all of a matrix's."""
        wide = np.full((len(columns), form.width), nothing)
        wide[:, [int(name) for name in self._answer_names()]] = columns
        return wide

    @abc.abstractmethod
    def _answer_kind(self) -> Literal["one", "several", "number"]:
        """Whether the fitted model answers with one label, any number of labels, or numbers."""

    @abc.abstractmethod
    def _answer_names(self) -> tuple[str, ...]:
        """The names of the columns of :meth:`_scores`."""

    @abc.abstractmethod
    def _scores(self, records: list[Any]) -> NDArray[np.float64]:
        """(N, V): scores before the softmax or the sigmoid; the answers themselves, if they are numbers."""


def _determination(answers: NDArray[Any], truth: NDArray[Any], weights: NDArray[np.float64]) -> float:
    """R² as scikit-learn has it, the mean over the columns: a constant truth is explained fully (1) or not at all (0)."""
    W = weights[:, None]
    errors = (W * (truth - answers) ** 2).sum(axis=0)
    spread = (W * (truth - np.average(truth, axis=0, weights=weights)) ** 2).sum(axis=0)
    flat = spread == 0
    return float(np.where(flat, errors == 0, 1 - errors / np.where(flat, 1, spread)).mean())
