"""Logistic regression with an offset and a Gaussian prior around zero, by Newton's method."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray

_ITERATIONS = 30
_TOLERANCE = 1e-7
_EDGE = 1e-4  # no probability is nearer to 0 or 1


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """Return the probabilities of log odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * log_odds)))


def logit(probability: FloatArray) -> FloatArray:
    """Return the log odds of probabilities, which are kept away from 0 and 1."""
    inside = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def fit_logistic(design: FloatArray, observed: FloatArray, offset: FloatArray, precision: FloatArray) -> FloatArray:
    """Return the weights (P,) of rows (N, P), with log odds `offset` (N,) and `precision` (P,) of the prior.

    observed (N,) in [0, 1] may be fractions. Without rows the weights are 0.
    """
    weights = np.zeros(design.shape[1])
    if not len(design):
        return weights
    for _ in range(_ITERATIONS):
        expected = sigmoid(offset + design @ weights)
        slope = design.T @ (observed - expected) - precision * weights
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(curvature, slope)
        size = np.abs(step).max()
        weights = weights + step * min(1.0, 2.0 / max(size, 1e-12))
        if size < _TOLERANCE:
            break
    return weights
