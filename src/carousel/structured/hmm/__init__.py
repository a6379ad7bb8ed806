"""Hidden Markov models."""

from carousel.structured.hmm.emissions import Categorical, Emissions, Multinomial
from carousel.structured.hmm.gaussian import Gaussian, GaussianMixture
from carousel.structured.hmm.model import HMM

__all__ = ["HMM", "Categorical", "Emissions", "Gaussian", "GaussianMixture", "Multinomial"]
