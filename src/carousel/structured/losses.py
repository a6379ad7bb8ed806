"""Losses on the scores of a chain that are no likelihood: what a recurrent network's scores can be trained with as well."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from carousel.errors import ConfigError, explain
from carousel.structured.chain import LinearChain

__all__ = ["margin_loss", "perceptron_loss"]


def perceptron_loss(chain: LinearChain, tags: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
    r"""The structured perceptron's loss: the best path's score less the right one's.

    .. math:: \max_y s(y) - s(\hat y)

    Args:
        chain: the scores.
        tags: (B, T), int64, the right path; what stands in masked steps is not read.

    Returns:
        (B,), not negative; 0 where the right path is the best.

    Raises:
        ShapeError: the axes disagree, or a tag is not a state.

    Gradients:
        A subgradient: that of the two paths' scores.

    References:
        Collins (2002), "Discriminative Training Methods for Hidden Markov Models".
    """
    return _between(chain, chain, tags)[0]


def margin_loss(chain: LinearChain, tags: Int[Tensor, "B T"], cost: float = 1.0) -> Float[Tensor, " B"]:
    r"""The structured hinge loss: every other path must score less than the right one by what it has wrong.

    .. math:: \max_y \big(s(y) + c \, |\{t : y_t \ne \hat y_t\}|\big) - s(\hat y)

    Args:
        chain: the scores.
        tags: (B, T), int64, the right path; what stands in masked steps is not read.
        cost: c, of each wrong tag.

    Returns:
        (B,), not negative.

    Raises:
        ConfigError: `cost` is negative.
        ShapeError: the axes disagree, or a tag is not a state.

    Gradients:
        A subgradient: that of the two paths' scores.

    References:
        Taskar, Guestrin, Koller (2003), "Max-Margin Markov Networks".
    """
    if not cost >= 0:
        raise ConfigError(explain("margin_loss: a cost must not be negative.", got=f"cost={cost}"))
    K = chain.unary.shape[-1]
    right = torch.nn.functional.one_hot(tags.clamp(0, K - 1), K).bool()
    dearer = chain.unary.detach() + cost * (~right)
    loss, wrong = _between(chain, replace(chain, unary=dearer), tags)
    return loss + cost * wrong


def _between(chain: LinearChain, searched: LinearChain, tags: Tensor) -> tuple[Tensor, Tensor]:
    """The score of the best path of `searched` less that of the tags, both of `chain`; and how many tags are wrong."""
    with torch.no_grad():
        best, _ = searched.best()
    different = (best != tags) & (best >= 0)
    return chain.score(best.clamp(min=0)) - chain.score(tags), different.sum(1)
