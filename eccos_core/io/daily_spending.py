"""Where the spending of each day is kept, so that a restart goes on and several processes count together."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

from eccos_core.errors import DataError
from eccos_core.io.postgres import PostgresPool

FILE_NAME = "spending.sqlite"  # beside the decision log
_TABLE = "(purpose TEXT NOT NULL, day TEXT NOT NULL, usd {} NOT NULL, PRIMARY KEY (purpose, day))"
_SCHEMA = f"CREATE TABLE IF NOT EXISTS spending {_TABLE.format('REAL')} STRICT"
_ADD = """
INSERT INTO spending (purpose, day, usd) VALUES (?, ?, ?)
ON CONFLICT (purpose, day) DO UPDATE SET usd = usd + excluded.usd RETURNING usd
"""
_POSTGRES_LOCK = 0x0ECC0504  # one makes the table at a time
_POSTGRES_SCHEMA = f"CREATE TABLE IF NOT EXISTS eccos_daily_spending {_TABLE.format('FLOAT8')}"
_POSTGRES_ADD = """
INSERT INTO eccos_daily_spending AS kept (purpose, day, usd) VALUES (%s, %s, %s)
ON CONFLICT (purpose, day) DO UPDATE SET usd = kept.usd + excluded.usd RETURNING usd
"""
_POSTGRES_READ = "SELECT usd FROM eccos_daily_spending WHERE purpose = %s AND day = %s"


class DailySpending(ABC):
    """Keeps USD for each purpose and day (ISO date). Safe to use from several threads and processes.

    Two with an equal `place` are the same.
    """

    place: str

    @abstractmethod
    def add(self, purpose: str, day: str, usd: float) -> float:
        """Add to a day, and return what it has now. Raises `DatabaseAwayError` where a database does not answer."""

    @abstractmethod
    def read(self, purpose: str, day: str) -> float:
        """Return what a day has now. Raises `DatabaseAwayError` where a database does not answer."""


class SqliteSpending(DailySpending):
    """Keeps spending in a SQLite file. Raises `DataError` for a file that is no database."""

    def __init__(self, path: Path) -> None:
        self.path, self.place = path, str(path)
        self._lock = threading.Lock()
        self._open: tuple[int, sqlite3.Connection] | None = None

    def add(self, purpose: str, day: str, usd: float) -> float:
        """See `DailySpending`."""
        with self._connected() as connection, connection:
            return float(connection.execute(_ADD, (purpose, day, usd)).fetchone()[0])

    def read(self, purpose: str, day: str) -> float:
        """See `DailySpending`."""
        with self._connected() as connection:
            query = "SELECT usd FROM spending WHERE purpose = ? AND day = ?"
            found = connection.execute(query, (purpose, day)).fetchone()
        return float(found[0]) if found else 0.0

    def adopt(self, purpose: str, spent_usd: Mapping[str, float]) -> None:
        """Take over what an older version spent on each day. A day that is known already stays."""
        with self._connected() as connection, connection:
            rows = [(purpose, day, usd) for day, usd in spent_usd.items()]
            connection.executemany("INSERT OR IGNORE INTO spending (purpose, day, usd) VALUES (?, ?, ?)", rows)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._open is None or self._open[0] != os.getpid():
                    self._open = os.getpid(), _open(self.path)
                    weakref.finalize(self, _close, *self._open).atexit = False
                yield self._open[1]
            except sqlite3.DatabaseError as error:
                raise DataError(self.place, f"cannot be used to count what was spent ({error})") from error


class PostgresSpending(DailySpending):
    """Keeps the spending of all replicas in PostgreSQL."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool, self.place = pool, pool.place
        self._made = False

    def add(self, purpose: str, day: str, usd: float) -> float:
        """See `DailySpending`."""
        self._make_table()
        return float(self._pool.write(_POSTGRES_ADD, (purpose, day, usd))[0][0])

    def read(self, purpose: str, day: str) -> float:
        """See `DailySpending`."""
        self._make_table()
        found = self._pool.read(_POSTGRES_READ, (purpose, day))
        return float(found[0][0]) if found else 0.0

    def _make_table(self) -> None:
        if self._made:
            return
        with self._pool.told(), self._pool.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_POSTGRES_LOCK,))
            connection.execute(_POSTGRES_SCHEMA.encode())
        self._made = True


def _open(path: Path) -> sqlite3.Connection:
    """Open the file. It stays open, because the last one to close it waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False)  # every use holds the lock
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
