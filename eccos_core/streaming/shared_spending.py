"""Spend money per hour or day together with other replicas.

Redis keeps one account for all. It hands out room: what a replica may spend before it asks again. All rooms together
never pass what the budget has earned, so the budget holds whichever message is lost and whichever replica is killed. A
replica asks for what it spends in about a second, and gives back what it does not need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from eccos_core.streaming.targets import INITIAL_CREDIT, SECONDS, RateTarget

_CALLS_IN_HAND = 4  # of the dearest recent calls, that a busy replica has room for
_FIRST_ROOM = INITIAL_CREDIT / 100  # of one period's money, before the first call shows what calls cost
_BUSY_S = 2.0  # after its last request a replica counts as idle
_LEAST_INTERVAL_S = 0.25  # over which a rate is measured
_FORGET = 0.98  # what the dearest call weighs less with each further call
_SOON_S = 0.05  # when room may come that another replica does not need


class SharedSpending:
    """What this replica may still spend. It has the methods of `SpendingAccount`."""

    def __init__(self, target: RateTarget, now_s: float) -> None:
        self.target = target
        self._usd_per_s = target.usd / SECONDS[target.per]
        self._used = self._held = 0.0  # held: the most that `used` may reach
        self._dearest = self._needed = 0.0
        self._rate = 0.0  # USD per second that this replica spends
        self._busy_s = -math.inf
        self._measured_s, self._measured_usd = now_s, 0.0
        self._part, self._part_s = 0.0, now_s  # of the money, that it earns without Redis
        self._asked = False
        # what the last answer said of all replicas
        self._answered_s, self._answered_usd = now_s, 0.0
        self._pool = self._free = 0.0
        self._earned, self._scale = target.usd * INITIAL_CREDIT, 1.0
        self._others_s, self._others_usd, self._others_rate = now_s, 0.0, 0.0

    def available_usd(self, now_s: float) -> float:
        """Return the most that the next answer may cost."""
        if self._part:
            earned = self._part * self._usd_per_s * max(now_s - self._part_s, 0.0)
            self._held = min(self._held + earned, self._used + self._part * self.target.usd)
            self._part_s = now_s
        return self._held - self._used

    def earned_usd(self, now_s: float) -> float:
        """Return what was earned since the start, at most one period's money, of all replicas."""
        return min(self._earned + self._usd_per_s * max(now_s - self._answered_s, 0.0), self.target.usd)

    def left_share(self, now_s: float) -> float:
        """Return what all replicas may still spend, as a share of what was earned. It is an estimate."""
        since_s = max(now_s - self._answered_s, 0.0)
        spent = self._used - self._answered_usd + self._others_rate * since_s
        left = max(self._pool + self._usd_per_s * since_s - spent, 0.0)
        return min(left / max(self.earned_usd(now_s), 1e-300), 1.0)

    def wait_s(self, usd: float, now_s: float) -> float | None:
        """Return the seconds until an answer of `usd` is affordable. None if waiting does not help.

        Somebody waits for it, so the next report asks for as much.
        """
        if usd > self.target.usd:
            return None
        self._needed = usd if not self._needed else min(usd, self._needed)
        self._busy_s = now_s
        missing = usd - self.available_usd(now_s) - self._estimate_free(now_s)
        return max(_SOON_S, missing / self._usd_per_s)

    def add(self, usd: float, now_s: float) -> None:
        """Charge the predicted cost of an answer."""
        self._dearest = max(_FORGET * self._dearest, usd)
        self._busy_s, self._needed = now_s, 0.0
        self.correct(usd, now_s)

    def remove(self, usd: float, now_s: float) -> None:
        """Undo `add` for an answer that is never given."""
        self.correct(-usd, now_s)

    def correct(self, usd: float, now_s: float) -> None:
        """Charge what an answer cost more than predicted. Negative if it cost less."""
        self._used += usd

    # ---------------------------------------------------------------- with the other replicas

    def is_urgent(self, now_s: float) -> bool:
        """Return whether to ask for more room now. It is true once before each report."""
        if self._asked:
            return False
        room, free, want = self.available_usd(now_s), self._estimate_free(now_s), self._want(now_s)
        low = room < want / 2 and free > want / 4
        self._asked = low or (room < self._needed and free >= self._needed - room)
        return self._asked

    def report(self, now_s: float) -> dict[str, Any]:
        """Return this replica's sums. From now on it keeps no more room than the report says."""
        elapsed = now_s - self._measured_s
        if elapsed >= _LEAST_INTERVAL_S:
            rate = max(self._used - self._measured_usd, 0.0) / elapsed
            self._rate = (self._rate + rate) / 2
            self._measured_s, self._measured_usd = now_s, self._used
        want, room = self._want(now_s), self.available_usd(now_s)
        self._held = self._used + min(max(room, 0.0), max(want * self._scale, self._needed))
        self._asked = False
        return {
            "kind": "money",
            "usd": self.target.usd,
            "period_ms": 1000 * SECONDS[self.target.per],
            "initial": self.target.usd * INITIAL_CREDIT,
            "used": self._used,
            "held": self._held,
            "want": want,
            "need": self._needed,
            "count": 0,
            "lost": 0,
        }

    def adopt(self, answer: Mapping[str, Any], sent: Mapping[str, Any], now_s: float) -> bool:
        """Take the room that an answer gives. Return whether it is more than before."""
        room = self._held - self._used
        self._held, self._part = answer["held"], 0.0
        self._pool, self._free, self._scale = answer["pool"], answer["free"], answer["scale"]
        self._earned, self._answered_s, self._answered_usd = answer["earned"], now_s, sent["used"]
        elapsed, others = now_s - self._others_s, answer["used"] - sent["used"]
        if elapsed >= _LEAST_INTERVAL_S:
            self._others_rate = max(others - self._others_usd, 0.0) / elapsed
            self._others_s, self._others_usd = now_s, others
        return self._held - self._used > room

    def go_alone(self, part: float, now_s: float) -> None:
        """Earn this part of the money from now on, because Redis is away. 0 leaves only the room in hand."""
        self.available_usd(now_s)
        self._part, self._part_s = part, now_s

    def _want(self, now_s: float) -> float:
        dearest = self._dearest or _FIRST_ROOM * self.target.usd
        if now_s - self._busy_s > _BUSY_S:
            return dearest if self._scale >= 1 else 0.0  # where money is scarce, an idle replica keeps none
        return min(max(_CALLS_IN_HAND * dearest, self._rate), self.target.usd)

    def _estimate_free(self, now_s: float) -> float:
        """Return what is earned and nobody has room for."""
        return max(0.0, self._free + (self._usd_per_s - self._others_rate) * max(now_s - self._answered_s, 0.0))
