"""Classification: one label for a text (many to one)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from carousel.cells import cell_name
from carousel.errors import ConfigError, DataError, explain
from carousel.graph import Cell
from carousel.tasks.base import Estimator, PathLike, Prepared
from carousel.tasks.options import check_values, within
from carousel.tasks.splits import hold_out

if TYPE_CHECKING:
    from torch import nn

    from carousel.data import BucketedBatches, Example, LabelSet, Tokenizer, Vocabulary
    from carousel.tasks.confusion import Confusion

__all__ = ["Classifier", "ClassifierInputs", "ClassifierOptions", "LabelledData"]

LabelledData = PathLike | Sequence[tuple[str, str]]
"""A file of labelled texts, or a list of pairs (text, label)."""

PREDICT_BATCH_SIZE = 128


@dataclass(frozen=True)
class ClassifierOptions:
    """What a :class:`Classifier` is made of.

    Args:
        cell: the recurrent cell: a name that `carousel cells` lists, or your own (--code FILE.py --cell NAME).
        cell_options: options of the cell.
        hidden_size: units of one layer in one direction.
        num_layers: recurrent layers on top of each other.
        bidirectional: read the text in both directions.
        embedding_size: features of an embedded word or character.
        dropout: share of values dropped after the embedding, between layers and before the output.
        word_dropout: share of words or characters replaced by the unknown one in training, which so learns its meaning.
        summary: how a sequence becomes one vector.
        engine: what runs the recurrent layers: auto, or an engine that `carousel info` lists.
        unit: read words or characters; auto takes characters where the texts have no spaces.
        lowercase: make letters small before reading; null does so for words, not for characters.
        min_count: words seen less often in training are unknown.
        max_vocab: keep at most this many words or characters, the most frequent.
        batch_size: texts in a batch.
        format: how the data files are written; null goes by their suffix.
        text_field: column or key of the text.
        label_field: column or key of the label.
    """

    cell: str | type[Cell] | Cell = field(default="lstm", metadata=within("network"))
    cell_options: Mapping[str, Any] = field(default_factory=dict, metadata=within("network"))
    hidden_size: int = field(default=128, metadata=within("network", at_least=1))
    num_layers: int = field(default=1, metadata=within("network", at_least=1))
    bidirectional: bool = field(default=True, metadata=within("network"))
    embedding_size: int = field(default=100, metadata=within("network", at_least=1))
    dropout: float = field(default=0.5, metadata=within("network", at_least=0, below=1))
    word_dropout: float = field(default=0.1, metadata=within("network", at_least=0, below=1))
    summary: Literal["last", "mean", "max", "attention"] = field(default="attention", metadata=within("network"))
    engine: str = field(default="auto", metadata=within("network"))
    unit: Literal["word", "char", "auto"] = field(default="auto", metadata=within("data"))
    lowercase: bool | None = field(default=None, metadata=within("data"))
    min_count: int = field(default=1, metadata=within("data", at_least=1))
    max_vocab: int | None = field(default=None, metadata=within("data", at_least=1))
    batch_size: int = field(default=32, metadata=within("data", at_least=1))
    format: Literal["tsv", "csv", "jsonl", "txt"] | None = field(default=None, metadata=within("data"))
    text_field: str = field(default="text", metadata=within("data"))
    label_field: str = field(default="label", metadata=within("data"))

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class ClassifierInputs:
    """What turns texts into numbers, and numbers into labels.

    Args:
        tokenizer: text to tokens.
        vocabulary: tokens to numbers.
        labels: the labels and their numbers.
    """

    tokenizer: Tokenizer
    vocabulary: Vocabulary
    labels: LabelSet

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token numbers of each text."""
        return [self.vocabulary.encode(self.tokenizer.tokenize(text)) for text in texts]

    def number(self, examples: Sequence[Example]) -> list[int]:
        """The label numbers of `examples`.

        Raises:
            DataError: a label that was not seen in training; the message names file, line and the nearest label.
        """
        return [self.labels.encode(str(example.label), path=example.path, line=example.line) for example in examples]


