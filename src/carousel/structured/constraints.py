"""Which tags may follow which: a user's own rules, and those of the ways in which spans are written as tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from carousel.errors import ConfigError, DTypeError, ShapeError, explain, unknown_name

__all__ = ["SCHEMES", "Constraints", "bio_constraints", "bioes_constraints", "bmes_constraints", "iob1_constraints"]


@dataclass(frozen=True)
class Constraints:
    """What is allowed: True where it is.

    Args:
        transition: (K, K), bool, from the row's tag to the column's.
        start: (K,), bool; all by default.
        end: (K,), bool; all by default.

    Raises:
        ShapeError: the axes disagree.
        DTypeError: something is not of booleans.
    """

    transition: Bool[Tensor, "K K"]
    start: Bool[Tensor, " K"] | None = None
    end: Bool[Tensor, " K"] | None = None

    def __post_init__(self) -> None:
        K = self.transition.shape[0] if self.transition.dim() else 0
        for name, value, shape in (
            ("transition", self.transition, (K, K)),
            ("start", self.start, (K,)),
            ("end", self.end, (K,)),
        ):
            if value is None:
                continue
            if tuple(value.shape) != shape:
                raise ShapeError(
                    explain(f"Constraints: {name} does not fit.", got=f"{tuple(value.shape)}", expected=f"{shape}")
                )
            if value.dtype is not torch.bool:
                raise DTypeError(explain(f"Constraints: {name}.", got=str(value.dtype), expected="torch.bool"))

    @property
    def num_tags(self) -> int:
        """K."""
        return self.transition.shape[0]

    def violations(self, tags: Sequence[int]) -> list[int]:
        """The steps at which a path does what is not allowed; its length stands for ending there.

        Args:
            tags: of one row.
        """
        found = []
        if tags and self.start is not None and not self.start[tags[0]]:
            found.append(0)
        found += [t for t in range(1, len(tags)) if not self.transition[tags[t - 1], tags[t]]]
        if tags and self.end is not None and not self.end[tags[-1]]:
            found.append(len(tags))
        return found


def bio_constraints(labels: Sequence[str]) -> Constraints:
    """``I-X`` stands only after ``B-X`` or ``I-X``.

    Args:
        labels: of the tags, in order: ``O``, ``B-X``, ``I-X``, or without types ``B``, ``I``.

    Raises:
        ConfigError: a label is written in another way.

    Example:
        >>> rules = bio_constraints(["O", "B-NP", "I-NP"])
        >>> rules.transition[0], rules.start
        (tensor([ True,  True, False]), tensor([ True,  True, False]))
    """

    def follows(before: _Label | None, now: _Label | None) -> bool:
        return now is None or now[0] != "I" or (before is not None and before[1] == now[1] and before[0] != "O")

    return _build("BIO", labels, {"B": "B", "I": "I", "O": "O"}, follows)


def iob1_constraints(labels: Sequence[str]) -> Constraints:
    """``B-X`` stands only where a span of X follows directly upon another of X: after ``I-X`` or ``B-X``.

    Args:
        labels: of the tags, in order.

    Raises:
        ConfigError: a label is written in another way.
    """

    def follows(before: _Label | None, now: _Label | None) -> bool:
        return now is None or now[0] != "B" or (before is not None and before[1] == now[1] and before[0] != "O")

    return _build("IOB1", labels, {"B": "B", "I": "I", "O": "O"}, follows)


def bioes_constraints(labels: Sequence[str]) -> Constraints:
    """A span is ``S-X``, or ``B-X``, any number of ``I-X``, and ``E-X``.

    Args:
        labels: of the tags, in order; ``U`` and ``L`` (BILOU) stand for ``S`` and ``E``.

    Raises:
        ConfigError: a label is written in another way.
    """
    return _build("BIOES", labels, {**{letter: letter for letter in "BIOES"}, "U": "S", "L": "E"}, _closed)


def bmes_constraints(labels: Sequence[str]) -> Constraints:
    """A word is ``S``, or ``B``, any number of ``M``, and ``E``, with a type behind a hyphen or without.

    Args:
        labels: of the tags, in order; ``O`` may be one of them.

    Raises:
        ConfigError: a label is written in another way.
    """
    return _build("BMES", labels, {"B": "B", "M": "I", "E": "E", "S": "S", "O": "O"}, _closed)


#: The builders by the name of the scheme.
SCHEMES: dict[str, Callable[[Sequence[str]], Constraints]] = {
    "bio": bio_constraints,
    "iob1": iob1_constraints,
    "bioes": bioes_constraints,
    "bmes": bmes_constraints,
}

_Label = tuple[str, str]  # a letter and a type


def _closed(before: _Label | None, now: _Label | None) -> bool:
    """Inside a span comes only its own next; outside, only a beginning. None is the edge of the row."""
    inside = before is not None and before[0] in "BI"
    goes_on = now is not None and now[0] in "IE"
    if inside and goes_on:
        return before is not None and now is not None and before[1] == now[1]
    return not inside and not goes_on


def _build(
    scheme: str, labels: Sequence[str], letters: dict[str, str], follows: Callable[[_Label | None, _Label | None], bool]
) -> Constraints:
    parsed = []
    for label in labels:
        letter, _, kind = label.partition("-")
        if letter not in letters or (letters[letter] == "O" and kind):
            advice = "the label of what is in no span is O; give a scheme that the data are written in: " + ", ".join(SCHEMES)
            raise ConfigError(explain(unknown_name(f"{scheme} label", label, letters), advice=advice))
        parsed.append((letters[letter], kind))
    transition = torch.tensor([[follows(a, b) for b in parsed] for a in parsed], dtype=torch.bool)
    start, end = (torch.tensor(edge, dtype=torch.bool) for edge in (
        [follows(None, b) for b in parsed], [follows(a, None) for a in parsed]
    ))  # fmt: skip
    return Constraints(transition.view(len(parsed), len(parsed)), start, end)
