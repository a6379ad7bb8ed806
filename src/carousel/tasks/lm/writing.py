"""What a language model does with texts: writes them, scores them, says what may come next."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from carousel.data import Vocabulary
from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.lm.inputs import UNKNOWN, Joiner, LanguageInputs, Texts, read_lines
from carousel.tasks.lm.sampling import Sampler, Sampling

if TYPE_CHECKING:
    from carousel.tasks.lm.network import LanguageNetwork
    from carousel.tasks.lm.reading import Reading
    from carousel.tasks.lm.task import LanguageModel
    from carousel.tasks.lm.type_ahead import TypeAhead

__all__ = ["Allowed", "LineScore", "Token", "Writing"]

Allowed = Callable[[int | None], "npt.NDArray[np.bool_] | Sequence[int] | None"]
"""Asked before each token with the number of the last one, None at first: which may come, as a mask (V,) or as numbers."""

GROUP = 1024  # lines that are scored before the first result is given


@dataclass(frozen=True)
class Token:
    """A token that was produced.

    Args:
        number: of the token.
        text: what it adds to the text; it may be empty.
        log_probability: what the model gave it, before temperature and the like.
    """

    number: int
    text: str
    log_probability: float


@dataclass(frozen=True)
class LineScore:
    """What a model thinks of a line.

    Args:
        text: the line.
        numbers: (N,), its tokens from first to last, the line's end among them.
        log_probabilities: (N,), of each, in nats.
        names: all tokens by number.
    """

    text: str
    numbers: npt.NDArray[np.int32]
    log_probabilities: npt.NDArray[np.float32]
    names: Sequence[str] = field(repr=False)

    @property
    def total(self) -> float:
        """The log-probability of the line."""
        return float(self.log_probabilities.sum(dtype=np.float64))

    @property
    def per_token(self) -> float | None:
        """The mean over its tokens; None if it has none."""
        return self.total / len(self.numbers) if len(self.numbers) else None

    @property
    def tokens(self) -> list[str]:
        """The tokens."""
        return [self.names[number] for number in self.numbers.tolist()]


class Writing:
    """The verbs of a fitted language model beside those of every estimator."""

    inputs_: LanguageInputs

    _require_fitted: Callable[[str], None]
    _ready: Callable[[], LanguageNetwork]

    def start(self, batch: int = 1) -> Reading:
        """Begin to read texts token by token: the base of everything that generates or searches.

        Args:
            batch: how many texts side by side.
        """
        from carousel.tasks.lm.reading import Reading

        self._require_fitted("start")
        return Reading(self._ready(), batch, self.inputs_.end)

    def generate(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        stop: str | Sequence[str] | None = None,
        allowed: Allowed | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Write on, giving out text as it is produced, in constant memory.

        Unknown tokens are never written. The same seed gives the same text on the same machine.

        Args:
            prompt: the text to go on from; it is not given out. Tokens that the model does not know are read as unknown
                ones, with a warning.
            length: how many tokens to write; None goes on for ever.
            stop: end before this text, or any of these, would be written.
            allowed: which tokens may come next; see :data:`Allowed`.
            temperature: see :class:`Sampling`, here and below.
            top_k: how many tokens may be drawn.
            top_p: share of the probability that may be drawn.
            repetition_penalty: 1 for none.
            seed: what is drawn from; None for anything.

        Yields:
            Parts of the text, none empty.

        Raises:
            NotFittedError: before fitting or loading.
            ConfigError: an argument is not possible, or the model reads backward.
        """
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, seed=seed)
        stops = [stop] if isinstance(stop, str) else list(stop or [])
        if any(not isinstance(one, str) or not one for one in stops):
            raise ConfigError(explain("stop must be a text, or several.", got=repr(stop)))
        return self._until(self.tokens(prompt, length=length, sampling=sampling, allowed=allowed), stops)

    def tokens(
        self,
        prompt: str = "",
        *,
        length: int | None = None,
        sampling: Sampling | None = None,
        allowed: Allowed | None = None,
    ) -> Iterator[Token]:
        """Write on, token by token; see :meth:`generate`.

        Args:
            prompt: the text to go on from.
            length: how many tokens; None goes on for ever.
            sampling: how they are drawn.
            allowed: which may come next.
        """
        self._require_fitted("generate")
        if self.inputs_.backward:
            what = "this model reads from the end of a text, so it cannot write on."
            raise ConfigError(explain(what, advice="use a model that was trained with direction=forward"))
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 0):
            raise ConfigError(explain("length must be a whole number, 0 or more.", got=repr(length)))
        reading = self.start().read_all(self._prompt_numbers(prompt))
        return self._written(reading, prompt, length, Sampler(sampling or Sampling()), allowed)

    def next_tokens(self, text: str, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest tokens after a text.

        Args:
            text: what comes before.
            count: how many tokens.

        Returns:
            Pairs of token and probability, the likeliest first; the unknown token is left out.
        """
        scores = self.start().read_all(self._prompt_numbers(text)).log_probabilities[0].copy()
        scores[UNKNOWN] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(count, len(scores) - 1)]
        return [(self.inputs_.tokens[number], float(np.exp(scores[number]))) for number in best.tolist()]

    def type_ahead(self, count: int = 5, *, kept: int = 256) -> TypeAhead:
        """Begin a text that is typed key by key, and completed at every keystroke.

        Args:
            count: completions to give.
            kept: states that are kept for deleting; one for each word, or for each character.

        Raises:
            NotFittedError: before fitting or loading.
            ConfigError: an argument is not possible, or the model reads backward.
        """
        from carousel.tasks.lm.type_ahead import TypeAhead

        self._require_fitted("type_ahead")
        return TypeAhead(cast("LanguageModel", self), count, kept)

    def continuations(self, prompt: str, candidates: Sequence[str]) -> npt.NDArray[np.float64]:
        """The log-probabilities of some texts, given what stands before them.

        Args:
            prompt: what stands before.
            candidates: the texts that may follow.

        Returns:
            (N,), in nats, each the sum over the candidate's tokens.
        """
        before = self.start().read_all(self._prompt_numbers(prompt))
        found = np.zeros(len(candidates))
        for place, candidate in enumerate(candidates):
            reading = before.select([0])
            for number in self.inputs_.encode(candidate):
                found[place] += reading.log_probabilities[0, number]
                reading.read([number])
        return found

    def score_lines(self, texts: Texts | Iterable[str], *, continuous: bool = False) -> Iterator[LineScore]:
        """The log-probability of each line, and of each of its tokens.

        Args:
            texts: a file, or texts; one that has several lines counts as several.
            continuous: read each line after all lines before it, as :meth:`evaluate` does, so that the exponential of the
                mean loss is its perplexity; else each line is read by itself.

        Yields:
            One score a line, in order.
        """
        from carousel.tasks.lm.scoring import alone, read_on

        self._require_fitted("score")
        inputs, network = self.inputs_, self._ready()
        lines = read_lines(texts if isinstance(texts, str | os.PathLike) else list(texts))
        if not continuous:
            while group := list(islice(lines, GROUP)):
                rows = [np.frombuffer(inputs.encode_line(line), np.int32) for line in group]
                for line, row, losses in zip(group, rows, alone(network, rows, inputs.end), strict=True):
                    yield self._line_score(line, row, losses)
            return
        group = list(lines)
        rows = [np.frombuffer(inputs.encode_line(line), np.int32) for line in group]
        ordered = rows[::-1] if inputs.backward else rows
        parts = list(read_on(network, np.concatenate([*ordered, np.zeros(0, np.int32)]), inputs.end))
        losses = np.concatenate([*parts, np.zeros(0, np.float32)])
        pieces = np.split(losses, np.cumsum([len(row) for row in ordered])[:-1]) if ordered else []
        for line, row, piece in zip(group, rows, pieces[::-1] if inputs.backward else pieces, strict=True):
            yield self._line_score(line, row, piece)

    def unknown_tokens(self, text: str) -> list[str]:
        """The tokens of a text that the model does not know, each once, in order; spelled as in the text where that is known.

        Args:
            text: any text.
        """
        known = set(self.inputs_.tokens[1:])
        found: dict[str, None] = {}
        for line in read_lines([text]):
            found |= dict.fromkeys(token for token in self.inputs_.cut(line) if token not in known)
        return list(found)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _prompt_numbers(self, prompt: str) -> Sequence[int]:
        if not isinstance(prompt, str):
            raise DataError(explain("a prompt is a text.", got=type(prompt).__name__))
        numbers = self.inputs_.encode_text(prompt)
        if UNKNOWN in numbers:
            unknown = [word for word in self.unknown_tokens(prompt) if word != Vocabulary.UNK]
            if unknown:
                shown = ", ".join(map(repr, unknown[:10])) + (" ..." if len(unknown) > 10 else "")
                warnings.warn(f"not in the model's vocabulary, read as unknown: {shown}", stacklevel=3)
        return numbers[::-1] if self.inputs_.backward else numbers

    def _written(
        self, reading: Reading, prompt: str, length: int | None, sampler: Sampler, allowed: Allowed | None
    ) -> Iterator[Token]:
        joiner = Joiner(self.inputs_)
        if self.inputs_.unit == "word" and prompt and not prompt[-1].isspace():
            joiner.go_on()
        last: int | None = None
        produced = 0
        known = np.ones(len(self.inputs_), np.bool_)
        known[UNKNOWN] = False
        while length is None or produced < length:
            mask = known
            if allowed is not None and (given := allowed(last)) is not None:
                mask = known & _mask(given, len(known))
            scores = reading.log_probabilities[0]
            last = sampler.draw(scores, mask)
            produced += 1
            text = joiner.add(last) + (joiner.close() if produced == length else "")
            yield Token(last, text, float(scores[last]))
            if produced != length:
                reading.read([last])

    @staticmethod
    def _until(tokens: Iterator[Token], stops: Sequence[str]) -> Iterator[str]:
        """Texts of tokens up to the first stop; what may be the beginning of one is held back."""
        held = ""
        for token in tokens:
            held += token.text
            found = [place for stop in stops if (place := held.find(stop)) >= 0]
            if found:
                if min(found):
                    yield held[: min(found)]
                return
            keep = max((_overlap(held, stop) for stop in stops), default=0)
            out, held = held[: len(held) - keep], held[len(held) - keep :]
            if out:
                yield out
        if held:
            yield held

    def _line_score(self, line: str, row: npt.NDArray[np.int32], losses: npt.NDArray[np.float32]) -> LineScore:
        if self.inputs_.backward:
            words = len(row) - self.inputs_.line_ends
            row = np.concatenate([row[:words][::-1], row[words:]])
            losses = np.concatenate([losses[:words][::-1], losses[words:]])
        return LineScore(line, row, -losses, self._names())

    def _names(self) -> list[str]:
        kept: tuple[Any, list[str]] | None = self.__dict__.get("_token_names")
        if kept is None or kept[0] is not self.inputs_:
            kept = (self.inputs_, self.inputs_.tokens)
            self.__dict__["_token_names"] = kept
        return kept[1]


def _mask(given: npt.NDArray[np.bool_] | Sequence[int], count: int) -> npt.NDArray[np.bool_]:
    numbers = np.asarray(given)
    if numbers.dtype == np.bool_:
        if numbers.shape != (count,):
            raise ConfigError(explain("allowed gave a mask of another length.", got=str(numbers.shape), expected=f"({count},)"))
        return numbers
    mask = np.zeros(count, np.bool_)
    mask[numbers.astype(np.int64)] = True
    return mask


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` may begin `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
