"""A softmax over many classes with its cross-entropy, without a tensor of all probabilities."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from carousel.engines.here import compiled_here
from carousel.errors import ConfigError, DTypeError, ShapeError, explain, unknown_name
from carousel.nn.linear import Linear, linear

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")

# Numbers of the memory in which logits pass by, 32 MB in float32, and the fewest rows: packing the weights must pay.
_ROOM = 1 << 23
_LEAST_ROWS = 256


class SoftmaxLoss(Linear):
    r"""The output layer of a classifier over many classes, say the words of a language, and its loss in one.

    .. math:: \ell_i = -\log p_{i, y_i}, \qquad p_i = \mathrm{softmax}(W h_i + b)

    Equal to a :class:`torch.nn.Linear` and :func:`torch.nn.functional.cross_entropy`. In float32 and float64 on a CPU the loss
    and, where they are needed, the gradients come from one pass over a part of the rows at a time: there is never a tensor of
    all rows times all classes, as torch keeps several of. So `forward` already does the work of the backward pass.

    Args:
        in_features: F, of a hidden state.
        num_classes: V.
        bias: whether there is a bias.
        reduction: ``mean`` over the targets that count, ``sum``, or ``none``: a loss for each.
        ignore_index: targets that do not count.
        label_smoothing: between 0 and 1: how much of each target is dealt evenly to all classes.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        `weight` (V, F) and `bias` (V,), as those of a linear layer; the weight may be that of an embedding
        (``loss.weight = embedding.weight``).

    Raises:
        ConfigError: an unknown reduction, or a label smoothing outside [0, 1].

    Example:
        >>> loss = SoftmaxLoss(8, 1000)
        >>> tuple(loss(torch.randn(5, 4, 8), torch.randint(1000, (5, 4))).shape)
        ()
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        bias: bool = True,
        *,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, bias, device=device, dtype=dtype)
        _check_settings("SoftmaxLoss", reduction, label_smoothing)
        self.reduction: Reduction = reduction
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    @property
    def num_classes(self) -> int:
        """V."""
        return self.out_features

    def forward(self, hidden: Float[Tensor, "... F"], target: Int[Tensor, "*rows"]) -> Tensor:  # type: ignore[override]
        """The loss.

        Args:
            hidden: (..., F).
            target: (...), int64, each below V or `ignore_index`.

        Returns:
            A scalar, or (...) without reduction.

        Raises:
            ShapeError: the axes disagree.
            DTypeError: targets are not int64.
        """
        settings = (self.ignore_index, self.reduction, self.label_smoothing)
        return linear_cross_entropy(hidden, self.weight, self.bias, target, *settings)

    def logits(self, hidden: Float[Tensor, "... F"]) -> Float[Tensor, "... V"]:
        """``W h + b``.

        Args:
            hidden: (..., F).
        """
        return linear(hidden, self.weight, self.bias)

    def log_prob(self, hidden: Float[Tensor, "... F"]) -> Float[Tensor, "... V"]:
        """The logarithm of each class's probability.

        Args:
            hidden: (..., F).
        """
        return self.logits(hidden).log_softmax(-1)

    def extra_repr(self) -> str:
        """The sizes, and the settings that differ from their defaults."""
        defaults = {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0}
        parts = [f"{name}={getattr(self, name)!r}" for name, default in defaults.items() if getattr(self, name) != default]
        return ", ".join([str(self.in_features), str(self.out_features), f"bias={self.bias is not None}", *parts])


