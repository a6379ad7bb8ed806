"""A language model in the middle of a text: what it has read, and what it expects next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from carousel.nn import Stream
    from carousel.tasks.lm.network import LanguageNetwork, State

__all__ = ["Reading"]

STEPS = 256


class Reading:
    """Some texts that are read side by side, token by token; what is kept does not grow with them.

    A reading and those that :meth:`select` gives share what runs them: they belong to one thread.

    Args:
        network: in evaluation mode; not changed.
        batch: B, how many texts; each begins.
        end: the token that stands before every text, which is read at once.

    Attributes:
        hidden: (B, F), float32, what the output layer sees after the last token.
        log_probabilities: (B, V), float32, of each token to come next.
    """

    hidden: npt.NDArray[np.float32]
    log_probabilities: npt.NDArray[np.float32]

    def __init__(self, network: LanguageNetwork, batch: int, end: int) -> None:
        self._network = network
        self._batch = batch
        self._state: State | None = None
        self._streams: list[Stream] | None = None
        self._steps: _Steps | None = None  # what runs readings that were selected
        self._shared: _Steps | None = None  # the same, for those that are selected from here
        self.read_all([end])

    def __len__(self) -> int:
        """B."""
        return self._batch

    def read(self, numbers: Sequence[int]) -> Self:
        """Read one token more of each text.

        Args:
            numbers: B tokens.

        Returns:
            This reading.
        """
        import torch

        network = self._network
        tokens = torch.tensor(numbers, dtype=torch.long, device=network.device)
        with torch.no_grad():
            if self._steps is not None:
                x, self._state = self._steps.step(network.embedding(tokens), self._state or ())
                return self._seen(x if network.projection is None else network.projection(x))
            if self._streams is None:
                self._streams = [
                    layer.stream(state=state)  # type: ignore[operator]
                    for layer, state in zip(network.layers, self._state or (), strict=True)
                ]
            x = network.embedding(tokens)
            for stream in self._streams:
                x = stream.step(x)
            return self._seen(x if network.projection is None else network.projection(x))

    def read_all(self, numbers: Sequence[int]) -> Self:
        """Read the same tokens in all texts.

        Args:
            numbers: tokens, any number.

        Returns:
            This reading.
        """
        import torch

        device = self._network.device
        state = self._now()
        with torch.no_grad():
            for begin in range(0, len(numbers), STEPS):
                piece = torch.tensor(numbers[begin : begin + STEPS], dtype=torch.long, device=device)
                tokens = piece.expand(self._batch, -1)
                hidden, state = self._network(tokens, state)
                if begin + STEPS >= len(numbers):
                    self._seen(hidden[-1])
        self._state, self._streams = state, None
        return self

    def select(self, rows: Sequence[int]) -> Reading:
        """Readings that stand where some of these do, for a search over continuations.

        Args:
            rows: which texts, in any order; one may be taken several times.

        Returns:
            A reading of len(rows) texts; this one stays as it is.
        """
        import torch

        chosen = torch.tensor(rows, dtype=torch.long, device=self._network.device)
        found = object.__new__(Reading)
        found._network, found._batch, found._streams = self._network, len(rows), None
        self._shared = found._shared = found._steps = self._shared or _Steps(self._network)
        now = self._now() or ()
        found._state = tuple(tuple(tensor.index_select(1, chosen) for tensor in part) for part in now)
        found.hidden, found.log_probabilities = self.hidden[list(rows)], self.log_probabilities[list(rows)]
        return found

    def _now(self) -> State | None:
        if self._streams is None:
            return self._state
        return tuple(_parts(stream.state) for stream in self._streams)

    def _seen(self, hidden: Tensor) -> Self:
        logits = self._network.logits(hidden).float()
        self.hidden = hidden.float().cpu().numpy()
        self.log_probabilities = logits.log_softmax(-1).cpu().numpy()
        return self


class _Steps:
    """Runs steps from any states on weights that are packed once."""

    def __init__(self, network: LanguageNetwork) -> None:
        self._network = network
        self._streams: list[Stream] | None = None

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Features of one token of each text, (B, E), to the last layer's output, and the states behind them."""
        if self._streams is None:
            layers = zip(self._network.layers, state, strict=True)
            self._streams = [layer.stream(state=part) for layer, part in layers]  # type: ignore[operator]
        else:
            for stream, part in zip(self._streams, state, strict=True):
                stream.restart(len(x), part)
        for stream in self._streams:
            x = stream.step(x)
        return x, tuple(_parts(stream.state) for stream in self._streams)


def _parts(state: Any) -> tuple[Tensor, ...]:
    return tuple(state)
