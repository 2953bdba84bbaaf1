"""Keep account of a floor: the least quality of the next answer that keeps it, and how much of the allowance is used.

Take n answers of total quality Q, whose best open models would have reached B, and a next request, whose best model
reaches b. The promise for these n + 1 requests allows A units of quality, and asks the next answer for

    q >= min((n + 1) floor, B + b) - A - Q

In words: the mean is at most A / (n + 1) below the floor, or below the best attainable mean where that is less. The
best model meets it wherever the promise held before and the best model reaches the floor. So steering has to keep
enough in hand for harder requests. `insured_account` keeps it whatever comes.

For `promise="mean"` the n answers are those of the horizon, and A is the tolerance times n, or times 1,000 while n is
less. For `promise="window"` they are the last W - 1 answers, and A is the tolerance times W. A tenth of A is left
unused, because a few requests may have no model that reaches the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.streaming.targets import FloorTarget

START_REQUESTS = 1_000  # of a horizon, before its running mean is promised
USABLE = 0.9  # share of the allowance; the rest is for requests whose best model is below the floor
_ROUNDING = 1e-9  # of mean quality: error of floating-point sums
REPORT_FROM = 0.1  # share of a window, or of a horizon's start, before which an unattainable floor is not reported


@dataclass(frozen=True, slots=True)
class RequiredQuality:
    """The least quality of the next answer that keeps the promise, at most that of the best model.

    slack: the share of the allowance that is left if the best model answers. Above 1 while the mean is over the floor,
    negative if the promise is broken.
    """

    quality: float
    slack: float


class QualityAccount(Protocol):
    """Tracks the predicted quality of a stream's answers, and that of the best open models."""

    target: FloorTarget

    @property
    def count(self) -> int:
        """Answers of the run."""
        ...

    @property
    def running_mean(self) -> float:
        """Mean predicted quality of the run."""
        ...

    def assume(self, best_quality: FloatArray | None) -> None:
        """Judge by this history from now on how hard requests can be. best_quality (N,): of the best models."""
        ...

    def need(self, best: float, now_s: float = 0.0) -> RequiredQuality:
        """Return what the next answer must reach. best: the quality of the best open model."""
        ...

    def add(self, quality: float, best: float) -> None:
        """Enter an answer of predicted `quality`. best: the quality of the best open model."""
        ...

    def remove(self, quality: float, best: float) -> None:
        """Take out the newest answer, which is never given. quality, best: as they were entered."""
        ...

    def unmet(self) -> str:
        """Return why the promise does not hold now, or an empty string."""
        ...


