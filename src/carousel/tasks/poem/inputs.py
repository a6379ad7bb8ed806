"""Poems into the numbers of tokens: what is learned from the training data, and batches of whole poems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carousel.data import read_json, write_json
from carousel.errors import CheckpointError, explain
from carousel.tasks.lm.inputs import LanguageInputs
from carousel.tasks.lm.options import LanguageModelOptions
from carousel.tasks.poem.forms import Form, learn_tunes
from carousel.tasks.poem.marks import is_mark, marked, nearest
from carousel.tasks.poem.poems import Poem, is_han
from carousel.tasks.poem.rhymes import RhymeTable

if TYPE_CHECKING:
    from carousel.data.token_stream import Window

__all__ = ["PoemBatches", "PoemInputs", "PoemRow"]

FORMS_FILE, RHYMES_FILE = "forms.json", "rhymes.json"
MAX_TUNES = 100_000


@dataclass(frozen=True, eq=False)
class PoemRow:
    """A poem as numbers.

    Args:
        numbers: (T,), its tokens.
        counted: (T,), which of them are characters of its lines: what is to be predicted.
    """

    numbers: npt.NDArray[np.int64]
    counted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PoemInputs(LanguageInputs):
    """What a poet knows beside its network: characters, the forms of tunes, rhymes.

    Args:
        tunes: the form of each tune, by its name.
        rhymes: of the known characters.
        title_length: characters of a title that are read.
    """

    tunes: dict[str, Form]
    rhymes: RhymeTable
    title_length: int

    @classmethod
    def from_poems(
        cls, poems: Sequence[Poem], *, min_count: int, max_vocab: int | None, title_length: int, max_lines: int
    ) -> PoemInputs:
        """Learn from poems.

        Args:
            poems: the training data.
            min_count: characters that are seen less often are unknown.
            max_vocab: how many tokens are known at most.
            title_length: characters of a title that are read.
            max_lines: lines of a poem that are read.
        """
        options = LanguageModelOptions(unit="char", min_count=min_count, max_vocab=max_vocab)
        texts = ["".join(marked(poem, title_length=title_length, max_lines=max_lines)) for poem in poems]
        base = LanguageInputs.learn(lambda: texts, options)
        # Tunes need the readings of all characters, also of those that are not learned.
        every = RhymeTable.of(sorted({char for poem in poems for line in poem.lines for char in line}))
        known = RhymeTable.of(filter(is_han, base.tokens))
        return cls._from(base, learn_tunes(poems, every), known, title_length)

    @classmethod
    def _from(cls, base: LanguageInputs, tunes: dict[str, Form], rhymes: RhymeTable, title_length: int) -> PoemInputs:
        shared = {item.name: getattr(base, item.name) for item in fields(LanguageInputs)}
        return cls(**shared, tunes=tunes, rhymes=rhymes, title_length=title_length)

    @cached_property
    def names(self) -> list[str]:
        """The token of each number."""
        return self.tokens

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each token."""
        return {token: number for number, token in enumerate(self.tokens) if number}

    @cached_property
    def written(self) -> npt.NDArray[np.bool_]:
        """(V,): which tokens may stand in a poem; signs, what is unknown and the line's end may not."""
        return np.array([number > 0 and len(token) == 1 and is_han(token) for number, token in enumerate(self.tokens)])

    @cached_property
    def rhyming(self) -> dict[str, npt.NDArray[np.bool_]]:
        """For each group of rhymes, which tokens are in it, (V,)."""
        found = {}
        for name, characters in self.rhymes.members.items():
            found[name] = np.zeros(len(self), np.bool_)
            found[name][[self.numbers[char] for char in characters if char in self.numbers]] = True
        return found

    @cached_property
    def rhyming_sizes(self) -> dict[str, int]:
        """How many tokens are in each group of rhymes."""
        return {name: int(mask.sum()) for name, mask in self.rhyming.items()}

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """The signs that are known."""
        return tuple(token for token in self.tokens[1:] if is_mark(token))

    def known_mark(self, mark: str) -> int | None:
        """The number of the sign of a line, or of the known one most like it.

        Args:
            mark: the sign.
        """
        found = mark if mark in self.numbers else nearest(mark, self.marks)
        return None if found is None else self.numbers[found]

    def row(self, poem: Poem, max_lines: int | None = None) -> PoemRow:
        """A poem as numbers.

        Args:
            poem: the poem.
            max_lines: so many of its lines; None for all.
        """
        heading, lines = marked(poem, title_length=self.title_length, max_lines=max_lines)
        numbers: list[int] = []
        counted: list[bool] = []
        for place, char in enumerate(heading + lines):
            sign = is_mark(char)
            number = self.numbers.get(char, 0)
            if sign and not number:  # a sign that was never seen says nothing; that of a line has one like it
                near = self.known_mark(char) if place >= len(heading) else None
                if near is None:
                    continue
                number = near
            numbers.append(number)
            counted.append(place >= len(heading) and not sign)
        return PoemRow(np.array(numbers, np.int64), np.array(counted, np.bool_))

    def write(self, directory: Path) -> None:
        """Write all of it as JSON files."""
        super().write(directory)
        self.rhymes.write(directory / RHYMES_FILE)
        forms = {name: form.to_dict() for name, form in self.tunes.items()}
        write_json(directory / FORMS_FILE, {"title_length": self.title_length, "tunes": forms})

    @classmethod
    def recall(cls, directory: Path) -> PoemInputs:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        base = LanguageInputs.recall(directory)
        path = directory / FORMS_FILE
        saved: Any = read_json(path)
        good = isinstance(saved, dict) and set(saved) == {"title_length", "tunes"} and isinstance(saved["tunes"], dict)
        if not good or len(saved["tunes"]) > MAX_TUNES or type(saved["title_length"]) is not int or saved["title_length"] < 0:
            raise CheckpointError(explain(f"{path}: not the forms of a poet.", got=repr(saved)[:200]))
        if base.unit != "char" or base.backward or not any(map(is_han, base.tokens)):
            raise CheckpointError(f"{directory}: not a poet, which reads and writes Chinese characters one by one, forward.")
        try:
            tunes = {name: Form.from_dict(form, name) for name, form in saved["tunes"].items()}
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        return cls._from(base, tunes, RhymeTable.recall(directory / RHYMES_FILE), saved["title_length"])


class PoemBatches:
    """Poems as batches of similar lengths, each read from its beginning.

    Args:
        rows: the poems.
        start: the number of the token that stands before each.
        batch_size: poems in a batch.
        shuffle: whether their order is random.
        seed: what it starts from.
    """

    def __init__(self, rows: Sequence[PoemRow], *, start: int, batch_size: int, shuffle: bool, seed: int = 0) -> None:
        from carousel.data import BucketedBatches

        # Number and whether it is predicted in one, so that padding is a token that is not.
        both = [row.numbers * 2 + row.counted for row in rows]
        self.start = start
        self.batches = BucketedBatches(both, batch_size=batch_size, shuffle=shuffle, seed=seed)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0."""
        self.batches.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """Let the next iteration, and only that one, leave out its first batches.

        Args:
            batches: how many.
        """
        self.batches.skip(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Window]:
        import torch

        from carousel.data.token_stream import IGNORED, Window

        for batch in self.batches:
            numbers, counted = batch.inputs // 2, batch.inputs % 2 == 1
            before = torch.cat([torch.full_like(numbers[:, :1], self.start), numbers[:, :-1]], 1)
            targets = torch.where(counted, numbers, IGNORED)
            yield Window(before, targets, first=True, rate=1.0, token_count=int(counted.sum()))
