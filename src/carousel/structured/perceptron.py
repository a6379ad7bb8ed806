"""The averaged structured perceptron, and the structured support vector machine, on indicator features."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from carousel.errors import ConfigError, explain
from carousel.structured.features import FeatureIndex, TokenFeatures
from carousel.structured.partition import best_path
from carousel.structured.steps import Steps, follow_on
from carousel.structured.taggers import FeatureTagger, Sentence, Weights

__all__ = ["StructuredPerceptron", "StructuredSVM"]


@dataclass(frozen=True)
class _One:
    """A sentence by itself.

    Attributes:
        places: its features' numbers, token after token.
        tokens: of which token each is.
        known: the different numbers among `places`.
        among: where each of `places` stands in `known`.
        tags: the right ones.
        steps: of the sentence.
        first: where its tokens' features begin, for sums.
    """

    places: Tensor
    tokens: Tensor
    known: Tensor
    among: Tensor
    tags: Tensor
    steps: Steps
    first: Tensor


def _each(data: Sentence) -> list[_One]:
    found, first = [], data.steps.first.tolist()
    for begin, end in itertools.pairwise(first):
        part = data.features.part(begin, end)
        tokens = torch.repeat_interleave(torch.arange(end - begin), part.first[1:] - part.first[:-1])
        known, among = torch.unique(part.places, return_inverse=True)
        tags, steps = data.tags[begin:end], follow_on(torch.tensor([end - begin]))
        found.append(_One(part.places, tokens, known, among, tags, steps, part.first))
    return found


def _unary(one: _One, weights: Weights) -> Tensor:
    """(T, K)."""
    return torch.nn.functional.embedding_bag(one.places, weights.features, one.first, mode="sum", include_last_offset=True)


class _Averaged:
    """Weights that change a little at a time, and their weighted mean, without a pass over all of them at each step."""

    def __init__(self, F: int, K: int) -> None:
        self.now = torch.zeros(F * K + K * K + 2 * K)
        self.late = torch.zeros_like(self.now)  # each change times the weight of all steps before it
        self.weights, self.lag = Weights.of(self.now, F, K), Weights.of(self.late, F, K)
        self.passed = 0.0

    def add(self, one: _One, change: Tensor, pairs: Tensor) -> None:
        """A change of a sentence's scores, (T, K), as one of the weights; and of transitions, (K, K)."""
        rows = change.new_zeros(len(one.known), change.shape[1]).index_add_(0, one.among, change[one.tokens])
        self.add_rows(one, rows, change, pairs)

    def add_rows(self, one: _One, rows: Tensor, change: Tensor, pairs: Tensor) -> None:
        """The same, with the features' changes known."""
        for weights, factor in ((self.weights, 1.0), (self.lag, self.passed)):
            weights.features.index_add_(0, one.known, rows, alpha=factor)
            weights.transition.add_(pairs, alpha=factor)
            weights.start.add_(change[0], alpha=factor)
            weights.end.add_(change[-1], alpha=factor)

    def mean(self, F: int, K: int) -> Weights:
        """Of the weights after each step, by the steps' weights."""
        return Weights.of(self.now - self.late / max(self.passed, 1.0), F, K)


