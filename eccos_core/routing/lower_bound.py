"""Lower the quality that a floor with a confidence counts on, by the error that questions of one task share."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from eccos_core.domain import FloatArray, Policy, QualityFloor


def counted_quality(quality: FloatArray, shared_error: FloatArray, policy: Policy) -> FloatArray:
    """Return the quality (R, M) that a policy counts on: the forecast, or its lower bound for a confidence.

    Errors of single requests average out over a batch. So the bound of a mean takes off only the shared error, (R, M).
    It is in [0, 1].
    """
    if not isinstance(policy, QualityFloor) or policy.confidence is None:
        return quality
    return np.clip(quality - NormalDist().inv_cdf(policy.confidence) * shared_error, 0.0, 1.0)
