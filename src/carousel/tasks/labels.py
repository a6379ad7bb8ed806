"""Labels as a caller has them in memory (texts, whole numbers, rows of 0 and 1) and as a task knows them (texts)."""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from carousel.errors import DataError, explain

__all__ = ["LabelForm", "fit_arguments", "form_of", "items"]

Kind = Literal["text", "int", "float", "bool", "sets", "matrix", "number"]


@dataclass(frozen=True)
class LabelForm:
    """In which form labels were given, so that answers come back in it.

    Args:
        kind: `text`, `int`, `float` or `bool`: one label of that type for an item; `sets`: any number of texts for an item;
            `matrix`: a row of 0 and 1 for an item; `number`: numbers to be met.
        width: the columns of a matrix.
    """

    kind: Kind = "text"
    width: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.width}" if self.kind == "matrix" else self.kind

    @classmethod
    def parse(cls, text: object) -> LabelForm | None:
        """Read what `str` of a form gave; None if it is something else."""
        found = re.fullmatch(r"(\w+)(?: (\d{1,9}))?", text) if isinstance(text, str) else None
        if found is None or found.group(1) not in get_args(Kind) or (found.group(1) == "matrix") != bool(found.group(2)):
            return None
        return cls(found.group(1), int(found.group(2) or 0))  # type: ignore[arg-type]

    def plain(self, value: Any) -> Any:
        """A label as the task knows it: a text, a tuple of texts, a number or a tuple of numbers."""
        if self.kind == "sets":
            return tuple(sorted(value) if isinstance(value, set | frozenset) else value)
        if self.kind == "matrix":
            return tuple(str(column) for column, there in enumerate(value) if there)
        if self.kind == "number":
            return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)
        return str(value)

    def back(self, names: Sequence[str]) -> np.ndarray[Any, Any]:
        """The labels with these names, as they were given; texts where a name is not one of that type."""
        readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _truth, "matrix": int}
        try:
            return np.array([readers.get(self.kind, str)(name) for name in names])
        except (ValueError, OverflowError):
            return np.array(names, dtype=np.str_)


def items(values: Any) -> list[Any]:
    """The items of a list, an array or a data frame's column; texts of NumPy's become Python's.

    Raises:
        DataError: `values` is no collection.
    """
    if hasattr(values, "tocsr"):
        raise DataError(explain("sparse data are not supported.", got=type(values).__name__, expected="a list or an array"))
    if hasattr(values, "to_numpy"):
        values = values.to_numpy()
    elif hasattr(values, "__array__"):
        values = np.asarray(values)
    if isinstance(values, np.ndarray) and (values.dtype.kind in "USO" or values.ndim == 1):
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        return list(values.tolist())
    try:
        found = list(values)
    except TypeError as error:
        raise DataError(explain("this is not a list.", got=type(values).__name__, expected="a list or an array")) from error
    return [str(item) if isinstance(item, np.str_) else item for item in found]


def form_of(y: Any, *, numbers: bool) -> tuple[LabelForm, list[Any]]:
    """Find out in which form labels are given.

    Args:
        y: one label (or set of labels, or row of 0 and 1, or number) for each item.
        numbers: whether numbers are to be met, not classes to be chosen.

    Returns:
        The form, and the labels as plain Python values.

    Raises:
        DataError: labels of different types, or of one that cannot be a label.
    """
    values = [item.tolist() if isinstance(item, np.ndarray | np.generic) else item for item in items(y)]
    if values and all(isinstance(value, list) and len(value) == 1 and _is_number(value[0]) for value in values):
        values = [value[0] for value in values]
        if (
            not numbers and (known := sys.modules.get("sklearn.exceptions")) is not None
        ):  # who uses scikit-learn expects its warning
            what = "A column-vector y was passed when a 1d array was expected"
            warnings.warn(what, known.DataConversionWarning, stacklevel=4)
    flat = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    if any(isinstance(part, float) and not math.isfinite(part) for part in flat):
        raise DataError("the labels hold NaN or infinity.")
    if any(isinstance(part, complex) for part in flat):
        raise DataError("Complex data not supported: labels are texts or real numbers.")
    if numbers and all(map(_is_number, flat)):
        return LabelForm("number"), values
    kinds = {type(value) for value in values}
    if kinds == {str}:
        return LabelForm("text"), values
    if kinds == {bool}:
        return LabelForm("bool"), values
    if kinds == {int}:
        return LabelForm("int"), values
    if kinds <= {int, float} and kinds:
        if all(float(value).is_integer() for value in values):
            return LabelForm("float"), [float(value) for value in values]
        what = "Unknown label type: continuous numbers are no classes."
        raise DataError(explain(what, got=repr(values[:3])[:80], advice="target='number' to meet numbers"))
    if kinds <= {list, tuple, set, frozenset} and kinds:
        if all(isinstance(part, str) for value in values for part in value):
            return LabelForm("sets"), values
        if len({len(value) for value in values}) == 1 and all(part in (0, 1) for part in flat):
            return LabelForm("matrix", len(values[0])), values
    expected = "texts, whole numbers or truth values of one type; lists of texts; rows of 0 and 1"
    raise DataError(
        explain("Unknown label type.", got=", ".join(sorted(k.__name__ for k in kinds)) or "none", expected=expected)
    )


def fit_arguments(X: Any, y: Any, valid: Any, *, numbers: bool) -> tuple[Any, Any, LabelForm | None]:
    """Tell scikit-learn's ``fit(X, y)`` from ``fit(train, valid)``.

    Args:
        X: items, or what holds its labels itself: a file, a list of pairs.
        y: labels of the items; or, beside what holds its labels, the data to validate on.
        valid: the data to validate on: a file, a list of pairs, or a tuple (items, labels).
        numbers: see :func:`form_of`.

    Returns:
        Training data and validation data that hold their labels, and the form of the labels if they were given apart.

    Raises:
        DataError: lengths differ, or labels are not possible.
    """
    if y is None and isinstance(X, np.ndarray):
        raise DataError(explain("fit requires y to be passed, but the target y is None.", advice="fit(X, y)"))
    if y is None or _is_path(X) or _is_path(y) or _holds_labels(X):
        if y is not None and valid is not None:
            raise DataError(explain("fit: validation data were given twice.", advice="fit(train, valid)"))
        return X, valid if y is None else y, None
    form, values = form_of(y, numbers=numbers)
    train = _pairs(items(X), form, values)
    if isinstance(valid, tuple) and len(valid) == 2:
        other, values = form_of(valid[1], numbers=numbers)
        if other != form:
            raise DataError(explain("the validation data have labels of another type.", got=str(other), expected=str(form)))
        valid = _pairs(items(valid[0]), form, values)
    return train, valid, form


def _pairs(records: list[Any], form: LabelForm, values: list[Any]) -> list[tuple[Any, Any]]:
    if len(records) != len(values):
        raise DataError(explain("X and y are not of one length.", got=f"{len(records)} items, {len(values)} labels"))
    return [(record, form.plain(value)) for record, value in zip(records, values, strict=True)]


def _truth(name: str) -> bool:
    if name not in ("True", "False"):
        raise ValueError(name)
    return name == "True"


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _holds_labels(X: Any) -> bool:
    """Whether the items are pairs (record, label), told by the first one, or examples of a reader."""
    if isinstance(X, np.ndarray) or hasattr(X, "to_numpy") or not isinstance(X, Sequence) or not X:
        return False
    first = X[0]
    if isinstance(first, tuple):
        return len(first) == 2
    if isinstance(first, list):
        return len(first) == 2 and isinstance(first[0], str)
    return hasattr(first, "label")
