"""What the hidden states of an HMM give off: symbols or counts. Gaussian states are in `gaussian.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from carousel.errors import ConfigError, DataError, explain

__all__ = ["Categorical", "Emissions", "Multinomial", "Parameters"]

#: What is learned, by name; float64.
Parameters = dict[str, Tensor]


class Emissions(Protocol):
    """A kind of emission: pure functions of its parameters. `observations` are all steps of all sequences, N of them."""

    @property
    def kind(self) -> str:
        """Its name in a saved model."""
        ...

    def check(self, observations: np.ndarray, parameters: Parameters | None) -> Tensor:
        """The observations as a tensor.

        Raises:
            DataError: they are not of this kind, or do not fit the parameters.
        """
        ...

    def begin(self, observations: Tensor, num_states: int, generator: np.random.Generator) -> Parameters:
        """Parameters to start from."""
        ...

    def log_prob(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """(N, K)."""
        ...

    def update(self, parameters: Parameters, observations: Tensor, posteriors: Tensor, smoothing: float) -> Parameters:
        """Those that make the expected likelihood largest; a state that nothing speaks for keeps its own."""
        ...

    def log_prior(self, parameters: Parameters, smoothing: float) -> float:
        """What smoothing adds to the log-likelihood that EM makes large, up to a constant."""
        ...

    def draw(self, parameters: Parameters, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """An observation of each state."""
        ...

    def free(self, parameters: Parameters) -> int:
        """How many numbers are learned."""
        ...

    def shapes(self, parameters: Parameters) -> dict[str, tuple[int | str, ...]]:
        """The shapes that parameters must have; K and other letters stand for sizes that must agree."""
        ...


@dataclass(frozen=True)
class Categorical:
    """A symbol each step, a whole number from 0. -1 is a symbol that was never seen: it says nothing of the state.

    Args:
        num_symbols: V; by default what is seen in training.
    """

    num_symbols: int | None = None

    def __post_init__(self) -> None:
        if self.num_symbols is not None and self.num_symbols < 1:
            raise ConfigError(explain("Categorical: there must be a symbol.", got=f"num_symbols={self.num_symbols}"))

    @property
    def kind(self) -> str:
        """``categorical``."""
        return "categorical"

    def check(self, observations: np.ndarray, parameters: Parameters | None) -> Tensor:
        """(N,), int64."""
        if observations.ndim == 2 and observations.shape[1] == 1:
            observations = observations[:, 0]
        if observations.ndim != 1 or observations.dtype.kind not in "iu":
            got = f"{observations.dtype} {observations.shape}"
            raise DataError(explain("HMM: symbols are whole numbers, one a step.", got=got, expected="integers (N,)"))
        most = self.num_symbols if parameters is None else parameters["symbols"].shape[1]
        highest, lowest = int(observations.max(initial=-1)), int(observations.min(initial=0))
        if lowest < -1 or (most is not None and highest >= most):
            expected = f"0 to {most - 1}, or -1" if most is not None else "0 and up, or -1"
            got = f"{lowest if lowest < -1 else highest}"
            raise DataError(explain("HMM: a symbol is not one.", got=got, expected=expected))
        return torch.from_numpy(observations.astype(np.int64))

    def begin(self, observations: Tensor, num_states: int, generator: np.random.Generator) -> Parameters:
        """Near the symbols' frequencies, each state a little otherwise."""
        size = self.num_symbols or max(int(observations.max()) + 1 if observations.numel() else 1, 1)
        counts = torch.bincount(observations[observations >= 0], minlength=size).double() + 1.0
        noise = torch.from_numpy(generator.dirichlet(np.full(size, 1.0), num_states))
        mixed = 0.5 * counts / counts.sum() + 0.5 * noise
        return {"symbols": mixed / mixed.sum(1, keepdim=True)}

    def log_prob(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """Looked up."""
        logs = parameters["symbols"].log().mT.contiguous()
        known = observations >= 0
        if bool(known.all()):
            return logs[observations]
        return logs[observations.clamp(min=0)].masked_fill(~known[:, None], 0.0)

    def update(self, parameters: Parameters, observations: Tensor, posteriors: Tensor, smoothing: float) -> Parameters:
        """Expected counts."""
        old = parameters["symbols"]
        known = observations >= 0
        if not bool(known.all()):
            observations, posteriors = observations[known], posteriors[known]
        counts = old.new_zeros(old.shape[1], old.shape[0]).index_add_(0, observations, posteriors).mT + smoothing
        return {"symbols": normalised(counts, old)}

    def log_prior(self, parameters: Parameters, smoothing: float) -> float:
        """Dirichlet's."""
        return float(smoothing * parameters["symbols"].log().sum()) if smoothing else 0.0

    def draw(self, parameters: Parameters, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A symbol of each state."""
        running = parameters["symbols"].numpy().cumsum(1)
        drawn: np.ndarray = (running[states] < generator.random(len(states))[:, None] * running[states, -1:]).sum(1)
        return drawn

    def free(self, parameters: Parameters) -> int:
        """K (V - 1)."""
        states, symbols = parameters["symbols"].shape
        return states * (symbols - 1)

    def shapes(self, parameters: Parameters) -> dict[str, tuple[int | str, ...]]:
        """(K, V)."""
        return {"symbols": ("K", "V")}


@dataclass(frozen=True)
class Multinomial:
    """Counts of V symbols each step: the words of a document, say. The number of trials is given, not modelled."""

    @property
    def kind(self) -> str:
        """``multinomial``."""
        return "multinomial"

    def check(self, observations: np.ndarray, parameters: Parameters | None) -> Tensor:
        """(N, V), float64."""
        size = None if parameters is None else parameters["symbols"].shape[1]
        if observations.ndim != 2 or (size is not None and observations.shape[1] != size):
            expected = f"(N, {size})" if size is not None else "(N, V)"
            raise DataError(explain("HMM: counts of symbols.", got=f"{observations.shape}", expected=expected))
        if observations.dtype.kind not in "iuf" or (observations < 0).any() or (observations != np.floor(observations)).any():
            raise DataError(explain("HMM: counts are whole numbers from 0.", got=f"{observations.dtype}, or one that is not"))
        return torch.from_numpy(observations.astype(np.float64))

    def begin(self, observations: Tensor, num_states: int, generator: np.random.Generator) -> Parameters:
        """Near the symbols' frequencies, each state a little otherwise."""
        counts = observations.sum(0) + 1.0
        noise = torch.from_numpy(generator.dirichlet(np.full(observations.shape[1], 1.0), num_states))
        return {"symbols": 0.5 * counts / counts.sum() + 0.5 * noise}

    def log_prob(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """With the number of orders in which the counts may have come."""
        logs = parameters["symbols"].log()
        # 0 times minus infinity is 0 here: a symbol that does not come may be impossible.
        impossible = (logs == -torch.inf).double()
        value = observations @ logs.masked_fill(logs == -torch.inf, 0.0).mT
        value = value.masked_fill(observations @ impossible.mT > 0, -torch.inf)
        orders = torch.lgamma(observations.sum(1) + 1) - torch.lgamma(observations + 1).sum(1)
        return value + orders[:, None]

    def update(self, parameters: Parameters, observations: Tensor, posteriors: Tensor, smoothing: float) -> Parameters:
        """Expected counts."""
        return {"symbols": normalised(posteriors.mT @ observations + smoothing, parameters["symbols"])}

    def log_prior(self, parameters: Parameters, smoothing: float) -> float:
        """Dirichlet's."""
        return float(smoothing * parameters["symbols"].log().sum()) if smoothing else 0.0

    def draw(self, parameters: Parameters, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """One trial a step: how many there are is not modelled."""
        chances = parameters["symbols"].numpy()
        return (
            np.stack([generator.multinomial(1, chances[k]) for k in states]) if len(states) else np.zeros((0, chances.shape[1]))
        )

    def free(self, parameters: Parameters) -> int:
        """K (V - 1)."""
        states, symbols = parameters["symbols"].shape
        return states * (symbols - 1)

    def shapes(self, parameters: Parameters) -> dict[str, tuple[int | str, ...]]:
        """(K, V)."""
        return {"symbols": ("K", "V")}


def normalised(counts: Tensor, old: Tensor) -> Tensor:
    """Rows that sum to 1; the old one where nothing was counted."""
    total = counts.sum(-1, keepdim=True)
    return torch.where(total > 0, counts / total.masked_fill(total == 0, 1.0), old)
