"""Linear models that tag sentences by indicator features: what they share, and the conditional random field among them."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from carousel.errors import CarouselError, CheckpointError, ConfigError, DataError, NotFittedError, explain, unknown_name
from carousel.structured.constraints import SCHEMES
from carousel.structured.features import FeatureIndex, Token, TokenFeatures
from carousel.structured.lbfgs import minimise
from carousel.structured.partition import best_path, log_partition
from carousel.structured.saved import StrPath, read_model, write_model
from carousel.structured.sparse import Indicators
from carousel.structured.steps import Steps, follow_on

__all__ = ["FeatureCRF", "FeatureTagger", "Weights"]

Sentences = Sequence[Sequence[Token]]


@dataclass(frozen=True)
class Weights:
    """The numbers of a linear model of chains, float32.

    Attributes:
        features: (F, K).
        transition: (K, K), from the row's tag to the column's.
        start: (K,).
        end: (K,).
    """

    features: Tensor
    transition: Tensor
    start: Tensor
    end: Tensor

    @classmethod
    def zeros(cls, F: int, K: int) -> Weights:
        """Of a model that knows nothing."""
        return cls.of(torch.zeros(F * K + K * K + 2 * K), F, K)

    @classmethod
    def of(cls, flat: Tensor, F: int, K: int) -> Weights:
        """Views of one vector of all numbers."""
        features, transition, start, end = torch.split(flat, [F * K, K * K, K, K])
        return cls(features.view(F, K), transition.view(K, K), start, end)


@dataclass(frozen=True)
class Sentence:
    """All sentences of a training set as numbers.

    Attributes:
        features: of all tokens.
        tags: (N,), int64.
        steps: where each sentence begins.
    """

    features: Indicators
    tags: Tensor
    steps: Steps


class FeatureTagger(ABC):
    """A linear model of chains over indicator features, with scikit-learn's verbs. A sentence is a list of tokens, a token a
    word or a row of columns.

    Args:
        features: what is written of each token.
        index: how strings become numbers.
        constraints: ``bio``, ``iob1``, ``bioes`` or ``bmes``: predictions keep to it; by default to nothing.
        seed: of the order of sentences.
        max_minutes: learning ends at the next iteration or epoch after so many; None: never.

    Attributes:
        classes_: the tags, sorted.
        weights_: what was learned.

    Raises:
        ConfigError: an option is not possible.
    """

    kind: str

    def __init__(
        self,
        features: TokenFeatures | None = None,
        index: FeatureIndex | None = None,
        constraints: str | None = None,
        seed: int = 0,
        max_minutes: float | None = None,
    ) -> None:
        if max_minutes is not None and not max_minutes > 0:
            raise ConfigError(explain(f"{type(self).__name__}: max_minutes must be positive.", got=f"{max_minutes}"))
        if constraints is not None and constraints not in SCHEMES:
            raise ConfigError(f"{type(self).__name__}: " + unknown_name("scheme", constraints, SCHEMES))
        self.features = features or TokenFeatures()
        self.index = index or FeatureIndex()
        self.constraints, self.seed, self.max_minutes = constraints, seed, max_minutes
        self.classes_: list[str] = []
        self.weights_: Weights | None = None
        self.history_: list[float] = []

    def fit(self, X: Sentences, y: Sequence[Sequence[str]]) -> Self:
        """Learn from tagged sentences.

        Args:
            X: sentences.
            y: the tags of each.

        Raises:
            DataError: there is no sentence, or a sentence has not a tag for each token.
        """
        tokens = self._written(X)
        lengths = [len(sentence) for sentence in X]
        if not tokens or len(y) != len(lengths) or any(n != len(tags) for n, tags in zip(lengths, y, strict=True)):
            at = next((i for i, (n, tags) in enumerate(zip(lengths, y, strict=False)) if n != len(tags)), None)
            got = (
                f"{len(lengths)} sentences, {len(y)} of tags"
                if at is None
                else f"sentence {at}: {lengths[at]} tokens, {len(y[at])} tags"
            )
            raise DataError(explain(f"{type(self).__name__}: a tag for each token of at least one sentence.", got=got))
        self.index.learn(tokens)
        self.classes_ = sorted({tag for tags in y for tag in tags})
        numbers = {tag: number for number, tag in enumerate(self.classes_)}
        tags = torch.tensor([numbers[tag] for sentence in y for tag in sentence])
        data = Sentence(self.index.encode(tokens), tags, follow_on(torch.tensor(lengths)))
        self.weights_, self.history_ = self._train(data)
        return self

    @abstractmethod
    def _train(self, data: Sentence) -> tuple[Weights, list[float]]:
        """The weights, and a number of each pass: what was made small."""

    def predict(self, X: Sentences) -> list[list[str]]:
        """The best tags of each sentence.

        Args:
            X: sentences.

        Raises:
            NotFittedError: nothing was learned.
        """
        unary, steps, weights = self._scores(X)
        path, _ = best_path(unary[None], *self._allowed(weights), steps)
        tags = [self.classes_[k] for k in path.tolist()]
        first = steps.first.tolist()
        return [tags[first[i] : first[i + 1]] for i in range(len(X))]

    def predict_proba(self, X: Sentences) -> list[np.ndarray]:
        """Each sentence's (T, K): the probability of each tag at each token, were scores those of a conditional random field.

        Args:
            X: sentences.

        Raises:
            NotFittedError: nothing was learned.
        """
        unary, steps, weights = self._scores(X)
        leaf = unary[None].requires_grad_()
        total = log_partition(leaf, *self._allowed(weights), steps, None).sum()
        marginals = torch.autograd.grad(total, leaf)[0][0].numpy()
        return np.split(marginals, steps.first[1:-1].numpy()) if len(X) else []

    def score(self, X: Sentences, y: Sequence[Sequence[str]]) -> float:
        """The part of all tokens whose tag is right.

        Args:
            X: sentences.
            y: the tags of each.

        Raises:
            NotFittedError: nothing was learned.
        """
        pairs = [pair for got, want in zip(self.predict(X), y, strict=True) for pair in zip(got, want, strict=True)]
        return sum(got == want for got, want in pairs) / max(len(pairs), 1)

    def save(self, directory: StrPath) -> None:
        """Write the model to a directory: `model.json` and `model.safetensors`.

        Args:
            directory: where; a model that stands there is replaced.

        Raises:
            NotFittedError: nothing was learned.
            OutputError: it cannot be written.
        """
        weights = self._learned()
        config = {
            "features": vars(self.features), "index": self.index.to_dict(), "constraints": self.constraints, "seed": self.seed,
            "classes": self.classes_, "options": self._options(),
        }  # fmt: skip
        write_model(directory, self.kind, config, vars(weights))

    @classmethod
    def load(cls, directory: StrPath) -> Self:
        """Read what :meth:`save` wrote. Runs no code.

        Args:
            directory: of the model.

        Raises:
            CheckpointError: it is not such a model, or damaged.
            OSError: it is not there.
        """
        config, tensors = read_model(directory, cls.kind)
        try:
            shared = {"constraints": config["constraints"], "seed": config["seed"]}
            index = FeatureIndex.from_dict(config["index"])
            model = cls(features=TokenFeatures(**config["features"]), index=index, **shared, **config["options"])
            model.classes_, weights = [str(tag) for tag in config["classes"]], Weights(**tensors)
        except (CarouselError, TypeError, KeyError, ValueError) as error:
            raise CheckpointError(explain(f"{directory}: this is not a saved {cls.__name__}.", got=f"{error}"[:300])) from error
        F, K = model.index.size, len(model.classes_)
        for name, shape in (("features", (F, K)), ("transition", (K, K)), ("start", (K,)), ("end", (K,))):
            got = tuple(getattr(weights, name).shape)
            if got != shape:
                raise CheckpointError(explain(f"{directory}: {name} does not fit.", got=f"{got}", expected=f"{shape}"))
        model.weights_ = weights
        return model

    def _options(self) -> dict[str, Any]:
        """The constructor's own, beside those that all have."""
        return {}

    def _clock(self) -> Callable[[], bool]:
        """Tells whether the minutes are over; they begin now."""
        end = math.inf if self.max_minutes is None else time.monotonic() + 60 * self.max_minutes
        return lambda: time.monotonic() >= end

    def _learned(self) -> Weights:
        if self.weights_ is None:
            raise NotFittedError(
                explain(f"This {type(self).__name__} has not learned anything yet.", advice="call fit or load")
            )
        return self.weights_

    def _written(self, X: Sentences) -> list[list[str]]:
        return [strings for sentence in X for strings in self.features(sentence)]

    def _scores(self, X: Sentences) -> tuple[Tensor, Steps, Weights]:
        weights = self._learned()
        steps = follow_on(torch.tensor([len(sentence) for sentence in X], dtype=torch.int64))
        if not steps.count:
            return weights.start.new_zeros(0, len(self.classes_)), steps, weights
        return self.index.encode(self._written(X)) @ weights.features, steps, weights

    def _allowed(self, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
        scores = (weights.transition, weights.start, weights.end)
        if self.constraints is None:
            return scores
        rules = SCHEMES[self.constraints](self.classes_)
        masks = (rules.transition, rules.start, rules.end)
        transition, start, end = (
            s if allowed is None else s.masked_fill(~allowed, -torch.inf) for s, allowed in zip(scores, masks, strict=True)
        )
        return transition, start, end


class FeatureCRF(FeatureTagger):
    r"""A conditional random field over indicator features, by the tags' likelihood with a penalty.

    .. math:: \min_w \; -\sum_i \log p(y_i \mid x_i; w) + c_2 \lVert w \rVert^2

    It is the objective of CRFsuite, without its choice to leave out features that never stand with a tag, and with weights for
    the first and the last tag. The search is L-BFGS over all sentences at once; it ends where CRFsuite's does.

    Args:
        features: what is written of each token.
        index: how strings become numbers.
        constraints: ``bio``, ``iob1``, ``bioes`` or ``bmes``: predictions keep to it; by default to nothing.
        seed: of nothing here.
        max_minutes: learning ends at the next iteration after so many; None: never.
        c2: of the penalty.
        max_iter: of the search.
        tol: it ends when ten iterations gained less than this, relative to the objective.

    Attributes:
        classes_: the tags, sorted.
        weights_: what was learned.
        history_: the objective before each iteration, in nats.

    Raises:
        ConfigError: an option is not possible.

    Example:
        >>> model = FeatureCRF().fit([["the", "cat"], ["a", "dog"]], [["D", "N"], ["D", "N"]])
        >>> model.predict([["the", "dog"]])
        [['D', 'N']]

    References:
        Lafferty, McCallum, Pereira (2001), "Conditional Random Fields".
    """

    kind = "feature_crf"

    def __init__(
        self,
        features: TokenFeatures | None = None,
        index: FeatureIndex | None = None,
        constraints: str | None = None,
        seed: int = 0,
        max_minutes: float | None = None,
        *,
        c2: float = 1.0,
        max_iter: int = 200,
        tol: float = 1e-5,
    ) -> None:
        super().__init__(features, index, constraints, seed, max_minutes)
        if not c2 >= 0 or max_iter < 0 or not tol >= 0:
            got = f"c2={c2}, max_iter={max_iter}, tol={tol}"
            raise ConfigError(explain("FeatureCRF: options must not be negative.", got=got))
        self.c2, self.max_iter, self.tol = c2, max_iter, tol

    def _options(self) -> dict[str, Any]:
        return {"c2": self.c2, "max_iter": self.max_iter, "tol": self.tol}

    def _train(self, data: Sentence) -> tuple[Weights, list[float]]:
        F, K, over = data.features.size, len(self.classes_), self._clock()
        turned = data.features.turned

        def objective(flat: Tensor) -> tuple[float, Tensor]:
            weights = Weights.of(flat, F, K)
            leaves = [(data.features @ weights.features)[None], weights.transition, weights.start, weights.end]
            leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            losses = log_partition(leaves[0], leaves[1], leaves[2], leaves[3], data.steps, data.tags)
            unary, *others = torch.autograd.grad(losses.sum(), leaves)
            gradient = torch.cat([(turned @ unary[0]).view(-1), *(g.reshape(-1) for g in others)])
            value = float(losses.detach().double().sum()) + self.c2 * float(torch.dot(flat, flat))
            return value, gradient.add_(flat, alpha=2 * self.c2)

        start = torch.zeros(F * K + K * K + 2 * K)
        found = minimise(objective, start, max_iter=self.max_iter, tol=self.tol, stop=over)
        return Weights.of(found.x, F, K), found.history
