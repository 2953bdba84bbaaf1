"""How long each model has recently taken to answer."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from eccos_core.domain import FloatArray

WINDOW_S = 600.0  # older answers are forgotten, so a model that was slow is tried again
MAX_ANSWERS = 100  # of each model that are remembered
HIGH_QUANTILE = 0.9


class LatencyTracker:
    """Remembers the latencies of the last 100 answers and 10 minutes of each model. Safe to use from several threads.

    A batch of answers that all failed leaves no trace here: the circuit breaker counts failures.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[str, deque[tuple[float, float]]] = {}
        self._lock = threading.Lock()

    def observe(self, model: str, latency_s: float) -> None:
        """Remember one answer."""
        if not 0 <= latency_s < float("inf"):
            return
        with self._lock:
            self._answers.setdefault(model, deque(maxlen=MAX_ANSWERS)).append((self._clock(), latency_s))

    def mean_s(self, models: Sequence[str]) -> FloatArray:
        """Return the mean latency (M,) of each model in seconds, NaN where nothing is remembered."""
        return np.array([np.mean(each) if (each := self._recent(model)) else np.nan for model in models])

    def high_s(self, models: Sequence[str]) -> FloatArray:
        """Return the 0.9 quantile (M,) of each model's latency in seconds, NaN where nothing is remembered."""
        recent = map(self._recent, models)
        return np.array([np.quantile(each, HIGH_QUANTILE) if each else np.nan for each in recent])

    def _recent(self, model: str) -> list[float]:
        with self._lock:
            answers, since = self._answers.get(model), self._clock() - WINDOW_S
            return [latency_s for at, latency_s in answers if at >= since] if answers else []
