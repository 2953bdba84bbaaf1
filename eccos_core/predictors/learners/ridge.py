"""Ridge regression with the strength chosen per latent target on held-out folds, at the price of one Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.io.optional import needs_extra

JITTER = 1e-6


def ridge_held_out(
    features: Float32Array, values: Float32Array, fold: IntArray, strengths: Sequence[float], group: IntArray
) -> tuple[Float32Array, Float32Array]:
    """(weights (P, C) from all rows, held-out predictions (N, C)) of values (N, C) from features (N, P).

    No intercept: both sides are centred. Fold k is predicted with the Gram matrix of all rows minus its own
    (G - X_k' X_k). group (C,): columns of one group share the strength that predicts them best held out, together;
    one each would follow the noise of every weak latent target.
    """
    with needs_extra("local", "fitting a predictor"):
        from scipy.linalg import cho_factor, cho_solve

    gram = (features.T @ features).astype(np.float64)
    moments = (features.T @ values).astype(np.float64)
    eye = np.eye(len(gram))

    def solve(matrix: FloatArray, right: FloatArray, strength: float) -> FloatArray:
        factor = cho_factor(matrix + (strength + JITTER * np.trace(matrix) / len(matrix)) * eye, check_finite=False)
        return np.asarray(cho_solve(factor, right, check_finite=False))

    held_out = np.empty((len(strengths), *values.shape), dtype=np.float32)
    for k in range(int(fold.max()) + 1):
        own = fold == k
        mine = features[own]
        without, right = gram - mine.T @ mine, moments - mine.T @ values[own]
        for at, strength in enumerate(strengths):
            held_out[at, own] = mine @ solve(without, right, strength).astype(np.float32)
    lost = ((held_out - values) ** 2).sum(axis=1, dtype=np.float64)  # (strengths, C)
    together = np.stack([lost[:, group == g].sum(axis=1) for g in range(int(group.max()) + 1)], axis=1)
    best = together.argmin(axis=0)[group]
    weights = np.empty((features.shape[1], values.shape[1]), dtype=np.float32)
    for at in np.unique(best):
        weights[:, best == at] = solve(gram, moments[:, best == at], strengths[at])
    columns = np.arange(values.shape[1])
    return weights, np.ascontiguousarray(held_out[best, :, columns].T)
