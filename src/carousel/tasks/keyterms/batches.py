"""Documents as batches: the tagger's, and beside them which terms of the vocabulary each document has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carousel.tasks.tag.batches import TagBatch, TagBatches

if TYPE_CHECKING:
    from carousel.tasks.keyterms.documents import Document
    from carousel.tasks.keyterms.inputs import KeyTermsInputs
    from carousel.tasks.keyterms.options import KeyTermsOptions
    from carousel.tasks.tag.tags import TagIndex

__all__ = ["TermBatch", "TermBatches", "document_batches"]


@dataclass(frozen=True, eq=False)
class TermBatch:
    """Some documents, and the terms that each of them has.

    Args:
        documents: their words.
        terms: (B, V), 1 for each term of the vocabulary that the document has, else 0.
    """

    documents: TagBatch
    terms: Tensor

    @property
    def token_count(self) -> int:
        """Words of all documents."""
        return self.documents.token_count

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TermBatch:
        """The same batch with its tensors on `device`."""
        return TermBatch(self.documents.to(device, non_blocking), self.terms.to(device, non_blocking=non_blocking))

    def part(self, rank: int, world: int) -> TermBatch:
        """One process's share: the rows `rank`, `rank` + `world`, ...

        Args:
            rank: the number of the process, from 0.
            world: how many processes there are.

        Raises:
            ConfigError: `rank` is not one of the `world` numbers from 0.
        """
        return TermBatch(self.documents.part(rank, world), self.terms[rank::world])

    def __len__(self) -> int:
        return len(self.documents)


class TermBatches:
    """Batches of documents with their terms.

    Args:
        documents: the N documents.
        terms: (N, V), bool, which terms of the vocabulary each has.
    """

    def __init__(self, documents: TagBatches, terms: npt.NDArray[np.bool_]) -> None:
        self.documents, self.terms = documents, terms

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch, counted from 0."""
        self.documents.set_epoch(epoch)

    def skip(self, batches: int) -> None:
        """Let the next iteration, and only that one, leave out its first batches.

        Args:
            batches: how many.
        """
        self.documents.skip(batches)

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[TermBatch]:
        for batch in self.documents:
            rows = self.terms[batch.index.numpy()].astype(np.float32)
            yield TermBatch(batch, torch.from_numpy(rows))


def document_batches(
    inputs: KeyTermsInputs,
    documents: Sequence[Document],
    options: KeyTermsOptions,
    *,
    batch_size: int,
    learned: bool = False,
    shuffle: bool = False,
    seed: int = 0,
) -> TagBatches | TermBatches:
    """Batches that a network is trained on.

    Args:
        inputs: what turns documents into numbers.
        documents: with key terms.
        options: of the task.
        batch_size: documents in a batch.
        learned: whether these are the documents that were learned from.
        shuffle: whether the order is random; else the longest come first.
        seed: what the random order starts from.
    """
    numbers = inputs.numbers(documents, options, learned=learned)
    tags = cast("TagIndex", inputs.tags).encode(inputs.tagged(documents)) if options.method == "tags" else None
    batches = TagBatches(numbers, tags, batch_size=batch_size, shuffle=shuffle, seed=seed)
    if options.method == "tags":
        return batches
    number = {term: at for at, term in enumerate(inputs.terms)}
    table = np.zeros((len(documents), len(number)), np.bool_)
    for row, document in enumerate(documents):
        table[row, [number[term] for term in document.terms or () if term in number]] = True
    return TermBatches(batches, table)
