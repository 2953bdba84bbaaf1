"""Requests on their way to a decision: what was computed of them so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eccos_core.domain import BoolArray, Float32Array, FloatArray, Forecast, Policy, Request
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

    def under(self, policy: Policy) -> PreparedBatch:
        """Return the same requests with the quality that this policy counts on."""
        return replace(self, quality=counted_quality(self.forecast.quality, self.forecast.shared_error, policy))

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
        )
