"""Training data made ready: what is learned from them before training, and their batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from carousel.errors import CheckpointError, DataError, explain
from carousel.tasks.base import Prepared
from carousel.tasks.classify.numbers import TARGETS, recall_target
from carousel.tasks.classify.options import ClassifierOptions
from carousel.tasks.classify.records import LabelledData, Records, open_records, source_kind
from carousel.tasks.classify.rows import Rows, encode_rows
from carousel.tasks.classify.sources import SOURCES, Source, recall_source
from carousel.tasks.classify.targets import Target, labels_of
from carousel.tasks.run_directory import path_text
from carousel.tasks.splits import held_places

__all__ = ["PREDICT_BATCH_SIZE", "ClassifierInputs", "PreparedRecords", "prepare"]

PREDICT_BATCH_SIZE = 128
BATCHES_FILE = "batches.json"
MAX_BATCH_SIZE = 1 << 20


@dataclass(frozen=True)
class ClassifierInputs:
    """What turns records into numbers and back.

    Args:
        source: texts or series into rows of numbers.
        target: labels or numbers into what the network is trained on, and back.
        batch_size: what was found where the option says ``auto``.
        learned_from: the answers of the training data, for weights of labels; None after loading.
    """

    source: Source
    target: Target
    batch_size: int | None = None
    learned_from: NDArray[Any] | None = field(default=None, compare=False, repr=False)

    def size(self, options: ClassifierOptions) -> int:
        """Records in a batch."""
        size = options.batch_size
        return size if isinstance(size, int) else self.batch_size or PREDICT_BATCH_SIZE

    def write(self, directory: Path) -> None:
        """Write all of it as JSON files."""
        from carousel.data import write_json

        self.source.write(directory)
        self.target.write(directory)
        if self.batch_size is not None:
            write_json(directory / BATCHES_FILE, {"batch_size": self.batch_size})

    @classmethod
    def recall(cls, directory: Path, options: ClassifierOptions) -> ClassifierInputs:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: a file cannot be read.
            CheckpointError: a file holds something else.
        """
        from carousel.data import read_json

        path, size = directory / BATCHES_FILE, None
        if options.batch_size == "auto" and path.exists():
            saved = read_json(path)
            size = saved.get("batch_size") if isinstance(saved, dict) else None
            if type(size) is not int or not 1 <= size <= MAX_BATCH_SIZE:
                raise CheckpointError(explain(f"{path}: not a saved batch size.", got=repr(saved)[:200]))
        return cls(recall_source(directory, options.source), recall_target(directory, options.target), size)


@dataclass(frozen=True)
class PreparedRecords(Prepared[ClassifierInputs]):
    """Data made ready, and the records that are held for validation.

    Args:
        held: the records of `valid`, in the order of `Batch.index`.
        held_rows: the same as numbers.
    """

    held: Records
    held_rows: Rows


def prepare(
    train: LabelledData,
    valid: LabelledData | None,
    inputs: ClassifierInputs | None,
    *,
    options: ClassifierOptions,
    seed: int,
    note: Callable[[str], None],
    find_batch_size: Callable[[ClassifierInputs, Rows], int],
    processes: int = 1,
) -> PreparedRecords:
    """Read the data, learn from them what turns records into numbers, and make batches.

    A file that is too large for the memory is read several times and never kept: to hold out a part, to learn from it, and
    to turn it into numbers, which go to a temporary file.

    Args:
        train: a file or a list.
        valid: the same, or None to hold out a tenth of `train`.
        inputs: what a run that goes on has learned before.
        options: the options of the task.
        seed: of the order of batches, and of what is held out.
        note: says a line to the user.
        find_batch_size: asked where the option says ``auto``.
        processes: of the run; each takes its share of a batch, so that batches are larger by so much.
    """
    from carousel.data import BucketedBatches

    source = inputs.source.kind if inputs else source_kind(train, options)
    target: str = inputs.target.kind if inputs else options.target
    learn, target = open_records(train, options, source=source, target=target, what="the training data")
    if valid is None:
        learn, check = _hold_out(learn, target, seed, note)
    else:
        check, _ = open_records(valid, options, source=source, target=target, what="the validation data")
    if inputs is None:
        learned = TARGETS[target].learn(learn.walk(), options)
        inputs = ClassifierInputs(SOURCES[source].learn(learn.walk, options), learned)
    rows = encode_rows(learn, inputs.source, inputs.target, options, shown=False)
    held_rows = encode_rows(check, inputs.source, inputs.target, options)
    inputs = replace(inputs, learned_from=rows.answers)
    note(
        f"{len(rows.sequences)} examples to learn from, {len(held_rows.sequences)} to validate on, {inputs.target.said()}, "
        f"{inputs.source.said()}."
    )
    if options.batch_size == "auto" and inputs.batch_size is None:
        inputs = replace(inputs, batch_size=find_batch_size(inputs, rows))
    size, weights = inputs.size(options) * processes, inputs.target.weights(rows.answers, options.sampling)
    larger = max(size, PREDICT_BATCH_SIZE)
    return PreparedRecords(
        inputs=inputs,
        train=BucketedBatches(rows.sequences, rows.answers, batch_size=size, shuffle=True, seed=seed, weights=weights),
        valid=BucketedBatches(held_rows.sequences, held_rows.answers, batch_size=larger, shuffle=False, seed=seed),
        sources={"train": path_text(train), "valid": path_text(valid)},
        held=check,
        held_rows=held_rows,
    )


def _hold_out(records: Records, target: str, seed: int, note: Callable[[str], None]) -> tuple[Records, Records]:
    """Split off a tenth of the records for validation."""
    groups = (() if target == "number" else labels_of(record) for record in records.walk())
    held = held_places(groups, seed=seed)
    if not held.any():
        raise DataError(
            explain("too few examples to hold out a part for validation.", got=f"{len(held)}, no two of one label"),
            path=records.path,
        )
    note(f"No validation data given: {held.sum()} of {len(held)} examples are held out for it.")
    return records.part(~held), records.part(held)
