"""A hidden Markov model in NumPy, float64, loops over t and states: the forward and backward passes and one iteration of EM.

Rabiner (1989), "A Tutorial on Hidden Markov Models", sections III and V, with scaling.
"""

import numpy as np


def forward_backward(start, transition, likelihoods):
    """Posteriors (T, K), expected transitions (K, K) and the log-likelihood of one sequence; likelihoods (T, K)."""
    T, K = likelihoods.shape
    alpha, scale = np.zeros((T, K)), np.zeros(T)
    for t in range(T):
        for j in range(K):
            before = start[j] if t == 0 else sum(alpha[t - 1, i] * transition[i, j] for i in range(K))
            alpha[t, j] = before * likelihoods[t, j]
        scale[t] = alpha[t].sum()
        alpha[t] /= scale[t]
    beta = np.ones((T, K))
    pairs = np.zeros((K, K))
    for t in range(T - 2, -1, -1):
        for i in range(K):
            beta[t, i] = sum(transition[i, j] * likelihoods[t + 1, j] * beta[t + 1, j] for j in range(K)) / scale[t + 1]
    for t in range(T - 1):
        for i in range(K):
            for j in range(K):
                pairs[i, j] += alpha[t, i] * transition[i, j] * likelihoods[t + 1, j] * beta[t + 1, j] / scale[t + 1]
    return alpha * beta, pairs, np.log(scale).sum()


def categorical_em(start, transition, symbols, sequences):
    """One iteration: new parameters, and the log-likelihood under the old ones."""
    starts, pairs, counts, total = np.zeros_like(start), np.zeros_like(transition), np.zeros_like(symbols), 0.0
    for x in sequences:
        posteriors, moves, log_likelihood = forward_backward(start, transition, symbols[:, x].T)
        starts += posteriors[0]
        pairs += moves
        total += log_likelihood
        for t, v in enumerate(x):
            counts[:, v] += posteriors[t]
    return starts / starts.sum(), pairs / pairs.sum(1, keepdims=True), counts / counts.sum(1, keepdims=True), total


def normal_density(x, means, covariances):
    """(T, K): densities of (T, F) under each state's normal distribution; covariances (K, F, F)."""
    T, F = x.shape
    found = np.zeros((T, len(means)))
    for t in range(T):
        for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            d = x[t] - mean
            power = -0.5 * d @ np.linalg.inv(covariance) @ d
            found[t, k] = np.exp(power) / np.sqrt((2 * np.pi) ** F * np.linalg.det(covariance))
    return found
