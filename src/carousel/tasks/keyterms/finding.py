"""Documents through a fitted method: their terms, the scores of a vocabulary, their vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from carousel.tasks.keyterms.counting import textrank_terms, tfidf_terms
from carousel.tasks.keyterms.documents import Document
from carousel.tasks.keyterms.inputs import PREDICT_BATCH_SIZE, KeyTermsInputs
from carousel.tasks.keyterms.measures import RankedTerm
from carousel.tasks.keyterms.options import KeyTermsOptions
from carousel.tasks.keyterms.spans import tagged_terms
from carousel.tasks.keyterms.vocabulary import vocabulary_terms

if TYPE_CHECKING:
    from carousel.structured import LinearChain
    from carousel.tasks.tag.batches import TagBatch
    from carousel.tasks.tag.tags import TagIndex

__all__ = ["Finder"]


@dataclass(frozen=True)
class Finder:
    """A fitted method.

    Args:
        inputs: what turns documents into numbers.
        options: of the task.
        network: in evaluation mode; not used by methods that count.
        device: where it is.
    """

    inputs: KeyTermsInputs
    options: KeyTermsOptions
    network: Any
    device: str

    def ranked(self, documents: Sequence[Document]) -> list[list[RankedTerm]]:
        """All candidates of each document, the best first.

        Args:
            documents: any number.
        """
        opts, inputs = self.options, self.inputs
        if opts.method == "tfidf":
            return [tfidf_terms(document, inputs.statistics.counts, opts.max_words) for document in documents]
        if opts.method == "textrank":
            return [textrank_terms(document, opts.max_words) for document in documents]
        answers: list[list[RankedTerm]] = [[] for _ in documents]
        if opts.method == "terms":
            for index, scores in self.term_scores(documents):
                for at, row in zip(index.tolist(), scores, strict=True):
                    answers[at] = vocabulary_terms(documents[at], inputs.terms, row, only_present=opts.only_present)
            return answers
        for index, chain in self._chains(documents):
            here = [documents[at] for at in index.tolist()]
            for at, found in zip(index.tolist(), tagged_terms(chain, here, self._labels, opts.max_words), strict=True):
                answers[at] = found
        return answers

    def taggings(self, documents: Sequence[Document]) -> list[list[str]]:
        """The best tagging of each document by a network that tags, in BIOES.

        Args:
            documents: any number.
        """
        found: list[list[str]] = [[] for _ in documents]
        for index, chain in self._chains(documents):
            for at, path in zip(index.tolist(), chain.best()[0].tolist(), strict=True):
                found[at] = [self._labels[tag] for tag in path[: len(documents[at].words)]]
        return found

    def term_scores(self, documents: Sequence[Document]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Score the vocabulary of terms; documents without words are left out.

        Args:
            documents: any number.

        Yields:
            The places of some documents, and their scores before the sigmoid, (B, V).
        """
        import torch

        for index, batch in self._batches(documents):
            with torch.no_grad():
                scores = self.network(batch).double().cpu().numpy()
            yield index, scores

    def vectors(self, documents: Sequence[Document]) -> NDArray[np.float32]:
        """(N, F): the attention summaries, or for tags the means of what the output layer sees; zeros without words.

        Args:
            documents: any number.
        """
        import torch

        found = np.zeros((len(documents), self.network.output.in_features), np.float32)
        with torch.no_grad():
            for index, batch in self._batches(documents):
                if self.options.method == "terms":
                    vector = self.network.summarise(batch).vector
                else:
                    vector = self.network.hidden(batch).sum(1) / batch.lengths[:, None]
                found[index] = vector.float().cpu().numpy()
        return found

    @property
    def _labels(self) -> tuple[str, ...]:
        return cast("TagIndex", self.inputs.tags).labels.names

    def _chains(self, documents: Sequence[Document]) -> Iterator[tuple[NDArray[np.int64], LinearChain]]:
        import torch

        for index, batch in self._batches(documents):
            with torch.no_grad():
                chain = self.network(batch)
            yield index, chain

    def _batches(self, documents: Sequence[Document]) -> Iterator[tuple[NDArray[np.int64], TagBatch]]:
        """The places of some documents, and the batch of them; documents without words are in none."""
        from carousel.tasks.tag.batches import TagBatches

        real = [at for at, document in enumerate(documents) if document.words]
        if not real:
            return
        numbers = self.inputs.numbers([documents[at] for at in real], self.options)
        for batch in TagBatches(numbers, None, batch_size=PREDICT_BATCH_SIZE, shuffle=False):
            yield np.array(real)[batch.index.numpy()], batch.to(self.device)
