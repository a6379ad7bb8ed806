"""Pinyin to characters: the likeliest way through a lattice of syllables, by a language model of characters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.lm.inputs import UNKNOWN, LanguageInputs, Texts, read_lines
from carousel.tasks.lm.lattice import Letters, Plain, parse_pinyin, sentences
from carousel.tasks.lm.ngrams import NGrams
from carousel.tasks.lm.readings import Readings, sentence_syllables

if TYPE_CHECKING:
    from carousel.tasks.lm.reading import Reading
    from carousel.tasks.lm.task import LanguageModel

__all__ = ["Conversion", "PinyinInput"]

RARE = 4.0  # nats that another reading of a character than its commonest costs while searching
MISREAD = 3.0  # nats that a character costs which the dictionary of phrases reads otherwise in its place
ALIKE = 3  # hypotheses with so many last characters in common go on alike: only the best of them is searched further
OTHERS, WORSE = 4, 8.0  # of the rest, so many are remembered at each character, if they are so many nats less likely at most
COUNTED = 0.5  # the share of counted sequences in a probability
WIDER = 8  # times the beam: candidates that are looked at for it
SCORED = 16  # signs of plain text that the hypotheses are compared on; behind longer text only the best one goes on


@dataclass(frozen=True)
class Conversion:
    """What typed pinyin may mean.

    Args:
        text: the characters, with all that stood between the syllables.
        score: its log-probability in nats, the mean of both models where there are two, less what unusual readings cost.
        kept: letters that cannot be cut into syllables, which stay as they were typed.
    """

    text: str
    score: float
    kept: tuple[str, ...] = ()


class _Step(NamedTuple):
    """The last character of a hypothesis, or the last plain text, and all before it."""

    before: _Step | None
    text: str
    syllable: str
    last: tuple[int, ...]  # the last tokens
    others: list[tuple[float, _Step]]  # what would be in this one's place, and how much less likely


_Rows = Sequence[tuple[float, "_Step | None"]]


class PinyinInput:
    r"""Turns pinyin into characters.

    Letters become a lattice of all syllables that they can be cut into, and each syllable all characters of the model's
    vocabulary that are read so. A beam search goes through it for the characters :math:`c` with the largest

    .. math:: \log p(c_1, \ldots, c_N) - \sum_n \text{cost}(c_n, \text{syllable}_n),

    where rare readings of a character cost something; the best ones are compared again by how a dictionary of phrases reads
    each character in its place. A second model, which reads backward, searches from the end: then all that both found is
    scored by both.

    Args:
        model: a language model of characters that reads forward.
        backward: another one, trained with ``direction="backward"``.
        phrases: a text, best the one that the model was trained on, whose sequences of up to four characters are counted; the
            probability of a character is then the mean of the model's and of what these tell.
        beam: hypotheses that are kept at each place.
        spaced: letters between blanks that are a syllable are that one: xian is never xi'an.

    Raises:
        ConfigError: a model cannot be used so, or `beam` is not possible.
        NotFittedError: a model is not fitted.

    Example:
        .. code-block:: python

            typed = PinyinInput(LanguageModel.load("runs/zh"))
            typed.convert("wo xihuan chongwu")[0].text          # 我喜欢宠物
    """

    def __init__(
        self,
        model: LanguageModel,
        backward: LanguageModel | None = None,
        *,
        phrases: Texts | None = None,
        beam: int = 32,
        spaced: bool = False,
    ) -> None:
        if isinstance(beam, bool) or not isinstance(beam, int) or beam < 1:
            raise ConfigError(explain("beam must be a whole number, 1 or more.", got=repr(beam)))
        self._beam, self._spaced = beam, spaced
        self._searches = [_Search(model, phrases, beam, backward=False)]
        if backward is not None:
            self._searches.append(_Search(backward, phrases, beam, backward=True))
        self.readings = self._searches[0].readings
        if not self.readings.longest:
            what = "this model knows no Chinese character."
            raise ConfigError(explain(what, got=f"{len(model.inputs_)} tokens", advice="train it on Chinese text"))

    def convert(self, line: str, count: int = 1) -> list[Conversion]:
        """The likeliest characters for a line of pinyin, sentence by sentence.

        Case does not matter; tones may be typed (``wo3``, ``wǒ``), blanks left out or set anywhere between syllables, and
        ``v`` or ``ü`` used. Everything else stays as it is, and so do letters that are no pinyin.

        Args:
            line: what was typed.
            count: how many conversions.

        Returns:
            At most `count` different ones, the likeliest first; an empty line has one, itself.

        Raises:
            ConfigError: `count` is not possible.
            DataError: it is no text, or several lines.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(explain("count must be a whole number, 1 or more.", got=repr(count)))
        if not isinstance(line, str) or len(line.splitlines()) > 1:
            raise DataError(explain("pinyin is converted line by line.", got=repr(line)[:80], expected="one line of text"))
        parts = parse_pinyin(line, self.readings, spaced=self._spaced)
        kept = tuple(part.text for part in parts if isinstance(part, Plain) and part.letters)
        best = [("", 0.0)]
        for sentence in sentences(parts):
            found = self._sentence(sentence)[:count]
            pairs = [(text + more, score + other) for text, score in best for more, other in found]
            best = sorted(pairs, key=lambda pair: -pair[1])[:count]
        return [Conversion(text, score, kept) for text, score in best]

    def _sentence(self, parts: list[Plain | Letters]) -> list[tuple[str, float]]:
        if not any(isinstance(part, Letters) for part in parts):
            return [("".join(part.text for part in parts if isinstance(part, Plain)), 0.0)]
        found: dict[str, tuple[float, float]] = {}  # the score by the first search that found it, and what readings cost
        for search in self._searches:
            for score, steps in search.run(parts):
                text = "".join(step.text for step in steps)
                if text not in found:
                    found[text] = (score, MISREAD * _misread(text, steps))
        totals = {text: score - cost for text, (score, cost) in found.items()}
        if len(self._searches) > 1:
            texts = list(found)
            scores = np.mean([search.totals(texts) for search in self._searches], axis=0)
            totals = {text: score - found[text][1] for text, score in zip(texts, scores.tolist(), strict=True)}
        return sorted(totals.items(), key=lambda pair: -pair[1])


