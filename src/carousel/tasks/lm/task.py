"""The language model: the next token of a text."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.base import PathLike, Prepared
from carousel.tasks.cell_choice import require_vector_cell
from carousel.tasks.lm.inputs import LanguageInputs, Texts, read_lines
from carousel.tasks.lm.options import LanguageModelOptions
from carousel.tasks.lm.writing import Writing
from carousel.tasks.run_directory import path_text
from carousel.tasks.splits import HELD_OUT
from carousel.tasks.unlabelled import Unlabelled

if TYPE_CHECKING:
    from torch import nn

    from carousel.tasks.lm.network import LanguageNetwork

__all__ = ["LanguageModel"]

CANDIDATES = 5  # of a prediction
LN2 = math.log(2.0)


@dataclass(frozen=True)
class PreparedText(Prepared[LanguageInputs]):
    """Data made ready, and the text that is held for validation.

    Args:
        held: (N,), its tokens in the order of reading.
        characters: how many it has.
    """

    held: NDArray[np.int32]
    characters: int


class LanguageModel(Writing, Unlabelled[LanguageInputs]):
    """A language model: the probability of each next token, given all before it.

    .. math:: p(x_1, \\ldots, x_N) = \\prod_t p(x_t \\mid x_1, \\ldots, x_{t-1}), \\qquad
        p(\\cdot) = \\operatorname{softmax}(W h_t + b)

    Trained by truncated backpropagation through time on rows of one long text, whose states are carried from window to
    window. It generates, scores, ranks and fills; see :meth:`generate`, :meth:`score_lines`, :meth:`next_tokens` and
    :meth:`continuations`.

    Args:
        options: those of :class:`LanguageModelOptions` and of :class:`carousel.training.TrainingConfig`, by name.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.

    Example:
        .. code-block:: python

            model = LanguageModel(unit="char", hidden_size=256).fit("train.txt", valid="valid.txt", out="runs/lm")
            model.evaluate("test.txt")["perplexity"]
            print("".join(model.generate("ROMEO:", length=200, seed=1)))

    References:
        Zaremba, Sutskever, Vinyals (2014), "Recurrent Neural Network Regularization", arXiv:1409.2329.
        Merity, Keskar, Socher (2018), "Regularizing and Optimizing LSTM Language Models", arXiv:1708.02182.
    """

    task: ClassVar[str] = "lm"
    options_type: ClassVar[type] = LanguageModelOptions
    training_defaults: ClassVar[Mapping[str, Any]] = {"lr": 2e-3, "clip_norm": 1.0}
    no_labels: ClassVar[str] = "a language model has no labels to be judged by."
    options: LanguageModelOptions

    def fit(
        self,
        X: Texts,
        y: Texts | None = None,
        *,
        valid: Texts | None = None,
        out: PathLike | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train, choosing the best epoch on validation data.

        Args:
            X: what to learn from: a file, or a list of texts that follow each other.
            y: the same as `valid`.
            valid: a text to validate on; None holds out the last tenth of the lines of `X`.
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
        if y is not None and valid is not None:
            raise DataError(explain("fit: validation data were given twice.", advice="fit(train, valid=valid)"))
        return super().fit(X, None, valid=y if valid is None else valid, out=out, overwrite=overwrite, resume=resume)

    def evaluate(self, data: Texts) -> dict[str, float]:
        """Measure on a text, read from its beginning to its end as one (static evaluation: nothing is adapted or cached).

        Args:
            data: a file, or a list of texts that follow each other.

        Returns:
            `perplexity`, `nats_per_token`, `bits_per_char` (ends of lines count as characters) and `tokens`, the number of
            tokens; every one counts once, ends of lines included.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: the file cannot be read, or holds no text.
        """
        from carousel.tasks.lm.scoring import read_on

        self._require_fitted("evaluate")
        inputs = self.inputs_
        numbers, characters = inputs.stream(read_lines(data))
        total = sum(float(part.sum(dtype=np.float64)) for part in read_on(self._ready(), numbers, inputs.end))
        return _measures(total, len(numbers), characters)

    def predict_records(self, X: Sequence[str]) -> list[dict[str, Any]]:
        """The tokens that may follow each text.

        Args:
            X: texts, any number.

        Returns:
            For each text, in order, `next`: pairs [token, probability], the likeliest first.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one string, or holds something else than texts.
        """
        self._require_fitted("predict")
        texts = _texts("predict", X)
        return [{"next": [list(pair) for pair in self.next_tokens(text, CANDIDATES)]} for text in texts]

    def encode(self, records: Sequence[str]) -> NDArray[np.float32]:
        """Turn each text into the vector that the output layer sees after it.

        Args:
            records: texts, any number.

        Returns:
            (N, F), in order.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: as for :meth:`predict_records`.
        """
        self._require_fitted("encode")
        texts = _texts("encode", records)
        found = [self.start().read_all(self._prompt_numbers(text)).hidden[0] for text in texts]
        return np.stack(found) if found else np.zeros((0, self._ready().output_size), np.float32)

    def read_records(self, path: PathLike, format: str | None = None) -> list[str]:  # noqa: A002, ARG002 - the base's names
        """The lines of a file; ``-`` is standard input.

        Args:
            path: the file.
            format: not used: a text is a text.
        """
        return list(read_lines(path))

    def plain(self, record: str, prediction: Mapping[str, Any]) -> str:
        """The likeliest next tokens with their probabilities, and the text, between tabs."""
        told = " ".join(f"{token!r} {share:.3f}" for token, share in prediction["next"])
        return f"{told}\t{record}"

    def read_with(self, **fields: str | None) -> Self:
        """A text has no columns and no format to be chosen.

        Raises:
            ConfigError: one is.
        """
        for name, value in fields.items():
            if value is not None:
                raise ConfigError(explain(f"option {name}: a text is read as it is, line by line.", got=str(value)))
        return self

    # --- for the estimator's verbs ------------------------------------------------------------------------------------

    def _answer_kind(self) -> Literal["one", "several", "number"]:
        return "one"

    def _answer_names(self) -> tuple[str, ...]:
        return tuple(self.inputs_.tokens)

    def _scores(self, records: list[Any]) -> NDArray[np.float64]:
        texts = _texts("predict", records)
        found = [self.start().read_all(self._prompt_numbers(text)).log_probabilities[0] for text in texts]
        return np.stack(found).astype(np.float64) if found else np.zeros((0, len(self.inputs_)))

    def _ready(self) -> LanguageNetwork:
        from carousel.training import choose_device

        return cast("LanguageNetwork", self.network_).to(choose_device(self._device)).eval()

    # --- training -----------------------------------------------------------------------------------------------------

    def _monitor(self, inputs: LanguageInputs) -> tuple[str, Literal["max", "min"]]:  # noqa: ARG002 - the base's signature
        return "loss", "min"

    def _prepare(self, train: Texts, valid: Texts | None, inputs: LanguageInputs | None) -> Prepared[LanguageInputs]:
        from carousel.data.token_stream import TokenStream

        require_vector_cell(self.cell)
        lines, held = _two_parts(train, valid)
        learned = LanguageInputs.learn(lines, self.options) if inputs is None else inputs
        numbers, _ = learned.stream(lines())
        check, characters = learned.stream(held())
        opts = self.options
        if valid is None:
            self._note("No validation data given: the last tenth of the lines is held out for it.")
        said = f"{len(numbers):,} tokens to learn from, {len(check):,} to validate on, {len(learned):,} different ones"
        self._note(f"{said}; unit: {learned.unit}{' (cut at blanks)' if learned.spaces else ''}.")
        if not (numbers == 0).any() and (share := float((check == 0).mean())):
            self._note(f"{share:.2%} of the validation data is unknown, which the training data never is: see min_count.")
        seed, end = self.training.seed, learned.end
        return PreparedText(
            inputs=learned,
            train=TokenStream(
                numbers, batch_size=opts.batch_size, window=opts.bptt, start=end, random=opts.random_windows, seed=seed
            ),
            valid=TokenStream(check, batch_size=opts.batch_size, window=opts.bptt, start=end),
            sources={"train": path_text(train), "valid": path_text(valid)},
            held=check,
            characters=characters,
        )

    def _build(self, inputs: LanguageInputs) -> nn.Module:
        from carousel.tasks.lm.network import LanguageNetwork

        return LanguageNetwork(self.cell, len(inputs), self.options)

    def _write_inputs(self, directory: Path, inputs: LanguageInputs) -> None:
        inputs.write(directory)

    def _recall(self, directory: Path) -> LanguageInputs:
        return LanguageInputs.recall(directory)

    def _report(self, prepared: Prepared[LanguageInputs], out: Path | None) -> dict[str, float]:  # noqa: ARG002
        from carousel.tasks.lm.scoring import read_on

        text = cast(PreparedText, prepared)
        total = sum(float(part.sum(dtype=np.float64)) for part in read_on(self._ready(), text.held, prepared.inputs.end))
        return _measures(total, len(text.held), text.characters)


def _measures(nats: float, tokens: int, characters: int) -> dict[str, float]:
    mean = nats / tokens
    try:
        perplexity = math.exp(mean)
    except OverflowError:
        perplexity = math.inf
    bits = nats / LN2 / max(1, characters)
    return {"perplexity": perplexity, "nats_per_token": mean, "bits_per_char": bits, "tokens": tokens}


def _two_parts(train: Texts, valid: Texts | None) -> tuple[Callable[[], Iterable[str]], Callable[[], Iterable[str]]]:
    """The lines to learn from and those to validate on, each as often as it is asked for."""
    for source in (train, valid):
        if isinstance(source, str | os.PathLike) and os.fspath(source) == "-":
            raise DataError(explain("training reads its text several times.", got="standard input", advice="name a file"))
    if valid is not None:
        return lambda: read_lines(train), lambda: read_lines(valid)
    count = sum(1 for _ in read_lines(train))
    kept = count - max(1, round(HELD_OUT * count))
    if kept < 1:
        got = f"{count} line{'' if count == 1 else 's'}"
        raise DataError(explain("too few lines to hold out a part for validation.", got=got, advice="give validation data"))
    return lambda: islice(read_lines(train), kept), lambda: islice(read_lines(train), kept, None)


def _texts(verb: str, items: Any) -> list[str]:
    if isinstance(items, str):
        raise DataError(explain(f"{verb} takes a list of texts.", got="one text", advice=f"{verb}([text])"))
    for position, item in enumerate(items):
        if not isinstance(item, str):
            raise DataError(explain(f"{verb}: item {position} is not a text.", got=repr(item)[:200]))
    return list(items)
