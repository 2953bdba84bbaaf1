"""Money that a background task, or exploring, may spend in a day."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from eccos_core.errors import DataError

FILE_NAME = "spending.sqlite"  # beside the decision log
DAY_S = 86_400.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spending (
  purpose TEXT NOT NULL, day TEXT NOT NULL, usd REAL NOT NULL, PRIMARY KEY (purpose, day)
) STRICT
"""
_ADD = """
INSERT INTO spending (purpose, day, usd) VALUES (?, ?, ?)
ON CONFLICT (purpose, day) DO UPDATE SET usd = usd + excluded.usd RETURNING usd
"""


class DailyBudget:
    """At most `usd` for each UTC day. Safe to use from several threads.

    `usd` may change while it is in use, and 0 allows no call that costs something. With a `path` the spending is kept
    in a SQLite file, so a restart does not begin anew, and every process of that file counts what the others have paid.

    A clock that is set back goes on with the newest day, so no day begins twice. A clock that was far ahead would stay
    on a day to come. So after 24 hours by `monotonic` (s), which never jumps, the day is again that of `clock` (s since
    1970). Raises `DataError` for a file that is no database.
    """

    def __init__(
        self,
        purpose: str,
        usd: float,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.purpose, self.usd, self.path = purpose, usd, path
        self._clock, self._monotonic = clock, monotonic
        self._lock = threading.Lock()
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._day, self._began, self._spent, self._reserved = "", 0.0, 0.0, 0.0

    @property
    def spent_usd(self) -> float:
        """What was spent today."""
        with self._lock:
            self._begin_day()
            return self._spent

    @property
    def left_usd(self) -> float:
        """What is neither spent nor set aside today, at least 0."""
        with self._lock:
            self._begin_day()
            return max(0.0, self.usd - self._spent - self._reserved)

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
            if self.path is not None and paid_usd > 0:
                with self._connected(self.path) as connection, connection:
                    row = connection.execute(_ADD, (self.purpose, self._day, paid_usd)).fetchone()
                    self._spent = float(row[0])

    def adopt(self, spent_usd: Mapping[str, float]) -> None:
        """Take over what an older version spent on each day (ISO date). A day that is known already stays."""
        if self.path is None or not spent_usd:
            return
        with self._lock, self._connected(self.path) as connection, connection:
            rows = [(self.purpose, day, usd) for day, usd in spent_usd.items()]
            connection.executemany("INSERT OR IGNORE INTO spending (purpose, day, usd) VALUES (?, ?, ?)", rows)

    def _begin_day(self) -> None:
        today = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        if today == self._day or (today < self._day and self._monotonic() - self._began < DAY_S):
            return
        self._day, self._began, self._spent = today, self._monotonic(), 0.0
        if self.path is not None:
            with self._connected(self.path) as connection:
                query = "SELECT usd FROM spending WHERE purpose = ? AND day = ?"
                found = connection.execute(query, (self.purpose, today)).fetchone()
                self._spent = found[0] if found else 0.0

    @contextlib.contextmanager
    def _connected(self, path: Path) -> Iterator[sqlite3.Connection]:
        try:
            if self._open is None or self._open[0] != os.getpid():
                self._open = os.getpid(), _open(path)
                weakref.finalize(self, _close, *self._open).atexit = False
            yield self._open[1]
        except sqlite3.DatabaseError as error:
            raise DataError(str(path), f"cannot be used to count what was spent ({error})") from error


def _open(path: Path) -> sqlite3.Connection:
    """Open the file. It stays open, because the last one to close it waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)  # every use holds the lock of its budget
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_SCHEMA)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _close(process: int, connection: sqlite3.Connection) -> None:
    """Close a connection. That of the parent of a fork stays open: only the parent may close it."""
    if process == os.getpid():
        connection.close()
