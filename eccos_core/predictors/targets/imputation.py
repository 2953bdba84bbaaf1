"""Impute a model's missing outcomes from the other models' outcomes on the same question.

Outcomes of different models are correlated, by 0.1 to 0.6 on our data, because a question that is hard for one model is
hard for all. A question's outcomes are treated as a Gaussian vector with covariance S. The missing ones have the
conditional mean S_mo S_oo^-1 r_o (Little and Rubin, Statistical Analysis with Missing Data, ch. 11).

Learners fit the imputed matrix. The column of a model without outcomes follows its prior.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.targets.prior import dependency_order

PRIOR_ROWS = 30.0  # pseudo-questions that shrink a pair's correlation towards the pool's average
ASSUMED_LIKE_CORRELATION = 0.9  # of a model with the one that it is assumed to be like
DEFAULT_CORRELATION = 0.35  # of two models, while the pool has few outcomes
_MISSING_NOISE = 1e6  # noise variance of a missing outcome, in units of its variance
_BLOCK_ROWS = 2048


def covariance(residuals: FloatArray, similar: Mapping[int, int]) -> FloatArray:
    """Return the covariance (M, M) of residuals (N, M), NaN where missing, shrunk towards one common correlation.

    similar: as `similar_columns` returns it. The result is positive definite.
    """
    known = ~np.isnan(residuals)
    filled = np.where(known, residuals, 0.0)
    counts = known.T.astype(np.float64) @ known
    diagonal = np.diag(counts)
    pooled = float((filled**2).sum() / max(known.sum(), 1)) or 1e-6
    variance = ((filled**2).sum(axis=0) + PRIOR_ROWS * pooled) / (diagonal + PRIOR_ROWS)
    for column in dependency_order(similar, len(variance)):
        if column in similar:
            variance[column] = ((filled[:, column] ** 2).sum() + PRIOR_ROWS * variance[similar[column]]) / (
                diagonal[column] + PRIOR_ROWS
            )
    scale = np.sqrt(np.maximum(variance, 1e-9))
    products = (filled.T @ filled) / np.outer(scale, scale)
    off = ~np.eye(len(scale), dtype=np.bool_)
    pooled_correlation = float(
        (products[off].sum() + PRIOR_ROWS * DEFAULT_CORRELATION) / (counts[off].sum() + PRIOR_ROWS)
    )
    assumed = np.full(products.shape, np.clip(pooled_correlation, 0.0, 0.95))
    for column in dependency_order(similar, len(scale)):
        if column in similar:
            other = similar[column]
            assumed[column] = assumed[:, column] = ASSUMED_LIKE_CORRELATION * assumed[other]
            assumed[column, other] = assumed[other, column] = ASSUMED_LIKE_CORRELATION
    correlation = (products + PRIOR_ROWS * assumed) / (counts + PRIOR_ROWS)
    np.fill_diagonal(correlation, 1.0)
    return _make_positive_definite(correlation) * np.outer(scale, scale)


def _make_positive_definite(correlation: FloatArray) -> FloatArray:
    """Raise small eigenvalues, and scale the diagonal back to one."""
    values, vectors = np.linalg.eigh(correlation)
    raised = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    unit = np.sqrt(np.diag(raised))
    return np.asarray(raised / np.outer(unit, unit))


def conditional_expectation(residuals: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the mean (N, M) of each outcome, conditional on the other known outcomes of its row.

    residuals (N, M): NaN where missing. A known outcome is not conditional on itself.
    """
    known = ~np.isnan(residuals)
    result = np.empty(residuals.shape)
    for start in range(0, len(residuals), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        seen, values = known[rows], np.where(known[rows], residuals[rows], 0.0)
        noise = np.where(seen, 0.0, _MISSING_NOISE * np.diag(covariance))
        precision = np.linalg.inv(covariance + noise[:, :, None] * np.eye(len(covariance)))
        weighted = np.einsum("nij,nj->ni", precision, values)
        left_out = values - weighted / np.einsum("nii->ni", precision)
        result[rows] = np.where(seen, left_out, (weighted * seen) @ covariance)
    return result


def impute(residuals: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return residuals (N, M) with every missing one at its conditional mean."""
    if not np.isnan(residuals).any():
        return residuals
    return np.where(np.isnan(residuals), conditional_expectation(residuals, covariance), residuals)
