"""Losses of the tokens of a text: the whole of it read on, or each line by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    from carousel.tasks.lm.network import LanguageNetwork, State

__all__ = ["alone", "read_on"]

STEPS = 256  # read at once: memory stays the same however long the text
LINES = 64

Losses = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int32]


def read_on(network: LanguageNetwork, numbers: Numbers, start: int) -> Iterator[Losses]:
    """The loss of every token of a text, in nats; the state is carried from its beginning to its end.

    Args:
        network: in evaluation mode.
        numbers: (N,), the tokens in the order of reading.
        start: the token that stands before the first.

    Yields:
        The losses of the next tokens, until there are N.
    """
    import torch

    state: State | None = None
    device = network.device
    with torch.no_grad():
        for begin in range(0, len(numbers), STEPS):
            targets = torch.from_numpy(numbers[begin : begin + STEPS].astype(np.int64))
            before = start if begin == 0 else int(numbers[begin - 1])
            inputs = torch.cat([torch.tensor([before]), targets[:-1]])
            hidden, state = network(inputs[None].to(device), state)
            yield network.losses(hidden, targets[None].to(device))[0].float().cpu().numpy()


def alone(network: LanguageNetwork, rows: Sequence[Numbers], start: int) -> list[Losses]:
    """The loss of every token of some lines, each read from the start.

    Args:
        network: in evaluation mode.
        rows: the tokens of each line, in the order of reading; a line may have none.
        start: the token that stands before each line.

    Returns:
        For each line, in order, its losses in nats.
    """
    found: list[Losses] = [np.zeros(0, np.float32)] * len(rows)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    for begin in range(0, len(order), LINES):
        chosen = [row for row in order[begin : begin + LINES] if len(rows[row])]
        for row, losses in zip(chosen, _together(network, [rows[row] for row in chosen], start), strict=True):
            found[row] = losses
    return found


def _together(network: LanguageNetwork, rows: Sequence[Numbers], start: int) -> list[Losses]:
    """Lines of similar lengths side by side, the longest first, some steps at a time."""
    import torch

    from carousel.data.token_stream import IGNORED

    parts: list[list[Losses]] = [[] for _ in rows]
    longest = len(rows[0]) if rows else 0
    state: State | None = None
    device = network.device
    with torch.no_grad():
        for begin in range(0, longest, STEPS):
            going = sum(len(row) > begin for row in rows)
            steps = min(STEPS, longest - begin)
            targets = np.full((going, steps), IGNORED, np.int64)
            inputs = np.full((going, steps), start, np.int64)
            lengths = []
            for number, row in enumerate(rows[:going]):
                here = row[begin : begin + steps]
                targets[number, : len(here)] = here
                before = row[begin - 1 : begin - 1 + len(here)] if begin else row[: len(here) - 1]
                inputs[number, len(here) - len(before) : len(here)] = before
                lengths.append(len(here))
            state = None if state is None else _first(state, going)
            hidden, state = network(torch.from_numpy(inputs).to(device), state, torch.tensor(lengths))
            losses = network.losses(hidden, torch.from_numpy(targets).to(device)).float().cpu().numpy()
            for number, length in enumerate(lengths):
                parts[number].append(losses[number, :length])
    return [np.concatenate(part) for part in parts]


def _first(state: State, count: int) -> State:
    """The state of the first rows."""

    def cut(part: Tensor) -> Tensor:
        return part[:, :count].contiguous()

    return tuple(tuple(map(cut, part)) for part in state)
