"""Logistic regression with a Gaussian prior, by numpy alone."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray

MAX_ITERATIONS = 200
TOLERANCE = 1e-3  # the largest change of a weight that counts as none


def sigmoid(log_odds: FloatArray | Float32Array) -> FloatArray:
    """Return the probabilities of log odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)))


def fit_logistic(
    features: Float32Array,
    observed: FloatArray,
    used: BoolArray,
    precision: FloatArray,
    prior: FloatArray,
    start: FloatArray | None = None,
) -> FloatArray:
    """Fit K regressions at once, each on the rows (N, K) that it may use. Returns their weights (P, K).

    features (N, P), observed (N,) in [0, 1], which may be fractions. precision (P,) and prior (P,) are those of the
    Gaussian prior and its mean. start (P, K): where to begin, instead of the prior.

    Each step uses the bound X'X / 4 on the curvature, that of all rows. So one matrix is inverted once, and every step
    improves the posterior (Boehning and Lindsay 1988).
    """
    curvature = (features.T @ features).astype(np.float64) / 4 + np.diag(precision)
    inverse = np.linalg.inv(curvature)
    weights = np.repeat(prior[:, None], used.shape[1], axis=1) if start is None else start
    for _ in range(MAX_ITERATIONS):
        expected = sigmoid(features @ weights.astype(np.float32))
        residual = np.where(used, observed[:, None] - expected, 0).astype(np.float32)
        step = inverse @ (features.T @ residual - precision[:, None] * (weights - prior[:, None]))
        weights = weights + step
        if np.abs(step).max() < TOLERANCE:
            break
    return weights
