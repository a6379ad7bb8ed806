"""A conditional random field over segments: a tag holds for a whole segment, whose length counts too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from carousel.errors import ConfigError, DataError, ShapeError, explain
from carousel.structured.semirings import log_sum_exp

__all__ = ["Segment", "SemiMarkovCRF"]

#: Where it begins, where it ends (not included), and its tag; counted in real steps.
Segment = tuple[int, int, int]


class SemiMarkovCRF(nn.Module):
    r"""A semi-Markov conditional random field: a row is cut into segments, each with a tag and at most L steps.

    .. math:: s = a_{k_1} + \sum_{m} \Big( \sum_{t \in m} u_{t, k_m} + d_{|m|, k_m} \Big) + \sum_{m > 1} w_{k_{m-1}, k_m} +
    b_{k_M}

    It runs in torch operations, T steps of L·K and K² numbers for each row, and keeps B·T·L·K numbers for the gradient.

    Args:
        num_tags: K.
        max_length: L, the longest segment, in steps.
        batch_first: whether emissions are (B, T, K) and the mask (B, T); else (T, B, K) and (T, B).
        device: where the parameters are made.
        dtype: their type.

    Shapes:
        `transitions` (K, K), between segments; `length_scores` (L, K), d; `start_transitions` (K,); `end_transitions` (K,).

    Raises:
        ConfigError: a size is not positive.

    Example:
        >>> crf = SemiMarkovCRF(2, max_length=3)
        >>> with torch.no_grad():
        ...     for parameter in crf.parameters():
        ...         _ = parameter.zero_()
        ...     _ = crf.length_scores[1].fill_(1.0)  # segments of two steps are liked
        >>> crf.decode(torch.tensor([[[5.0, 0.0], [5.0, 0.0], [0.0, 5.0], [0.0, 5.0]]]))
        [[(0, 2, 0), (2, 4, 1)]]

    References:
        Sarawagi, Cohen (2004), "Semi-Markov Conditional Random Fields for Information Extraction".
    """

    def __init__(
        self,
        num_tags: int,
        max_length: int,
        batch_first: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_tags < 1 or max_length < 1:
            got = f"num_tags={num_tags}, max_length={max_length}"
            raise ConfigError(explain("SemiMarkovCRF: sizes must be positive.", got=got))
        self.num_tags, self.max_length, self.batch_first = num_tags, max_length, batch_first
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags, device=device, dtype=dtype))
        self.length_scores = nn.Parameter(torch.empty(max_length, num_tags, device=device, dtype=dtype))
        self.start_transitions = nn.Parameter(torch.empty(num_tags, device=device, dtype=dtype))
        self.end_transitions = nn.Parameter(torch.empty(num_tags, device=device, dtype=dtype))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(
        self,
        emissions: Float[Tensor, "B T K"],
        segments: Sequence[Sequence[Segment]],
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, " B"]:
        """The log-likelihood of each row's segments, in nats.

        Args:
            emissions: (B, T, K), or (T, B, K).
            segments: of each row, in order, without gaps; counted in real steps.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.

        Raises:
            ShapeError: the axes disagree.
            DataError: a row's segments have gaps, overlap or are too long, or a tag is not one.
        """
        scores, lengths = self._segment_scores(emissions, mask)
        return self._score(scores, segments, lengths) - self._log_partition(scores, lengths)

    def log_partition(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, " B"]:
        """The log of the sum over all segmentations, in nats; 0 for a row without steps.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
        """
        return self._log_partition(*self._segment_scores(emissions, mask))

    @torch.no_grad()
    def decode(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> list[list[Segment]]:
        """The best segments of each row.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
        """
        scores, lengths = self._segment_scores(emissions, mask)
        B, T, L, K = scores.shape
        before = [self.start_transitions.to(scores.dtype).expand(B, K)]
        sources, taken, ends = [], [], []
        for t in range(T):
            ways = torch.stack([scores[:, t, n] + before[t - n] for n in range(min(t + 1, L))], 1)  # (B, L', K)
            best, length = ways.max(1)
            follows, source = (best[:, :, None] + self.transitions).max(1)
            before.append(follows)
            sources.append(source)
            taken.append(length + 1)
            ends.append(best)
        found: list[list[Segment]] = []
        for row, end in enumerate(lengths.tolist()):
            path: list[Segment] = []
            tag = int((ends[end - 1][row] + self.end_transitions).argmax()) if end else 0
            while end > 0:
                begin = end - int(taken[end - 1][row, tag])
                path.append((begin, end, tag))
                tag, end = int(sources[begin - 1][row, tag]) if begin else 0, begin
            found.append(path[::-1])
        return found

    @torch.no_grad()
    def nbest(
        self, emissions: Float[Tensor, "B T K"], k: int, mask: Bool[Tensor, "B T"] | None = None
    ) -> list[list[tuple[list[Segment], float]]]:
        """The k best segmentations of each row, or as many as there are, the best first, each with its probability.

        Args:
            emissions: (B, T, K), or (T, B, K).
            k: how many.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.

        Raises:
            ConfigError: k is not positive.
        """
        if k < 1:
            raise ConfigError(explain("SemiMarkovCRF.nbest: k must be positive.", got=f"{k}"))
        scores, lengths = self._segment_scores(emissions, mask)
        B, T, L, K = scores.shape
        # Each place keeps the k best ways to it with each tag, (B, k, K); at the beginning there is one.
        before = [torch.full((B, k, K), -torch.inf, dtype=scores.dtype, device=scores.device)]
        before[0][:, 0] = self.start_transitions
        ends, taken, sources = [], [], []
        for t in range(T):
            ways = torch.cat([scores[:, t, n, None] + before[t - n] for n in range(min(t + 1, L))], 1)  # (B, L'·k, K)
            best, way = ways.topk(k, dim=1)
            follows, source = (best[..., None] + self.transitions).flatten(1, 2).topk(k, dim=1)  # of (B, k·K, K)
            before.append(follows)
            ends.append(best)
            taken.append(way)
            sources.append(source)
        logs = self._log_partition(scores, lengths).tolist()
        found: list[list[tuple[list[Segment], float]]] = []
        for row, length in enumerate(lengths.tolist()):
            if not length:
                found.append([([], 1.0)])
                continue
            totals, order = (ends[length - 1][row] + self.end_transitions).flatten().sort(descending=True)
            paths = []
            for total, at in zip(totals[:k].tolist(), order[:k].tolist(), strict=True):
                if total == -torch.inf:
                    break
                end, (rank, tag), path = length, divmod(at, K), []
                while end > 0:
                    n, rank = divmod(int(taken[end - 1][row, rank, tag]), k)
                    begin = end - n - 1
                    path.append((begin, end, tag))
                    if begin:
                        rank, tag = divmod(int(sources[begin - 1][row, rank, tag]), K)
                    end = begin
                paths.append((path[::-1], math.exp(total - logs[row])))
            found.append(paths)
        return found

    @torch.no_grad()
    def sample(
        self,
        emissions: Float[Tensor, "B T K"],
        count: int = 1,
        mask: Bool[Tensor, "B T"] | None = None,
        generator: torch.Generator | None = None,
    ) -> list[list[list[Segment]]]:
        """Segmentations drawn by their probability: `count` for each row.

        Args:
            emissions: (B, T, K), or (T, B, K).
            count: how many for each row.
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
            generator: torch's; its own by default.

        Raises:
            ConfigError: `count` is not positive.
        """
        if count < 1:
            raise ConfigError(explain("SemiMarkovCRF.sample: count must be positive.", got=f"{count}"))
        scores, lengths = self._segment_scores(emissions, mask)
        B, _, L, K = scores.shape
        before, ends = self._sums(scores)
        found: list[list[list[Segment]]] = [[[] for _ in range(count)] for _ in range(B)]
        # All draws go backwards together: how far each has come, and the scores of the tag that ends there.
        row = torch.arange(B, device=lengths.device).repeat_interleave(count)
        draw = torch.arange(count, device=lengths.device).repeat(B)
        end = lengths[row]
        after = self.end_transitions.to(scores.dtype).expand(B * count, K)
        while (alive := end > 0).any():
            row, draw, end, after = row[alive], draw[alive], end[alive], after[alive]
            tag = _drawn(ends[end, row] + after, generator)
            longest = torch.arange(L, device=end.device)
            begins = end[:, None] - 1 - longest  # (N, L)
            ways = scores[row, end - 1, :, tag] + before[begins.clamp(min=0), row[:, None], tag[:, None]]
            length = _drawn(ways.masked_fill(begins < 0, -torch.inf), generator) + 1
            begin = end - length
            for b, at, *segment in zip(*(x.tolist() for x in (row, draw, begin, end, tag)), strict=True):
                found[b][at].append((segment[0], segment[1], segment[2]))
            end, after = begin, self.transitions.to(scores.dtype)[:, tag].T
        return [[path[::-1] for path in paths] for paths in found]

    def marginals(self, emissions: Float[Tensor, "B T K"], mask: Bool[Tensor, "B T"] | None = None) -> Tensor:
        """The probability of each segment, (B, T, L, K): that one of so many steps, less one, ends at a row's real step t.

        Args:
            emissions: (B, T, K), or (T, B, K).
            mask: (B, T), or (T, B), True where data is real; everywhere by default.
        """
        with torch.enable_grad():
            scores, lengths = self._segment_scores(emissions.detach(), mask)
            leaf = scores.detach().requires_grad_()
            return torch.autograd.grad(self._log_partition(leaf, lengths).sum() + 0.0 * leaf[:, :0].sum(), leaf)[0]

    def _segment_scores(self, emissions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, L, K), the score of a segment that ends at t, and real lengths. Real steps come first."""
        if emissions.dim() != 3 or emissions.shape[-1] != self.num_tags:
            expected = f"(B, T, K) with K={self.num_tags}" if self.batch_first else f"(T, B, K) with K={self.num_tags}"
            raise ShapeError(explain("SemiMarkovCRF: the emissions.", got=f"{tuple(emissions.shape)}", expected=expected))
        unary = emissions if self.batch_first else emissions.transpose(0, 1)
        B, T, K = unary.shape
        if mask is None:
            lengths = torch.full((B,), T, device=unary.device)
        else:
            mask = mask if self.batch_first else mask.transpose(0, 1)
            if mask.shape != (B, T):
                raise ShapeError(explain("SemiMarkovCRF: the mask.", got=f"{tuple(mask.shape)}", expected=f"{(B, T)}"))
            lengths = mask.sum(1)
            order = (~mask).to(torch.int8).argsort(dim=1, stable=True)
            unary = unary.masked_fill(~mask[..., None], 0.0).gather(1, order[..., None].expand(B, T, K))
        # Differences of running sums: in float64, or a long row would lose digits.
        running = nn.functional.pad(unary.double().cumsum(1), (0, 0, 1, 0))
        parts = []
        for n in range(1, self.max_length + 1):
            inside = running[:, n:] - running[:, :-n] if n <= T else running[:, :0]
            parts.append(nn.functional.pad(inside, (0, 0, T - inside.shape[1], 0)))
        scores = torch.stack(parts, 2) if T else running.new_zeros(B, 0, self.max_length, K)
        return scores.to(unary.dtype) + self.length_scores, lengths

    def _log_partition(self, scores: Tensor, lengths: Tensor) -> Tensor:
        ends = self._sums(scores)[1]
        last = ends[lengths, torch.arange(len(lengths), device=lengths.device)] + self.end_transitions
        return torch.where(lengths > 0, log_sum_exp(last, 1), 0.0)

    def _sums(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """(T + 1, B, K) each: of all ways that come to a place and go on with a tag, and that end there with one."""
        B, T, L, K = scores.shape
        before = [self.start_transitions.to(scores.dtype).expand(B, K)]
        ends = [scores.new_full((B, K), -torch.inf)]
        for t in range(T):
            ways = torch.stack([scores[:, t, n] + before[t - n] for n in range(min(t + 1, L))], 1)  # (B, L', K)
            alpha = log_sum_exp(ways, 1)
            ends.append(alpha)
            before.append(log_sum_exp(alpha[:, :, None] + self.transitions, 1))
        return torch.stack(before), torch.stack(ends)

    def _score(self, scores: Tensor, segments: Sequence[Sequence[Segment]], lengths: Tensor) -> Tensor:
        B, _, L, K = scores.shape
        if len(segments) != B:
            raise ShapeError(explain("SemiMarkovCRF: segments of each row.", got=f"{len(segments)} rows", expected=f"{B}"))
        total = []
        for row, (path, length) in enumerate(zip(segments, lengths.tolist(), strict=True)):
            at = 0
            for begin, end, tag in path:
                if begin != at or not 1 <= end - begin <= L or not 0 <= tag < K:
                    expected = f"(begin, end, tag) with begin {at}, 1 to {L} steps, tag 0 to {K - 1}"
                    raise DataError(explain(f"SemiMarkovCRF: row {row}.", got=f"{(begin, end, tag)}", expected=expected))
                at = end
            if at != length:
                what = f"SemiMarkovCRF: row {row} has {length} real steps."
                raise DataError(explain(what, got=f"segments up to {at}", expected=f"up to {length}"))
            score = scores.new_zeros(())
            if path:
                begins, ends, tags = torch.tensor(path, device=scores.device).unbind(1)
                score = scores[row, ends - 1, ends - begins - 1, tags].sum() + self.transitions[tags[:-1], tags[1:]].sum()
                score = score + self.start_transitions[tags[0]] + self.end_transitions[tags[-1]]
            total.append(score)
        return torch.stack(total) if total else scores.new_zeros(0)


def _drawn(logs: Tensor, generator: torch.Generator | None) -> Tensor:
    """(N,): one of the last axis for each row, by the logs of its weights."""
    return torch.multinomial(logs.softmax(1), 1, generator=generator)[:, 0]
