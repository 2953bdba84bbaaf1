"""Requests on their way to a decision: what was computed of them so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, IntArray, Policy, QualityFloor, Request
from eccos_core.routing.lower_bound import counted_quality
from eccos_core.routing.planning import PlanGains


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBatch:
    """R requests with all that a decision needs: texts (R,), vectors (R, D), tokens (R,), forecast, costs, mask.

    quality (R, M): what the policy counts on, see `under`. It starts as the forecast.
    waiting_usd (M,): what the wait for each model counts in a decision. It is on no bill.
    gains: what plans add to single calls. None without plans.
    """

    requests: Sequence[Request]
    texts: Sequence[str]
    vectors: Float32Array
    input_tokens: FloatArray
    forecast: Forecast
    quality: FloatArray
    cost_usd: FloatArray
    eligible: BoolArray
    started: float
    waiting_usd: FloatArray
    gains: PlanGains | None = None

    @property
    def weighed_usd(self) -> FloatArray:
        """Return (R, M) what decisions weigh against quality: the cost of call or plan, and the wait."""
        return self.planned_usd + self.waiting_usd

    @property
    def planned_usd(self) -> FloatArray:
        """Return (R, M) the expected cost of a plan that starts with each model, or of one call without plans."""
        return self.cost_usd if self.gains is None else self.cost_usd + self.gains.cost_usd

    @property
    def good(self) -> BoolArray:
        """Return (R, M) who may answer what and reaches the quality that the request itself asks for."""
        if all(request.min_quality is None for request in self.requests):
            return self.eligible
        asked = np.array([request.min_quality or 0.0 for request in self.requests])
        return self.eligible & (self.quality >= asked[:, None])

    def under(self, policy: Policy) -> PreparedBatch:
        """Return the same requests with the quality that this policy counts on."""
        counted = counted_quality(self.forecast.quality, self.forecast.shared_error, policy)
        if self.gains is not None:
            counted = np.clip(counted + self.gains.quality, 0.0, 1.0)
        return replace(self, quality=counted)

    def with_gains(self, gains: PlanGains) -> PreparedBatch:
        """Return the same requests with plans in place of single calls. `under` keeps them."""
        return replace(self, gains=gains, quality=np.clip(self.quality + gains.quality, 0.0, 1.0))

    def row(self, i: int) -> PreparedBatch:
        """Return one of the requests alone."""
        one = slice(i, i + 1)
        return PreparedBatch(
            self.requests[one],
            self.texts[one],
            self.vectors[one],
            self.input_tokens[one],
            self.forecast.rows(one),
            self.quality[one],
            self.cost_usd[one],
            self.eligible[one],
            self.started,
            self.waiting_usd,
            None if self.gains is None else self.gains.rows(one),
        )

    def rows(self, index: IntArray) -> PreparedBatch:
        """Return the chosen requests. `index` is (K,) integers."""
        return PreparedBatch(
            [self.requests[i] for i in index],
            [self.texts[i] for i in index],
            self.vectors[index],
            self.input_tokens[index],
            self.forecast.rows(index),
            self.quality[index],
            self.cost_usd[index],
            self.eligible[index],
            self.started,
            self.waiting_usd,
            None if self.gains is None else self.gains.rows(index),
        )


def quality_asked(request: Request, policy: Policy) -> float | None:
    """Return the quality in [0, 1] that a request was decided for: the policy's floor or its own, the higher one.

    None where neither is set.
    """
    floors = [policy.alpha if isinstance(policy, QualityFloor) else None, request.min_quality]
    return max((floor for floor in floors if floor is not None), default=None)
