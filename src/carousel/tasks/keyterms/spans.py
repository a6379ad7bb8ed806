"""From a distribution over the tags of a document to its terms, each with the probability that it is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from carousel.tasks.keyterms.documents import Document
from carousel.tasks.keyterms.measures import RankedTerm, rank

if TYPE_CHECKING:
    from carousel.structured import LinearChain

__all__ = ["KIND", "span_probabilities", "step_probabilities", "tagged_terms"]

KIND = "KEY"
LEAST = 0.01  # spans less likely than this are no candidates

Numbers = npt.NDArray[np.float64]


def step_probabilities(chain: LinearChain) -> Numbers:
    r"""The probability of each tag at each step, given the tag before it.

    .. math:: p(y_t = b \mid y_{t-1} = a) = e^{w_{ab} + u_{t,b} + \beta_{t,b}} \Big/ \sum_c e^{w_{ac} + u_{t,c} + \beta_{t,c}}

    with the sums of all that may follow, from the last step to the first: `pair_marginals` of the chain would need memory
    and time for the square of the steps.

    Args:
        chain: over the tags of B documents; real steps stand before masked ones.

    Returns:
        (B, T, K, K), from the row's tag to the column's; what stands at step 0 and in masked steps means nothing.
    """
    B, T, K = chain.unary.shape
    real = np.ones((B, T), np.bool_) if chain.mask is None else chain.mask.cpu().numpy()
    unary = np.where(real[..., None], chain.unary.detach().double().cpu().numpy(), 0.0)
    transition = chain.transition.detach().double().cpu().numpy()
    end = np.zeros(K) if chain.end is None else chain.end.detach().double().cpu().numpy()
    found = np.zeros((B, T, K, K))
    later = np.tile(end, (B, 1))
    for t in range(T - 1, 0, -1):
        scores = transition + (unary[:, t] + later)[:, None]  # (B, K, K)
        largest = scores.max(-1, keepdims=True)
        largest = np.where(np.isfinite(largest), largest, 0.0)  # a tag that nothing may follow
        shares = np.exp(scores - largest)
        total = shares.sum(-1, keepdims=True)
        found[:, t] = shares / np.maximum(total, np.finfo(np.float64).tiny)
        with np.errstate(divide="ignore"):
            before = (np.log(total) + largest)[..., 0]
        later = np.where(real[:, t, None], before, later)
    return found


def span_probabilities(
    marginals: Numbers, steps: Numbers, labels: Sequence[str], max_words: int, least: float = LEAST
) -> Iterator[tuple[int, int, float]]:
    r"""The probability of each span under a chain of BIOES tags.

    .. math:: p(i, j) = p(y_i = B) \prod_{k=i+1}^{j-1} p(y_k = I \mid y_{k-1}) \cdot p(y_j = E \mid y_{j-1}),
        \qquad p(i, i) = p(y_i = S)

    It is exact: given the tag before it, a tag of a linear chain does not depend on what stands further before.

    Args:
        marginals: (T, K), of each tag at each step.
        steps: (T, K, K), of each tag (column) given the one before (row).
        labels: K tags.
        max_words: words of the longest span.
        least: spans less likely than this are left out.

    Yields:
        Begin and end (not included) of each span, and its probability.
    """
    begins, inner, ends, single = (list(labels).index(f"{letter}-{KIND}") for letter in "BIES")
    T = len(marginals)
    for at in np.flatnonzero(marginals[:, single] >= least).tolist():
        yield at, at + 1, float(marginals[at, single])
    running, last = marginals[:, begins], begins  # of spans that have n - 1 words and go on
    for n in range(2, min(max_words, T) + 1):
        found = running[: T - n + 1] * steps[n - 1 :, last, ends]
        for at in np.flatnonzero(found >= least).tolist():
            yield at, at + n, float(found[at])
        running, last = running[: T - n + 1] * steps[n - 1 :, last, inner], inner
        if not (running >= least).any():
            return


def tagged_terms(
    chain: LinearChain, documents: Sequence[Document], labels: Sequence[str], max_words: int
) -> list[list[RankedTerm]]:
    """The terms of documents by the probability of their spans; of a term that stands in several places the largest.

    Args:
        chain: over the tags of B documents.
        documents: the B documents.
        labels: K tags.
        max_words: words of the longest term.

    Returns:
        For each document its terms, the best first.
    """
    import torch

    with torch.no_grad():
        marginals = chain.marginals().double().cpu().numpy()
    steps = step_probabilities(chain)
    answers = []
    for row, document in enumerate(documents):
        T, words = len(document.words), document.lowered
        scores: dict[tuple[str, ...], float] = {}
        places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        for begin, end, chance in span_probabilities(marginals[row, :T], steps[row, :T], labels, max_words):
            term = words[begin:end]
            scores[term] = max(scores.get(term, 0.0), min(1.0, chance))
            places.setdefault(term, []).append((begin, end))
        answers.append(rank([RankedTerm(term, score, tuple(sorted(places[term]))) for term, score in scores.items()]))
    return answers
