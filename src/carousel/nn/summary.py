"""One vector for a sequence: its last state, its mean, its largest values, or what attention weighs most."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from carousel.nn.linear import Linear
from carousel.nn.recurrent import Recurrent
from carousel.nn.settings import check_whole


class Summary(NamedTuple):
    """A summary of sequences.

    Attributes:
        vector: (B, F).
        weights: (B, T), how much each step counted, 0 in the padding, summing to 1; None where steps have no weights.
    """

    vector: Tensor
    weights: Tensor | None


def _mask(output: Tensor, lengths: Tensor) -> Tensor:
    """(B, T), True where data is real."""
    return torch.arange(output.shape[1], device=output.device)[None] < lengths.to(output.device)[:, None]


class LastSummary(nn.Module):
    """The output of each direction's last step: where the sequence ends forwards, where it starts backwards.

    Args:
        recurrent: the layer whose output is summarised.
    """

    def __init__(self, recurrent: Recurrent) -> None:
        super().__init__()
        self.output_size = recurrent.output_size
        self.forward_size = recurrent.direction_size

    def forward(self, output: Float[Tensor, "B T F"], lengths: Int[Tensor, " B"]) -> Summary:
        """Summarise.

        Args:
            output: (B, T, F), zero in the padding.
            lengths: (B,), real steps.

        Returns:
            The vector (B, F); zeros for a sequence of length 0.
        """
        if output.shape[1] == 0:
            return Summary(output.new_zeros(output.shape[0], output.shape[2]), None)
        ahead, back = output[..., : self.forward_size], output[..., self.forward_size :]
        last = (lengths.to(output.device) - 1).clamp(min=0)[:, None, None].expand(-1, 1, ahead.shape[-1])
        return Summary(torch.cat([ahead.gather(1, last).squeeze(1), back[:, 0]], -1), None)


class MeanSummary(nn.Module):
    """The mean of the outputs over the real steps.

    Args:
        recurrent: the layer whose output is summarised.
    """

    def __init__(self, recurrent: Recurrent) -> None:
        super().__init__()
        self.output_size = recurrent.output_size

    def forward(self, output: Float[Tensor, "B T F"], lengths: Int[Tensor, " B"]) -> Summary:
        """Summarise.

        Args:
            output: (B, T, F).
            lengths: (B,), real steps.

        Returns:
            The vector (B, F); zeros for a sequence of length 0.
        """
        kept = output.masked_fill(~_mask(output, lengths)[..., None], 0.0)
        return Summary(kept.sum(1) / lengths.to(output).clamp(min=1)[:, None], None)


class MaxSummary(nn.Module):
    """The largest output of each feature over the real steps.

    Args:
        recurrent: the layer whose output is summarised.
    """

    def __init__(self, recurrent: Recurrent) -> None:
        super().__init__()
        self.output_size = recurrent.output_size

    def forward(self, output: Float[Tensor, "B T F"], lengths: Int[Tensor, " B"]) -> Summary:
        """Summarise.

        Args:
            output: (B, T, F).
            lengths: (B,), real steps.

        Returns:
            The vector (B, F); zeros for a sequence of length 0.
        """
        if output.shape[1] == 0:
            return Summary(output.new_zeros(output.shape[0], output.shape[2]), None)
        largest = output.masked_fill(~_mask(output, lengths)[..., None], -torch.inf).amax(1)
        return Summary(largest.masked_fill((lengths.to(output.device) == 0)[:, None], 0.0), None)


class AttentionSummary(nn.Module):
    r"""Additive attention: each step is weighed by how well it matches a learned vector.

    .. math::
        u_t &= \tanh(W h_t + b) \\
        a_t &= \operatorname{softmax}_t(v^\top u_t) \\
        s   &= \sum_t a_t h_t

    The softmax runs over the real steps only.

    Args:
        recurrent: the layer whose output is summarised.
        attention_size: A, features of u; by default those of the output.

    Raises:
        ConfigError: `attention_size` is not a positive whole number.

    References:
        Yang et al. (2016), "Hierarchical Attention Networks for Document Classification", NAACL (word attention).
    """

    def __init__(self, recurrent: Recurrent, attention_size: int | None = None) -> None:
        super().__init__()
        self.output_size = recurrent.output_size
        size = self.output_size if attention_size is None else attention_size
        check_whole("AttentionSummary", "attention_size", size, 1)
        weight = next(recurrent.parameters())
        self.project = Linear(self.output_size, size, device=weight.device, dtype=weight.dtype)
        self.context = Linear(size, 1, bias=False, device=weight.device, dtype=weight.dtype)

    def forward(self, output: Float[Tensor, "B T F"], lengths: Int[Tensor, " B"]) -> Summary:
        """Summarise.

        Args:
            output: (B, T, F).
            lengths: (B,), real steps.

        Returns:
            The vector (B, F) and the weights (B, T); zeros for a sequence of length 0.
        """
        mask = _mask(output, lengths)
        real = output.masked_fill(~mask[..., None], 0.0)
        scores = self.context(torch.tanh(self.project(real))).squeeze(-1)  # (B, T)
        lowest = torch.finfo(scores.dtype).min
        weights = scores.masked_fill(~mask, lowest).softmax(-1).masked_fill(~mask, 0.0)
        return Summary((weights[:, None] @ real).squeeze(1), weights)


#: By the name that ``summary=`` and ``--summary`` take.
SUMMARIES: dict[str, type[nn.Module]] = {
    "attention": AttentionSummary,
    "last": LastSummary,
    "max": MaxSummary,
    "mean": MeanSummary,
}