class HorizonAccount:
    """Track the running mean of a horizon, in O(1)."""

    def __init__(self, target: FloorTarget, now_s: float = 0.0) -> None:
        self.target = target
        self.count = 0
        self._total = 0.0  # quality of the run
        self._requests, self._seconds = math.inf, math.inf  # of a horizon, whichever the target says
        if isinstance(target.horizon, timedelta):
            self._seconds = target.horizon.total_seconds()
        else:
            self._requests = target.horizon
        self._start_requests = min(START_REQUESTS, self._requests // 2)
        self._start(now_s)

    def _start(self, now_s: float) -> None:
        """Begin a horizon."""
        self._since_s = now_s
        self._answers = 0
        self._chosen = self._best = 0.0

    @property
    def running_mean(self) -> float:
        """See `QualityAccount`."""
        return self._total / max(self.count, 1)

    def assume(self, best_quality: FloatArray | None) -> None:
        """Do nothing: this promise does not depend on a history."""

    def need(self, best: float, now_s: float = 0.0) -> RequiredQuality:
        """See `QualityAccount`. now_s: monotonic seconds, which end a horizon in time."""
        if self._answers >= self._requests or now_s - self._since_s >= self._seconds:
            self._start(now_s)
        allowed = self.target.tolerance * max(self._answers + 1, self._start_requests)
        return _require(self.target.alpha, self._answers, self._chosen, self._best, best, allowed)

    def add(self, quality: float, best: float) -> None:
        """See `QualityAccount`."""
        self.count += 1
        self._answers += 1
        self._total += quality
        self._chosen += quality
        self._best += best

    def remove(self, quality: float, best: float) -> None:
        """See `QualityAccount`."""
        self.count -= 1
        self._answers -= 1
        self._total -= quality
        self._chosen -= quality
        self._best -= best

    def unmet(self) -> str:
        """See `QualityAccount`."""
        if self._answers < REPORT_FROM * self._start_requests:
            return ""
        missed_from = self._start_requests
        return describe_miss(
            self.target, f"the first {self._answers}", self._answers, self._chosen, self._best, missed_from
        )


class WindowAccount:
    """Track the last window, and the run. `add` and `need` are O(1)."""

    def __init__(self, target: FloorTarget) -> None:
        self.target = target
        window = target.window
        # Cumulative sums since an origin: chosen quality, and lost quality (best less chosen). Moved back when full.
        self._chosen, self._lost = np.zeros(4 * window), np.zeros(4 * window)
        self._at = 0
        self._before_chosen = self._before_lost = 0.0  # totals of the run before the origin
        self.count = 0

    @property
    def running_mean(self) -> float:
        """See `QualityAccount`."""
        return (self._before_chosen + float(self._chosen[self._at])) / max(self.count, 1)

    def assume(self, best_quality: FloatArray | None) -> None:
        """Do nothing: this promise does not depend on a history."""

    def need(self, best: float, now_s: float = 0.0) -> RequiredQuality:
        """See `QualityAccount`."""
        target = self.target
        length = min(self.count, target.window - 1)
        chosen = self._last(self._chosen, length)
        allowed = target.window * target.tolerance
        return _require(target.alpha, length, chosen, chosen + self._last(self._lost, length), best, allowed)

    def add(self, quality: float, best: float) -> None:
        """See `QualityAccount`."""
        if self._at + 1 == len(self._chosen):
            self._move_back()
        now, self._at = self._at, self._at + 1
        self._chosen[now + 1] = self._chosen[now] + quality
        self._lost[now + 1] = self._lost[now] + (best - quality)
        self.count += 1

    def remove(self, quality: float, best: float) -> None:
        """See `QualityAccount`. If others were entered since, one of theirs moves to its place: no sum changes."""
        now, self._at = self._at, self._at - 1
        self._chosen[self._at] = self._chosen[now] - quality
        self._lost[self._at] = self._lost[now] - (best - quality)
        self.count -= 1

    def _move_back(self) -> None:
        """Keep only the last window, counted from its start. This frees space, and sums stay small and exact."""
        window = self.target.window
        origin = self._at - window
        self._before_chosen += float(self._chosen[origin])
        self._before_lost += float(self._lost[origin])
        for totals in (self._chosen, self._lost):
            totals[: window + 1] = totals[origin : self._at + 1] - totals[origin]
        self._at = window

    def unmet(self) -> str:
        """See `QualityAccount`."""
        window = self.target.window
        if self.count < REPORT_FROM * window:
            return ""
        length = min(self.count, window)
        chosen = self._last(self._chosen, length)
        best = chosen + self._last(self._lost, length)
        return describe_miss(self.target, f"the last {length}", length, chosen, best, window)

    def _last(self, totals: FloatArray, length: int) -> float:
        return float(totals[self._at] - totals[self._at - length])


def _require(
    floor: float, answers: int, chosen: float, best_total: float, best: float, allowed: float
) -> RequiredQuality:
    """Return the least quality of the next answer, by the formula of this module."""
    allowed *= USABLE
    needed = min((answers + 1) * floor, best_total + best) - allowed - chosen
    return RequiredQuality(min(needed, best), (best - needed) / allowed)


def describe_miss(
    target: FloorTarget, which: str, requests: int, chosen: float, best: float, missed_from: float
) -> str:
    """Say that these requests could not reach the floor, or did not. An empty string if all is well."""
    reached, attainable = chosen / requests, best / requests
    means = f"over {which} requests the best open models average {attainable:.4f}, and {reached:.4f} was reached"
    if attainable < target.alpha - _ROUNDING:
        return f"the floor {target.alpha:.4g} is not attainable: {means}"
    if requests >= missed_from and reached < target.alpha - target.tolerance - _ROUNDING:
        return f"the floor {target.alpha:.4g} was missed: {means}"
    return ""
