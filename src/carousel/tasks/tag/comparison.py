"""Recurrent network or structured learning? Several kinds of taggers on one data set, in one table."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carousel.cells import cell_name
from carousel.data.tagged import TaggedSentence, convert, guess_scheme, to_words
from carousel.errors import CheckpointError, ConfigError, DataError, explain, unknown_name
from carousel.tasks.run_directory import CONFIG_FILE, WEIGHTS_FILE
from carousel.tasks.tag.comparison_table import PARTS, RESULT_FILE, Row, TaggerComparison, write_comparison
from carousel.tasks.tag.hmm_tagger import HMMTagger
from carousel.tasks.tag.measures import TagEvaluation
from carousel.tasks.tag.sources import Tagged, read_sentences

if TYPE_CHECKING:
    from carousel.structured.taggers import FeatureTagger
    from carousel.tasks.tag.task import Tagger

__all__ = ["METHODS", "compare_taggers"]

METHODS = ("hmm", "perceptron", "svm", "feature_crf", "softmax", "crf")
"""The names of the methods; the last two are networks, whose name in the table begins with their cell's."""

_LINEAR = {"feature_crf": "FeatureCRF", "perceptron": "StructuredPerceptron", "svm": "StructuredSVM"}
_WARM_UP = 20  # sentences that are answered before anything is timed: what is compiled is compiled then
_OPEN = ("bio", "iob1", "io")  # schemes that linear models learn as bio


def compare_taggers(
    model: Tagger,
    train: Tagged,
    valid: Tagged | None = None,
    test: Tagged | None = None,
    *,
    methods: Sequence[str] = METHODS,
    cells: Sequence[str] = (),
    out: str | Path,
    limit: int | None = None,
    minutes: float | None = None,
    overwrite: bool = False,
) -> TaggerComparison:
    """Train each method on the same sentences, one after the other, and measure it on the same sentences.

    The linear models see words alone, as the networks do: each word, its neighbours, shape and affixes. A method that fails
    has its reason in its row, and the rest goes on. What is finished is written after each method. All learn and answer with
    as many threads as the model's option `threads` says, one by default.

    Args:
        model: the network's options; it is not changed.
        train: a file, or a list of pairs (words, tags).
        valid: what networks choose their best epoch on; None: the last tenth of `train`, which no method then learns from.
        test: what is measured; None: `valid`, which flatters the networks a little.
        methods: of `METHODS`.
        cells: further cells, for networks with a CRF.
        out: a directory for the table (JSON, text, picture) and the models.
        limit: so many sentences of `train`, the first; None: all.
        minutes: that each method may learn; None: as long as it takes. Networks then take their best epoch so far.
        overwrite: replace a comparison that is at `out`.

    Returns:
        The table.

    Raises:
        ConfigError: an option is not possible, or there is something at `out`.
        DataError: data cannot be read.
        OutputError: a file cannot be written.
    """
    plans = _plans(model, methods, cells, minutes)
    data = _Data.read(model, train, valid, test, limit)
    path = _opened(Path(out), overwrite)
    rows: list[Row] = []
    interrupted = False
    for name, run in plans:
        model._note(f"{name} ({len(rows) + 1} of {len(plans)})")
        try:
            with _threads(data.threads):
                row, interrupted = run(data, path / name)
        except KeyboardInterrupt:
            interrupted = True
            break
        except Exception as error:
            row = Row(name, error=f"{type(error).__name__}: {error}")
        rows.append(row)
        write_comparison(data.comparison(rows, interrupted), path, picture=False)
        if interrupted:
            break
    found = data.comparison(rows, interrupted)
    write_comparison(found, path)
    return found


Plan = tuple[str, "Callable[[_Data, Path], tuple[Row, bool]]"]


