"""Attention of a sequence to its own past, with a state like a recurrent layer's."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from carousel.errors import ConfigError, ShapeError, explain
from carousel.nn.linear import Linear

State = tuple[Tensor, Tensor, Tensor, Tensor]


class CausalAttention(nn.Module):
    r"""Adds to each step what followed at earlier steps that looked alike.

    .. math::
        q_t &= W_q x_t, \quad k_s = W_k x_{s-1}, \quad v_s = W_v x_s \\
        a_{ts} &= \mathrm{softmax}_{t-M < s \le t} (q_t \cdot k_s / \sqrt{d}) \\
        y_t &= x_t + W_o \sum_s a_{ts} v_s

    A key is what stood *before* a step and its value is the step, so that attending to a place where the text looked as it does
    now tells what came next there: a name that was read once, say. It is the continuous cache of Grave et al. as a layer that
    is trained. Between recurrent layers, whose states know the order, it needs no positions; one attention in a stack of
    recurrent layers is what Merity uses. Beginning, :math:`W_o` is zero: the layer hands on its input.

    The last M steps are a state, as a recurrent layer has one: carried from window to window in training (as in
    Transformer-XL, without gradients if the state is detached) and from step to step in a stream.

    Args:
        size: F, features of a step.
        window: M, how many steps back it reaches, this one included.
        heads: independent attentions.
        head_size: d, features of a head's queries, keys and values; ``size / (2 heads)`` if None.
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        `queries.weight`, `keys.weight`, `values.weight` (heads d, F); `output.weight` (F, heads d).

    Raises:
        ConfigError: a size is not positive.

    References:
        Grave, Joulin, Usunier (2017), "Improving neural language models with a continuous cache", arXiv:1612.04426; Merity
        (2019), "Single headed attention RNN: stop thinking with your head", arXiv:1911.11423; Dai et al. (2019),
        "Transformer-XL", arXiv:1901.02860.

    Example:
        >>> layer = CausalAttention(8, window=16)
        >>> y, state = layer(torch.randn(5, 3, 8))
        >>> tuple(y.shape), [tuple(part.shape) for part in state]
        ((5, 3, 8), [(1, 3, 8), (1, 3, 16, 4), (1, 3, 16, 4), (1, 3, 16)])
    """

    def __init__(
        self,
        size: int,
        window: int,
        *,
        heads: int = 1,
        head_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        head_size = max(1, size // (2 * heads)) if head_size is None and heads > 0 else head_size
        for name, number in (("size", size), ("window", window), ("heads", heads), ("head_size", head_size)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError(explain(f"CausalAttention: {name} is a positive whole number.", got=repr(number)))
        self.size, self.window, self.heads, self.head_size = size, window, heads, int(head_size or 1)
        wide = heads * self.head_size
        how: dict[str, Any] = {"bias": False, "device": device, "dtype": dtype}
        self.queries, self.keys, self.values = (Linear(size, wide, **how) for _ in range(3))
        self.output = Linear(wide, size, **how)
        nn.init.zeros_(self.output.weight)

    @property
    def output_size(self) -> int:
        """F."""
        return self.size

    def initial_state(self, batch: int) -> State:
        """The state of sequences that have not started.

        Args:
            batch: B.

        Returns:
            The last step (1, B, F); keys and values of the window (1, B, M, heads d); which of them are there, 0 or 1
            (1, B, M).
        """
        zeros, memory = self.keys.weight.new_zeros, (1, batch, self.window, self.heads * self.head_size)
        return zeros(1, batch, self.size), zeros(memory), zeros(memory), zeros(memory[:-1])

    def forward(
        self, x: Float[Tensor, "T B F"], state: State | None = None, lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "T B F"], State]:
        """Read steps.

        Args:
            x: (T, B, F).
            state: what reading the steps before left; None where sequences begin.
            lengths: (B,), how many steps of each are real; all if None. The others give 0 and change nothing.

        Returns:
            (T, B, F), and the state behind each sequence's last step.

        Raises:
            ShapeError: x does not have three axes and F features.
        """
        if x.dim() != 3 or x.shape[-1] != self.size:
            raise ShapeError(explain("CausalAttention: x is (T, B, F).", got=f"{tuple(x.shape)}", expected=f"F {self.size}"))
        T, B, _ = x.shape
        last, keys, values, there = self.initial_state(B) if state is None else state
        padding = None
        if lengths is not None:
            lengths = lengths.to(x.device)
            padding = (torch.arange(T, device=x.device)[:, None] >= lengths)[..., None]
            x = x.masked_fill(padding, 0.0)
        steps = torch.cat([last, x])
        keys = torch.cat([keys[0], self.keys(steps[:-1]).transpose(0, 1)], 1)
        values = torch.cat([values[0], self.values(x).transpose(0, 1)], 1)
        there = torch.cat([there[0], there.new_ones(B, T)], 1)
        y = x + self.output(self._attend(self.queries(x).transpose(0, 1), keys, values, there).transpose(0, 1))
        if lengths is None or padding is None:
            return y, (steps[-1:], keys[None, :, T:], values[None, :, T:], there[None, :, T:])
        here = lengths[:, None] + torch.arange(self.window, device=x.device)
        rows = torch.arange(B, device=x.device)
        after = (keys[rows[:, None], here][None], values[rows[:, None], here][None], there.gather(1, here)[None])
        return y.masked_fill(padding, 0.0), (steps[lengths, rows][None], *after)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, there: Tensor) -> Tensor:
        """(B, T, heads d) of the last T of M + T steps."""
        (B, T, _), M = queries.shape, self.window
        ago = torch.arange(T, device=keys.device)[:, None] + M - torch.arange(M + T, device=keys.device)
        seen = ((ago >= 0) & (ago < M)) & (there > 0)[:, None]
        q, k, v = (part.view(B, -1, self.heads, self.head_size).transpose(1, 2) for part in (queries, keys, values))
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        return found.transpose(1, 2).flatten(2)

    def stream(self, batch: int | None = None, state: State | None = None) -> AttentionStream:
        """Step by step, without gradients.

        Args:
            batch: B, sequences that begin; 1 if None.
            state: of sequences that have begun.
        """
        return AttentionStream(self, batch, state)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.size}, window={self.window}, heads={self.heads}, head_size={self.head_size}"


class AttentionStream:
    """A `CausalAttention` that runs step by step, as a `Stream` of a recurrent layer does.

    Args:
        layer: in evaluation mode.
        batch: B, sequences that begin.
        state: of sequences that have begun.

    Attributes:
        state: after the last step.
    """

    def __init__(self, layer: CausalAttention, batch: int | None = None, state: State | None = None) -> None:
        self._layer = layer
        self.state: State = layer.initial_state(1 if batch is None else batch) if state is None else state

    def restart(self, batch: int, state: State | None = None) -> None:
        """Go on with other sequences.

        Args:
            batch: B.
            state: where they stand; their beginning if None.
        """
        self.state = self._layer.initial_state(batch) if state is None else state

    @torch.no_grad()
    def step(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        """Read one step of each sequence.

        Args:
            x: (B, F).

        Returns:
            (B, F).
        """
        y: Tensor
        y, self.state = self._layer(x[None], self.state)
        return y[0]
