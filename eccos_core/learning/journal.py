"""`LabelJournal`: every label that the online layer has learned from, in SQLite. A restart replays it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.errors import DataError

FILE_NAME = "learning.sqlite"  # beside the decision log
_EPOCH = date(1970, 1, 1)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS labels (
  number INTEGER PRIMARY KEY, decision_id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, vector BLOB NOT NULL,
  quality REAL NOT NULL
) STRICT;
"""
_PUT_LABEL = """
INSERT INTO labels (decision_id, model, vector, quality) VALUES (?, ?, ?, ?)
ON CONFLICT (decision_id) DO UPDATE SET model = excluded.model, quality = excluded.quality
"""


@dataclass(frozen=True, slots=True, eq=False)
class JournalEntry:
    """One label: the quality in [0, 1] of a model's answer to the question with this vector (D,)."""

    decision_id: str
    model: str
    vector: Float32Array
    quality: float


class BaseLabelJournal(ABC):
    """Keeps labels for the online layer. Safe to use from several threads and processes."""

    @abstractmethod
    def put(self, entries: Sequence[JournalEntry]) -> None:
        """Write labels, all or none. Another label of a decision replaces the first, in its place of the order."""

    @abstractmethod
    def entries(self, newest: int) -> list[JournalEntry]:
        """Return at most so many of the newest labels, the oldest of them first."""

    @abstractmethod
    def exploration_usd(self) -> dict[str, float]:
        """Return what an older version noted here of the cost of exploring: USD of each day (ISO date, UTC)."""


class LabelJournal(BaseLabelJournal):
    """Keeps labels in a SQLite file. Safe to use from several threads and processes.

    A label is on the disk when `put` returns. Raises `DataError` for a file that is no journal.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._connected() as connection:
            connection.executescript(_SCHEMA)

    def put(self, entries: Sequence[JournalEntry]) -> None:
        """See `BaseLabelJournal`."""
        rows = [(each.decision_id, each.model, _to_bytes(each.vector), each.quality) for each in entries]
        self._write("FULL", _PUT_LABEL, rows)

    def entries(self, newest: int) -> list[JournalEntry]:
        """See `BaseLabelJournal`."""
        query = "SELECT decision_id, model, vector, quality FROM labels ORDER BY number DESC LIMIT ?"
        with self._connected() as connection:
            rows = connection.execute(query, (newest,)).fetchall()
        return [
            JournalEntry(decision_id, model, np.frombuffer(vector, dtype=np.float32), quality)
            for decision_id, model, vector, quality in reversed(rows)
        ]

    def exploration_usd(self) -> dict[str, float]:
        """See `BaseLabelJournal`."""
        with self._connected() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'exploration'").fetchone():
                return {}
            rows = connection.execute("SELECT day, usd FROM exploration").fetchall()
        return {(_EPOCH + timedelta(days=day)).isoformat(): usd for day, usd in rows}

    def _write(self, synchronous: str, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._connected() as connection:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            with connection:
                connection.executemany(statement, rows)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    yield connection
            except sqlite3.DatabaseError as error:
                raise DataError(str(self.path), f"cannot be used as a journal of labels ({error})") from error


def _to_bytes(vector: Float32Array) -> bytes:
    return np.asarray(vector, dtype=np.float32).tobytes()
