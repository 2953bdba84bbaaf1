"""Missing outcomes: what a model would have done, from what the others did with the same question.

Outcomes of different models are correlated (0.1 to 0.6 on the data that we know): a question that is hard for one is
hard for all. Seen as a Gaussian vector with covariance S per question, the missing cells have the conditional mean
S_mo S_oo^-1 r_o (Little and Rubin, Statistical Analysis with Missing Data, ch. 11). No cell is filled for its own sake:
the filled matrix is what base learners fit, and where a model was never seen its column follows its prior.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.targets.prior import order_of_models

PAIR_WEIGHT = 30.0  # questions that the average correlation of the pool is worth, for one pair of models
LIKENESS = 0.9  # correlation assumed between a model without outcomes and the one that it is like
USUAL_CORRELATION = 0.35  # of two models' outcomes, where the pool is too small to tell
_UNSEEN = 1e6  # the noise of a cell that was not observed, in variances
_ROWS_AT_ONCE = 2048


def covariance(residuals: FloatArray, likes: Mapping[int, int]) -> FloatArray:
    """(M, M) covariance of residuals (N, M), NaN where missing, shrunk towards one common correlation.

    A pair seen together n times counts n against `PAIR_WEIGHT` of the pool's average. Positive definite.
    """
    known = ~np.isnan(residuals)
    filled = np.where(known, residuals, 0.0)
    counts = known.T.astype(np.float64) @ known
    diagonal = np.diag(counts)
    pooled = float((filled**2).sum() / max(known.sum(), 1)) or 1e-6
    variance = ((filled**2).sum(axis=0) + PAIR_WEIGHT * pooled) / (diagonal + PAIR_WEIGHT)
    for column in order_of_models(likes, len(variance)):
        if column in likes:
            variance[column] = ((filled[:, column] ** 2).sum() + PAIR_WEIGHT * variance[likes[column]]) / (
                diagonal[column] + PAIR_WEIGHT
            )
    scale = np.sqrt(np.maximum(variance, 1e-9))
    together = (filled.T @ filled) / np.outer(scale, scale)
    off = ~np.eye(len(scale), dtype=np.bool_)
    pairs = counts[off].sum()
    usual = float((together[off].sum() + PAIR_WEIGHT * USUAL_CORRELATION) / (pairs + PAIR_WEIGHT))
    assumed = np.full(together.shape, np.clip(usual, 0.0, 0.95))
    for column in order_of_models(likes, len(scale)):
        if column in likes:
            assumed[column] = assumed[:, column] = LIKENESS * assumed[likes[column]]
            assumed[column, likes[column]] = assumed[likes[column], column] = LIKENESS
    correlation = (together + PAIR_WEIGHT * assumed) / (counts + PAIR_WEIGHT)
    np.fill_diagonal(correlation, 1.0)
    return _positive(correlation) * np.outer(scale, scale)


def _positive(correlation: FloatArray) -> FloatArray:
    """The nearest correlation matrix by raising small eigenvalues."""
    values, vectors = np.linalg.eigh(correlation)
    raised = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    unit = np.sqrt(np.diag(raised))
    return np.asarray(raised / np.outer(unit, unit))


def conditional_expectation(residuals: FloatArray, covariance: FloatArray) -> FloatArray:
    """(N, M) each cell's conditional mean given the *other* known cells of its row, known or not itself."""
    known = ~np.isnan(residuals)
    result = np.empty(residuals.shape)
    for start in range(0, len(residuals), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        seen, values = known[rows], np.where(known[rows], residuals[rows], 0.0)
        noise = np.where(seen, 0.0, _UNSEEN * np.diag(covariance))
        precision = np.linalg.inv(covariance + noise[:, :, None] * np.eye(len(covariance)))
        weighted = np.einsum("nij,nj->ni", precision, values)
        itself = values - weighted / np.einsum("nii->ni", precision)
        result[rows] = np.where(seen, itself, (weighted * seen) @ covariance)
    return result


def impute(residuals: FloatArray, covariance: FloatArray) -> FloatArray:
    """residuals (N, M) with every missing cell at its conditional mean."""
    if not np.isnan(residuals).any():
        return residuals
    return np.where(np.isnan(residuals), conditional_expectation(residuals, covariance), residuals)
