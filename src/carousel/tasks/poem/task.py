"""The poet: a language model of characters that writes poems of a given form."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.base import PathLike, Prepared
from carousel.tasks.cell_choice import require_vector_cell
from carousel.tasks.lm.inputs import LanguageInputs, read_lines
from carousel.tasks.lm.sampling import Sampling
from carousel.tasks.lm.task import LanguageModel
from carousel.tasks.lm.writing import LineScore
from carousel.tasks.poem.forms import Form
from carousel.tasks.poem.inputs import PoemBatches, PoemInputs, PoemRow
from carousel.tasks.poem.measuring import measure_read, measure_written
from carousel.tasks.poem.options import PoetOptions
from carousel.tasks.poem.poems import Poem, Poems, read_poems
from carousel.tasks.poem.splitting import hold_out_poems, without_titles
from carousel.tasks.poem.wishes import Wish, plan
from carousel.tasks.poem.writing import Manner, unread, write_batch
from carousel.tasks.run_directory import path_text

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Poet"]

BATCH = 250  # poems written side by side


@dataclass(frozen=True)
class PreparedPoems(Prepared[LanguageInputs]):
    """Data made ready, and the poems that are held for validation.

    Args:
        held: these poems.
        known: the lines of the training data.
    """

    held: tuple[Poem, ...]
    known: frozenset[str]


class Poet(LanguageModel):
    """A poet: a language model of characters whose poems always keep their form.

    .. math:: p(c_1, \\ldots, c_N \\mid \\text{form}, \\text{title}) = \\prod_t p(c_t \\mid c_1, \\ldots, c_{t-1}, \\ldots)

    The model reads a sign for the form, the title, and a sign before each line that tells its length; only the characters of
    lines are predicted. In writing the signs are given and nothing but characters can be drawn, so every poem has the lines
    of its form. Lines that rhyme in it end on a character that rhymes by its modern reading (see
    :class:`~carousel.tasks.poem.rhymes.RhymeTable` on what that is worth), where one is known.

    Args:
        options: those of :class:`PoetOptions` and of :class:`carousel.training.TrainingConfig`, by name.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.

    Example:
        .. code-block:: python

            poet = Poet(max_minutes=20).fit("tang.jsonl.gz", out="runs/poet")
            print(poet.write(title="春曉", form="wujue", seed=1))
            for poem in poet.write(acrostic="春夏秋冬", count=10):
                print(poem.text)

    References:
        Zhang, Lapata (2014), "Chinese Poetry Generation with Recurrent Neural Networks", EMNLP.
    """

    task: ClassVar[str] = "poem"
    options_type: ClassVar[type] = PoetOptions
    training_defaults: ClassVar[Mapping[str, Any]] = {"lr": 2e-3, "clip_norm": 1.0}
    options: PoetOptions  # type: ignore[assignment]  # fewer than a language model of any text has
    inputs_: PoemInputs

    def fit(
        self,
        X: Poems,
        y: Poems | None = None,
        *,
        valid: Poems | None = None,
        out: PathLike | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train, choosing the best epoch on validation data.

        Args:
            X: what to learn from: a file of JSON lines, or a list of :class:`Poem` or of texts.
            y: the same as `valid`.
            valid: poems to validate on; None holds out a tenth of `X`, always the same for the same seed.
            out: the run directory; None keeps nothing on disk.
            overwrite: replace a run that is at `out`. It stays until the new one has saved its first checkpoint.
            resume: go on from the last checkpoint at `out`, as if training had never stopped.

        Returns:
            This estimator. `result_` tells how training went, `scores_` how it measures on the validation data.

        Raises:
            ConfigError: `out` cannot be used, or an option differs from the run to resume.
            DataError: a file cannot be read; the message names file and line.
            TrainingError: training cannot go on; checkpoints saved before stay.
        """
        # The base's texts are poems here: it hands both on to what reads them.
        return super().fit(X, y, valid=valid, out=out, overwrite=overwrite, resume=resume)  # type: ignore[arg-type]

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(
        self,
        title: str = "",
        *,
        form: str | Form | Sequence[int] | None = None,
        tune: str = "",
        acrostic: str = "",
        first: str = "",
        rhymes: str | None = None,
        count: int | None = None,
        **manner: Any,
    ) -> Any:
        """Write a poem, or several to the same wish.

        Args:
            title: its title.
            form: its form; see :class:`Wish`, here and below.
            tune: a tune instead.
            acrostic: the first characters of the lines.
            first: the first line, or several.
            rhymes: which lines rhyme.
            count: so many poems, as a list; None for one.
            manner: how, as for :meth:`write_all`.

        Returns:
            A :class:`Poem`, or a list of them.

        Raises:
            NotFittedError: before fitting or loading.
            ConfigError: an argument is not possible, or they contradict each other.
        """
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise ConfigError(explain("count must be a whole number, 0 or more.", got=repr(count)))
        wish = Wish(title, form, tune, acrostic, first, rhymes)
        found = self.write_all([wish] * (1 if count is None else count), **manner)
        return found[0] if count is None else found

    def write_all(
        self,
        wishes: Sequence[Wish],
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = 0.95,
        repetition_penalty: float = 1.2,
        rhyme: bool = True,
        seed: int | None = None,
    ) -> list[Poem]:
        """Write a poem to each wish, many side by side.

        Args:
            wishes: what is wanted; the forms may differ.
            temperature: 1 draws as the model expects, less is safer, 0 always takes the likeliest.
            top_k: how many characters may be drawn.
            top_p: share of the probability that may be drawn.
            repetition_penalty: above 1, a character that stands in the poem already becomes less likely.
            rhyme: lines that are to rhyme do, where a rhyme is known.
            seed: the same one gives the same poems; poem i of a call is drawn from seed + i. None draws one.

        Returns:
            The poems, in order.

        Raises:
            NotFittedError: before fitting or loading.
            ConfigError: an argument or a wish is not possible.
        """
        self._require_fitted("write")
        inputs = self.inputs_
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed=seed)
        plans = [plan(wish, inputs.tunes) for wish in wishes]
        if unknown := unread(plans, inputs):
            shown = " ".join(unknown[:20]) + (" ..." if len(unknown) > 20 else "")
            warnings.warn(f"not in the model's vocabulary, read as unknown: {shown}", stacklevel=2)
        # Poems of about the same length side by side, so that few wait for the longest.
        order = sorted(range(len(plans)), key=lambda place: sum(plans[place].form.lengths))
        found: dict[int, Poem] = {}
        for begin in range(0, len(order), BATCH):
            places = order[begin : begin + BATCH]
            poems = write_batch(self.start(len(places)), plans, places, inputs, Manner(sampling, rhyme))
            found |= zip(places, poems, strict=True)
        return [found[place] for place in range(len(plans))]

    # --- measuring ----------------------------------------------------------------------------------------------------

    def evaluate(self, data: Poems) -> dict[str, float]:
        """Measure on poems, each read by itself, and on poems that are written after their titles and forms.

        Args:
            data: a file of JSON lines, or a list of :class:`Poem` or of texts.

        Returns:
            `perplexity`, `nats_per_char` and `characters`, of the characters of the lines, given form and title; `unknown`, the
            share of these that the model does not know; and of `written` new poems: `forms_kept`, `rhyming` (beside
            `rhyming_read` of the poems that were read, and `rhyming_chance`), `distinct_2` and `distinct_lines`.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: the file cannot be read, or holds no poem.
        """
        self._require_fitted("evaluate")
        return self._measure(read_poems(data).poems, None)

    def evaluate_file(self, path: PathLike, directory: Path) -> dict[str, float]:
        """Measure on a file; see :meth:`evaluate`. With the training data at hand, also `copied`: the share of lines from it.

        Args:
            path: the file; ``-`` is standard input.
            directory: the run directory, which names the training data; nothing is written.
        """
        from carousel.tasks.run_directory import CONFIG_FILE, read_config

        self._require_fitted("evaluate")
        train = read_config(directory / CONFIG_FILE).values.get("train")
        known = None
        if isinstance(train, str) and Path(train).is_file():
            known = frozenset(line for poem in read_poems(train).poems for line in poem.lines)
        return self._measure(read_poems(path).poems, known)

    def score_lines(self, texts: Any, *, continuous: bool = False) -> Iterator[LineScore]:
        """The log-probability of each poem, given its form: of the characters of its lines.

        Args:
            texts: a file, or texts: a poem a line, as it is printed, without a title.
            continuous: not possible: a poem is read by itself.

        Yields:
            One score a poem, in order.

        Raises:
            ConfigError: `continuous`.
            DataError: a line is no poem.
        """
        self._require_fitted("score")
        if continuous:
            raise ConfigError("a poet reads each poem by itself, so --continuous is not possible.")
        lines = read_lines(texts if isinstance(texts, str | os.PathLike) else list(texts))
        names = self.inputs_.names
        while group := list(islice(lines, BATCH)):
            rows = [self.inputs_.row(Poem.parse(line)) for line in group]
            for line, row, losses in zip(group, rows, self._losses(rows), strict=True):
                yield LineScore(line, row.numbers[row.counted].astype(np.int32), -losses, names)

    # --- the other verbs ----------------------------------------------------------------------------------------------

    def predict(self, X: Sequence[str]) -> NDArray[Any]:
        """Write a quatrain to each title; the same one for the same list.

        Args:
            X: titles.

        Returns:
            (N,), texts.
        """
        return np.array([record["text"] for record in self.predict_records(X)], dtype=object)

    def predict_records(self, X: Sequence[str]) -> list[dict[str, Any]]:
        """Write a quatrain to each title; the same one for the same list.

        Args:
            X: titles.

        Returns:
            For each title, in order, `title`, `form` and `text`.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one string, or holds something else than texts.
        """
        if isinstance(X, str) or not all(isinstance(title, str) for title in X):
            raise DataError(explain("predict takes a list of titles.", got=repr(X)[:80], advice="predict([title])"))
        poems = self.write_all([Wish(title) for title in X], seed=self.training.seed)
        return [{"title": poem.title, "form": "qijue", "text": poem.text} for poem in poems]

    def encode(self, records: Sequence[str]) -> NDArray[np.float32]:
        """Turn each poem into the vector that the output layer sees after its last character.

        Args:
            records: texts of poems.

        Returns:
            (N, F), in order.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: a text is no poem.
        """
        self._require_fitted("encode")
        rows = [self.inputs_.row(Poem.parse(text)) for text in records]
        found = [self.start().read_all(row.numbers.tolist()).hidden[0] for row in rows]
        return np.stack(found) if found else np.zeros((0, self._ready().output_size), np.float32)

    def plain(self, record: str, prediction: Mapping[str, Any]) -> str:
        """The poem and its title, between a tab."""
        return f"{prediction['text']}\t{record}"

    def _prompt_numbers(self, prompt: str) -> NoReturn:  # noqa: ARG002 - the base's signature
        advice = "write(title=..., form=...); or carousel generate DIR --title TEXT --form NAME"
        raise ConfigError(explain("a poet writes whole poems, not on from a text.", advice=advice))

    def _scores(self, records: list[Any]) -> NoReturn:  # noqa: ARG002 - the base's signature
        self._prompt_numbers("")

    # --- training -----------------------------------------------------------------------------------------------------

    def _prepare(self, train: Any, valid: Any, inputs: LanguageInputs | None) -> Prepared[LanguageInputs]:
        require_vector_cell(self.cell)
        opts = self.options
        if any(isinstance(source, str | os.PathLike) and os.fspath(source) == "-" for source in (train, valid)):
            raise DataError(
                explain("training reads its data again when it goes on.", got="standard input", advice="name a file")
            )
        read = read_poems(train)
        poems, held = read.poems, () if valid is None else read_poems(valid).poems
        if read.left_out:
            self._note(f"{read.left_out:,} poems with something else than Chinese characters in their lines are left out.")
        if valid is None:
            poems, held = hold_out_poems(poems, seed=self.training.seed)
            self._note("No validation data given: a tenth of the poems is held out for it.")
        if inputs is None:
            inputs = PoemInputs.from_poems(
                poems,
                min_count=opts.min_count,
                max_vocab=opts.max_vocab,
                title_length=opts.title_length,
                max_lines=opts.max_lines,
            )
        learned = _checked(inputs)
        read_so = without_titles(poems, opts.untitled, seed=self.training.seed)
        rows, check = ([learned.row(poem, opts.max_lines) for poem in group] for group in (read_so, held))
        counted = sum(int(row.counted.sum()) for row in rows)
        said = f"{len(poems):,} poems with {counted:,} characters to learn from, {len(held):,} poems to validate on"
        self._note(f"{said}; {int(learned.written.sum()):,} different characters, {len(learned.tunes):,} tunes.")
        end, size = learned.end, opts.batch_size
        return PreparedPoems(
            inputs=learned,
            train=PoemBatches(rows, start=end, batch_size=size, shuffle=True, seed=self.training.seed),
            valid=PoemBatches(check, start=end, batch_size=size, shuffle=False),
            sources={"train": path_text(train), "valid": path_text(valid)},
            held=held,
            known=frozenset(line for poem in poems for line in poem.lines),
        )

    def _build(self, inputs: LanguageInputs) -> nn.Module:
        from carousel.tasks.lm.network import LanguageNetwork

        return LanguageNetwork(self.cell, len(inputs), self.options.language)

    def _recall(self, directory: Path) -> PoemInputs:
        return PoemInputs.recall(directory)

    def _report(self, prepared: Prepared[LanguageInputs], out: Path | None) -> dict[str, float]:  # noqa: ARG002
        assert isinstance(prepared, PreparedPoems)  # noqa: S101 - what _prepare gave
        return self._measure(prepared.held, prepared.known)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _losses(self, rows: Sequence[PoemRow]) -> list[NDArray[np.float32]]:
        """The losses of the characters of lines, poem by poem."""
        from carousel.tasks.lm.scoring import alone

        found = alone(self._ready(), [row.numbers.astype(np.int32) for row in rows], self.inputs_.end)
        return [losses[row.counted] for losses, row in zip(found, rows, strict=True)]

    def _measure(self, poems: Sequence[Poem], known: frozenset[str] | None) -> dict[str, float]:
        rows = [self.inputs_.row(poem) for poem in poems]
        return measure_read(self._losses(rows), rows) | measure_written(self, poems, known)


def _checked(inputs: LanguageInputs) -> PoemInputs:
    assert isinstance(inputs, PoemInputs)  # noqa: S101 - what _recall or from_poems gave
    if not inputs.written.any():
        what = "no character is seen often enough to be known."
        raise DataError(explain(what, advice="more poems, or a lower min_count"))
    return inputs
