"""What waiting counts in a decision: a price for each second, and a limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, Request
from eccos_core.errors import Exclusion, ExclusionKind, NoEligibleModelError
from eccos_core.routing.parts import Parts


def waiting_usd(parts: Parts) -> FloatArray:
    """Return (M,) what the wait for each model counts, in USD.

    A model without recent answers counts as the mean of the others.
    """
    rule = parts.latency_rule
    if rule.usd_per_second == 0:
        return np.zeros(len(parts.names))
    mean_s = parts.latency.mean_s(parts.names)
    known = ~np.isnan(mean_s)
    usual_s = mean_s[known].mean() if known.any() else 0.0
    return rule.usd_per_second * np.where(known, mean_s, usual_s)


def leave_out_slow_models(parts: Parts, requests: Sequence[Request], mask: BoolArray) -> BoolArray:
    """Return the mask (R, M) without models over the limit. A model without recent answers stays.

    Raises `NoEligibleModelError` for a request that has no model left.
    """
    limit_s = parts.latency_rule.max_latency_s
    if limit_s is None:
        return mask
    high_s = parts.latency.high_s(parts.names)
    kept: BoolArray = mask & ~(high_s > limit_s)
    for row in np.flatnonzero(~kept.any(axis=1)).tolist():
        too_slow = {
            name: _too_slow(high, limit_s)
            for name, high, allowed in zip(parts.names, high_s, mask[row], strict=True)
            if allowed
        }
        raise NoEligibleModelError(requests[row].id, too_slow)
    return kept


def _too_slow(high_s: float, limit_s: float) -> Exclusion:
    said = f"one in ten of its recent answers took over {high_s:.1f} s, and max_latency_s is {limit_s:g}"
    return Exclusion(ExclusionKind.LATENCY, said)
