"""Correct forecasts by what was seen since: the reward model of the doubly robust estimator.

Each request is corrected by the other requests only (cross-fitting in 5 folds, Chernozhukov et al. 2018), so its own
answer never tells on itself.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.off_policy.feedback import BanditFeedback

FOLDS = 5
PRIOR_CALLS = 10.0  # how many calls the forecast counts for


def calibrate_quality(feedback: BanditFeedback) -> FloatArray:
    """Return the forecast quality (R, M), shifted for each model by its mean error on labels."""
    known = ~np.isnan(feedback.quality)
    error = np.where(known, feedback.quality - feedback.forecast_quality[feedback.rows, feedback.action], 0.0)
    corrected = feedback.forecast_quality.copy()
    for own, others in _folds(feedback):
        total = _sum_by_model(feedback, error * (others & known))
        labels = _sum_by_model(feedback, others & known)
        corrected[own] += total / (labels + PRIOR_CALLS)
    return np.clip(corrected, 0.0, 1.0)


def calibrate_cost(feedback: BanditFeedback) -> FloatArray:
    """Return the forecast cost (R, M) in USD, times each model's ratio of paid to forecast cost.

    A model with few calls is drawn to the ratio of all calls.
    """
    forecast = feedback.forecast_cost_usd[feedback.rows, feedback.action]
    corrected = feedback.forecast_cost_usd.copy()
    for own, others in _folds(feedback):
        paid, expected = _sum_by_model(feedback, feedback.cost_usd * others), _sum_by_model(feedback, forecast * others)
        overall = paid.sum() / expected.sum() if expected.sum() > 0 else 1.0
        prior = PRIOR_CALLS * feedback.forecast_cost_usd.mean(axis=0)
        weight = expected + prior
        ratio = np.divide(paid + overall * prior, weight, out=np.full(len(weight), overall), where=weight > 0)
        corrected[own] *= ratio
    return corrected


def _folds(feedback: BanditFeedback) -> list[tuple[BoolArray, BoolArray]]:
    """Return (own rows, all other rows) of each fold, both (R,) bool. A lone request has no others."""
    fold = feedback.rows % FOLDS
    return [(fold == each, fold != each) for each in range(FOLDS)]


def _sum_by_model(feedback: BanditFeedback, values: FloatArray | BoolArray) -> FloatArray:
    return np.asarray(np.bincount(feedback.action, values, len(feedback.models)), dtype=np.float64)
