"""Requests on their way to a decision: what was computed of them so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, IntArray, Policy, Request
from eccos_core.routing.lower_bound import counted_quality


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBatch:
    """R requests with all that a decision needs: texts (R,), vectors (R, D), tokens (R,), forecast, costs, mask.

    quality (R, M): what the policy counts on, see `under`. It starts as the forecast.
    waiting_usd (M,): what the wait for each model counts in a decision. It is on no bill.
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

    @property
    def weighed_usd(self) -> FloatArray:
        """Return (R, M) what decisions weigh against quality: the cost, and the wait."""
        return self.cost_usd + self.waiting_usd

    @property
    def good(self) -> BoolArray:
        """Return (R, M) who may answer what and reaches the quality that the request itself asks for."""
        if all(request.min_quality is None for request in self.requests):
            return self.eligible
        asked = np.array([request.min_quality or 0.0 for request in self.requests])
        return self.eligible & (self.quality >= asked[:, None])

    def under(self, policy: Policy) -> PreparedBatch:
        """Return the same requests with the quality that this policy counts on."""
        return replace(self, quality=counted_quality(self.forecast.quality, self.forecast.shared_error, policy))

    def row(self, i: int) -> PreparedBatch:
        """Return one of the requests alone."""
        return self.rows(np.array([i]))

    def rows(self, index: IntArray) -> PreparedBatch:
        """Return some of the requests, in this order."""
        chosen = index.tolist()
        return PreparedBatch(
            [self.requests[row] for row in chosen],
            [self.texts[row] for row in chosen],
            self.vectors[index],
            self.input_tokens[index],
            self.forecast.rows(index),
            self.quality[index],
            self.cost_usd[index],
            self.eligible[index],
            self.started,
            self.waiting_usd,
        )