def _plans(model: Tagger, methods: Sequence[str], cells: Sequence[str], minutes: float | None) -> list[Plan]:
    """What is to be run, by name."""
    from carousel.cells import resolve_cell

    if minutes is not None and not minutes > 0:
        raise ConfigError(explain("compare: minutes must be positive.", got=f"{minutes}"))
    plans: list[Plan] = []
    for method in methods:
        if method not in METHODS:
            raise ConfigError(unknown_name("method", method, METHODS))
        if method in ("softmax", "crf"):
            plans.append(_network_plan(model, {"output": method}, minutes))
        else:
            plans.append((method, _linear_plan(method, minutes)))
    for cell in cells:
        resolve_cell(cell)
        plans.append(_network_plan(model, {"output": "crf", "cell": cell, "cell_options": {}}, minutes))
    names = [name for name, _ in plans]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not plans or twice:
        got = f"{twice} twice" if twice else "no method"
        raise ConfigError(explain("compare: give different methods, at least one.", got=got))
    return plans


def _linear_plan(method: str, minutes: float | None) -> Callable[[_Data, Path], tuple[Row, bool]]:
    def run(data: _Data, path: Path) -> tuple[Row, bool]:
        from carousel import structured

        tagger: HMMTagger | FeatureTagger = HMMTagger()
        if method in _LINEAR:
            scheme = data.learned if data.learned in structured.SCHEMES else None
            tagger = getattr(structured, _LINEAR[method])(constraints=scheme, max_minutes=minutes)
        return _measured(method, tagger, data, path), False

    return run


def _measured(method: str, tagger: HMMTagger | FeatureTagger, data: _Data, path: Path) -> Row:
    clock = _Clock()
    tagger.fit([list(s.words) for s in data.train], [data.inside(s.tags or ()) for s in data.train])
    seconds = clock.passed()
    answers, speed = _answered(tagger.predict, data)
    tagger.save(path)
    evaluation = data.judged([data.outside(tags) for tags in answers])
    if isinstance(tagger, HMMTagger):
        parameters = tagger.num_parameters
    else:
        parameters = sum(weights.numel() for weights in vars(tagger.weights_).values())
    size = sum(file.stat().st_size for file in path.iterdir())
    return Row(method, _intervals(evaluation), *seconds, speed, parameters, size)


def _network_plan(model: Tagger, changes: Mapping[str, Any], minutes: float | None) -> Plan:
    options = {**model.get_params(), **changes, "threads": _wanted_threads(model)}
    if minutes is not None:
        options["max_minutes"] = minutes
    if options["output"] == "softmax":
        options["loss"] = "likelihood"
    fresh: Tagger = type(model)(**options)
    name = f"{cell_name(fresh.cell)}+{options['output']}"

    def run(data: _Data, path: Path) -> tuple[Row, bool]:
        clock = _Clock()
        fresh.fit(data.train, valid=data.valid, out=path)
        seconds = clock.passed()
        answers, speed = _answered(fresh.predict, data)
        result = fresh.result_
        parameters = sum(p.numel() for p in fresh.network_.parameters())
        note = f"best epoch {result.best_epoch} of {result.epochs_run}" + (", interrupted" if result.interrupted else "")
        row = Row(name, _intervals(data.judged(answers)), *seconds, speed, parameters, _run_bytes(path), note)
        return row, result.interrupted

    return name, run


