"""Keep a floor over the requests of all replicas.

Each answer falls short of the floor by `floor - quality`, which is negative above it. The promise allows the sum of
these, over a horizon or over each window, to reach A (see `quality_account`). Redis adds up the sums of all replicas
and hands out room: how far the sum of one replica may rise before it reports again. All rooms together never pass A.

So staleness costs money and no promise, as long as the best open models reach the floor. A stretch where they do not
is known to other replicas only with the next exchange: what it lacks is made good up to a second later.

While Redis is away, windows may consist of requests that no replica knows all of. Then each replica keeps the sum of
every run of its own requests below its equal part of A, so the sum of any window stays below A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from eccos_core.domain import FloatArray
from eccos_core.streaming.insured_account import InsuredAccount
from eccos_core.streaming.quality_account import (
    REPORT_FROM,
    START_REQUESTS,
    USABLE,
    QualityAccount,
    RequiredQuality,
    describe_miss,
)

FRESH_S = 2.5  # how old the last answer may be, before a replica keeps every run of its own requests
_LEAST_RATE = 0.01  # requests per second of an idle replica, so that it has a little room
_LEAST_INTERVAL_S = 0.25  # over which a rate is measured
_MANY = 1e15  # requests or milliseconds of a horizon that never ends
_EXCHANGES_PER_WINDOW = 32  # at least: a replica reports after a part of a window, even within a second
_LOOKAHEADS_PER_WINDOW = 8  # Redis plans for the windows that end within such a part (`streams.lua`)


class SharedFloor:
    """One replica's part in a floor. It is a `QualityAccount` of the replica's own requests, with the room of all."""

    def __init__(self, own: QualityAccount, now_s: float) -> None:
        self._own, self.target = own, own.target
        self._is_window = self.target.promise == "window"
        if self._is_window:
            self._allowed = self.target.tolerance * self.target.window * USABLE
        else:
            self._allowed = self.target.tolerance * USABLE  # per request
        self._used = self._lost = 0.0  # below the floor and below the best, in sum
        self._lowest = self._lowest_unsaid = (
            0.0  # of `used`, since the last report that was answered, and that was sent
        )
        self._count = 0
        self._held = self._held_alone = 0.0
        self._horizon = 0
        self._rate = _LEAST_RATE
        self._measured_s, self._measured_count = now_s, 0
        self._asked = False
        # what the last answer said of all replicas
        self._answered_s = -math.inf
        self._replicas = 1
        self._pool, self._pool_used, self._allowance = 0.0, 0.0, self._allowance_of(1)
        self._recent = (0.0, 0.0, 0.0)  # requests of the last window or horizon, what they lack, and what they lost
        self._said = 0  # of `count`, how many Redis knows of

    @property
    def count(self) -> int:
        """Answers of this replica's run."""
        return self._own.count

    @property
    def running_mean(self) -> float:
        """Mean predicted quality of this replica's run."""
        return self._own.running_mean

    def assume(self, best_quality: FloatArray | None) -> None:
        """See `QualityAccount`."""
        self._own.assume(best_quality)

    def need(self, best: float, now_s: float = 0.0) -> RequiredQuality:
        """See `QualityAccount`. The room of this replica says what is needed, and that of all what is left."""
        floor = self.target.alpha
        room = self._held - self._used
        if now_s - self._answered_s > FRESH_S or self._is_unheard(_LOOKAHEADS_PER_WINDOW):
            room = min(room, self._held_alone - self._used)
            if self._is_window:
                room = min(room, self._allowed / self._replicas - (self._used - self._lowest))
        needed = floor - room
        slack = (self._pool - (self._used - self._pool_used) + best - floor) / self._allowance
        if isinstance(self._own, InsuredAccount):
            own = self._own.need(best, now_s)
            needed, slack = max(needed, own.quality), min(slack, own.slack)
        return RequiredQuality(min(needed, best), slack)

    def add(self, quality: float, best: float) -> None:
        """See `QualityAccount`."""
        self._own.add(quality, best)
        self._used += self.target.alpha - quality
        self._lost += best - quality
        self._count += 1
        self._note_lowest()

    def remove(self, quality: float, best: float) -> None:
        """See `QualityAccount`."""
        self._own.remove(quality, best)
        self._used -= self.target.alpha - quality
        self._lost -= best - quality
        self._count -= 1
        self._note_lowest()

    def _note_lowest(self) -> None:
        self._lowest = min(self._lowest, self._used)
        self._lowest_unsaid = min(self._lowest_unsaid, self._used)

    def unmet(self) -> str:
        """See `QualityAccount`. It speaks of the requests of all replicas that Redis knows of."""
        count, used, lost = self._recent
        start = self.target.window if self._is_window else self._start_requests
        if count < REPORT_FROM * start:
            return ""
        chosen = count * self.target.alpha - used
        which = f"the {'last' if self._is_window else 'first'} {count:.0f}"
        return describe_miss(self.target, which, int(count), chosen, chosen + lost, start)

    # ---------------------------------------------------------------- with the other replicas

    def is_urgent(self, now_s: float) -> bool:
        """Return whether to report now. It is true once before each report."""
        if self._asked:
            return False
        room, is_new = self._held - self._used, self._count > self._said
        is_short = is_new and self._pool > 0 and room < self._pool / self._replicas / 4
        self._asked = is_short or self._is_unheard(_EXCHANGES_PER_WINDOW)
        return self._asked

    def _is_unheard(self, parts: int) -> bool:
        """Return whether a part of a window may have passed, over all replicas, since Redis last heard of this one."""
        return self._is_window and (self._count - self._said) * parts * self._replicas > self.target.window

    def report(self, now_s: float) -> dict[str, Any]:
        """Return this replica's sums. Until the answer comes it uses at most half of its room."""
        elapsed = now_s - self._measured_s
        if elapsed >= _LEAST_INTERVAL_S:
            rate = max(self._count - self._measured_count, 0) / elapsed
            self._rate = max((self._rate + rate) / 2, _LEAST_RATE)
            self._measured_s, self._measured_count = now_s, self._count
        room = self._held - self._used
        self._held = self._used + (room / 2 if room > 0 else room)
        self._asked, self._lowest_unsaid = False, self._used
        target = self.target
        report = {
            "kind": target.promise,
            "used": self._used,
            "held": self._held,
            "lost": self._lost,
            "count": self._count,
            "want": self._rate,
            "allowed": self._allowed,
        }
        if self._is_window:
            return {**report, "window": target.window, "low": self._lowest}
        in_time = isinstance(target.horizon, timedelta)
        return {
            **report,
            "horizon": self._horizon,
            "start_requests": self._start_requests,
            "horizon_requests": _MANY if in_time else target.horizon,
            "horizon_ms": 1000 * target.horizon.total_seconds() if isinstance(target.horizon, timedelta) else _MANY,
        }

    def adopt(self, answer: Mapping[str, Any], sent: Mapping[str, Any], now_s: float) -> bool:
        """Take the room that an answer gives. Return False: nobody waits for it."""
        used, count, lost = sent["used"], sent["count"], sent["lost"]
        if not self._is_window and answer["horizon"] != self._horizon:  # sums begin with what was not reported yet
            self._horizon = answer["horizon"]
            self._used, self._count, self._lost = self._used - used, self._count - count, self._lost - lost
            self._measured_count -= count
            used = count = 0
        self._lowest = self._lowest_unsaid
        self._held, self._held_alone = answer["held"], answer["held_alone"]
        self._pool, self._pool_used, self._allowance = answer["pool"], used, self._allowance_of(answer["count"])
        self._recent, self._said = tuple(answer["recent"]), count
        self._answered_s, self._replicas = now_s, answer["replicas"]
        return False

    def go_alone(self, part: float, now_s: float) -> None:
        """Keep every run of its own requests from now on, because Redis is away."""
        self._answered_s = -math.inf

    @property
    def _start_requests(self) -> float:
        horizon = self.target.horizon
        return START_REQUESTS if isinstance(horizon, timedelta) else min(START_REQUESTS, horizon // 2)

    def _allowance_of(self, count: float) -> float:
        return self._allowed if self._is_window else self._allowed * max(count + 1, self._start_requests)
