"""The classifier: one label, several labels or numbers for a text or a series (many to one)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from carousel.errors import DataError, explain
from carousel.tasks.base import Estimator, PathLike, Prepared, seeded
from carousel.tasks.cell_choice import require_vector_cell
from carousel.tasks.classify.inputs import PREDICT_BATCH_SIZE, ClassifierInputs, PreparedRecords, prepare
from carousel.tasks.classify.options import ClassifierOptions
from carousel.tasks.classify.records import LabelledData, Records, bare_record, file_reader, open_records, source_kind
from carousel.tasks.classify.rows import Rows, encode_rows

if TYPE_CHECKING:
    from torch import nn

    from carousel.data import Batch, BucketedBatches
    from carousel.tasks.confusion import Confusion
    from carousel.tasks.evaluation import Evaluation, Kind

__all__ = ["Classifier"]

MAX_ATTENTION = 1 << 22  # tokens whose weights an evaluation keeps
SHOWN_OF_LARGE = 1000  # texts that an evaluation keeps of a file that is not kept itself


class Classifier(Estimator[ClassifierInputs]):
    """Labels or numbers for a text or a series: features of each step, recurrent layers, a summary, an output.

    .. math:: p(y \\mid x) = \\operatorname{softmax}(W \\, s(h_1, \\ldots, h_T) + b)

    The summary `s` is the last state, the mean, the maximum, or the additive word attention of [1], whose weights
    :meth:`predict_records` shows. Differs from [1]: one level (words), not two (words, then sentences). Several labels for
    a record have a sigmoid each in place of the softmax; numbers are W s + b, brought to their own mean and deviation.

    Args:
        options: those of :class:`ClassifierOptions` and of :class:`carousel.training.TrainingConfig`, by name.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.

    Example:
        .. code-block:: python

            model = Classifier(cell="gru", hidden_size=64).fit("train.tsv", out="runs/mine")
            model.evaluate("test.tsv")["accuracy"]
            model.predict(["a moving film"])

    References:
        [1] Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016.
    """

    task: ClassVar[str] = "classify"
    options_type: ClassVar[type] = ClassifierOptions
    # Embeddings start from scratch and want a high rate. SST-2, one seed: 0.810 with 3e-3, 0.796 with 2e-3.
    training_defaults: ClassVar[Mapping[str, Any]] = {"lr": 3e-3}
    options: ClassifierOptions

    def evaluate(self, data: LabelledData) -> dict[str, float]:
        """Measure on labelled data.

        Args:
            data: a file, or a list of pairs (text or series, label).

        Returns:
            What :meth:`carousel.tasks.evaluation.Evaluation.scores` says. One label: `accuracy` and `macro_f1` (0 to 1; the
            mean over the labels that occur, in the data or in the answers), `loss` (nats, the mean over records), `count`.
            Several labels: `micro_f1`, `macro_f1`, `exact_match`, `loss`, `count`. Numbers: `mae`, `rmse`, `r2`, `count`.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: the file cannot be read, or holds a label that training did not.
        """
        return self.judge(data).scores()

    def judge(self, data: LabelledData) -> Evaluation:
        """Answer labelled data and keep the answers beside the truth; see :meth:`evaluate` for the argument."""
        self._require_fitted("evaluate")
        inputs = self.inputs_
        records, _ = open_records(
            data, self.options, source=inputs.source.kind, target=inputs.target.kind, what="the data to evaluate"
        )
        rows = encode_rows(records, inputs.source, inputs.target, self.options)
        return self._judge(records, rows)

    def labelled_records(self, data: LabelledData) -> tuple[list[Any], Kind]:
        """Read labelled data into memory; see :meth:`fit` for what they may be, and :meth:`evaluate`."""
        opts = self.options
        records, target = open_records(data, opts, source=source_kind(data, opts), target=opts.target, what="the data")
        return list(records.walk()), cast("Kind", target)

    def confusion(self, data: LabelledData) -> Confusion:
        """Count how labels are taken for each other; see :meth:`evaluate` for the argument."""
        return self.judge(data).confusion()

    def predict_records(self, X: Sequence[Any]) -> list[dict[str, Any]]:
        """Tell all that there is to tell of each item.

        Args:
            X: texts, any number, an empty one is allowed; or series, numbers (T,) or (T, C).

        Returns:
            For each item, in order. One label: `label`, and `probabilities`, label to probability. Several: `labels` and
            `probabilities`. Numbers: `numbers`, name to number. With ``summary="attention"`` also `attention`, pairs
            [token or number of the step, weight] whose weights sum to 1 (none for an empty text).

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one string, or holds something else than the model was trained on.
        """
        self._require_fitted("predict")
        records = self._bare("predict", X)
        if not records:
            return []
        answers: list[dict[str, Any]] = [{} for _ in records]
        for batch, logits, weights in self._run(self._bare_batches(records)):
            for row, (index, answer) in enumerate(zip(batch.index.tolist(), self.inputs_.target.decode(logits), strict=True)):
                answers[index] = answer
                if weights is not None:
                    tokens = self.inputs_.source.tokens(records[index])
                    pairs = zip(tokens, weights[row, : len(tokens)].tolist(), strict=True)
                    answer["attention"] = [[token, weight] for token, weight in pairs]
        return answers

    def encode(self, records: Sequence[Any]) -> NDArray[np.float32]:
        """Turn each item into the vector that the output layer sees.

        Args:
            records: as for :meth:`predict_records`.

        Returns:
            (N, F), in order: the summaries, before dropout and output.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: as for :meth:`predict_records`.
        """
        import torch

        self._require_fitted("encode")
        found = self._bare("encode", records)
        network, device = self._ready()
        vectors = np.zeros((len(found), network.output.in_features), np.float32)
        with torch.no_grad():
            for batch in self._bare_batches(found):
                there = batch.to(device)
                vectors[batch.index.numpy()] = network.summarise(there.inputs, there.lengths).vector.float().cpu().numpy()
        return vectors

    def evaluate_file(self, path: PathLike, directory: Path) -> dict[str, float]:
        """Measure on a file, and write what belongs to that into `directory`, if it can be written to.

        Args:
            path: the file; ``-`` is standard input.
            directory: where ``report-NAME.html`` and, for one label, ``confusion-NAME.png`` are put.
        """
        from carousel.tasks.report import recall_temperature

        name = "stdin" if os.fspath(path) == "-" else Path(path).name.split(".")[0] or "data"
        evaluation = self.judge(path)
        try:
            self._draw(evaluation, directory, f"-{name}", data=os.fspath(path), temperature=recall_temperature(directory))
        except (DataError, OSError) as error:
            self._note(f"No report is written: {error}")
        return evaluation.scores()

    def read_records(self, path: PathLike, format: str | None = None) -> list[Any]:  # noqa: A002 - the option's name
        """Read the texts or series of a file, labelled or not; ``-`` is standard input.

        Args:
            path: any format that :func:`carousel.data.read_labelled` or :func:`carousel.data.read_series` knows, or one text
                a line.
            format: how it is written; None goes by suffix and first line.

        Returns:
            The texts or series in the order of the file; an empty line of plain text is an empty text.
        """
        self._require_fitted("read_records")
        source, target = self.inputs_.source.kind, self.inputs_.target.kind
        options = replace(self.options, format=cast(Any, format))
        records = list(file_reader(path, options, source=source, target=target, labelled=False)())
        return records if source == "series" else [record.text for record in records]

    def plain(self, record: Any, prediction: Mapping[str, Any]) -> str:
        """The answer, the label's probability and the record, between tabs."""
        shown = record if isinstance(record, str) else self.inputs_.source.shown(record)
        if "numbers" in prediction:
            return "\t".join([*(f"{number:.6g}" for number in prediction["numbers"].values()), shown])
        if "labels" in prediction:
            return f"{(self.options.label_separator or '|').join(prediction['labels'])}\t{shown}"
        label = prediction["label"]
        return f"{label}\t{prediction['probabilities'][label]:.3f}\t{shown}"

    # --- for the estimator's verbs ------------------------------------------------------------------------------------

    def _answer_kind(self) -> Literal["one", "several", "number"]:
        return self.inputs_.target.kind

    def _answer_names(self) -> tuple[str, ...]:
        return self.inputs_.target.names

    def _scores(self, records: list[Any]) -> NDArray[np.float64]:
        found = self._bare("predict", records)
        logits = np.zeros((len(found), len(self.inputs_.target.names)))
        for batch, here, _ in self._run(self._bare_batches(found)):
            logits[batch.index.numpy()] = here
        return self.inputs_.target.scores(logits)

    def _monitor(self, inputs: ClassifierInputs) -> tuple[str, Literal["max", "min"]]:
        return inputs.target.monitor

    def _bare(self, verb: str, items: Any) -> list[Any]:
        source = self.inputs_.source.kind
        wants = "a list of texts" if source == "text" else "a list of series"
        if isinstance(items, str):
            raise DataError(explain(f"{verb} takes {wants}.", got="one text", advice=f"{verb}([text])"))
        what = "a text" if source == "text" else "numbers of shape (T,) or (T, C)"
        return [
            bare_record(
                item,
                source,
                position,
                lambda: DataError(explain(f"{verb}: item {position} is not {what}.", got=repr(item)[:200])),  # noqa: B023
            )
            for position, item in enumerate(items)
        ]

    def _bare_batches(self, records: Sequence[Any]) -> BucketedBatches:
        from carousel.data import BucketedBatches, Sequences

        source = self.inputs_.source
        rows = Sequences.build(map(source.encode, records), dtype=source.dtype, memory_limit=None)
        return BucketedBatches(rows, None, batch_size=PREDICT_BATCH_SIZE, shuffle=False)

    def _ready(self) -> tuple[Any, str]:
        from carousel.training import choose_device

        device = choose_device(self._device)
        return self.network_.to(device).eval(), device

    def _run(self, batches: BucketedBatches) -> Iterator[tuple[Batch, NDArray[np.float64], Any]]:
        """Yield batch, scores (B, V) and attention weights (B, T) or None, on the CPU."""
        import torch

        network, device = self._ready()
        with torch.no_grad():
            for batch in batches:
                there = batch.to(device)
                logits, weights = network(there.inputs, there.lengths)
                yield batch, logits.double().cpu().numpy(), None if weights is None else weights.cpu()

    def _judge(self, records: Records, rows: Rows) -> Evaluation:
        from carousel.data import BucketedBatches
        from carousel.tasks.evaluation import Evaluation

        source, target = self.inputs_.source, self.inputs_.target
        size = max(self.inputs_.size(self.options), PREDICT_BATCH_SIZE)
        batches = BucketedBatches(rows.sequences, None, batch_size=size, shuffle=False)
        logits = np.zeros((len(rows.sequences), len(target.names)))
        attention: list[Any] | None = None
        if records.kept and len(rows.sequences.values) <= MAX_ATTENTION and self.options.summary == "attention":
            attention = [()] * len(rows.sequences)
            steps = [source.tokens(record) for record in records.walk()]
        for batch, here, weights in self._run(batches):
            logits[batch.index.numpy()] = here
            if attention is not None and weights is not None:
                for row, index in enumerate(batch.index.tolist()):
                    line = weights[row, : len(steps[index])].tolist()
                    attention[index] = list(zip(steps[index], line, strict=True))
        found = Evaluation(
            kind=target.kind,
            labels=target.names,
            truth=target.truth(rows.answers),
            logits=target.scores(logits),
            lengths=np.asarray(rows.sequences.lengths, np.int64),
            texts=tuple(rows.texts) if records.kept else ("",) * len(logits),
            attention=attention,
            places=tuple(rows.places),
        )
        return found if records.kept else self._show_worst(found, records)

    def _show_worst(self, evaluation: Evaluation, records: Records) -> Evaluation:
        """Fetch the texts of the worst answers of records that are not in memory; the others' stay empty."""
        worst = np.zeros(len(evaluation), np.bool_)
        worst[np.argsort(-evaluation.losses, kind="stable")[:SHOWN_OF_LARGE]] = True
        texts, places = list(evaluation.texts), [""] * len(evaluation)
        for place, record in zip(np.flatnonzero(worst).tolist(), records.part(worst).walk(), strict=True):
            texts[place], places[place] = self.inputs_.source.shown(record), f"{record.path}:{record.line}"
        return replace(evaluation, texts=tuple(texts), places=tuple(places))

    # --- training -----------------------------------------------------------------------------------------------------

    def _prepare(
        self, train: LabelledData, valid: LabelledData | None, inputs: ClassifierInputs | None
    ) -> Prepared[ClassifierInputs]:
        from carousel.training import process_count

        require_vector_cell(self.cell)
        return prepare(
            train,
            valid,
            inputs,
            options=self.options,
            seed=self.training.seed,
            note=self._note,
            find_batch_size=self._find_batch_size,
            processes=process_count(self.training),
        )

    def _find_batch_size(self, inputs: ClassifierInputs, rows: Rows) -> int:
        """The largest batch of the longest sequences whose step fits into the memory limit."""
        from carousel.data import BucketedBatches
        from carousel.training import choose_device, find_batch_size

        device = choose_device(self._device)
        with seeded(self.training.seed):
            network = cast(Any, self._build(inputs)).to(device).train()

            def step(size: int) -> None:
                batches = BucketedBatches(rows.sequences, rows.answers, batch_size=size, shuffle=False)
                network.measure(next(iter(batches)).to(device)).loss.backward()

            limit = self.options.memory_limit
            size: int = find_batch_size(
                step, None if limit is None else limit << 20, device=device, largest=min(4096, len(rows.sequences))
            )
        self._note(f"A batch has {size} records: what the memory limit allows.")
        return size

    def _build(self, inputs: ClassifierInputs) -> nn.Module:
        from carousel.tasks.classify.network import SequenceClassifier

        front, features = inputs.source.front(self.options)
        head = inputs.target.head(self.options, inputs.learned_from)
        return SequenceClassifier(self.cell, front, features, head, len(inputs.target.names), self.options)

    def _write_inputs(self, directory: Path, inputs: ClassifierInputs) -> None:
        inputs.write(directory)

    def _recall(self, directory: Path) -> ClassifierInputs:
        return ClassifierInputs.recall(directory, self.options)

    def _report(self, prepared: Prepared[ClassifierInputs], out: Path | None) -> dict[str, float]:
        held = cast(PreparedRecords, prepared)
        evaluation = self._judge(held.held, held.held_rows)
        if out is not None:
            self._draw(evaluation, out, "", sources=held.sources)
        return evaluation.scores()

    def _draw(
        self,
        evaluation: Evaluation,
        directory: Path,
        suffix: str,
        *,
        sources: Mapping[str, str | None] | None = None,
        data: str | None = None,
        temperature: tuple[float, str] | None = None,
    ) -> None:
        """Write the report about some data, and the picture of the confusion."""
        from carousel.tasks.confusion import plot_confusion
        from carousel.tasks.report import write_report

        if evaluation.kind == "one":
            plot_confusion(evaluation.confusion(), directory / f"confusion{suffix}.png")
        result = getattr(self, "result_", None)
        write_report(
            directory,
            f"report{suffix}",
            evaluation,
            [] if result is None else result.history,
            self._config(self._form) | dict(sources or {}),
            data=data,
            best_epoch=0 if result is None else result.best_epoch,
            facts={
                "source": self.inputs_.source.kind,
                "parameters": sum(parameter.numel() for parameter in self.network_.parameters()),
            },
            temperature=temperature,
        )
