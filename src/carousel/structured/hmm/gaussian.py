"""Hidden states that give off vectors: normal distributions and mixtures of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from carousel.errors import ConfigError, DataError, explain, unknown_name
from carousel.structured.hmm.emissions import Parameters, normalised

__all__ = ["Covariance", "Gaussian", "GaussianMixture"]

Covariance = Literal["diag", "full"]
_COVARIANCES = ("diag", "full")
_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Gaussian:
    """A vector each step, of a normal distribution for each state.

    Args:
        covariance: ``diag``, each feature by itself, or ``full``.
        min_variance: the least variance in any direction: a state cannot collapse upon a point. EM's steps are still those that
            make the expected likelihood largest, among what is allowed.
    """

    covariance: Covariance = "diag"
    min_variance: float = 1e-3

    def __post_init__(self) -> None:
        _check("Gaussian", self.covariance, self.min_variance)

    @property
    def kind(self) -> str:
        """``gaussian``."""
        return "gaussian"

    def check(self, observations: np.ndarray, parameters: Parameters | None) -> Tensor:
        """(N, F), float64."""
        return _vectors(observations, None if parameters is None else parameters["means"].shape[-1])

    def begin(self, observations: Tensor, num_states: int, generator: np.random.Generator) -> Parameters:
        """Means at observations far from each other, and everyone's variance."""
        means = far_points(observations, num_states, generator)
        return {"means": means, "covariances": _all_of(observations, (num_states,), self.covariance, self.min_variance)}

    def log_prob(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """(N, K)."""
        return log_normal(observations, parameters["means"], parameters["covariances"])

    def update(self, parameters: Parameters, observations: Tensor, posteriors: Tensor, smoothing: float) -> Parameters:
        """Weighted means and covariances; smoothing is for counts."""
        means, covariances = moments(
            observations, posteriors, parameters["means"], parameters["covariances"], self.min_variance
        )
        return {"means": means, "covariances": covariances}

    def log_prior(self, parameters: Parameters, smoothing: float) -> float:
        """0."""
        return 0.0

    def draw(self, parameters: Parameters, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A vector of each state."""
        return _draw(parameters["means"].numpy()[states], parameters["covariances"].numpy()[states], generator)

    def free(self, parameters: Parameters) -> int:
        """Means and variances."""
        return parameters["means"].numel() + _free(parameters["covariances"])

    def shapes(self, parameters: Parameters) -> dict[str, tuple[int | str, ...]]:
        """Means (K, F); covariances (K, F) or (K, F, F)."""
        return {"means": ("K", "F"), "covariances": ("K", "F", "F") if self.covariance == "full" else ("K", "F")}


@dataclass(frozen=True)
class GaussianMixture:
    """A vector each step, of a mixture of M normal distributions for each state.

    Args:
        components: M.
        covariance: ``diag``, each feature by itself, or ``full``.
        min_variance: the least variance in any direction.
    """

    components: int = 2
    covariance: Covariance = "diag"
    min_variance: float = 1e-3

    def __post_init__(self) -> None:
        _check("GaussianMixture", self.covariance, self.min_variance)
        if self.components < 1:
            raise ConfigError(explain("GaussianMixture: there must be a component.", got=f"components={self.components}"))

    @property
    def kind(self) -> str:
        """``mixture``."""
        return "mixture"

    def check(self, observations: np.ndarray, parameters: Parameters | None) -> Tensor:
        """(N, F), float64."""
        return _vectors(observations, None if parameters is None else parameters["means"].shape[-1])

    def begin(self, observations: Tensor, num_states: int, generator: np.random.Generator) -> Parameters:
        """Each state at a point far from the others', its components around it."""
        centres = far_points(observations, num_states, generator)
        spread = observations.std(0, correction=0) if len(observations) else centres.new_ones(centres.shape[1])
        noise = torch.from_numpy(generator.standard_normal((num_states, self.components, centres.shape[1])))
        shape = (num_states, self.components)
        return {
            "weights": centres.new_full(shape, 1.0 / self.components),
            "means": centres[:, None] + 0.3 * spread * noise,
            "covariances": _all_of(observations, shape, self.covariance, self.min_variance),
        }

    def _parts(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """(N, K, M): each component's share of the density, its logarithm."""
        K, M = parameters["weights"].shape
        logs = log_normal(observations, parameters["means"].flatten(0, 1), parameters["covariances"].flatten(0, 1))
        return logs.view(-1, K, M) + parameters["weights"].log()

    def log_prob(self, parameters: Parameters, observations: Tensor) -> Tensor:
        """(N, K)."""
        return self._parts(parameters, observations).logsumexp(-1)

    def update(self, parameters: Parameters, observations: Tensor, posteriors: Tensor, smoothing: float) -> Parameters:
        """Weighted by the component's chance as well."""
        shares = posteriors[..., None] * self._parts(parameters, observations).softmax(-1)
        K, M = parameters["weights"].shape
        means, covariances = moments(
            observations,
            shares.flatten(1),
            parameters["means"].flatten(0, 1),
            parameters["covariances"].flatten(0, 1),
            self.min_variance,
        )
        weights = normalised(shares.sum(0) + smoothing, parameters["weights"])
        return {
            "weights": weights,
            "means": means.view(K, M, *means.shape[1:]),
            "covariances": covariances.view(K, M, *covariances.shape[1:]),
        }

    def log_prior(self, parameters: Parameters, smoothing: float) -> float:
        """Dirichlet's, of the components' weights."""
        return float(smoothing * parameters["weights"].log().sum()) if smoothing else 0.0

    def draw(self, parameters: Parameters, states: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A vector of each state."""
        running = parameters["weights"].numpy().cumsum(1)
        which = (running[states] < generator.random(len(states))[:, None] * running[states, -1:]).sum(1)
        return _draw(parameters["means"].numpy()[states, which], parameters["covariances"].numpy()[states, which], generator)

    def free(self, parameters: Parameters) -> int:
        """Weights, means and variances."""
        states, components = parameters["weights"].shape
        return states * (components - 1) + parameters["means"].numel() + _free(parameters["covariances"].flatten(0, 1))

    def shapes(self, parameters: Parameters) -> dict[str, tuple[int | str, ...]]:
        """Weights (K, M), means (K, M, F), covariances (K, M, F) or (K, M, F, F)."""
        covariances = ("K", "M", "F", "F") if self.covariance == "full" else ("K", "M", "F")
        return {"weights": ("K", "M"), "means": ("K", "M", "F"), "covariances": covariances}


# --- normal distributions ---------------------------------------------------------------------------------------------


def log_normal(observations: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    """(N, K): the log density of each observation (N, F) under each of K normal distributions."""
    F = means.shape[1]
    columns = []
    for mean, covariance in zip(means, covariances, strict=True):
        apart = observations - mean
        if covariance.dim() == 1:
            squares, volume = (apart.square() / covariance).sum(1), covariance.log().sum()
        else:
            root = torch.linalg.cholesky(covariance)
            squares = torch.linalg.solve_triangular(root, apart.mT, upper=False).square().sum(0)
            volume = 2 * root.diagonal().log().sum()
        columns.append(-0.5 * (squares + volume + F * _LOG_2PI))
    return torch.stack(columns, 1)


def moments(observations: Tensor, shares: Tensor, means: Tensor, covariances: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Weighted means and covariances, no direction's variance below `least`; the old ones where there is no weight.

    Of all covariances whose eigenvalues are not below `least`, the one that makes the likelihood largest is the empirical one
    with its small eigenvalues raised.
    """
    new_means, new_covariances = means.clone(), covariances.clone()
    for k, share in enumerate(shares.unbind(1)):
        total = share.sum()
        if not total > 0:
            continue
        mean = share @ observations / total
        apart = observations - mean
        if covariances.dim() == 2:
            variance = (share @ apart.square() / total).clamp(min=least)
        else:
            values, vectors = torch.linalg.eigh((apart * share[:, None]).mT @ apart / total)
            variance = vectors * values.clamp(min=least) @ vectors.mT
        new_means[k], new_covariances[k] = mean, variance
    return new_means, new_covariances


def far_points(observations: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """Observations far from each other, as k-means++ picks them."""
    N, F = observations.shape
    if N == 0:
        return observations.new_zeros(count, F)
    points = [observations[int(generator.integers(N))]]
    distance = (observations - points[0]).square().sum(1)
    while len(points) < count:
        total = float(distance.sum())
        at = int(generator.choice(N, p=(distance / total).numpy())) if total > 0 else int(generator.integers(N))
        points.append(observations[at])
        distance = torch.minimum(distance, (observations - points[-1]).square().sum(1))
    return torch.stack(points)


def _all_of(observations: Tensor, shape: tuple[int, ...], covariance: str, least: float) -> Tensor:
    """The variance of all observations, for each of many."""
    F = observations.shape[1]
    variance = observations.var(0, correction=0) if len(observations) else observations.new_ones(F)
    variance = variance.clamp(min=least)
    return (
        (variance if covariance == "diag" else variance.diag())
        .expand(*shape, *([F] if covariance == "diag" else [F, F]))
        .clone()
    )


def _draw(means: np.ndarray, covariances: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(means.shape)
    if covariances.ndim == means.ndim:
        noise = np.sqrt(covariances) * noise
    else:
        noise = np.einsum("nfg,ng->nf", np.linalg.cholesky(covariances), noise)
    drawn: np.ndarray = means + noise
    return drawn


def _free(covariances: Tensor) -> int:
    if covariances.dim() == 2:
        return covariances.numel()
    K, F, _ = covariances.shape
    return K * F * (F + 1) // 2


def _vectors(observations: np.ndarray, size: int | None) -> Tensor:
    if observations.ndim == 1 and size in (None, 1):
        observations = observations[:, None]
    if observations.ndim != 2 or observations.dtype.kind not in "iuf" or (size is not None and observations.shape[1] != size):
        expected = f"numbers (N, {size})" if size is not None else "numbers (N, F)"
        raise DataError(explain("HMM: vectors.", got=f"{observations.dtype} {observations.shape}", expected=expected))
    if not np.isfinite(observations).all():
        at = int(np.flatnonzero(~np.isfinite(observations).all(1))[0])
        raise DataError(explain(f"HMM: step {at} has a number that is not finite.", advice="leave it out, or fill it in"))
    return torch.from_numpy(observations.astype(np.float64))


def _check(who: str, covariance: str, least: float) -> None:
    if covariance not in _COVARIANCES:
        raise ConfigError(f"{who}: " + unknown_name("covariance", covariance, _COVARIANCES))
    if not least > 0:
        raise ConfigError(explain(f"{who}: the least variance must be positive.", got=f"min_variance={least}"))
