"""Define what a stream promises, and keep account of a budget rate.

Steering the price keeps a promise on average. An account keeps it for every request. `SpendingAccount` returns the most
that the next answer may cost, in O(1). `quality_account` does the same for a floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from eccos_core.errors import InputError

SECONDS = {"hour": 3600.0, "day": 86400.0}
INITIAL_CREDIT = 0.01  # of one period's money, so that a stream can start
REQUESTS_PER_PERIOD = 10_000  # whose unspent money a budget per request saves up at most


@dataclass(frozen=True, slots=True)
class FloorTarget:
    """Keep the mean predicted quality at `alpha`, less at most `tolerance`.

    promise: which means keep the floor.
    "mean" is the running mean of each horizon, once it has 1,000 requests, or half the horizon where that is less.
    "window" is the mean of each `window` requests in a row. It costs more.
    horizon: a number of requests, or a time such as `timedelta(days=1)`. Each horizon starts afresh, so neither a
    surplus nor a debt of quality outlives it.
    floor_insurance: only for windows. It says how hard a sudden stretch of requests may be without breaking the
    promise. "none" covers no sudden stretch. "history" covers one as hard as the hardest eighth of the history. A
    number covers requests whose best models reach that quality on average, and 0 covers everything.
    Insurance keeps windows in any order, at several times the cost where the floor is low. See docs/concepts/stream.md.
    """

    alpha: float
    promise: Literal["mean", "window"] = "mean"
    horizon: int | timedelta = 10_000
    window: int = 500
    tolerance: float = 0.005
    floor_insurance: float | Literal["history", "none"] = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"quality floor is {self.alpha}, must be in [0, 1]")
        if self.promise not in ("mean", "window"):
            raise InputError(f"promise is {self.promise!r}, must be mean or window")
        if isinstance(self.horizon, timedelta):
            if self.horizon <= timedelta(0):
                raise InputError(f"horizon is {self.horizon.total_seconds():g} seconds, must be > 0")
        elif self.horizon < 2:
            raise InputError(f"horizon is {self.horizon} requests, must be >= 2")
        if self.window < 2:
            raise InputError(f"window is {self.window} requests, must be >= 2")
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance is {self.tolerance}, must be between 0 and 1")
        level = self.floor_insurance
        if level not in ("history", "none") and not (isinstance(level, (int, float)) and 0 <= level <= 1):
            raise InputError(f"floor_insurance is {level!r}, must be history, none or a quality in [0, 1]")
        if level != "none" and self.promise == "mean":
            raise InputError(f"floor_insurance is {level!r}, but it insures windows; give promise='window' too")


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
    """Track what a stream may still spend: a token bucket.

    A budget per request earns `usd` with every request. The total of n requests never exceeds n x usd.
    A budget per hour or day earns at an even pace, and a new account starts with 1 % of a period's money.
    Unspent credit is capped at the money of one period (of 10,000 requests for a budget per request), so over any time
    of p periods you spend at most (p + 1) x usd.
    """

    def __init__(self, target: RateTarget, now_s: float) -> None:
        self.target = target
        self._by_request = target.per == "request"
        self._capacity_usd = target.usd * (REQUESTS_PER_PERIOD if self._by_request else 1)
        self._earned_usd = self._credit_usd = target.usd * (1 if self._by_request else INITIAL_CREDIT)
        self._updated_s = now_s

    def earned_usd(self, now_s: float) -> float:
        """Return what was earned since the start, at most one period's money. It includes the next request."""
        return min(self._earned_usd + self._earn_usd(now_s), self._capacity_usd)

    def available_usd(self, now_s: float) -> float:
        """Return the most that the next answer may cost."""
        return min(self._credit_usd + self._earn_usd(now_s), self._capacity_usd)

    def left_share(self, now_s: float) -> float:
        """Return the most that the next answer may cost, as a share of what was earned."""
        return self.available_usd(now_s) / max(self.earned_usd(now_s), 1e-300)

    def wait_s(self, usd: float, now_s: float) -> float | None:
        """Return the seconds until an answer of `usd` is affordable. None if waiting does not help."""
        if self._by_request or usd > self._capacity_usd:
            return None
        missing = usd - self.available_usd(now_s)
        return max(0.0, missing * SECONDS[self.target.per] / self._capacity_usd)

    def add(self, usd: float, now_s: float) -> None:
        """Charge the predicted cost of an answer."""
        self.correct(usd, now_s)
        if self._by_request:
            self._earned_usd = min(self._earned_usd + self.target.usd, self._capacity_usd)
            self._credit_usd = min(self._credit_usd + self.target.usd, self._capacity_usd)

    def remove(self, usd: float, now_s: float) -> None:
        """Undo `add` for an answer that is never given."""
        self.correct(-usd, now_s)
        if self._by_request:
            self._earned_usd -= self.target.usd
            self._credit_usd -= self.target.usd

    def correct(self, usd: float, now_s: float) -> None:
        """Charge what an answer cost more than predicted. Negative if it cost less."""
        self._earned_usd = self.earned_usd(now_s)
        self._credit_usd = self.available_usd(now_s) - usd
        self._updated_s = now_s

    def _earn_usd(self, now_s: float) -> float:
        """Return what time has earned since the last entry."""
        if self._by_request:
            return 0.0
        return self._capacity_usd * max(now_s - self._updated_s, 0.0) / SECONDS[self.target.per]