class Classifier(Estimator[ClassifierInputs]):
    """One label for a text: embedding, recurrent layers, a summary of the sequence, a softmax over the labels.

    .. math:: p(y \\mid x) = \\operatorname{softmax}(W \\, s(h_1, \\ldots, h_T) + b)

    The summary `s` is the last state, the mean, the maximum, or the additive word attention of [1], whose weights
    :meth:`predict` shows. Differs from [1]: one level (words), not two (words, then sentences).

    Args:
        options: those of :class:`ClassifierOptions` and of :class:`carousel.training.TrainingConfig`, by name.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.

    Example:
        .. code-block:: python

            model = Classifier(cell="gru", hidden_size=64).fit("train.tsv", out="runs/mine")
            model.evaluate("test.tsv")["accuracy"]
            model.predict(["a moving film"])[0]["label"]

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
            data: a file, or a list of pairs (text, label).

        Returns:
            `accuracy` and `macro_f1` (0 to 1; the mean over the labels that occur, in the data or in the answers),
            `loss` (nats, the mean over texts) and `count` (texts).

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: the file cannot be read, or holds a label that training did not.
        """
        return self.confusion(data).scores()

    def confusion(self, data: LabelledData) -> Confusion:
        """Count how labels are taken for each other; see :meth:`evaluate` for the arguments."""
        self._require_fitted("evaluate")
        examples = self._read(data, "the data to evaluate")
        return self._count(self._batches(self.inputs_, examples, shuffle=False))

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Predict the label of each text.

        Args:
            texts: the texts, any number; an empty one is allowed.

        Returns:
            For each text, in order: `label`; `probabilities`, label to probability; with ``summary="attention"`` also
            `attention`, pairs [token, weight] whose weights sum to 1 (none for an empty text).

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `texts` is one string, or holds something else than strings.
        """
        self._require_fitted("predict")
        if isinstance(texts, str):
            raise DataError(explain("predict takes a list of texts.", got="one text", advice="predict([text])"))
        texts = list(texts)
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(explain(f"predict: item {position} is not a text.", got=repr(text)))
        if not texts:
            return []
        return self._predict(texts)

    def evaluate_file(self, path: PathLike, directory: Path) -> dict[str, float]:
        """Measure on a file, and draw ``confusion-NAME.png`` into `directory`, if that can be written to."""
        from carousel.tasks.confusion import plot_confusion

        confusion = self.confusion(path)
        name = Path(path).name.split(".")[0] or "stdin"
        picture = directory / f"confusion-{'stdin' if os.fspath(path) == '-' else name}.png"
        try:
            plot_confusion(confusion, picture)
        except DataError as error:
            self._note(f"No picture of the confusion: {error}")
        return confusion.scores()

    def read_records(self, path: PathLike, format: str | None = None) -> list[str]:  # noqa: A002 - the option's name
        """Read the texts of a file, labelled or not; ``-`` is standard input.

        Args:
            path: any format that :func:`carousel.data.read_labelled` knows, or one text a line.
            format: how it is written; None goes by suffix and first line.

        Returns:
            The texts in the order of the file; an empty line of plain text is an empty text.
        """
        from carousel.data import read_labelled

        opts = self.options
        examples = read_labelled(
            path,
            format=format,
            text_field=opts.text_field,
            label_field=opts.label_field,
            require_label=False,
            allow_empty=True,
        )
        return [example.text for example in examples]

    def plain(self, record: str, prediction: Mapping[str, Any]) -> str:
        """Label, its probability and the text, between tabs."""
        label = prediction["label"]
        return f"{label}\t{prediction['probabilities'][label]:.3f}\t{record}"

    def _predict(self, texts: list[str]) -> list[dict[str, Any]]:
        from carousel.data import BucketedBatches

        inputs = self.inputs_
        tokens = [inputs.tokenizer.tokenize(text) for text in texts]
        batches = BucketedBatches(
            [inputs.vocabulary.encode(line) for line in tokens], None, batch_size=PREDICT_BATCH_SIZE, shuffle=False, seed=0
        )
        records: list[dict[str, Any]] = [{} for _ in texts]
        for batch, probabilities, weights in self._run(batches):
            rows = zip(batch.index.tolist(), probabilities.tolist(), strict=True)
            for row, (index, row_probabilities) in enumerate(rows):
                best = max(range(len(row_probabilities)), key=row_probabilities.__getitem__)
                records[index] = {
                    "label": inputs.labels.decode(best),
                    "probabilities": dict(zip(inputs.labels.names, row_probabilities, strict=True)),
                }
                if weights is not None:
                    line = tokens[index]
                    records[index]["attention"] = [
                        [token, weight] for token, weight in zip(line, weights[row, : len(line)].tolist(), strict=True)
                    ]
        return records

    def _run(self, batches: BucketedBatches) -> Any:
        """Yield batch, probabilities (B, V) and attention weights (B, T) or None, on the CPU."""
        import torch

        from carousel.training import choose_device

        device = choose_device(self._device)
        network = self.network_.to(device).eval()
        with torch.no_grad():
            for batch in batches:
                there = batch.to(device)
                logits, weights = network(there.tokens, there.lengths)
                yield batch, torch.softmax(logits.double(), dim=-1).cpu(), None if weights is None else weights.cpu()

    def _count(self, batches: BucketedBatches) -> Confusion:
        import torch

        from carousel.tasks.confusion import Confusion

        V = len(self.inputs_.labels)
        counts = torch.zeros(V * V, dtype=torch.long)
        loss, items = 0.0, 0
        for batch, probabilities, _ in self._run(batches):
            counts += torch.bincount(batch.labels * V + probabilities.argmax(dim=-1), minlength=V * V)
            right = probabilities.gather(1, batch.labels[:, None])
            loss -= float(right.clamp_min(1e-300).log().sum())
            items += len(right)
        return Confusion(self.inputs_.labels.names, counts.view(V, V).tolist(), loss / items)

    def _read(self, data: LabelledData, what: str) -> list[Example]:
        from carousel.data import Example, read_labelled

        if isinstance(data, str | os.PathLike):
            opts = self.options
            return read_labelled(data, format=opts.format, text_field=opts.text_field, label_field=opts.label_field)
        examples = []
        for position, pair in enumerate(data):
            if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
                raise DataError(explain(f"{what}: item {position} is not a pair of texts (text, label).", got=repr(pair)))
            examples.append(Example(text=pair[0], label=pair[1], path="<list>", line=position + 1))
        if not examples:
            raise DataError(explain(f"{what}: the list is empty.", expected="pairs (text, label)"))
        return examples

    def _batches(self, inputs: ClassifierInputs, examples: Sequence[Example], *, shuffle: bool) -> BucketedBatches:
        from carousel.data import BucketedBatches

        return BucketedBatches(
            inputs.encode([example.text for example in examples]),
            inputs.number(examples),
            batch_size=self.options.batch_size if shuffle else max(self.options.batch_size, PREDICT_BATCH_SIZE),
            shuffle=shuffle,
            seed=self.training.seed,
        )

    def _prepare(
        self, train: LabelledData, valid: LabelledData | None, inputs: ClassifierInputs | None
    ) -> Prepared[ClassifierInputs]:
        self._check_cell()
        learn = self._read(train, "the training data")
        if valid is None:
            learn, check = hold_out(learn, seed=self.training.seed)
            self._note(f"No validation data given: {len(check)} of {len(learn) + len(check)} examples are held out for it.")
        else:
            check = self._read(valid, "the validation data")
        inputs = inputs or self._learn_inputs(learn)
        self._note(
            f"{len(learn)} examples to learn from, {len(check)} to validate on, {len(inputs.labels)} labels, "
            f"{len(inputs.vocabulary)} tokens known."
        )
        return Prepared(
            inputs=inputs,
            train=self._batches(inputs, learn, shuffle=True),
            valid=self._batches(inputs, check, shuffle=False),
            sources={"train": _path_text(train), "valid": _path_text(valid)},
        )

    def _check_cell(self) -> None:
        """Refuse a cell that a text cannot feed, before any data are read."""
        cell, name = self.cell, cell_name(self.cell)
        if len(cell.inputs) != 1 or cell.context or cell.shapes.get(cell.inputs[0], ("I",)) != ("I",):
            wants = ", ".join(f"{value} {cell.shapes.get(value, '(I)')}" for value in (*cell.inputs, *cell.context))
            raise ConfigError(
                explain(f"option cell: {name} cannot read a text.", got=f"a cell over {wants}", expected="one vector a step")
            )

    def _learn_inputs(self, examples: Sequence[Example]) -> ClassifierInputs:
        from carousel.data import LabelSet, Tokenizer, Vocabulary

        labels = LabelSet(str(example.label) for example in examples)
        if len(labels) < 2:
            raise DataError(
                explain("the training data hold only one label.", got=repr(labels.decode(0)), expected="at least two labels"),
                path=examples[0].path,
            )
        texts = [example.text for example in examples]
        opts = self.options
        tokenizer = Tokenizer(opts.unit, lowercase=opts.lowercase).resolve(texts)
        vocabulary = Vocabulary.count(
            (tokenizer.tokenize(text) for text in texts), min_count=opts.min_count, max_size=opts.max_vocab
        )
        return ClassifierInputs(tokenizer, vocabulary, labels)

    def _build(self, inputs: ClassifierInputs) -> nn.Module:
        from carousel.tasks.classify_network import SequenceClassifier

        opts = self.options
        return SequenceClassifier(
            self.cell,
            vocab_size=len(inputs.vocabulary),
            num_labels=len(inputs.labels),
            embedding_size=opts.embedding_size,
            hidden_size=opts.hidden_size,
            num_layers=opts.num_layers,
            bidirectional=opts.bidirectional,
            dropout=opts.dropout,
            word_dropout=opts.word_dropout,
            summary=opts.summary,
            engine=opts.engine,
        )

    def _write_inputs(self, directory: Path, inputs: ClassifierInputs) -> None:
        from carousel.data import write_json

        inputs.vocabulary.save(directory / "vocabulary.json")
        inputs.labels.save(directory / "labels.json")
        write_json(directory / "tokenizer.json", inputs.tokenizer.to_dict())

    def _recall(self, directory: Path) -> ClassifierInputs:
        from carousel.data import LabelSet, Tokenizer, Vocabulary, read_json

        return ClassifierInputs(
            tokenizer=Tokenizer.from_dict(read_json(directory / "tokenizer.json")),
            vocabulary=Vocabulary.load(directory / "vocabulary.json"),
            labels=LabelSet.load(directory / "labels.json"),
        )

    def _report(self, prepared: Prepared[ClassifierInputs], out: Path) -> dict[str, float]:
        from carousel.tasks.confusion import plot_confusion

        confusion = self._count(prepared.valid)
        plot_confusion(confusion, out / "confusion.png")
        return confusion.scores()


def _path_text(data: LabelledData | None) -> str | None:
    return os.fspath(data) if isinstance(data, str | os.PathLike) else None
