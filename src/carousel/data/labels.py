"""Numbers for labels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from carousel.data.files import StrPath, write_json
from carousel.data.saved import load_strings, naming, saved_strings
from carousel.errors import CheckpointError, DataError, explain

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LabelSet"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_SHOWN_LABELS = 20


class LabelSet:
    """The classes: a number for each label, in sorted order (as numbers, if all labels are whole numbers).

    Args:
        labels: the labels; repetitions are fine.

    Raises:
        DataError: there is no label.

    Example:
        >>> labels = LabelSet(["10", "9", "10"])
        >>> labels.names, labels.encode("10")
        (('9', '10'), 1)
    """

    def __init__(self, labels: Iterable[str]) -> None:
        different = set(labels)
        if not different:
            raise DataError(explain("there are no labels.", advice="give examples with labels"))
        numeric = all(_INTEGER.fullmatch(label) for label in different)
        self.names: tuple[str, ...] = tuple(sorted(different, key=_by_number if numeric else _by_spelling))
        self._ids = {label: number for number, label in enumerate(self.names)}

    def encode(self, label: str, *, path: object = None, line: int | None = None) -> int:
        """The number of a label.

        Args:
            label: the label.
            path: the file it stands in, for the message.
            line: its line there, for the message.

        Raises:
            DataError: the label is not known.
        """
        number = self._ids.get(label)
        if number is None:
            near = difflib.get_close_matches(label, self.names, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            more = len(self.names) - _SHOWN_LABELS
            expected = "one of " + ", ".join(self.names[:_SHOWN_LABELS]) + (f" and {more} more" if more > 0 else "")
            what = f"unknown label '{label[:80]}'.{hint}"
            advice = "correct the label, or train on data that has it"
            raise DataError(explain(what, expected=expected, advice=advice), path=path, line=line)
        return number

    def decode(self, number: int) -> str:
        """The label of a number."""
        return self.names[number]

    def encode_several(
        self, rows: Sequence[Collection[str]], *, places: Sequence[tuple[object, int | None]] | None = None
    ) -> npt.NDArray[np.bool_]:
        """The labels of examples that may have several: a table with one row for each example, and a column for each label.

        Args:
            rows: the labels of each of N examples; an example may have none.
            places: the file and line of each example, for the message.

        Returns:
            (N, V), booleans: whether the example has the label.

        Raises:
            DataError: a label is not known.

        Example:
            >>> LabelSet("abc").encode_several([("a", "c"), ()]).astype(int).tolist()
            [[1, 0, 1], [0, 0, 0]]
        """
        import numpy as np  # not needed to read texts and single labels

        table = np.zeros((len(rows), len(self)), np.bool_)
        for place, labels in enumerate(rows):
            path, line = places[place] if places is not None else (None, None)
            for label in labels:
                table[place, self.encode(label, path=path, line=line)] = True
        return table

    def decode_several(self, row: Iterable[object]) -> tuple[str, ...]:
        """The labels for which `row`, of V booleans, is true."""
        return tuple(name for name, there in zip(self.names, row, strict=True) if there)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, label: object) -> bool:
        return label in self._ids

    def __eq__(self, other: object) -> bool:
        return self.names == other.names if isinstance(other, LabelSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"LabelSet({len(self)} labels)"

    def to_dict(self) -> dict[str, Any]:
        """The labels as JSON values."""
        return {"labels": list(self.names)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> LabelSet:
        """The labels that :meth:`to_dict` wrote.

        Raises:
            CheckpointError: `content` is something else.
        """
        labels = saved_strings("set of labels", "labels", content)
        if not labels or list((made := cls(labels)).names) != labels:
            expected = "labels in sorted order, at least one"
            raise CheckpointError(explain("this is not a saved set of labels.", got=repr(labels)[:200], expected=expected))
        return made

    def save(self, path: StrPath) -> None:
        """Write the labels as JSON, atomically.

        Raises:
            DataError: the file cannot be written.
        """
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: StrPath) -> LabelSet:
        """Read the labels that :meth:`save` wrote.

        Raises:
            DataError: the file cannot be read or is not JSON.
            CheckpointError: the file holds something else.
        """
        with naming(path):
            return cls.from_dict(load_strings(path, "set of labels", "labels"))


def _by_number(label: str) -> tuple[int, str]:
    return int(label), label


def _by_spelling(label: str) -> tuple[int, str]:
    return 0, label
