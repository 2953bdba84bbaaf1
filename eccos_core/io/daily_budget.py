"""Money that a background task, or exploring, may spend in a day."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from eccos_core.errors import DatabaseAwayError
from eccos_core.io.daily_spending import DailySpending, ExchangedSpending, SqliteSpending

DAY_S = 86_400.0
READ_EVERY_S = 1.0  # how old what others have spent may be when money is set aside


class DailyBudget:
    """At most `usd` for each UTC day. Safe to use from several threads.

    `usd` may change while it is in use, and 0 allows no call that costs something. With `kept` a restart does not begin
    anew, and all processes that keep their spending in one place count together. So the budget is passed by at most
    what each process had set aside in one second. While that place is a database that is away, no money is set aside,
    and what was paid is added when it is back.

    A clock that is set back goes on with the newest day, so no day begins twice. A clock that was far ahead would stay
    on a day to come. So after 24 hours by `monotonic` (s), which never jumps, the day is again that of `clock` (s since
    1970). Raises `DataError` for a file that is no database.
    """

    def __init__(
        self,
        purpose: str,
        usd: float,
        kept: DailySpending | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.purpose, self.usd, self.kept = purpose, usd, kept
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.Lock()
        self._day, self._began = "", 0.0
        self._spent, self._reserved = 0.0, 0.0
        self._unwritten = 0.0  # paid today, while the place was away
        self._read_at: float | None = None  # when `_spent` was read from `kept`. None: not since the day began

    @property
    def spent_usd(self) -> float:
        """What was spent today."""
        with self._lock:
            self._refresh()
            return self._spent

    @property
    def left_usd(self) -> float:
        """What is neither spent nor set aside today, at least 0."""
        with self._lock:
            return self._left() if self._refresh() else 0.0

    def reserve(self, usd: float) -> bool:
        """Set money aside for a call. Returns False when the rest of the day's money is less, or is not known."""
        with self._lock:
            if not self._refresh() or usd > self._left() or self.usd == 0:
                return False
            self._reserved += usd
            return True

    def settle(self, reserved_usd: float, paid_usd: float) -> None:
        """Give back what was reserved, and take what was paid."""
        with self._lock:
            self._begin_day()
            self._reserved -= reserved_usd
            self._spent += paid_usd
            self._unwritten += paid_usd
            self._write()

    def adopt(self, spent_usd: Mapping[str, float]) -> None:
        """Take over what an older version spent on each day (ISO date), in a file. A day that is known stays."""
        if isinstance(self.kept, SqliteSpending) and spent_usd:
            self.kept.adopt(self.purpose, spent_usd)

    def close(self) -> None:
        """Write what is on its way to the place that others share."""
        if isinstance(self.kept, ExchangedSpending):
            self.kept.close()

    def _left(self) -> float:
        return max(0.0, self.usd - self._spent - self._reserved)

    def _begin_day(self) -> None:
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        if today == self._day or (today < self._day and self._monotonic() - self._began < DAY_S):
            return
        self._write()  # what is left of the day before, if its place is back
        self._day, self._began = today, self._monotonic()
        self._spent, self._unwritten, self._read_at = 0.0, 0.0, None

    def _refresh(self) -> bool:
        """Read what all processes have spent, unless that was done just now. Returns whether it is known."""
        self._begin_day()
        if self.kept is None:
            return True
        if self._read_at is not None and self._monotonic() - self._read_at < READ_EVERY_S:
            return True
        if self._unwritten and not self._write():
            return False
        try:
            self._spent = self.kept.read(self.purpose, self._day)
        except DatabaseAwayError:
            return False
        self._read_at = self._monotonic()
        return True

    def _write(self) -> bool:
        """Add to the day what was paid. Returns whether it is written."""
        if self.kept is None or not self._unwritten:
            return True
        try:
            self._spent = self.kept.add(self.purpose, self._day, self._unwritten)
        except DatabaseAwayError:
            self._read_at = None
            return False
        self._unwritten, self._read_at = 0.0, self._monotonic()
        return True
