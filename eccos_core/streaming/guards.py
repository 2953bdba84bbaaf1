"""What a stream has promised, and the accounts that keep the promise whatever comes.

Steering a price keeps a promise on average; an account keeps it request by request. A `QualityAccount` knows the least
quality that the next answer must have so that neither the running mean nor any window falls under the floor; a
`SpendingAccount` knows the most that it may cost. Both are O(1) per request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from eccos_core.errors import InputError

SECONDS = {"hour": 3600.0, "day": 86400.0}
_HORIZONS = 10  # future windows that are looked at, evenly spaced over one window's length
# Guarded is the floor less this share of the tolerance; the rest covers what the projection cannot know.
_SPARE, _SPARE_FALLING = 0.5, 0.25
# What the next requests can reach: the least of the means of the last n best qualities, each n with so many standard
# errors to spare. The short ones see a sudden change at once, the long one a small change surely.
_RECENT = ((10, 1.5), (20, 1.0), (50, 0.5), (100, 0.0))
# How fast that falls: the steepest of the trends over these shares of a window, each less so many standard errors.
_TRENDS = ((1.0, 1.5), (0.2, 2.5), (0.05, 3.0))


@dataclass(frozen=True, slots=True)
class FloorTarget:
    """Mean predicted quality of `alpha` less at most `tolerance`: over the run, and over every `window` of requests."""

    alpha: float
    window: int = 500
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InputError(f"quality floor is {self.alpha}, must be in [0, 1]")
        if self.window < 2:
            raise InputError(f"window is {self.window} requests, must be >= 2")
        if not 0 < self.tolerance < 1:
            raise InputError(f"tolerance is {self.tolerance}, must be between 0 and 1")


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


@dataclass(frozen=True, slots=True)
class Need:
    """The least quality that the next answer must have. `attainable` is False where even the best is not enough: the
    best is what it gets then."""

    quality: float
    attainable: bool


class QualityAccount:
    """The floor, guarded. Looks one window ahead: what the next requests can reach is projected from the last ones.

    Windows that will end later contain today's answer too. If the best attainable quality is falling, the last easy
    requests must be answered better than the floor asks, or the windows that follow cannot be saved.
    """

    def __init__(self, target: FloorTarget) -> None:
        self.target = target
        self._size = target.window + 1
        self._chosen = [0.0] * self._size  # totals after each of the last requests, in a ring
        self._best = [0.0] * self._size
        self._jumps = [0.0] * self._size  # (of the squares of the differences between neighbouring best qualities)
        self._newest = 0.0
        self.falling = False  # whether the attainable quality is surely falling, as of the last `need`
        self._count = 0

    @property
    def count(self) -> int:
        """Requests so far."""
        return self._count

    @property
    def running_mean(self) -> float:
        """Mean predicted quality since the start."""
        return self._chosen[self._count % self._size] / max(self._count, 1)

    def window_mean(self) -> float:
        """Mean predicted quality of the last window (or of all, when there are fewer)."""
        length = min(self._count, self.target.window)
        return self._last(self._chosen, length) / max(length, 1)

    def need(self, best: float) -> Need:
        """What the next answer must reach, when the best open model reaches `best`."""
        window = self.target.window
        level, slope = self._projection(best)
        self.falling = slope < 0
        line = self.target.alpha - (_SPARE_FALLING if self.falling else _SPARE) * self.target.tolerance
        attainable, needed = True, 0.0
        if self._count >= window // 10:
            needed = (self._count + 1) * line - self._chosen[self._count % self._size]
            if needed > best:
                attainable = False
        for step in range(_HORIZONS):
            ahead = step * window // _HORIZONS
            past = window - ahead - 1  # of the window that ends `ahead` requests from now, this many are decided
            if past > self._count:
                continue
            future = ahead * max(0.0, level + slope * (ahead + 1) / 2)
            missing = window * line - self._last(self._chosen, past) - future
            if missing > needed:
                needed = missing
                if missing > best and ahead == 0:
                    attainable = False
        return Need(min(needed, best), attainable)

    def add(self, quality: float, best: float) -> None:
        """Enter an answer of predicted `quality`; the best open model would have reached `best`."""
        now = self._count % self._size
        after = (now + 1) % self._size
        jump = best - self._newest if self._count else 0.0
        self._newest = best
        self._chosen[after] = self._chosen[now] + quality
        self._best[after] = self._best[now] + best
        self._jumps[after] = self._jumps[now] + jump * jump
        self._count += 1

    def _last(self, totals: list[float], length: int) -> float:
        return totals[self._count % self._size] - totals[(self._count - length) % self._size]

    def _projection(self, best: float) -> tuple[float, float]:
        """What the best quality of the next requests is likely to be: its level now, and how it falls per request.

        The noise is taken from the jumps between neighbours, so that a trend is not mistaken for it.
        """
        length = min(self._count, self.target.window)
        if length < _RECENT[0][0]:
            return best, 0.0
        noise = math.sqrt(self._last(self._jumps, length) / (2 * length))
        level = min(
            self._last(self._best, many) / many + spare * noise / math.sqrt(many)
            for many, spare in _RECENT
            if many <= length
        )
        slope = 0.0
        for share, sure in _TRENDS:
            half = int(share * self.target.window) // 2
            if 2 <= half <= length // 2:
                late, both = self._last(self._best, half), self._last(self._best, 2 * half)
                fall = (2 * late - both) / half**2
                slope = min(slope, fall + sure * noise * math.sqrt(2 / half) / half)
        return level, slope


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
