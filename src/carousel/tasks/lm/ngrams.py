"""Counted sequences of tokens: what a text has said already, to be mixed with a model that has learned from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carousel.errors import ConfigError, DataError, explain
from carousel.tasks.lm.inputs import LanguageInputs

__all__ = ["NGrams"]

BITS = 16  # of a token in a key; four of them are one number
LONGEST = 4
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Order:
    """The sequences of one length.

    Args:
        keys: (N,), sorted; a sequence as one number, its last token in the lowest bits.
        left: (N,), counts less what is taken off.
        contexts: (M,), sorted; what stands before the last token.
        totals: (M,), the counts of all that follows.
        taken: (M,), what is taken off them.
    """

    keys: Keys
    left: Floats
    contexts: Keys
    totals: Floats
    taken: Floats

    @classmethod
    def of(cls, keys: Keys, counts: npt.NDArray[np.int64]) -> _Order:
        """From sorted keys and their counts."""
        n1, n2, n3, n4 = (max(1, int((counts == times).sum())) for times in (1, 2, 3, 4))
        share = n1 / (n1 + 2 * n2)
        off = np.array([0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3])
        # A text without sequences of one of these counts gives no estimate: then what is taken off is between 0 and its most.
        off = np.clip(off, 0.1, np.array([1.0, 1.0, 2.0, 3.0]))[np.minimum(counts, 3)]
        contexts, begins = np.unique(keys >> np.uint64(BITS), return_index=True)
        totals = np.add.reduceat(counts.astype(np.float64), begins)
        return cls(keys, counts - off, contexts, totals, np.add.reduceat(off, begins))


class NGrams:
    r"""The probability of a token after up to three others, by how often a text has them: modified Kneser-Ney smoothing,

    .. math:: p_k(w \mid u) = \frac{\max(c(u w) - D, 0) + \gamma(u) \, p_{k-1}(w \mid u')}{\sum_v c(u v)},

    where D depends on the count (one, two, more), :math:`\gamma` is all that it takes off, :math:`u'` is u without its first
    token, and counts of shorter sequences are those of different tokens before them.

    Args:
        inputs: how the text becomes tokens.
        lines: the text; each line is read by itself, in the direction of `inputs`.
        order: the longest sequence, 1 to 4.

    Raises:
        ConfigError: `order` is not possible, or there are more than 65,535 tokens.
        DataError: there is no text.

    References:
        Chen, Goodman (1999), "An Empirical Study of Smoothing Techniques for Language Modeling", Computer Speech & Language 13.
    """

    def __init__(self, inputs: LanguageInputs, lines: Iterable[str], order: int = LONGEST) -> None:
        if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= LONGEST:
            raise ConfigError(explain("order must be a whole number, 1 to 4.", got=repr(order)))
        if len(inputs) >= 1 << BITS:
            raise ConfigError(
                explain("too many tokens to count.", got=f"{len(inputs):,}", expected=f"fewer than {1 << BITS:,}")
            )
        self.order, self._end, self._size = order, inputs.end, len(inputs)
        padding = np.full(order - 1, inputs.end, np.int32)
        parts = []
        for line in lines:
            if line.strip():
                parts += [padding, np.frombuffer(inputs.encode_line(line), np.int32)]
        if not parts:
            raise DataError(explain("there is no text to count.", advice="give the text that the model was trained on"))
        tokens = np.concatenate(parts).astype(np.uint64)
        real = np.concatenate([np.full(len(part), place % 2 == 1) for place, part in enumerate(parts)])
        key = np.zeros(len(tokens), np.uint64)
        for back in range(order):
            key[back:] |= tokens[: len(tokens) - back] << np.uint64(BITS * back)
        keys, counts = np.unique(key[real], return_counts=True)
        found = [_Order.of(keys, counts)]
        for length in range(order - 1, 0, -1):
            keys, counts = np.unique(keys & np.uint64((1 << BITS * length) - 1), return_counts=True)
            found.append(_Order.of(keys, counts))
        self._orders = found[::-1]

    @property
    def start(self) -> tuple[int, ...]:
        """What stands before a line."""
        return (self._end,) * (self.order - 1)

    def probabilities(self, before: Sequence[Sequence[int]], numbers: npt.NDArray[np.int64]) -> Floats:
        """The probabilities of tokens.

        Args:
            before: H sequences, each of the order - 1 tokens before, the last one last.
            numbers: (C,), or (H, 1) for another token in each row.

        Returns:
            (H, C).
        """
        told = np.array(before, np.uint64).reshape(len(before), self.order - 1)
        wanted = np.broadcast_to(numbers.astype(np.uint64), (len(before), numbers.shape[-1]))
        shares = np.full(wanted.shape, 1.0 / self._size)
        context = np.zeros(len(before), np.uint64)
        for length, order in enumerate(self._orders):
            if length:
                context |= told[:, -length] << np.uint64(BITS * (length - 1))
            place, known = _find(order.contexts, context)
            if not known.any():
                break
            at, seen = _find(order.keys, (context << np.uint64(BITS))[:, None] | wanted)
            left = np.where(seen, order.left[at], 0.0)
            better = (left + order.taken[place][:, None] * shares) / order.totals[place][:, None]
            shares = np.where(known[:, None], better, shares)
        return shares

    def line(self, numbers: npt.NDArray[np.int32]) -> Floats:
        """The probability of each token of a line.

        Args:
            numbers: (N,), in the order of reading.
        """
        padded = np.concatenate([np.full(self.order - 1, self._end), numbers])
        before = np.stack([padded[at : at + len(numbers)] for at in range(self.order - 1)], 1) if self.order > 1 else None
        rows = np.zeros((len(numbers), 0), np.int64) if before is None else before
        return self.probabilities(list(rows), numbers.astype(np.int64)[:, None])[:, 0]


def _find(keys: Keys, wanted: Keys) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Where keys stand, and whether they do."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted
