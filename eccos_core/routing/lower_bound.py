"""Lower the quality that a floor with a confidence counts on, by the error that questions of one task share."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from eccos_core.domain import FloatArray, Forecast, Policy, QualityFloor


def quality_at_confidence(forecast: Forecast, confidence: float) -> FloatArray:
    """Return the lower bound (R, M) of the mean quality of requests like these, at a confidence in (0, 1).

    Errors of single requests average out over a batch, so only the shared error counts. If the predictor does not know
    it, the whole standard error counts as shared. The bound is in [0, 1].
    """
    shared = forecast.quality_se if forecast.group_error is None else forecast.group_error
    return np.clip(forecast.quality - NormalDist().inv_cdf(confidence) * shared, 0.0, 1.0)


def counted_quality(forecast: Forecast, policy: Policy) -> FloatArray:
    """Return the quality (R, M) that a policy counts on: the forecast, or its lower bound for a confidence."""
    if isinstance(policy, QualityFloor) and policy.confidence is not None:
        return quality_at_confidence(forecast, policy.confidence)
    return forecast.quality
