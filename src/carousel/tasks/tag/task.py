"""The tagger: a tag for every word, or for every character, of a sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self, cast

import numpy as np
from numpy.typing import NDArray

from carousel.data.tagged import TaggedSentence
from carousel.errors import ConfigError, DataError, ShapeError, explain
from carousel.tasks.base import PathLike, Prepared
from carousel.tasks.cell_choice import require_vector_cell
from carousel.tasks.tag.answering import TagAnswers
from carousel.tasks.tag.inputs import PreparedSentences, TaggerInputs, prepare
from carousel.tasks.tag.options import TaggerOptions
from carousel.tasks.tag.sources import Tagged, pair_up, read_sentences
from carousel.tasks.tag.tags import UNSEEN
from carousel.tasks.unlabelled import Unlabelled

if TYPE_CHECKING:
    from torch import nn

    from carousel.tasks.tag.measures import TagEvaluation

__all__ = ["Tagger"]


class Tagger(TagAnswers, Unlabelled[TaggerInputs]):  # type: ignore[misc]  # a list of lists, not an array of labels
    """Tags for sentences: features of each word, recurrent layers, scores of tags, and a CRF over their sequence.

    .. math:: p(y \\mid x) \\propto \\exp \\sum_t (W h_t + b)_{y_t} + w_{y_{t-1}, y_t}

    A word is its embedding beside what a layer makes of its characters [1, 2], and if asked for its affixes, its shape,
    pairs with its neighbours, further columns. Spans are learned as BIOES and answered as the data writes them. With
    ``output="softmax"`` each tag is scored by itself; with ``loss="perceptron"`` or ``"margin"`` the scores are trained
    without a likelihood. Differs from [1, 2]: embeddings start from scratch unless `vectors` names a file.

    Args:
        options: those of :class:`TaggerOptions` and of :class:`carousel.training.TrainingConfig`, by name.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.

    Example:
        .. code-block:: python

            model = Tagger(hidden_size=200).fit("train.txt", valid="dev.txt", out="runs/ner")
            model.evaluate("test.txt")["f1"]
            model.predict([["Peter", "lives", "in", "New", "York"]])   # [['B-PER', 'O', 'O', 'B-LOC', 'I-LOC']]

    References:
        [1] Lample et al. (2016), "Neural Architectures for Named Entity Recognition".
        [2] Ma & Hovy (2016), "End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF".
    """

    task: ClassVar[str] = "tag"
    options_type: ClassVar[type] = TaggerOptions
    training_defaults: ClassVar[Mapping[str, Any]] = {"lr": 2e-3, "epochs": 30}
    no_labels: ClassVar[str] = "a tagger answers with a tag for each word."
    options: TaggerOptions

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        valid: Any = None,
        out: PathLike | None = None,
        overwrite: bool = False,
        resume: bool = False,
    ) -> Self:
        """Train, choosing the best epoch on validation data: by F1 where tags mark spans, else by accuracy.

        Args:
            X: what to learn from: a file, a list of pairs (words, tags), or a list of lists of words with their tags in `y`. To
                learn segmentation (``unit="char"``), lists of words are enough.
            y: a list of tags for each sentence of `X`.
            valid: a file, a list of pairs or a tuple (X, y); None holds out a tenth of `X`, always the same one for the same
                seed.
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
        if y is not None and (isinstance(y, str | os.PathLike) or isinstance(X, str | os.PathLike)):
            if valid is not None:
                raise DataError(explain("fit: validation data were given twice.", advice="fit(train, valid=valid)"))
            y, valid = None, y
        train = X if y is None else pair_up(X, y)
        if isinstance(valid, tuple) and len(valid) == 2:
            valid = pair_up(*valid)
        return super().fit(train, None, valid=valid, out=out, overwrite=overwrite, resume=resume)

    def evaluate(self, data: Tagged) -> dict[str, float]:
        """Measure on tagged data.

        Args:
            data: a file, or a list of pairs (words, tags).

        Returns:
            What :meth:`carousel.tasks.tag.measures.TagEvaluation.scores` says: `accuracy` and `count` of tokens, known and
            unknown words apart, and for spans `precision`, `recall` and `f1` (0 to 1); for segmentation also `oov_recall`.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: the file cannot be read, or has no tags.
        """
        return self.measures(data).scores()

    def measures(self, data: Tagged) -> TagEvaluation:
        """Tag tagged data and keep the answers beside the truth; see :meth:`evaluate` for the argument."""
        self._require_fitted("evaluate")
        found = read_sentences(data, self.options, what="the data to evaluate", place=self.inputs_.place)
        return self._measures(found)

    def read_records(self, path: PathLike, format: str | None = None) -> list[TaggedSentence]:  # noqa: A002 - the option's name
        """Read the sentences of a file, tagged or not; ``-`` is standard input.

        Args:
            path: any format that :func:`carousel.data.tagged.read_tagged` knows.
            format: how it is written; None goes by name and first lines.
        """
        self._require_fitted("read_records")
        options = self.options if format is None else replace(self.options, format=format)
        return read_sentences(path, options, what="the file", place=self.inputs_.place, tagged=False)

    def read_with(self, **names: Any) -> Self:
        """Choose how data files are read from now on (`format`, `column`, `word_column`); None keeps what is set.

        Raises:
            ConfigError: an impossible value, or a field that tagged files do not have.
        """
        known = {item.name for item in fields(TaggerOptions)}
        for name, value in names.items():
            if value is not None and name not in known:
                what = f"option {name}: sentences with tags have no such field."
                raise ConfigError(explain(what, got=str(value), advice="name the column of the tags with column"))
        return super().read_with(**names)

    def predict_proba(self, X: Any) -> NoReturn:  # noqa: ARG002 - the base's signature
        """Sentences differ in length, so there is no one table: :meth:`predict_records` tells probabilities.

        Args:
            X: anything.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(explain("predict_proba: a tagger has no one table.", advice="predict_records(X) has probabilities"))

    # --- for the estimator's verbs ------------------------------------------------------------------------------------

    def _answer_kind(self) -> Literal["one", "several", "number"]:
        return "one"

    def _answer_names(self) -> tuple[str, ...]:
        return self.inputs_.tags.answers

    def _scores(self, records: list[Any]) -> NDArray[np.float64]:
        raise ShapeError(explain("a tagger has no one score for a sentence.", got=f"{len(records)} sentences"))

    def _measures(self, sentences: Sequence[TaggedSentence]) -> TagEvaluation:
        from carousel.tasks.tag.measures import TagEvaluation

        inputs = self.inputs_
        unseen = int((inputs.tags.encode(sentences) == UNSEEN).sum())
        if unseen:
            self._note(f"{unseen:,} tags are not in the training data: they count as wrong.")
        return TagEvaluation(
            words=[sentence.words for sentence in sentences],
            truth=[sentence.tags or () for sentence in sentences],
            answers=[answer["tags"] for answer in self._answers(sentences)],
            scheme=inputs.tags.data_scheme,
            known=inputs.known,
            segmentation=self.options.unit == "char",
        )

    # --- training -----------------------------------------------------------------------------------------------------

    def _monitor(self, inputs: TaggerInputs) -> tuple[str, Literal["max", "min"]]:
        return ("accuracy" if inputs.tags.scheme is None else "f1"), "max"

    def _prepare(self, train: Tagged, valid: Tagged | None, inputs: TaggerInputs | None) -> Prepared[TaggerInputs]:
        from carousel.training import process_count

        require_vector_cell(self.cell)
        return prepare(
            train,
            valid,
            inputs,
            options=self.options,
            seed=self.training.seed,
            note=self._note,
            processes=process_count(self.training),
        )

    def _build(self, inputs: TaggerInputs) -> nn.Module:
        from carousel.tasks.tag.front import TokenFeatures
        from carousel.tasks.tag.network import TagNetwork

        size = inputs.size or self.options.embedding_size
        front = TokenFeatures(inputs.words, self.cell, self.options, size, inputs.vectors)
        return TagNetwork(self.cell, front, inputs.tags, self.options)

    def _write_inputs(self, directory: Path, inputs: TaggerInputs) -> None:
        inputs.write(directory)

    def _recall(self, directory: Path) -> TaggerInputs:
        return TaggerInputs.recall(directory, self.options)

    def _report(self, prepared: Prepared[TaggerInputs], out: Path | None) -> dict[str, float]:  # noqa: ARG002 - nothing is drawn
        return self._measures(cast(PreparedSentences, prepared).held).scores()