def linear_cross_entropy(
    hidden: Float[Tensor, "... F"],
    weight: Float[Tensor, "V F"],
    bias: Float[Tensor, " V"] | None,
    target: Int[Tensor, "*rows"],
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of ``softmax(W h + b)``; see :class:`SoftmaxLoss`.

    Args:
        hidden: (..., F).
        weight: (V, F).
        bias: (V,), or None.
        target: (...), int64.
        ignore_index: targets that do not count.
        reduction: ``mean`` over the targets that count (nan if there are none, as in torch), ``sum`` or ``none``.
        label_smoothing: between 0 and 1.

    Returns:
        A scalar, or (...) without reduction.

    Raises:
        ConfigError: an unknown reduction, or a label smoothing outside [0, 1].
        ShapeError: the axes disagree, or a target is not a class.
        DTypeError: targets are not int64.

    Gradients:
        Exact for `hidden`, `weight` and `bias`. The second derivative is torch's, with all logits in memory.
    """
    _check_settings("linear_cross_entropy", reduction, label_smoothing)
    _check_tensors(hidden, weight, bias, target)
    rows, targets = hidden.reshape(-1, hidden.shape[-1]), target.reshape(-1)
    settings = (ignore_index, reduction, float(label_smoothing))
    if not rows.shape[0] or not compiled_here(rows, weight, bias):
        loss = _in_torch(rows, weight, bias, targets, *settings)
    else:
        _check_targets(targets, ignore_index, weight.shape[0])
        needed = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (rows, weight, bias))
        loss = _Fused.apply(rows, weight, bias, targets, settings, needed)  # type: ignore[no-untyped-call]
    return loss.view(target.shape) if reduction == "none" else loss


def _in_torch(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    logits = nn.functional.linear(rows, weight, bias)
    return nn.functional.cross_entropy(
        logits, targets, ignore_index=ignore_index, reduction=reduction, label_smoothing=smoothing
    )


class _Fused(torch.autograd.Function):
    """Loss and gradients at once; without reduction, what each loss's gradient is multiplied by is not known before."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        settings: tuple[int, Reduction, float],
        needed: bool,
    ) -> Tensor:
        ignore_index, reduction, smoothing = settings
        targets = targets.masked_fill(targets == ignore_index, -1)
        count = (targets >= 0).sum().to(rows.dtype)
        ctx.settings, ctx.found = settings, None
        ctx.save_for_backward(rows, weight, bias, targets)
        if reduction == "none" or not needed:
            losses, _ = _through(rows, weight, bias, targets, smoothing, None, (False, False, False))
        else:
            each = (1 / count if reduction == "mean" else torch.ones_like(count)).expand(rows.shape[0])
            losses, ctx.found = _through(rows, weight, bias, targets, smoothing, each, ctx.needs_input_grad[:3])
        if reduction == "none":
            return losses
        return losses.sum() / count if reduction == "mean" else losses.sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, bias, targets = ctx.saved_tensors
        _, reduction, smoothing = ctx.settings
        nothing = (None, None, None)
        if torch.is_grad_enabled():
            wanted = ctx.needs_input_grad[:3]
            sources = [t for t, yes in zip((rows, weight, bias), wanted, strict=True) if yes]
            loss = _in_torch(rows, weight, bias, targets, -1, reduction, smoothing)
            found = iter(torch.autograd.grad(loss, sources, gradient, create_graph=True))
            return (*(next(found) if yes else None for yes in wanted), *nothing)
        if reduction == "none":
            _, each = _through(rows, weight, bias, targets, smoothing, gradient, ctx.needs_input_grad[:3])
            return (*each, *nothing)
        parts = ctx.found
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.found = None  # so that a parameter may take it without a copy
        if gradient.item() != 1:
            parts = tuple(part if part is None else part * gradient for part in parts)
        elif ctx.found is not None:
            parts = tuple(part if part is None else part.clone() for part in parts)
        return (*parts, *nothing)


def _through(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    smoothing: float,
    scale: Tensor | None,
    wanted: tuple[bool, ...],
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Losses, and with `scale` the gradients of their scaled sum, a part of the rows at a time."""
    from carousel.engines.cpu import outside
    from carousel.engines.cpu.softmax import softmax

    count, V = rows.shape[0], weight.shape[0]
    chunk = min(count, max(_LEAST_ROWS, _ROOM // V))
    room = rows.new_empty((chunk, V))
    losses = rows.new_empty(count)
    wants_rows, wants_weight, wants_bias = wanted
    of_rows = torch.empty_like(rows) if scale is not None and wants_rows else None
    of_weight: Tensor | None = None
    of_bias: Tensor | None = None
    hot, even = 1 - smoothing, smoothing / V
    for begin in range(0, count, chunk):
        here = slice(begin, min(begin + chunk, count))
        part = rows[here]
        z = outside.linear(part, weight, out=room[: part.shape[0]])
        stats = softmax(z, bias, targets[here], scale=None if scale is None else scale[here], hot=hot, even=even)
        loss = stats.log_sum - stats.hit
        if smoothing:
            loss = stats.log_sum - hot * stats.hit - even * stats.total
        losses[here] = loss
        if of_rows is not None:
            of_rows[here] = outside.linear(z, weight.mT)
        if scale is not None and (wants_weight or wants_bias):
            total = z.new_empty(V) if wants_bias else None
            product = outside.outer(z, part, total=total)
            of_weight = product if of_weight is None else of_weight.add_(product)
            if total is not None:
                of_bias = total if of_bias is None else of_bias.add_(total)
    return losses, (of_rows, of_weight if wants_weight else None, of_bias)


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_settings(who: str, reduction: str, smoothing: float) -> None:
    if reduction not in _REDUCTIONS:
        raise ConfigError(unknown_name("reduction", reduction, _REDUCTIONS))
    if not 0 <= smoothing <= 1:
        raise ConfigError(explain(f"{who}: label_smoothing is a share.", got=repr(smoothing), expected="0 to 1"))


def _check_tensors(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> None:
    who = "linear_cross_entropy"
    if weight.dim() != 2 or hidden.dim() < 1 or hidden.shape[-1] != weight.shape[1]:
        got = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}"
        raise ShapeError(explain(f"{who}: hidden does not fit the weight.", got=got, expected="hidden (..., F), weight (V, F)"))
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(explain(f"{who}: the bias does not fit.", got=f"{tuple(bias.shape)}", expected=f"({len(weight)},)"))
    if target.shape != hidden.shape[:-1]:
        expected = f"target {tuple(hidden.shape[:-1])}"
        raise ShapeError(explain(f"{who}: each row has one target.", got=f"target {tuple(target.shape)}", expected=expected))
    if target.dtype is not torch.int64:
        raise DTypeError(
            explain(
                f"{who}: targets are numbers of classes.", got=str(target.dtype), expected="torch.int64", advice="target.long()"
            )
        )


def _check_targets(targets: Tensor, ignore_index: int, V: int) -> None:
    wrong = ((targets < 0) | (targets >= V)) & (targets != ignore_index)
    if bool(wrong.any()):
        raise ShapeError(
            explain(
                "linear_cross_entropy: a target is not a class.",
                got=f"{int(targets[wrong][0])}",
                expected=f"0 to {V - 1}, or ignore_index={ignore_index}",
            )
        )
