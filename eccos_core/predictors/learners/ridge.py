"""Fit a ridge regression whose penalty is cross-validated, from a single Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.io.optional import needs_extra

JITTER = 1e-6


def fit_ridge(
    features: Float32Array, values: Float32Array, fold: IntArray, penalties: Sequence[float], group: IntArray
) -> tuple[Float32Array, Float32Array]:
    """Return the weights (P, C) from all rows, and the held-out predictions (N, C), of values (N, C).

    features (N, P) and values must be centred, because there is no intercept. fold (N,): the fold of each row. A fold
    is predicted from the Gram matrix without its own rows, G - X_k' X_k. group (C,): the columns of one group share
    the penalty with the least held-out error. A penalty for each column would fit the noise of weak latent targets.
    """
    with needs_extra("local", "fitting a predictor"):
        from scipy.linalg import cho_factor, cho_solve

    gram = (features.T @ features).astype(np.float64)
    moments = (features.T @ values).astype(np.float64)
    eye = np.eye(len(gram))

    def solve(matrix: FloatArray, right: FloatArray, penalty: float) -> FloatArray:
        factor = cho_factor(matrix + (penalty + JITTER * np.trace(matrix) / len(matrix)) * eye, check_finite=False)
        return np.asarray(cho_solve(factor, right, check_finite=False))

    held_out = np.empty((len(penalties), *values.shape), dtype=np.float32)
    for k in range(int(fold.max()) + 1):
        own = fold == k
        mine = features[own]
        without, right = gram - mine.T @ mine, moments - mine.T @ values[own]
        for at, penalty in enumerate(penalties):
            held_out[at, own] = mine @ solve(without, right, penalty).astype(np.float32)
    error = ((held_out - values) ** 2).sum(axis=1, dtype=np.float64)  # (penalties, C)
    group_error = np.stack([error[:, group == g].sum(axis=1) for g in range(int(group.max()) + 1)], axis=1)
    best = group_error.argmin(axis=0)[group]
    weights = np.empty((features.shape[1], values.shape[1]), dtype=np.float32)
    for at in np.unique(best):
        weights[:, best == at] = solve(gram, moments[:, best == at], penalties[at])
    columns = np.arange(values.shape[1])
    return weights, np.ascontiguousarray(held_out[best, :, columns].T)