@dataclass(frozen=True)
class _Data:
    """The sentences that all methods share."""

    train: list[TaggedSentence]
    valid: list[TaggedSentence]
    test: list[TaggedSentence]
    scheme: str | None
    segmentation: bool
    threads: int

    @classmethod
    def read(cls, model: Tagger, train: Tagged, valid: Tagged | None, test: Tagged | None, limit: int | None) -> _Data:
        if limit is not None and limit < 2:
            raise ConfigError(explain("compare: limit must be at least 2.", got=f"{limit}"))
        learned = read_sentences(train, model.options, what="the training data")[:limit]
        place = learned[0].column if learned[0].format == "columns" else None
        if valid is None and len(learned) < 2:
            raise DataError(explain("compare: there is only one sentence.", advice="give more, or validation data"))
        if valid is None:
            held = len(learned) // 10 or 1
            learned, chosen = learned[:-held], learned[-held:]
        else:
            chosen = read_sentences(valid, model.options, what="the validation data", place=place)
        tested = chosen if test is None else read_sentences(test, model.options, what="the test data", place=place)
        scheme = None if model.options.scheme == "none" else guess_scheme(s.tags or () for s in learned)
        return cls(learned, chosen, tested, scheme, model.options.unit == "char", _wanted_threads(model))

    @property
    def learned(self) -> str | None:
        """The scheme that linear models learn in."""
        return "bio" if self.scheme in _OPEN else self.scheme

    def inside(self, tags: Sequence[str]) -> list[str]:
        return list(tags) if self.scheme is None else convert(tags, self.scheme, self.learned or self.scheme)

    def outside(self, tags: Sequence[str]) -> list[str]:
        return list(tags) if self.scheme is None else convert(tags, self.learned or self.scheme, self.scheme)

    @cached_property
    def known(self) -> frozenset[str]:
        """The words of the training data."""
        scheme = self.scheme or "bmes"
        rows = (to_words(sentence, scheme=scheme) if self.segmentation else sentence for sentence in self.train)
        return frozenset(word for sentence in rows for word in sentence.words)

    def judged(self, answers: Sequence[Sequence[str]]) -> TagEvaluation:
        return TagEvaluation(
            words=[s.words for s in self.test],
            truth=[s.tags or () for s in self.test],
            answers=answers,
            scheme=self.scheme,
            known=self.known,
            segmentation=self.segmentation,
        )

    def comparison(self, rows: Sequence[Row], interrupted: bool) -> TaggerComparison:
        facts: dict[str, Any] = {
            name: {"sentences": len(part), "tokens": sum(map(len, part))}
            for name, part in zip(PARTS, (self.train, self.valid, self.test), strict=True)
        }
        tags = {tag for s in self.train for tag in s.tags or ()}
        facts |= {"tags": len(tags), "scheme": self.scheme, "threads": self.threads}
        return TaggerComparison("accuracy" if self.scheme is None else "f1", facts, tuple(rows), interrupted)


def _wanted_threads(model: Tagger) -> int:
    return model.training.threads if isinstance(model.training.threads, int) else 1


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch take so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Clock:
    """Seconds from now on, as a clock tells them and as the processors worked."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def passed(self) -> tuple[float, float]:
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def _answered(predict: Callable[[Any], list[list[str]]], data: _Data) -> tuple[list[list[str]], float]:
    """The answers to the test data, and how many tokens of them came in a second."""
    words = [list(sentence.words) for sentence in data.test]
    predict(words[:_WARM_UP])
    start = time.perf_counter()
    answers = predict(words)
    return answers, sum(map(len, words)) / max(time.perf_counter() - start, 1e-9)


def _intervals(evaluation: TagEvaluation) -> dict[str, dict[str, float]]:
    return {name: interval.to_dict() for name, interval in evaluation.intervals().items()}


def _run_bytes(path: Path) -> int:
    """What answering needs of a run directory: the weights, the configuration, and what numbers words."""
    reports = {"report.json", "manifest.json"}
    files = [path / CONFIG_FILE, path / WEIGHTS_FILE, *(file for file in path.glob("*.json") if file.name not in reports)]
    return sum(file.stat().st_size for file in files if file.is_file())


def _opened(path: Path, overwrite: bool) -> Path:
    """A directory for a new comparison. Nothing is removed that is not one."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not (path / RESULT_FILE).is_file():
            raise ConfigError(explain(f"{path}: there is something else already.", advice="choose another --out"))
        if not overwrite:
            raise ConfigError(explain(f"{path}: there is a comparison already.", advice="--overwrite, or another --out"))
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise CheckpointError(str(error)) from error
    return path
