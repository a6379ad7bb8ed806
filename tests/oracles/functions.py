"""Squashing functions, and what their derivatives are when written in terms of the output."""

import numpy as np


def logistic(a):
    """1 / (1 + exp(-a)), without overflow at either end."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def log_logistic(a):
    """log(1 / (1 + exp(-a))), which is about a where the logistic itself underflows."""
    return -np.logaddexp(0.0, -a)


def relu(a):
    return np.maximum(a, 0.0)


def identity(a):
    return a


def softmax(a):
    e = np.exp(a - np.max(a))
    return e / np.sum(e)


def logistic_back(y, dy):
    return dy * y * (1.0 - y)


def tanh_back(y, dy):
    return dy * (1.0 - y * y)


def relu_back(y, dy):
    """The slope at exactly 0 is taken as 0."""
    return np.where(y > 0.0, dy, 0.0)


def identity_back(y, dy):  # noqa: ARG001
    return dy


def softmax_back(y, dy):
    """dL/da_j = sum_k dy_k y_k (delta_kj - y_j)."""
    return y * (dy - np.sum(dy * y))


# name: (f, back); y = f(a), and back(y, dL/dy) = dL/da
ACTIVATIONS = {
    "tanh": (np.tanh, tanh_back),
    "relu": (relu, relu_back),
    "sigmoid": (logistic, logistic_back),
    "identity": (identity, identity_back),
}
OUTPUT_ACTIVATIONS = {
    "softmax": (softmax, softmax_back),
    "sigmoid": (logistic, logistic_back),
    "tanh": (np.tanh, tanh_back),
    "identity": (identity, identity_back),
}
