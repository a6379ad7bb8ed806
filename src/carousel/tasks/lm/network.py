"""The network of :class:`carousel.tasks.LanguageModel`: embedding, recurrent layers, output over all tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from carousel.data.token_stream import IGNORED, Window
from carousel.errors import ConfigError, explain
from carousel.nn import (
    ActivationPenalty,
    CausalAttention,
    Linear,
    Recurrent,
    TemporalActivationPenalty,
    linear_cross_entropy,
)
from carousel.nn.linear import linear
from carousel.tasks.regularisers import cell_transforms, drop_features
from carousel.training import Measured

if TYPE_CHECKING:
    from carousel.graph import Cell
    from carousel.tasks.lm.options import LanguageModelOptions

__all__ = ["LanguageNetwork", "State"]

State = tuple[Any, ...]
"""For each recurrent layer its state."""

START_RANGE = 0.1


class LanguageNetwork(nn.Module):
    """Embedding, recurrent layers and an output over all tokens, which may share the embedding's weights.

    In :meth:`measure` states are carried from window to window, one for training and one for evaluation.

    Args:
        cell: the recurrent cell.
        vocab_size: V, tokens.
        options: sizes and the rest.
    """

    def __init__(self, cell: Cell, vocab_size: int, options: LanguageModelOptions) -> None:
        super().__init__()
        self.options = options
        self.embedding = nn.Embedding(vocab_size, options.embedding_size)
        sizes = [options.embedding_size]
        self.layers = nn.ModuleList()
        for number, hidden in enumerate(options.hidden_sizes, start=1):
            layer = Recurrent(cell, sizes[-1], hidden, transforms=cell_transforms(options), engine=options.engine)
            self.layers.append(layer)
            sizes.append(layer.output_size)
            if options.attention and number == max(1, options.num_layers - 1):
                heads, size = options.attention_heads, options.attention_size
                self.layers.append(CausalAttention(sizes[-1], options.attention, heads=heads, head_size=size))
        features = options.embedding_size if options.tie_weights else sizes[-1]
        self.projection = Linear(sizes[-1], features) if features != sizes[-1] else None
        self.adaptive = None if options.cutoffs is None else _adaptive(features, vocab_size, options.cutoffs)
        whole = self.adaptive is None
        self.output = nn.Parameter(torch.empty(vocab_size, features)) if whole and not options.tie_weights else None
        self.bias = nn.Parameter(torch.empty(vocab_size)) if whole else None
        self._reset(options.init_range)
        # By whether it is training: what the last window left, and where the window began with its inputs.
        self._carried: dict[bool, State] = {}
        self._before: tuple[Tensor, State | None] | None = None

    @torch.no_grad()
    def _reset(self, init_range: float | None) -> None:
        near = START_RANGE if init_range is None else init_range
        for table in (self.embedding.weight, self.output):
            if table is not None:
                nn.init.uniform_(table, -near, near)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if init_range is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -near, near)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.embedding.weight.device

    @property
    def output_size(self) -> int:
        """F: features that the output layer sees."""
        return self.adaptive.in_features if self.adaptive is not None else self.output_weight.shape[1]

    @property
    def output_weight(self) -> Tensor:
        """(V, F): the weights of the output layer, where it is one."""
        return self.embedding.weight if self.output is None else self.output

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.embedding.num_embeddings

    def forward(self, tokens: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read tokens.

        Args:
            tokens: (B, T), integers.
            state: what reading the tokens before left; None where the text begins.
            lengths: (B,), integers, how many of them are real; all if None.

        Returns:
            The features that the output layer sees, (T, B, F), and the state after each row. Nothing is detached.
        """
        hidden, _, state = self._read(tokens, state, lengths)
        return hidden, state

    def logits(self, hidden: Tensor) -> Tensor:
        """The scores of all tokens.

        Args:
            hidden: (..., F), from :meth:`forward`.

        Returns:
            (..., V), before the softmax; log-probabilities from an adaptive softmax.
        """
        if self.adaptive is not None:
            rows: Tensor = self.adaptive.log_prob(hidden.reshape(-1, hidden.shape[-1]))
            return rows.view(*hidden.shape[:-1], -1)
        return linear(hidden, self.output_weight, self.bias)

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The loss of each token, in nats, without gradients and without a tensor of all probabilities.

        Args:
            hidden: (T, B, F), from :meth:`forward`.
            targets: (B, T), integers; :data:`~carousel.data.token_stream.IGNORED` gives 0.

        Returns:
            (B, T).
        """
        with torch.no_grad():
            return self._cross_entropy(hidden, targets.mT.contiguous(), "none").mT

    def measure(self, window: Window) -> Measured:
        """The mean loss of a window in nats, in training with the penalties, and the state carried on."""
        state = None if window.first else self._carried.get(self.training)
        begun, tokens = state, window.inputs
        if self.training and not self.options.detach:
            state = self._through_the_window_before(window, state)
        hidden, raw, after = self._read(tokens, state, None)
        self._carried[self.training] = _detached(after)
        if self.training and not self.options.detach:
            self._before = (tokens, begun)
        targets = window.targets.mT.contiguous()
        if window.token_count:
            loss = self._cross_entropy(hidden, targets, "mean")
        else:
            loss = hidden.sum() * 0.0  # a process's share may hold nothing but empty places
        if self.training:
            loss = loss + self._penalties(hidden, raw)
        return Measured(loss=loss, items=window.token_count, tokens=window.token_count, rate=window.rate)

    def derive(self, means: Mapping[str, float]) -> dict[str, float]:
        """What follows from the means of an epoch: the perplexity."""
        return {"perplexity": float(torch.tensor(means["loss"], dtype=torch.float64).exp())} if "loss" in means else {}

    def lone_embeddings(self) -> list[nn.Embedding]:
        """The embeddings whose weights nothing else uses."""
        return [] if self.output is None and self.adaptive is None else [self.embedding]

    def run_state(self) -> dict[str, Any]:
        """What training carries from window to window, for a checkpoint inside an epoch."""
        carried = self._carried.get(True)
        found: dict[str, Any] = {"carried": None if carried is None else _plain(carried), "before": None}
        if self._before is not None:
            tokens, state = self._before
            found["before"] = [tokens, None if state is None else _plain(state)]
        return found

    def load_run_state(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`run_state` gave.

        Raises:
            ValueError: it is something else.
        """
        self._carried.pop(True, None)
        self._before = None
        if saved["carried"] is not None:
            self._carried[True] = self._checked(saved["carried"])
        if saved["before"] is not None:
            tokens, state = saved["before"]
            self._before = (tokens, None if state is None else self._checked(state))

    def _cross_entropy(self, hidden: Tensor, targets: Tensor, reduction: Literal["mean", "none"]) -> Tensor:
        """The loss of (T, B) targets, as a mean over those that count or as (T, B)."""
        if self.adaptive is None:
            return linear_cross_entropy(hidden, self.output_weight, self.bias, targets, IGNORED, reduction)
        counted = targets != IGNORED
        each: Tensor = -self.adaptive(hidden[counted], targets[counted]).output
        if reduction == "mean":
            return each.mean()
        return hidden.new_zeros(targets.shape).masked_scatter(counted, each)

    def _checked(self, state: Any) -> State:
        layers = [[*part] for part in state]
        starts = [cast(Any, layer).initial_state(1) for layer in self.layers]
        wanted = [[tuple(tensor.shape[2:]) for tensor in _parts(start)] for start in starts]
        found = [[tuple(tensor.shape[2:]) for tensor in part] for part in layers]
        if found != wanted:
            raise ValueError(f"a state of other sizes: {found}, not {wanted}")
        device = self.device
        return tuple(tuple(tensor.to(device) for tensor in part) for part in layers)

    def _through_the_window_before(self, window: Window, state: State | None) -> State | None:
        """The state at the window's beginning, worked out again from that of the window before, so that gradients pass."""
        if window.first or self._before is None:
            return state
        tokens, begun = self._before
        return self._read(tokens.to(window.inputs.device), begun, None)[2]

    def _read(self, tokens: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, Tensor, State]:
        """Features for the output layer, the last layer's output before dropout, and the state."""
        opts, after = self.options, []
        x = self._drop(self._embed(tokens.mT.contiguous()), opts.input_dropout)  # (T, B, E)
        raw = x
        for number, layer in enumerate(self.layers):
            x, left = layer(x, None if state is None else state[number], lengths)
            after.append(left)
            raw = raw if isinstance(layer, CausalAttention) else x
            last = number + 1 == len(self.layers)
            # What attention compares is whole: features are dropped behind it.
            if last or not isinstance(self.layers[number + 1], CausalAttention):
                x = self._drop(x, opts.output_dropout if last else opts.dropout)
        return (x if self.projection is None else self.projection(x)), raw, tuple(after)

    def _embed(self, tokens: Tensor) -> Tensor:
        share = self.options.embedding_dropout
        features: Tensor = self.embedding(tokens)
        if not self.training or not share:
            return features
        kept = torch.empty(self.vocab_size, 1, device=tokens.device, dtype=features.dtype).bernoulli_(1 - share) / (1 - share)
        return features * kept[tokens]

    def _drop(self, x: Tensor, share: float) -> Tensor:
        if not self.training or not share:
            return x
        return drop_features(x, share, steps=0 if self.options.locked_dropout else None)

    def _penalties(self, hidden: Tensor, raw: Tensor) -> Tensor | float:
        opts = self.options
        total: Tensor | float = 0.0
        if opts.activation_penalty:
            total = total + ActivationPenalty(opts.activation_penalty)(self, hidden, None)
        if opts.temporal_penalty:
            total = total + TemporalActivationPenalty(opts.temporal_penalty)(self, raw, None)
        return total


def _adaptive(features: int, vocab_size: int, cutoffs: Sequence[int]) -> nn.AdaptiveLogSoftmaxWithLoss:
    """The adaptive softmax of Grave et al. (2017), arXiv:1609.04309."""
    if cutoffs[-1] >= vocab_size:
        what = "option cutoffs: there are not so many tokens."
        raise ConfigError(explain(what, got=str(cutoffs[-1]), expected=f"numbers below {vocab_size}"))
    if features < 4 ** len(cutoffs):
        what = "option cutoffs: the last layer is too narrow for so many."
        raise ConfigError(explain(what, got=f"{features} features", expected=f"at least {4 ** len(cutoffs)}"))
    return nn.AdaptiveLogSoftmaxWithLoss(features, vocab_size, [*cutoffs])


def _parts(state: Any) -> Sequence[Tensor]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def _detached(state: State) -> State:
    return tuple(tuple(tensor.detach() for tensor in _parts(part)) for part in state)


def _plain(state: State) -> list[list[Tensor]]:
    return [[tensor.detach() for tensor in _parts(part)] for part in state]
