"""What a stream may promise, and the account that keeps a budget rate whatever comes.

Steering a price keeps a promise on average; an account keeps it request by request. A `SpendingAccount` knows the most
that the next answer may cost, in O(1); the account of a floor is in `quality_account`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from eccos_core.errors import InputError

SECONDS = {"hour": 3600.0, "day": 86400.0}


@dataclass(frozen=True, slots=True)
class FloorTarget:
    """Mean predicted quality of `alpha` less at most `tolerance`: over the run, and over every `window` of requests.

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
        worst = self.floor_insurance
        if worst not in ("history", "none") and not (isinstance(worst, (int, float)) and 0 <= worst <= 1):
            raise InputError(f"floor_insurance is {worst!r}, must be history, none or a quality in [0, 1]")


@dataclass(frozen=True, slots=True)
class RateTarget:
    """At most `usd` per request, hour or day, over the run. Kept to the cent or refused: see `StreamController`."""

    usd: float
    per: Literal["request", "hour", "day"] = "request"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd) and self.usd > 0):
            raise InputError(f"budget rate is {self.usd} USD per {self.per}, must be a finite number > 0")
        if self.per not in ("request", "hour", "day"):
            raise InputError(f"budget rate is per {self.per!r}, must be per request, hour or day")


class SpendingAccount:
    """The budget rate, guarded: total spending stays under the rate times requests (or time) at every moment."""

    def __init__(self, target: RateTarget, now_s: float) -> None:
        self.target = target
        self.spent_usd = 0.0
        self.count = 0
        self._start_s = now_s

    def earned_usd(self, now_s: float) -> float:
        """What may have been spent by now, the next request's share included.

        Of a rate in time, the first period's budget is lent 1 % ahead, so that a stream can start.
        """
        if self.target.per == "request":
            return self.target.usd * (self.count + 1)
        period = SECONDS[self.target.per]
        elapsed = max(now_s - self._start_s, 0.0)
        return self.target.usd * (elapsed + 0.01 * max(elapsed, period)) / period

    def left_usd(self, now_s: float) -> float:
        """The most that the next answer may cost."""
        return self.earned_usd(now_s) - self.spent_usd

    def wait_s(self, usd: float, now_s: float) -> float | None:
        """Seconds until an answer of `usd` may be bought; None where time alone earns nothing."""
        if self.target.per == "request":
            return None
        missing = usd - self.left_usd(now_s)
        return max(0.0, missing * SECONDS[self.target.per] / self.target.usd)

    def add(self, usd: float) -> None:
        """Enter the predicted cost of an answer."""
        self.spent_usd += usd
        self.count += 1

    def correct(self, usd: float) -> None:
        """Enter what an answer cost more (or, negative, less) than was predicted."""
        self.spent_usd += usd