def _counts(tags: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """What a path counts: (T, K) and (K, K)."""
    pairs = torch.bincount(tags[:-1] * K + tags[1:], minlength=K * K).view(K, K).float()
    return torch.nn.functional.one_hot(tags, K).float(), pairs


class StructuredPerceptron(FeatureTagger):
    """The averaged structured perceptron: where the best path is wrong, its features lose and the right path's gain one each.

    What is kept is the mean of the weights after every sentence.

    Args:
        features: what is written of each token.
        index: how strings become numbers.
        constraints: ``bio``, ``iob1``, ``bioes`` or ``bmes``: predictions keep to it; by default to nothing.
        seed: of the order of sentences.
        max_minutes: learning ends at the end of the epoch after so many; None: never.
        epochs: how often it goes through all sentences; less if it makes no mistake in one.

    Attributes:
        classes_: the tags, sorted.
        weights_: what was learned.
        history_: the part of wrong tags in each epoch, while learning.

    Raises:
        ConfigError: an option is not possible.

    Example:
        >>> model = StructuredPerceptron().fit([["the", "cat"], ["a", "dog"]], [["D", "N"], ["D", "N"]])
        >>> model.predict([["the", "dog"]])
        [['D', 'N']]

    References:
        Collins (2002), "Discriminative Training Methods for Hidden Markov Models".
    """

    kind = "structured_perceptron"

    def __init__(
        self,
        features: TokenFeatures | None = None,
        index: FeatureIndex | None = None,
        constraints: str | None = None,
        seed: int = 0,
        max_minutes: float | None = None,
        *,
        epochs: int = 8,
    ) -> None:
        super().__init__(features, index, constraints, seed, max_minutes)
        if epochs < 1:
            raise ConfigError(explain("StructuredPerceptron: there must be an epoch.", got=f"epochs={epochs}"))
        self.epochs = epochs

    def _options(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def _train(self, data: Sentence) -> tuple[Weights, list[float]]:
        F, K, history, over = data.features.size, len(self.classes_), [], self._clock()
        model, sentences = _Averaged(F, K), [one for one in _each(data) if len(one.tags)]
        generator = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            wrong = 0
            for at in generator.permutation(len(sentences)):
                one, weights = sentences[at], model.weights
                scores = (_unary(one, weights)[None], weights.transition, weights.start, weights.end)
                path, _ = best_path(*scores, one.steps)
                mistakes = int((path != one.tags).sum())
                if mistakes:
                    right, better = _counts(one.tags, K)
                    guess, worse = _counts(path, K)
                    model.add(one, right - guess, better - worse)
                wrong += mistakes
                model.passed += 1.0
            history.append(wrong / max(len(data.tags), 1))
            if not wrong or over():
                break
        return model.mean(F, K), history


class StructuredSVM(FeatureTagger):
    r"""The structured support vector machine: each wrong path must score less than the right one by its number of wrong tags.

    .. math:: \min_w \; \tfrac12 \lVert w \rVert^2 + C \sum_i \max_y \big( h(y, y_i) + w \cdot \phi(x_i, y) - w \cdot \phi(x_i,
    y_i) \big)

    It is solved in the dual by block-coordinate Frank-Wolfe: a sentence at a time, the step's length in closed form, no rate
    to choose. Of each sentence's part of the weights only what it says of tokens' tags and of transitions is kept, (T, K) and
    (K, K) numbers. What is kept at the end is the mean of the weights, later ones counting more.

    Args:
        features: what is written of each token.
        index: how strings become numbers.
        constraints: ``bio``, ``iob1``, ``bioes`` or ``bmes``: predictions keep to it; by default to nothing.
        seed: of the order of sentences.
        max_minutes: learning ends at the end of the epoch after so many; None: never.
        C: what a wrong tag costs, beside the weights' size.
        epochs: how often it goes through all sentences.
        tol: it ends when the duality gap, as met in an epoch, is below this part of the objective.

    Attributes:
        classes_: the tags, sorted.
        weights_: what was learned.
        history_: the duality gap as met in each epoch, as a part of the dual objective.

    Raises:
        ConfigError: an option is not possible.

    Example:
        >>> model = StructuredSVM().fit([["the", "cat"], ["a", "dog"]], [["D", "N"], ["D", "N"]])
        >>> model.predict([["the", "dog"]])
        [['D', 'N']]

    References:
        Tsochantaridis et al. (2005), "Large Margin Methods for Structured and Interdependent Output Variables";
        Lacoste-Julien et al. (2013), "Block-Coordinate Frank-Wolfe Optimization for Structural SVMs".
    """

    kind = "structured_svm"

    def __init__(
        self,
        features: TokenFeatures | None = None,
        index: FeatureIndex | None = None,
        constraints: str | None = None,
        seed: int = 0,
        max_minutes: float | None = None,
        *,
        C: float = 0.1,
        epochs: int = 10,
        tol: float = 0.01,
    ) -> None:
        super().__init__(features, index, constraints, seed, max_minutes)
        if not C > 0 or epochs < 1 or not tol >= 0:
            got = f"C={C}, epochs={epochs}, tol={tol}"
            raise ConfigError(explain("StructuredSVM: C and epochs must be positive, tol not negative.", got=got))
        self.C, self.epochs, self.tol = C, epochs, tol

    def _options(self) -> dict[str, Any]:
        return {"C": self.C, "epochs": self.epochs, "tol": self.tol}

    def _train(self, data: Sentence) -> tuple[Weights, list[float]]:
        F, K, history, over = data.features.size, len(self.classes_), [], self._clock()
        model, sentences = _Averaged(F, K), [one for one in _each(data) if len(one.tags)]
        generator = np.random.default_rng(self.seed)
        parts = [(torch.zeros(len(one.tags), K), torch.zeros(K, K)) for one in sentences]
        costs, step = np.zeros(len(sentences)), 0
        for _ in range(self.epochs):
            met = 0.0
            for at in generator.permutation(len(sentences)):
                gap, costs[at] = self._block(model, sentences[at], parts[at], costs[at], K)
                met += gap
                step += 1
                model.passed += step
            dual = costs.sum() - 0.5 * float(model.now.double().square().sum())
            history.append(float(met / max(dual, 1e-12)))
            if history[-1] < self.tol or over():
                break
        return model.mean(F, K), history

    def _block(self, model: _Averaged, one: _One, part: tuple[Tensor, Tensor], cost: float, K: int) -> tuple[float, float]:
        """Go as far towards the dearest path as pays. `part` is changed; the gap, and the sentence's new cost."""
        weights, (states, moves) = model.weights, part
        unary = _unary(one, weights)
        right, better = _counts(one.tags, K)
        path, _ = best_path((unary + (1.0 - right))[None], weights.transition, weights.start, weights.end, one.steps)
        guess, worse = _counts(path, K)
        apart, shifted = states - self.C * (right - guess), moves - self.C * (better - worse)
        new_cost = self.C * float((path != one.tags).sum())
        # The weights' product with what would be given up, less what it costs: the gap of this block.
        product = float((apart * unary).sum() + (shifted * weights.transition).sum())
        product += float(apart[0] @ weights.start + apart[-1] @ weights.end)
        gap = product - cost + new_cost
        rows = apart.new_zeros(len(one.known), K).index_add_(0, one.among, apart[one.tokens])
        size = sum(float(x.square().sum()) for x in (rows, shifted, apart[0], apart[-1]))
        if size <= 0.0:
            return max(gap, 0.0), cost
        far = min(max(gap / size, 0.0), 1.0)
        if far > 0.0:
            model.add_rows(one, rows.mul_(-far), apart.mul(-far), shifted.mul(-far))
            states.add_(apart, alpha=-far)
            moves.add_(shifted, alpha=-far)
        return max(gap, 0.0), (1.0 - far) * cost + far * new_cost
