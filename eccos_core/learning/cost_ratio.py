"""Learn from bills how far the forecast cost of each model is off."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from eccos_core.domain import FloatArray

PRIOR_CALLS = 3.0  # calls that cost as forecast, which a model starts with
MAX_CALLS = 500.0  # calls after which older ones fade
LEAST = 1e-6  # a model that turns out to be free
MAX_OPEN = 10_000  # decisions that wait for their bill


class CostRatios:
    """The ratio of what calls of each model cost to what was forecast. Safe to use from several threads.

    Without recorded tokens a forecast can be wrong by a factor of 50. Ten answers tell. Nothing is kept on disk.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._sums: dict[str, tuple[float, float, float]] = {}  # calls, USD forecast, USD paid
        self._lock = threading.Lock()

    def of(self, models: Sequence[str]) -> FloatArray:
        """Return the ratio (M,) of each model. Without calls it is that of the pool, and 1 without any call."""
        with self._lock:
            pool = self._pool_ratio()
            return np.array([self._ratio(model, pool) for model in models])

    def expect(self, decision_id: str, model: str, cost_usd: float) -> None:
        """Note the cost of a decision as it was forecast, with the ratio in it."""
        with self._lock:
            self._open[decision_id] = (model, cost_usd / self._ratio(model, self._pool_ratio()))
            if len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)

    def observe(self, decision_id: str, model: str, paid_usd: float) -> None:
        """Take in what the call of a decision cost. The answer of another model than the decided one tells nothing."""
        with self._lock:
            decided, forecast_usd = self._open.pop(decision_id, (None, 0.0))
            if decided != model or not forecast_usd > 0 or not paid_usd >= 0:
                return
            calls, forecast, paid = self._sums.get(model, (0.0, 0.0, 0.0))
            keep = min(1.0, MAX_CALLS / (calls + 1))
            self._sums[model] = (keep * calls + 1, keep * forecast + forecast_usd, keep * paid + paid_usd)

    def _ratio(self, model: str, pool: float) -> float:
        """Return the ratio of one model, which starts from that of the pool."""
        calls, forecast, paid = self._sums.get(model, (0.0, 0.0, 0.0))
        if calls == 0:
            return pool
        prior = PRIOR_CALLS * forecast / calls
        return max((paid + pool * prior) / (forecast + prior), LEAST)

    def _pool_ratio(self) -> float:
        """Return the ratio of the pool, in which each call weighs the same. It starts from 1."""
        calls = sum(calls for calls, _, _ in self._sums.values())
        ratios = sum(calls * paid / forecast for calls, forecast, paid in self._sums.values())
        return max((ratios + PRIOR_CALLS) / (calls + PRIOR_CALLS), LEAST)
