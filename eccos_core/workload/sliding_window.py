"""Amounts per minute, counted in a sliding window on a monotonic clock.

The `limits` package was looked at: it reads the wall clock, which may jump, and cannot be given another.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0


class SlidingWindow:
    """How much happened in the last minute, exactly. Not locked: its owner is."""

    __slots__ = ("_events", "_total")

    def __init__(self) -> None:
        self._events: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, now: float, amount: int) -> None:
        """`amount` happened at `now` (seconds, never decreasing)."""
        self.total(now)  # forget what is over, so that a window nobody asks stays small
        self._events.append((now, amount))
        self._total += amount

    def total(self, now: float) -> int:
        """What happened within the minute before `now`."""
        while self._events and self._events[0][0] <= now - WINDOW_S:
            self._total -= self._events.popleft()[1]
        return self._total
