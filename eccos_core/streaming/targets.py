"""Define what a stream promises, and keep account of a budget rate.

Steering the price keeps a promise on average. An account keeps it for every request. `SpendingAccount` returns the most
that the next answer may cost, in O(1). `QualityAccount` does the same for a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from eccos_core.errors import InputError

SECONDS = {"hour": 3600.0, "day": 86400.0}
INITIAL_CREDIT = 0.01  # of one period's money, so that a stream can start


@dataclass(frozen=True, slots=True)
class FloorTarget:
    """Keep the mean predicted quality at `alpha`, less at most `tolerance`, over the run and every `window` requests.

    floor_insurance: how hard a sudden stretch of requests may be without breaking the promise.
    "none" projects the next requests from the last ones, so it does not cover a sudden stretch.
    "history" covers a stretch as hard as the hardest eighth of the history.
    A number covers requests whose best models reach that quality on average. 0 covers everything.
    Insurance keeps the promise in any order. Where the floor is low it costs several times as much, see
    docs/concepts/stream.md.
    """

    alpha: float
    window: int = 500
    tolerance: float = 0.01
    floor_insurance: float | Literal["history", "none"] = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"quality floor is {self.alpha}, must be in [0, 1]")
        if self.window < 2:
            raise InputError(f"window is {self.window} requests, must be >= 2")
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance is {self.tolerance}, must be between 0 and 1")
        level = self.floor_insurance
        if level not in ("history", "none") and not (isinstance(level, (int, float)) and 0 <= level <= 1):
            raise InputError(f"floor_insurance is {level!r}, must be history, none or a quality in [0, 1]")


@dataclass(frozen=True, slots=True)
class RateTarget:
    """Spend at most `usd` per request on average, or per hour or day. See `SpendingAccount` for what holds when."""

    usd: float
    per: Literal["request", "hour", "day"] = "request"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd) and self.usd > 0):
            raise InputError(f"budget rate is {self.usd} USD per {self.per}, must be a finite number > 0")
        if self.per not in ("request", "hour", "day"):
            raise InputError(f"budget rate is per {self.per!r}, must be per request, hour or day")


class SpendingAccount:
    """Track what a stream may still spend.

    A budget per request earns `usd` with every request. The total of n requests never exceeds n x usd.

    A budget per hour or day is a token bucket. Credit is earned at an even pace, and unspent credit is capped at one
    period's money. A new account starts with 1 % of it. Over any time of p periods you spend at most (p + 1) x usd.
    """

    def __init__(self, target: RateTarget, now_s: float) -> None:
        self.target = target
        self._spent_usd = 0.0
        self._requests = 0
        self._start_s = self._updated_s = now_s
        self._credit_usd = INITIAL_CREDIT * target.usd

    def earned_usd(self, now_s: float) -> float:
        """Return what was earned since the start, at most one period's money. It includes the next request."""
        if self.target.per == "request":
            return self.target.usd * (self._requests + 1)
        return min(self._earn_usd(self._start_s, now_s) + INITIAL_CREDIT * self.target.usd, self.target.usd)

    def available_usd(self, now_s: float) -> float:
        """Return the most that the next answer may cost."""
        if self.target.per == "request":
            return self.earned_usd(now_s) - self._spent_usd
        return min(self._credit_usd + self._earn_usd(self._updated_s, now_s), self.target.usd)

    def wait_s(self, usd: float, now_s: float) -> float | None:
        """Return the seconds until an answer of `usd` is affordable. None if waiting does not help."""
        if self.target.per == "request" or usd > self.target.usd:
            return None
        missing = usd - self.available_usd(now_s)
        return max(0.0, missing * SECONDS[self.target.per] / self.target.usd)

    def add(self, usd: float, now_s: float) -> None:
        """Charge the predicted cost of an answer."""
        self._requests += 1
        self.correct(usd, now_s)

    def correct(self, usd: float, now_s: float) -> None:
        """Charge what an answer cost more than predicted. Negative if it cost less."""
        if self.target.per != "request":
            self._credit_usd = self.available_usd(now_s) - usd
            self._updated_s = now_s
        self._spent_usd += usd

    def _earn_usd(self, from_s: float, to_s: float) -> float:
        return self.target.usd * max(to_s - from_s, 0.0) / SECONDS[self.target.per]