class _Search:
    """A beam search through a lattice with one model."""

    def __init__(self, model: LanguageModel, phrases: Texts | None, beam: int, *, backward: bool) -> None:
        self._names = _usable(model, backward).tokens
        self.readings = Readings(self._names)
        self._model, self._beam, self._backward = model, beam, backward
        self._start = (model.inputs_.end,) * ALIKE
        self._counted = None if phrases is None else NGrams(model.inputs_, read_lines(phrases), ALIKE + 1)

    def totals(self, texts: Sequence[str]) -> list[float]:
        """The log-probabilities of texts."""
        found = []
        for score in self._model.score_lines(texts):
            values = score.log_probabilities.astype(np.float64)
            if self._counted is not None:
                order = self._model.inputs_.encode_line(score.text)
                shares = self._counted.line(np.array(order, np.int32))
                ends = len(order) - self._model.inputs_.line_ends
                shares = np.concatenate([shares[:ends][::-1], shares[ends:]]) if self._backward else shares
                values = _mixed(values, shares)
            found.append(float(values.sum()))
        return found

    def _probabilities(self, reading: Reading, rows: _Rows, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(H, C), log-probabilities of some tokens after each hypothesis."""
        scores = reading.log_probabilities[:, numbers].astype(np.float64)
        if self._counted is None:
            return scores
        before = [self._start if step is None else step.last for _, step in rows]
        return _mixed(scores, self._counted.probabilities(before, numbers))

    def _after(self, step: _Step | None, numbers: Sequence[int]) -> tuple[int, ...]:
        """The last tokens when some more are read."""
        return (*(self._start if step is None else step.last), *numbers)[-ALIKE:]

    def run(self, parts: list[Plain | Letters]) -> Iterator[tuple[float, list[_Step]]]:
        """The best ways through a sentence, from its first step to its last, and their log-probabilities."""
        groups: list[tuple[Reading, _Rows]] = [(self._model.start(), [(0.0, None)])]
        for part in reversed(parts) if self._backward else parts:
            if isinstance(part, Plain):
                groups = self._plain(part, groups)
            else:
                groups = self._letters(part.mirrored() if self._backward else part, groups)
        inputs = self._model.inputs_
        ended: list[tuple[float, _Step | None]] = []
        for reading, rows in groups:
            last = self._probabilities(reading, rows, np.array([inputs.end]))[:, 0] * inputs.line_ends
            ended += [(score + more, step) for (score, step), more in zip(rows, last.tolist(), strict=True)]
        for score, steps in islice(_best_paths(ended), self._beam):
            yield score, steps if self._backward else steps[::-1]

    def _plain(self, part: Plain, groups: list[tuple[Reading, _Rows]]) -> list[tuple[Reading, _Rows]]:
        inputs = self._model.inputs_
        numbers = inputs.encode(part.text)
        if self._backward:
            numbers.reverse()
        found: list[tuple[Reading, _Rows]] = []
        for reading, rows in groups:
            now = reading.select(range(len(rows)))
            scores, steps = np.array([score for score, _ in rows]), [step for _, step in rows]
            for place, number in enumerate(numbers[:SCORED]):
                if number != UNKNOWN:
                    scores += self._probabilities(now, list(zip(scores.tolist(), steps, strict=True)), np.array([number]))[:, 0]
                now.read([number] * len(rows))
                steps = [
                    _Step(step.before if place and step else step, part.text, "", self._after(step, [number]), [])
                    for step in steps
                ]
            found.append((now, list(zip(scores.tolist(), steps, strict=True))))
        if len(numbers) <= SCORED or not found:
            return found
        reading, rows = max(found, key=lambda pair: max(pair[1], key=_score)[0])
        best = max(range(len(rows)), key=lambda row: rows[row][0])
        score, step = rows[best]
        rest = numbers[SCORED:]
        after = None if step is None else step._replace(last=self._after(step, rest))
        return [(reading.select([best]).read_all(rest), [(score, after)])]

    def _letters(self, part: Letters, groups: list[tuple[Reading, _Rows]]) -> list[tuple[Reading, _Rows]]:
        leaving = defaultdict(list)
        for arc in part.arcs:
            leaving[arc.start].append(arc)
        arriving: dict[int, list[_Batch]] = defaultdict(list)
        for place in range(part.size + 1):
            if place:
                groups = self._kept(arriving.pop(place, []))
            for arc in leaving[place]:
                if arc.syllable not in self.readings:
                    continue  # of a second model with fewer characters
                choice = self.readings.candidates(arc.syllable, arc.tone)
                for reading, rows in groups:
                    before = np.array([score for score, _ in rows])[:, None] - RARE * choice.rare
                    scores = before + self._probabilities(reading, rows, choice.numbers)
                    arriving[arc.end].append(_Batch(reading, rows, scores, choice.numbers, arc.syllable))
        return groups

    def _kept(self, batches: list[_Batch]) -> list[tuple[Reading, _Rows]]:
        """The best of all hypotheses that arrive at a place, read; those that came from one reading are read together."""
        if not batches:
            return []
        flat = np.concatenate([batch.scores.ravel() for batch in batches])
        tried = WIDER * self._beam
        order = np.argpartition(-flat, tried)[:tried] if len(flat) > tried else np.arange(len(flat))
        order = order[np.argsort(-flat[order], kind="stable")]
        bounds = np.cumsum([batch.scores.size for batch in batches])
        origins = np.searchsorted(bounds, order, side="right").tolist()
        chosen: dict[tuple[int, ...], tuple[float, _Step]] = {}
        reads: list[tuple[list[int], list[int], list[tuple[float, _Step | None]]]] = [([], [], []) for _ in batches]
        for place, origin, score in zip(order.tolist(), origins, flat[order].tolist(), strict=True):
            batch = batches[origin]
            row, column = divmod(place - int(bounds[origin]) + batch.scores.size, len(batch.numbers))
            number = int(batch.numbers[column])
            before = batch.rows[row][1]
            last = self._after(before, [number])
            if (better := chosen.get(last)) is not None:
                if len(better[1].others) < OTHERS and better[0] - score < WORSE:
                    step = _Step(before, self._names[number], batch.syllable, last, [])
                    better[1].others.append((better[0] - score, step))
            elif len(chosen) < self._beam:
                step = _Step(before, self._names[number], batch.syllable, last, [])
                chosen[last] = score, step
                rows, numbers, steps = reads[origin]
                rows.append(row)
                numbers.append(number)
                steps.append((score, step))
        return [
            (batch.reading.select(rows).read(numbers), steps)
            for batch, (rows, numbers, steps) in zip(batches, reads, strict=True)
            if rows
        ]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Hypotheses of one reading, and their scores with each character of a syllable."""

    reading: Reading
    rows: _Rows
    scores: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    syllable: str


def _best_paths(ended: Sequence[tuple[float, _Step | None]]) -> Iterator[tuple[float, list[_Step]]]:
    """The steps of the best hypotheses from last to first, those included that were not searched further, the likeliest first.

    What such a one has in common with the better one behind the place where they meet is taken to be as likely after it.
    """
    ways: list[tuple[float, int, _Step | None, _Link | None]] = []
    for score, step in ended:
        heappush(ways, (-score, len(ways), step, None))
    pushed = len(ways)
    while ways:
        cost, _, step, behind = heappop(ways)
        while step is not None:
            for worse, other in step.others:
                heappush(ways, (cost + worse, pushed, other, behind))
                pushed += 1
            behind = _Link(step, behind)
            step = step.before
        steps = []
        while behind is not None:
            steps.append(behind.step)
            behind = behind.behind
        yield -cost, steps[::-1]


class _Link(NamedTuple):
    step: _Step
    behind: _Link | None


def _usable(model: LanguageModel, backward: bool) -> LanguageInputs:
    """What a model reads, if pinyin can be converted with it."""
    model._require_fitted("pinyin")
    inputs = model.inputs_
    if inputs.unit != "char":
        what = "pinyin needs a language model of characters."
        raise ConfigError(explain(what, got=f"unit={inputs.unit}", advice="carousel fit lm --unit char --train FILE --out DIR"))
    if inputs.backward != backward:
        which, got = ("second", "forward") if backward else ("first", "backward")
        advice = f"train it with --direction {'backward' if backward else 'forward'}"
        raise ConfigError(explain(f"pinyin: the {which} model reads {got}.", advice=advice))
    return inputs


def _misread(text: str, steps: list[_Step]) -> int:
    """How many characters are read otherwise in their place than they were typed."""
    typed = [syllable for step in steps for syllable in ([step.syllable] if step.syllable else [""] * len(step.text))]
    return sum(bool(one) and one != other for one, other in zip(typed, sentence_syllables(text), strict=True))


def _mixed(scores: npt.NDArray[np.float64], shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logarithm of the mean of probabilities that are given as logarithms and as they are."""
    return np.log((1 - COUNTED) * np.exp(scores) + COUNTED * shares)


def _score(row: tuple[float, _Step | None]) -> float:
    return row[0]
