"""How the next token is chosen."""

from __future__ import annotations

import math
import secrets
from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carousel.errors import ConfigError, explain

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    r"""How tokens are drawn.

    In this order: a token that was produced among the last `repetition_window` has its probability raised to the power
    `repetition_penalty`; probabilities are raised to 1 / `temperature`; only the `top_k` likeliest stay, and of these the
    fewest that hold `top_p` of the probability [1]. Differs from [2], whose penalty is on scores of either sign: here it is
    on log-probabilities, so that it does not depend on a constant added to all scores.

    Args:
        temperature: 1 draws from the model's own distribution, less is safer, 0 always takes the likeliest.
        top_k: how many tokens may be drawn; None for all.
        top_p: share of the probability that may be drawn; None for all.
        repetition_penalty: 1 for none, more for less repetition.
        repetition_window: how many tokens back a repetition is one.
        seed: the same one gives the same tokens; None draws one.

    Raises:
        ConfigError: a value is not possible.

    References:
        [1] Holtzman et al., "The Curious Case of Neural Text Degeneration", ICLR 2020, arXiv:1904.09751.
        [2] Keskar et al., "CTRL: A Conditional Transformer Language Model", arXiv:1909.05858.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 0.0, math.inf, "0 or more")
        _number("repetition_penalty", self.repetition_penalty, 1.0, math.inf, "1 or more")
        if self.top_p is not None and (_number("top_p", self.top_p, 0.0, 1.0, "above 0, at most 1") or self.top_p == 0):
            raise ConfigError(explain("top_p must be above 0.", got="0", expected="above 0, at most 1"))
        for name, value, least in (
            ("top_k", self.top_k, 1),
            ("repetition_window", self.repetition_window, 0),
            ("seed", self.seed, 0),
        ):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(explain(f"{name} must be a whole number, at least {least}.", got=repr(value)))


class Sampler:
    """Draws token after token.

    Args:
        sampling: how.

    Example:
        >>> sampler = Sampler(Sampling(top_k=1))
        >>> sampler.draw(np.log([0.2, 0.5, 0.3]))
        1
        >>> sampler.draw(np.log([0.2, 0.5, 0.3]), np.array([True, False, True]))
        2
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        self._generator = np.random.PCG64(seed)
        self._recent: deque[int] = deque(maxlen=sampling.repetition_window)

    def draw(self, log_probabilities: npt.NDArray[np.floating], allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """Draw a token, and remember it for the penalty.

        Args:
            log_probabilities: (V,). Not changed.
            allowed: (V,), which tokens may be drawn; all if None.

        Raises:
            ConfigError: none may.
        """
        number = self._drawn(np.array(log_probabilities, np.float64), allowed)
        self._recent.append(number)
        return number

    def _drawn(self, scores: npt.NDArray[np.float64], allowed: npt.NDArray[np.bool_] | None) -> int:
        how = self.sampling
        if how.repetition_penalty != 1 and self._recent:
            seen = list(set(self._recent))
            scores[seen] *= how.repetition_penalty
        if allowed is not None:
            scores[~allowed] = -np.inf
        if scores.max() == -np.inf:
            raise ConfigError(explain("there is no token left to choose from.", advice="allow at least one"))
        # Also where nothing is drawn, so that a token more or less under a mask does not move the rest of the text.
        share = float(self._generator.random_raw() >> 11) * 2.0**-53
        if how.temperature == 0:
            return int(scores.argmax())
        scores = (scores - scores.max()) / how.temperature
        places = np.arange(len(scores))
        if how.top_k is not None and how.top_k < len(scores):
            places = np.argsort(-scores, kind="stable")[: how.top_k]
        chances = np.exp(scores[places])
        if how.top_p is not None and how.top_p < 1:
            order = np.argsort(-chances, kind="stable")
            places, chances = places[order], chances[order]
            sums = np.cumsum(chances)
            kept = int(np.searchsorted(sums, how.top_p * sums[-1])) + 1
            places, chances = places[:kept], chances[:kept]
        sums = np.cumsum(chances)
        return int(places[min(np.searchsorted(sums, share * sums[-1], side="right"), np.flatnonzero(chances)[-1])])


def _number(name: str, value: object, least: float, most: float, expected: str) -> bool:
    """Refuse what is no number within the limits; False."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and least <= value <= most
    if not good:
        raise ConfigError(explain(f"{name} is not possible.", got=repr(value), expected=expected))
    return False
