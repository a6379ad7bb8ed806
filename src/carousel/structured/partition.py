"""The sum over all paths as one differentiable operation: compiled where that can be, in torch operations elsewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from carousel.engines.here import compiled_here
from carousel.structured.semirings import KBest, LogSum, fold, trace
from carousel.structured.steps import Steps

__all__ = ["best_path", "in_torch", "log_partition", "mask_of", "tag_scores"]


def log_partition(
    unary: Tensor, transition: Tensor, start: Tensor | None, end: Tensor | None, steps: Steps, tags: Tensor | None
) -> Tensor:
    """The log of the sum of all paths' exponentials; with tags, less their score: what a likelihood's loss is.

    Args:
        unary: (B, T, K), dense for the compiled loops; or (1, P, K), where rows follow one another.
        transition: (K, K).
        start: (K,), or None.
        end: (K,), or None.
        steps: the real steps.
        tags: (P,), int64, of the real steps; or None.

    Returns:
        (B,).
    """
    if compiled_here(unary, transition, start, end):
        return _LogPartition.apply(unary, transition, start, end, steps, tags)  # type: ignore[no-untyped-call, no-any-return]
    return in_torch(unary, transition, start, end, steps, tags)


class _LogPartition(torch.autograd.Function):
    """The backward pass is the other half of forward-backward; the second derivative is that of torch's operations."""

    @staticmethod
    def forward(
        ctx: Any,
        unary: Tensor,
        transition: Tensor,
        start: Tensor | None,
        end: Tensor | None,
        steps: Steps,
        tags: Tensor | None,
    ) -> Tensor:
        from carousel.structured.compiled import Scores, sums

        made = sums(Scores(unary, transition, start, end, steps), tags)
        ctx.save_for_backward(unary, transition, start, end, tags)
        ctx.steps = steps
        ctx.made = made if any(ctx.needs_input_grad) else None
        result = made.log_sum if tags is None else made.log_sum - made.score
        return result.to(unary.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from carousel.structured.compiled import Scores, expected, sums

        unary, transition, start, end, tags = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:4]
        given = (unary, transition, start, end)
        if torch.is_grad_enabled():
            sources = [t for t, yes in zip(given, wanted, strict=True) if yes]
            value = in_torch(*given, ctx.steps, tags)
            parts = iter(torch.autograd.grad(value, sources, gradient, create_graph=True))
            return (*(next(parts) if yes else None for yes in wanted), None, None)
        scores = Scores(*given, ctx.steps)
        # What the forward pass left is used up here; a graph that is kept computes it again.
        made, ctx.made = ctx.made or sums(scores, tags), None
        found = expected(scores, made, gradient.to(unary.dtype), tags)
        four = (found.unary, found.transition, found.start, found.end)
        return (*(part if yes else None for part, yes in zip(four, wanted, strict=True)), None, None)


def in_torch(
    unary: Tensor, transition: Tensor, start: Tensor | None, end: Tensor | None, steps: Steps, tags: Tensor | None
) -> Tensor:
    """:func:`log_partition` in torch operations."""
    padded, mask = spread(unary, steps)
    zero = unary.new_zeros(unary.shape[-1])
    first, last = ((zero if scores is None else scores)[:, None] for scores in (start, end))
    found = fold(LogSum(), padded[..., None], transition[..., None], first, last, mask)
    # Nothing is added: a result of no steps has gradients too, of zeros.
    nothing = sum(s.flatten()[:0].sum() for s in (unary, transition, start, end) if s is not None)
    value = found.value[:, 0] + nothing
    return value if tags is None else value - tag_scores(unary, transition, start, end, steps, tags)


def spread(unary: Tensor, steps: Steps) -> tuple[Tensor, Tensor]:
    """Scores as (B, T, K) and their mask, also where rows follow one another."""
    if tuple(unary.shape[:2]) == (steps.batch, steps.length):
        return unary, mask_of(steps, unary.device)
    mask = torch.arange(steps.length) < steps.counts[:, None]
    places = (steps.first[:-1, None] + torch.arange(steps.length)).where(mask, 0)
    return unary[0][places.to(unary.device)], mask.to(unary.device)


def best_path(
    unary: Tensor, transition: Tensor, start: Tensor | None, end: Tensor | None, steps: Steps
) -> tuple[Tensor, Tensor]:
    """The best path's states, (P,), and scores, (B,), by Viterbi's algorithm; no gradient.

    Args:
        unary: (B, T, K), dense for the compiled loops; or (1, P, K), where rows follow one another.
        transition: (K, K).
        start: (K,), or None.
        end: (K,), or None.
        steps: the real steps.
    """
    with torch.no_grad():
        if compiled_here(unary, transition, start, end):
            from carousel.structured.compiled import Scores, best_paths

            path, score = best_paths(Scores(unary, transition, start, end, steps))
            return path, score.to(unary.dtype)
        padded, mask = spread(unary, steps)
        zero = unary.new_zeros(unary.shape[-1])
        first, last = ((zero if scores is None else scores)[:, None] for scores in (start, end))
        found = fold(KBest(1), padded[..., None], transition[..., None], first, last, mask)
        return trace(found, mask)[:, 0][mask], found.value[:, 0]


def mask_of(steps: Steps, device: torch.device) -> Tensor:
    """(B, T), bool, of the real steps."""
    mask = torch.zeros(steps.batch * steps.length, dtype=torch.bool, device=device)
    mask[steps.flat.to(device)] = True
    return mask.view(steps.batch, steps.length)


def tag_scores(
    unary: Tensor, transition: Tensor, start: Tensor | None, end: Tensor | None, steps: Steps, tags: Tensor
) -> Tensor:
    """The score of one path of each row, (B,).

    Args:
        unary: (B, T, K).
        transition: (K, K).
        start: (K,), or None.
        end: (K,), or None.
        steps: the real steps.
        tags: (P,), int64.
    """
    rows, follows = steps.rows.to(unary.device), steps.follows.to(unary.device)
    flat = steps.flat.to(unary.device)
    own = unary.reshape(-1, unary.shape[-1])[flat, tags]
    if steps.count:
        pairs = transition[tags[:-1], tags[1:]]
        # Not a product with 0: a forbidden transition from one row's end to the next row's start is minus infinity.
        own = own + nn.functional.pad(torch.where(follows[1:], pairs, 0.0), (1, 0))
    total = unary.new_zeros(steps.batch).index_add(0, rows, own)
    there = (steps.counts > 0).to(unary.device)
    for scores, place in ((start, steps.first[:-1]), (end, steps.first[1:] - 1)):
        if scores is not None and steps.count:
            picked = scores[tags[place.to(unary.device).clamp(0, steps.count - 1)]]
            total = total + torch.where(there, picked, 0.0)
    return total
