"""`PostgresLabelJournal`: the labels that the online layers of all replicas have learned from, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eccos_core.io.postgres import PostgresPool
from eccos_core.learning.journal import BaseLabelJournal, JournalEntry

_MAKE_LOCK = 0x0ECC0503
_SCHEMA = """
CREATE TABLE IF NOT EXISTS eccos_learned_labels (
  number BIGINT GENERATED ALWAYS AS IDENTITY, decision_id TEXT PRIMARY KEY, model TEXT NOT NULL, vector BYTEA NOT NULL,
  quality FLOAT8 NOT NULL
)
"""
# every replica puts the same label, and only the first one writes
_PUT_LABEL = """
INSERT INTO eccos_learned_labels (decision_id, model, vector, quality) VALUES (%s, %s, %s, %s)
ON CONFLICT (decision_id) DO UPDATE SET model = excluded.model, quality = excluded.quality
WHERE eccos_learned_labels.model <> excluded.model OR eccos_learned_labels.quality <> excluded.quality
"""
_NEWEST = "SELECT decision_id, model, vector, quality FROM eccos_learned_labels ORDER BY number DESC LIMIT %s"


class PostgresLabelJournal(BaseLabelJournal):
    """Keeps labels for all replicas. Safe to use from several threads and processes.

    A label is in the database when `put` returns. Raises `DatabaseAwayError` where the database does not answer.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        with pool.told(), pool.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKE_LOCK,))
            connection.execute(_SCHEMA)

    def put(self, entries: Sequence[JournalEntry]) -> None:
        """See `BaseLabelJournal`."""
        # always in this order, so that two replicas never wait for each other
        rows = sorted(
            (each.decision_id, each.model, np.asarray(each.vector, dtype=np.float32).tobytes(), float(each.quality))
            for each in entries
        )
        with self._pool.told(), self._pool.transaction() as connection, connection.cursor() as cursor:
            cursor.executemany(_PUT_LABEL, rows)

    def entries(self, newest: int) -> list[JournalEntry]:
        """See `BaseLabelJournal`."""
        rows = self._pool.read(_NEWEST, (newest,))
        return [
            JournalEntry(decision_id, model, np.frombuffer(vector, dtype=np.float32), quality)
            for decision_id, model, vector, quality in reversed(rows)
        ]

    def exploration_usd(self) -> dict[str, float]:
        """See `BaseLabelJournal`. No older version noted anything here."""
        return {}
