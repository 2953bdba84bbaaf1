"""Where the spending of each day is kept, so that a restart goes on and several processes count together."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eccos_core.errors import DatabaseAwayError, DataError
from eccos_core.io.postgres import PostgresPool
from eccos_core.io.stoppable_thread import StoppableThread

EXCHANGE_S = 1.0
MAX_AGE_S = 5.0  # an older exchange tells too little of what others spend
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


class ExchangedSpending(DailySpending):
    """Keeps spending in memory, and exchanges it with `kept` once a second, so that no decision waits for a database.

    `read` returns what all processes had spent at the last exchange, and what this one has spent since. Until the first
    exchange of a day, and while the last one is older than 5 s, it raises `DatabaseAwayError`. Processes that keep
    their spending in one place know of each other's after at most two seconds. A process that is killed forgets what it
    spent since its last exchange.
    """

    def __init__(self, kept: DailySpending, every_s: float = EXCHANGE_S) -> None:
        self._kept, self.place, self._every_s = kept, kept.place, every_s
        self._lock = threading.Lock()
        self._days: dict[tuple[str, str], _Day] = {}
        self._thread = StoppableThread(partial(_exchange_until_stopped, weakref.ref(self)), "eccos-daily-spending")
        self._thread.start()

    def add(self, purpose: str, day: str, usd: float) -> float:
        """See `DailySpending`. It does not wait."""
        with self._lock:
            found = self._known(purpose, day)
            found.unsent += usd
            return found.spent + found.unsent

    def read(self, purpose: str, day: str) -> float:
        """See `DailySpending`. It does not wait."""
        with self._lock:
            found = self._known(purpose, day)
            return found.spent + found.unsent

    def exchange(self) -> None:
        """Add what was spent here to the place that all share, and read what all have spent. One thread calls it."""
        with self._lock:
            asked = [(key, each, each.unsent) for key, each in self._days.items()]
        for key, each, unsent in asked:
            try:
                spent = self._kept.add(*key, unsent) if unsent else self._kept.read(*key)
            except DatabaseAwayError:
                return  # it is tried again, and until then `read` says so
            with self._lock:
                each.spent, each.exchanged_at = spent, time.monotonic()
                each.unsent -= unsent
        with self._lock:
            newest = {purpose: max(day for of, day in self._days if of == purpose) for purpose, _ in self._days}
            for purpose, day in [key for key, each in self._days.items() if not each.unsent]:
                if day != newest[purpose]:
                    del self._days[purpose, day]

    def close(self) -> None:
        """Exchange once more, and stop. Nothing can be spent after that."""
        self._thread.stop()
        with contextlib.suppress(DataError):  # whoever ends does not wait for a database that is away
            self.exchange()

    def _known(self, purpose: str, day: str) -> _Day:
        """Return a day. Raises `DatabaseAwayError` for one not exchanged lately, which the next exchange reads."""
        found = self._days.setdefault((purpose, day), _Day())
        if time.monotonic() - found.exchanged_at > MAX_AGE_S:
            raise DatabaseAwayError(self.place, "what others have spent today is not known yet")
        return found


@dataclass(slots=True)
class _Day:
    """USD. `spent`: by all, at the last exchange. `unsent`: by this process since. `exchanged_at`: by `monotonic`."""

    spent: float = 0.0
    unsent: float = 0.0
    exchanged_at: float = -math.inf


def _exchange_until_stopped(owner: weakref.ref[ExchangedSpending]) -> None:
    """Exchange again and again, as long as somebody uses the spending."""
    while (spending := owner()) is not None:
        stopping, every_s = spending._thread.stopping, spending._every_s
        with contextlib.suppress(DataError):
            spending.exchange()
        del spending
        if stopping.wait(every_s):
            return


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
