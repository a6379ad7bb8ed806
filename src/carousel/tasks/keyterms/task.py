"""The finder of key terms: the phrases that say what a document is about, ranked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from carousel.errors import ConfigError, DataError, explain
from carousel.tasks import run_directory as disk
from carousel.tasks.base import PathLike, Prepared
from carousel.tasks.cell_choice import require_vector_cell
from carousel.tasks.keyterms.documents import Document, Documents, as_term, document_of, open_documents, term_text
from carousel.tasks.keyterms.finding import Finder
from carousel.tasks.keyterms.inputs import KeyTermsInputs, PreparedDocuments, prepare, tagger_options
from carousel.tasks.keyterms.measures import RankedTerm, best_threshold, exact_match
from carousel.tasks.keyterms.options import KeyTermsOptions
from carousel.tasks.unlabelled import Unlabelled

if TYPE_CHECKING:
    from torch import nn

    from carousel.tasks.labels import LabelForm

__all__ = ["KeyTerms"]

# What a run directory of a method that trains no network does not say.
OF_NETWORKS = ("hidden_size", "num_layers", "embedding_size")


class KeyTerms(Unlabelled[KeyTermsInputs]):
    """Key terms of documents, ranked by a network that learned from documents with key terms, or by counting words.

    ``method="tags"``: the network of :class:`carousel.tasks.Tagger` marks terms in the document. A term's score is the
    probability of its span, summed over all taggings of the document; of several places the largest one counts. This takes
    [1], which answers with the best tagging, one step further: terms are ranked, and the threshold above which they are
    answered is chosen on the validation data for the best F1.

    ``method="terms"``: the document becomes one vector by attention, which scores the terms of training, a sigmoid for each.

    ``method="tfidf"``, ``method="textrank"``: see :func:`tfidf_terms` and :func:`textrank_terms`. What they learn is how many
    documents have each word, and the threshold.

    Args:
        options: those of :class:`KeyTermsOptions` and of :class:`carousel.training.TrainingConfig`, by name.

    Raises:
        ConfigError: an unknown option (the message names the nearest) or an impossible value.

    Example:
        .. code-block:: python

            model = KeyTerms().fit("train.txt", valid="valid.txt", out="runs/kt")
            model.evaluate("test.txt")["f1"]
            model.predict(["Knowledge management in large companies ..."])

    References:
        [1] Sahrawat et al. (2020), "Keyphrase Extraction from Scholarly Articles as Sequence Labeling", ECIR.
    """

    task: ClassVar[str] = "keyterms"
    options_type: ClassVar[type] = KeyTermsOptions
    training_defaults: ClassVar[Mapping[str, Any]] = {"lr": 2e-3, "patience": 4}
    no_labels: ClassVar[str] = "key terms are a ranked list, no label."
    options: KeyTermsOptions

    _top: int | None = None

    def evaluate(self, data: Documents) -> dict[str, float]:
        """Measure on documents with key terms.

        Args:
            data: a file, or a list of pairs (text or words, key terms).

        Returns:
            What :func:`carousel.tasks.keyterms.exact_match` says: `precision`, `recall`, `f1`, `f1_at_5`, `f1_at_10` (0 to 1)
            and `count`, the number of documents.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: the file cannot be read, or has no key terms.
        """
        self._require_fitted("evaluate")
        return self._measure(open_documents(data, self.options, labelled=True, what="the data to evaluate"))

    def rank(self, X: Any) -> list[list[RankedTerm]]:
        """All candidates of each document, the best first, answered or not.

        Args:
            X: a list of texts, of lists of words, or of :class:`Document`.

        Returns:
            For each document its terms with their scores and places.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one text, or holds something else than documents.
        """
        self._require_fitted("rank")
        return self._ranked(_bare("rank", X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Find the key terms of documents.

        Args:
            X: a list of texts, of lists of words, or of :class:`Document`.

        Returns:
            (N,), for each document a tuple of texts in small letters, the best first.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one text, or holds something else than documents.
        """
        self._require_fitted("predict")
        documents = _bare("predict", X)
        found = np.empty(len(documents), dtype=object)
        found[:] = [tuple(term_text(one.term) for one in ranked) for ranked in self._answers(documents)]
        return found

    def predict_records(self, X: Any) -> list[dict[str, Any]]:
        """Tell all that there is to tell of each document.

        Args:
            X: as for :meth:`predict`, or what :meth:`read_records` gave.

        Returns:
            For each document `tokens`, its words, and `keyterms`, the best first: `term`, `score` (0 to 1) and `places`, pairs
            of begin and end (not included) among the words.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            DataError: `X` is one text, or holds something else than documents.
        """
        self._require_fitted("predict")
        documents = _bare("predict", X)
        return [
            {
                "keyterms": [
                    {"term": term_text(one.term), "score": round(one.score, 6), "places": [list(place) for place in one.places]}
                    for one in ranked
                ],
                "tokens": list(document.words),
            }
            for document, ranked in zip(documents, self._answers(documents), strict=True)
        ]

    def answer_with(self, *, top: int | None = None) -> Self:
        """Choose how many terms are answered from now on.

        Args:
            top: so many of each document, whatever their scores; None: all whose score reaches the threshold.

        Raises:
            ConfigError: `top` is not positive.
        """
        if top is not None and top < 1:
            raise ConfigError(explain("top: there must be a term to answer.", got=str(top), expected="at least 1"))
        self._top = top
        return self

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """F1 of the answers, 0 to 1, with the terms of all documents counted together.

        Args:
            X: documents, as for :meth:`predict`.
            y: for each its key terms.
            sample_weight: must be None: documents count by their terms.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            ConfigError: weights are given.
            DataError: lengths differ.
        """
        if sample_weight is not None:
            raise ConfigError("score: documents count by their terms; sample_weight is not possible.")
        answers = [set(map(as_term, terms)) for terms in self.predict(X)]
        truth = [set(map(as_term, terms)) for terms in y]
        if len(answers) != len(truth):
            raise DataError(explain("X and y are not of one length.", got=f"{len(answers)} items, {len(truth)} labels"))
        right = sum(len(found & true) for found, true in zip(answers, truth, strict=True))
        return 2 * right / max(1, sum(map(len, answers)) + sum(map(len, truth)))

    def encode(self, records: Any) -> NDArray[np.float32]:
        """Turn each document into one vector: the attention summary, or for tags the mean of what the output layer sees.

        Args:
            records: as for :meth:`predict`.

        Returns:
            (N, F), in order; zeros for a document without words.

        Raises:
            NotFittedError: before :meth:`fit` or :meth:`load`.
            ConfigError: the method has no network.
            DataError: as for :meth:`predict`.
        """
        self._require_fitted("encode")
        if self.options.counts:
            raise ConfigError(explain(f"method {self.options.method}: there are no vectors.", advice="method=tags or terms"))
        return self.finder().vectors(_bare("encode", records))

    def read_records(self, path: PathLike, format: str | None = None) -> list[Document]:  # noqa: A002 - the option's name
        """Read the documents of a file, with key terms or without; ``-`` is standard input.

        Args:
            path: columns, a table, or one document a line.
            format: how it is written; None goes by name and first lines.
        """
        self._require_fitted("read_records")
        options = self.options if format is None else replace(self.options, format=cast(Any, format))
        return open_documents(path, options, labelled=False, what="the file")

    def plain(self, record: Any, prediction: Mapping[str, Any]) -> str:  # noqa: ARG002 - a document is no line
        """The terms with their scores, the best first."""
        return "; ".join(f"{one['term']} ({one['score']:.2f})" for one in prediction["keyterms"])

    def read_with(self, **names: Any) -> Self:
        """Choose how data files are read from now on (`format`, `text_field`, `label_field`); None keeps what is set.

        Raises:
            ConfigError: an impossible value, or a field that documents do not have.
        """
        known = {item.name for item in fields(KeyTermsOptions)}
        for name, value in names.items():
            if value is not None and name not in known:
                raise ConfigError(explain(f"option {name}: documents with key terms have no such field.", got=str(value)))
        return super().read_with(**names)

    # --- for the estimator's verbs ------------------------------------------------------------------------------------

    def _answer_kind(self) -> Literal["one", "several", "number"]:
        return "several"

    def _answer_names(self) -> tuple[str, ...]:
        return tuple(map(term_text, self.inputs_.terms))

    def _scores(self, records: list[Any]) -> NDArray[np.float64]:
        if self.options.method != "terms":
            what = f"method {self.options.method}: there is no table of probabilities."
            raise ConfigError(explain(what, advice="predict_records(X) tells scores"))
        documents, finder = _bare("predict", records), self.finder()
        scores = np.tile(finder.network.output.bias.detach().cpu().numpy().astype(np.float64), (len(documents), 1))
        for index, found in finder.term_scores(documents):
            scores[index] = found
        return scores

    def _measure(self, documents: Sequence[Document]) -> dict[str, float]:
        truth = [document.terms or () for document in documents]
        return exact_match(self._ranked(documents), truth, self.inputs_.cutoff)

    def _answers(self, documents: Sequence[Document]) -> list[list[RankedTerm]]:
        found = self._ranked(documents)
        if self._top is not None:
            return [ranked[: self._top] for ranked in found]
        return [[one for one in ranked if one.score >= self.inputs_.cutoff] for ranked in found]

    def _ranked(self, documents: Sequence[Document]) -> list[list[RankedTerm]]:
        return self.finder().ranked(documents)

    def finder(self) -> Finder:
        """What puts documents through the fitted method, step by step."""
        if self.options.counts:
            return Finder(self.inputs_, self.options, None, "cpu")
        from carousel.training import choose_device

        device = choose_device(self._device)
        return Finder(self.inputs_, self.options, self.network_.to(device).eval(), device)

    # --- training -----------------------------------------------------------------------------------------------------

    def _fit_into(
        self,
        out: Path,
        train: Any,
        valid: Any,
        form: LabelForm | None,
        *,
        overwrite: bool = False,
        resume: bool = False,
        kept: bool = True,
    ) -> None:
        if not self.options.counts:
            super()._fit_into(out, train, valid, form, overwrite=overwrite, resume=resume, kept=kept)
            return
        from carousel.training import TrainingResult

        if resume:
            raise ConfigError(explain(f"method {self.options.method} trains nothing to go on with.", advice="--overwrite"))
        if kept:
            disk.check_destination(out, overwrite=overwrite)
        began = time.monotonic()
        prepared = self._prepare(train, valid, None)
        self.inputs_, self._form = prepared.inputs, form
        self.network_ = self._build(prepared.inputs)
        self.scores_ = self._report(prepared, None)
        nothing: dict[str, float] = {}
        self.result_ = TrainingResult(0, nothing, nothing, 0, time.monotonic() - began, interrupted=False, history=[], lr=0.0)
        if kept:
            self.save(out, overwrite=overwrite)
            disk.write_config(out / disk.CONFIG_FILE, self._config(form) | prepared.sources)

    def _config(self, form: LabelForm | None) -> dict[str, Any]:
        found = super()._config(form)
        return {name: value for name, value in found.items() if not (self.options.counts and name in OF_NETWORKS)}

    def _monitor(self, inputs: KeyTermsInputs) -> tuple[str, Literal["max", "min"]]:  # noqa: ARG002 - the base's signature
        return ("loss", "min") if self.options.method == "terms" else ("f1", "max")

    def _prepare(self, train: Documents, valid: Documents | None, inputs: KeyTermsInputs | None) -> Prepared[KeyTermsInputs]:
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

    def _build(self, inputs: KeyTermsInputs) -> nn.Module:
        from torch import nn

        if inputs.words is None or inputs.tags is None:
            return nn.Module()
        from carousel.tasks.tag.front import TokenFeatures

        tagger = tagger_options(self.options)
        front = TokenFeatures(inputs.words, self.cell, tagger, inputs.size or self.options.embedding_size, inputs.vectors)
        if self.options.method == "terms":
            from carousel.tasks.keyterms.network import TermNetwork

            return TermNetwork(self.cell, front, len(inputs.terms), self.options)
        from carousel.tasks.tag.network import TagNetwork

        return TagNetwork(self.cell, front, inputs.tags, tagger)

    def _write_inputs(self, directory: Path, inputs: KeyTermsInputs) -> None:
        inputs.write(directory)

    def _recall(self, directory: Path) -> KeyTermsInputs:
        return KeyTermsInputs.recall(directory, self.options)

    def _report(self, prepared: Prepared[KeyTermsInputs], out: Path | None) -> dict[str, float]:
        """Choose the threshold on the validation data; its scores there are a little better than elsewhere for that."""
        held = cast(PreparedDocuments, prepared).held
        ranked, truth = self._ranked(held), [document.terms or () for document in held]
        self.inputs_ = replace(self.inputs_, threshold=best_threshold(ranked, truth))
        if out is not None:
            self.inputs_.write_threshold(out)
        return exact_match(ranked, truth, self.inputs_.cutoff)


def _bare(verb: str, items: Any) -> list[Document]:
    if isinstance(items, str):
        raise DataError(explain(f"{verb} takes a list of documents.", got="one text", advice=f"{verb}([text])"))
    return [document_of(item, position=position) for position, item in enumerate(items)]
