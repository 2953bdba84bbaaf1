"""Money that a background task may spend in a day."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spending (
  purpose TEXT NOT NULL, day TEXT NOT NULL, usd REAL NOT NULL, PRIMARY KEY (purpose, day)
) STRICT
"""
_ADD = """
INSERT INTO spending (purpose, day, usd) VALUES (?, ?, ?)
ON CONFLICT (purpose, day) DO UPDATE SET usd = usd + excluded.usd
"""


class DailyBudget:
    """At most `usd` for each UTC day. Safe to use from several threads.

    With a `path` the spending is kept in a SQLite file, so a restart does not begin anew. A day never begins twice: a
    clock that is set back goes on with the newest day. `usd` 0 allows nothing.
    """

    def __init__(
        self, purpose: str, usd: float, path: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.purpose, self.usd = purpose, usd
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._day, self._spent, self._reserved = "", 0.0, 0.0

    @property
    def spent_usd(self) -> float:
        """What was spent today."""
        with self._lock:
            self._begin_day()
            return self._spent

    def reserve(self, usd: float) -> bool:
        """Set money aside for a call. Returns False when the rest of the day's money is less."""
        with self._lock:
            self._begin_day()
            if self._spent + self._reserved + usd > self.usd or self.usd == 0:
                return False
            self._reserved += usd
            return True

    def settle(self, reserved_usd: float, paid_usd: float) -> None:
        """Give back what was reserved, and take what was paid."""
        with self._lock:
            self._begin_day()
            self._reserved -= reserved_usd
            self._spent += paid_usd
            if self._path is not None and paid_usd > 0:
                with contextlib.closing(self._connect(self._path)) as connection, connection:
                    connection.execute(_ADD, (self.purpose, self._day, paid_usd))

    def _begin_day(self) -> None:
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        if today <= self._day:
            return
        self._day, self._spent = today, 0.0
        if self._path is not None:
            with contextlib.closing(self._connect(self._path)) as connection:
                query = "SELECT usd FROM spending WHERE purpose = ? AND day = ?"
                found = connection.execute(query, (self.purpose, today)).fetchone()
                self._spent = found[0] if found else 0.0

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_SCHEMA)
        return connection
