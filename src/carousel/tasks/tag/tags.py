"""The tags: the scheme that data write spans in, the one that the network learns, and a number for each tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carousel.data import LabelSet, read_json, write_json
from carousel.data.tagged import TAG_SCHEMES, convert, faults, guess_scheme
from carousel.errors import CheckpointError, ConfigError, DataError, explain

if TYPE_CHECKING:
    from carousel.data.tagged import TaggedSentence
    from carousel.structured import Constraints
    from carousel.tasks.tag.options import TaggerOptions

__all__ = ["UNSEEN", "TagIndex"]

UNSEEN = -1
"""The number of a tag that training has not seen."""

TAGS_FILE = "tags.json"
# All letters of a scheme, so that spans longer or shorter than any in training can be written.
_BILOU = {"E": "L", "S": "U"}
_LETTERS = {"bio": "BI", "iob1": "BI", "io": "I", "bioes": "BIES", "bmes": "BMES"}


@dataclass(frozen=True)
class TagIndex:
    """Tags as numbers.

    Args:
        labels: the tags that the network scores.
        data_scheme: how the data writes spans, and answers are written; None if it has none.
        scheme: how the network's tags write them; None if it takes tags as they are.
        inconsistent: what is done with tags that break the data's scheme: ``repair`` or ``error``.
        bilou: whether the data writes ``L`` and ``U`` for the ``E`` and ``S`` of BIOES.
    """

    labels: LabelSet
    data_scheme: str | None
    scheme: str | None
    inconsistent: str = "repair"
    bilou: bool = False

    @classmethod
    def learn(cls, sentences: Sequence[TaggedSentence], options: TaggerOptions) -> TagIndex:
        """Find the scheme of the training data, and its tags.

        Args:
            sentences: the training data.
            options: `scheme` and `inconsistent`.

        Raises:
            ConfigError: a scheme is asked for, and the data has none.
            DataError: there is not one tag, or the tags break the scheme and are not to be repaired.
        """
        rows = [sentence.tags or () for sentence in sentences]
        found = None if options.scheme == "none" else guess_scheme(rows)
        scheme = found
        if options.scheme == "auto" and found is not None:
            scheme = "bmes" if found == "bmes" else "bioes"
        elif options.scheme not in ("auto", "none"):
            if found is None:
                some = ", ".join(sorted({tag for tags in rows for tag in tags})[:8])
                what = f"option scheme: the tags do not mark spans, so they cannot be written as {options.scheme}."
                raise ConfigError(explain(what, got=some, advice="leave it out"))
            scheme = options.scheme
        bilou = found == "bioes" and any(tag[0] in "LU" for tags in rows for tag in tags)
        whole = cls(LabelSet(["O"]), found, scheme, options.inconsistent)
        names = {tag for sentence in sentences for tag in whole.inside(sentence)}
        if not names:
            raise DataError(explain("there is no tag to learn from.", advice="give sentences with tags"))
        if scheme is not None:
            names |= _written(scheme, names)
            if scheme != "bmes":
                names.add("O")
        return cls(LabelSet(names), found, scheme, options.inconsistent, bilou)

    def inside(self, sentence: TaggedSentence) -> Sequence[str]:
        """The sentence's tags as the network learns them.

        Args:
            sentence: with tags.

        Raises:
            DataError: a tag is not one of the scheme's, or breaks it where that is refused; with file and line.
        """
        tags = sentence.tags or ()
        if self.data_scheme is None or self.scheme is None:
            return tags
        try:
            if self.inconsistent == "error":
                self._refuse(sentence)
            return convert(tags, self.data_scheme, self.scheme)
        except DataError as error:
            if error.path is not None:
                raise
            raise DataError(str(error), path=sentence.path or None, line=sentence.line or None) from error

    def _refuse(self, sentence: TaggedSentence) -> None:
        tags, scheme = sentence.tags or (), self.data_scheme or ""
        for at in faults(tags, scheme)[:1]:
            what = f"tag {tags[at]!r} cannot stand here in scheme {scheme}."
            before = repr(tags[at - 1]) if at else "the beginning"
            advice = "correct it, or train with inconsistent=repair"
            message = explain(what, got=f"{tags[at]!r} behind {before}", advice=advice)
            raise DataError(message, path=sentence.path or None, line=sentence.line_of(at) or None)

    def outside(self, tags: Sequence[str]) -> list[str]:
        """The network's tags as the data writes them.

        Args:
            tags: of one sentence.
        """
        if self.data_scheme is None or self.scheme is None:
            return list(tags)
        found = list(tags) if self.data_scheme == self.scheme else convert(tags, self.scheme, self.data_scheme)
        return [_BILOU.get(tag[0], tag[0]) + tag[1:] for tag in found] if self.bilou else found

    @property
    def answers(self) -> tuple[str, ...]:
        """The tags that may be answered, sorted."""
        names = set(self.labels.names)
        if self.data_scheme is not None:
            names = ({"O"} & names) | _written(self.data_scheme, names)
        return tuple(sorted(_BILOU.get(tag[0], tag[0]) + tag[1:] if self.bilou else tag for tag in names))

    def encode(self, sentences: Iterable[TaggedSentence]) -> npt.NDArray[np.int64]:
        """(S,): the numbers of all tags of some sentences; :data:`UNSEEN` for one that training has not seen.

        Args:
            sentences: with tags.
        """
        number = {name: at for at, name in enumerate(self.labels.names)}
        return np.array([number.get(tag, UNSEEN) for sentence in sentences for tag in self.inside(sentence)], np.int64)

    def constraints(self) -> Constraints | None:
        """Which tags may follow which; None if any may."""
        from carousel.structured import SCHEMES

        return SCHEMES[self.scheme](self.labels.names) if self.scheme in SCHEMES else None

    def __len__(self) -> int:
        return len(self.labels)

    def write(self, directory: Path) -> None:
        """Write all of it as JSON."""
        content = {"tags": list(self.labels.names), "data_scheme": self.data_scheme, "scheme": self.scheme}
        write_json(directory / TAGS_FILE, content | {"inconsistent": self.inconsistent, "bilou": self.bilou})

    @classmethod
    def recall(cls, directory: Path) -> TagIndex:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: the file cannot be read.
            CheckpointError: the file holds something else.
        """
        path = directory / TAGS_FILE
        saved: Any = read_json(path)
        keys = {"bilou", "data_scheme", "inconsistent", "scheme", "tags"}
        if not isinstance(saved, dict) or saved.keys() != keys or not _are_names(saved["tags"]):
            raise CheckpointError(explain(f"{path}: not saved tags.", got=repr(saved)[:200], expected=", ".join(sorted(keys))))
        schemes = (saved["data_scheme"], saved["scheme"])
        good = all(scheme is None or scheme in TAG_SCHEMES for scheme in schemes)
        good = good and (schemes[0] is None) == (schemes[1] is None) and saved["inconsistent"] in ("repair", "error")
        if not good or type(saved["bilou"]) is not bool:
            raise CheckpointError(explain(f"{path}: schemes that there are not.", got=repr(schemes)[:200]))
        found = cls(LabelSet(saved["tags"]), schemes[0], schemes[1], saved["inconsistent"], saved["bilou"])
        try:
            found.constraints()
            for tag in found.labels.names:
                found.outside([tag])
        except (ConfigError, DataError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        return found


def _written(scheme: str, names: Iterable[str]) -> set[str]:
    """All tags that spans of the types in `names` can have."""
    kinds = {name.partition("-")[2] for name in names if name != "O"}
    return {f"{letter}-{kind}" if kind else letter for kind in kinds for letter in _LETTERS[scheme]}


def _are_names(names: object) -> bool:
    good = isinstance(names, list) and 0 < len(names) == len(set(map(str, names)))
    return good and all(isinstance(name, str) and name for name in names)  # type: ignore[attr-defined]
