"""Learning where every state is told: by counting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from carousel.structured.hmm.emissions import Emissions, Parameters, normalised
from carousel.structured.hmm.gaussian import GaussianMixture
from carousel.structured.hmm.sequences import Joined

__all__ = ["counted"]


def counted(
    data: Joined,
    observations: Tensor,
    states: Tensor,
    emissions: Emissions,
    num_states: int,
    smoothing: float,
    turns: int,
    seed: int,
) -> tuple[Tensor, Tensor, Parameters]:
    """The parameters that make observations and states most probable.

    Args:
        data: the sequences' lengths.
        observations: of all steps.
        states: (N,), int64.
        emissions: their kind.
        num_states: K.
        smoothing: what is added to each count.
        turns: of a mixture's own EM: components are not told.
        seed: of what a mixture starts from.

    Returns:
        Those of starting, (K,), of transitions, (K, K), and of emissions. A state that is never seen is followed by all alike.
    """
    K = num_states
    firsts = torch.from_numpy((np.cumsum(data.lengths) - data.lengths)[data.lengths > 0])
    follows = torch.ones(len(states), dtype=torch.bool)
    follows[firsts] = False
    pairs = (states[:-1] * K + states[1:])[follows[1:]]
    even = torch.full((K, K), 1.0 / K, dtype=torch.float64)
    start = normalised(torch.bincount(states[firsts], minlength=K).double() + smoothing, even[0])
    transition = normalised(torch.bincount(pairs, minlength=K * K).view(K, K).double() + smoothing, even)
    shares = torch.nn.functional.one_hot(states, K).double()
    found = emissions.begin(observations, K, np.random.default_rng(seed))
    for _ in range(turns if isinstance(emissions, GaussianMixture) else 1):
        found = emissions.update(found, observations, shares, smoothing)
    return start, transition, found
