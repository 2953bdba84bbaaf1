"""`DecisionLog`: SQLite in WAL mode. A thread of its own writes it in groups, so that no answer waits for the disk."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import astuple
from pathlib import Path

from eccos_core.decision_log.base import PRUNE_ROWS, BaseDecisionLog, QueuedEntry
from eccos_core.decision_log.entries import (
    CalibrationEntry,
    CompletionEntry,
    DecisionEntry,
    LabelEntry,
    ShadowLabelEntry,
    SpendingEntry,
    outranks,
)
from eccos_core.decision_log.reader import SqliteReader
from eccos_core.decision_log.rows import DECISION_COLUMNS, completion_row, decision_row, judgement_row
from eccos_core.domain import LabelSource

_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
  id TEXT PRIMARY KEY, at REAL NOT NULL, request_id TEXT NOT NULL, session_id TEXT, tenant TEXT,
  decided_model TEXT NOT NULL, quality REAL NOT NULL, cost_usd REAL NOT NULL, usd_per_quality REAL NOT NULL,
  floor_met INTEGER NOT NULL, reason TEXT NOT NULL, forecast TEXT NOT NULL, text TEXT, text_key TEXT NOT NULL,
  vector BLOB NOT NULL, model TEXT, input_tokens INTEGER, output_tokens INTEGER, paid_usd REAL, latency_s REAL,
  time_to_first_token_s REAL, attempts TEXT NOT NULL DEFAULT '[]', label REAL, labelled_at REAL,
  propensity REAL NOT NULL DEFAULT 1.0, label_source TEXT, calls TEXT NOT NULL DEFAULT '[]', quality_asked REAL,
  left_out TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE TABLE IF NOT EXISTS labels (
  decision_id TEXT NOT NULL, source TEXT NOT NULL, quality REAL NOT NULL, at REAL NOT NULL, judge TEXT, grade REAL,
  uncalibrated REAL, preference REAL, calibration TEXT, PRIMARY KEY (decision_id, source)
) STRICT;
CREATE TABLE IF NOT EXISTS shadow_labels (
  decision_id TEXT NOT NULL, model TEXT NOT NULL, quality REAL NOT NULL, at REAL NOT NULL, judge TEXT, grade REAL,
  uncalibrated REAL, preference REAL, calibration TEXT, PRIMARY KEY (decision_id, model)
) STRICT;
CREATE TABLE IF NOT EXISTS calibrations (
  version TEXT PRIMARY KEY, judge TEXT NOT NULL, offset REAL NOT NULL, slope REAL NOT NULL, pairs INTEGER NOT NULL,
  at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS spending (
  decision_id TEXT NOT NULL, call TEXT NOT NULL, usd REAL NOT NULL, at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS decisions_at ON decisions (at);
"""
# columns that came later, with what holds for the decisions of an older log
_LATER_COLUMNS = {
    "decisions": {
        "propensity": "REAL NOT NULL DEFAULT 1.0",
        "label_source": "TEXT",
        "calls": "TEXT NOT NULL DEFAULT '[]'",
        "quality_asked": "REAL",
        "left_out": "TEXT NOT NULL DEFAULT '[]'",
    },
    "labels": {
        "judge": "TEXT",
        "grade": "REAL",
        "uncalibrated": "REAL",
        "preference": "REAL",
        "calibration": "TEXT",
    },
}
# all that sums over many decisions read (figures.py), so that they need not read the rows, which are long
_FIGURES_INDEX = """
CREATE INDEX IF NOT EXISTS decisions_figures ON decisions (
  at, tenant, decided_model, model, quality_asked, quality, label, paid_usd, latency_s
)
"""
_INSERT = (
    f"INSERT OR IGNORE INTO decisions ({', '.join(DECISION_COLUMNS)}) "  # noqa: S608 - put together from constants
    f"VALUES ({', '.join('?' * len(DECISION_COLUMNS))})"
)
_UPDATE_COMPLETION = """
UPDATE decisions SET model = ?, input_tokens = coalesce(?, input_tokens), output_tokens = ?, paid_usd = ?,
  latency_s = ?, time_to_first_token_s = ?, attempts = ?, calls = ? WHERE id = ?
"""
_UPDATE_LABEL = "UPDATE decisions SET label = ?, labelled_at = ?, label_source = ? WHERE id = ?"
_SAVE_LABEL = """
INSERT OR REPLACE INTO labels (decision_id, source, quality, at, judge, grade, uncalibrated, preference, calibration)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_SHADOW_LABEL = """
INSERT OR REPLACE INTO shadow_labels (decision_id, model, quality, at, judge, grade, uncalibrated, preference,
  calibration)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_CALIBRATION = """
INSERT OR REPLACE INTO calibrations (version, judge, offset, slope, pairs, at) VALUES (?, ?, ?, ?, ?, ?)
"""
_ADD_SPENDING = "INSERT INTO spending (decision_id, call, usd, at) VALUES (?, ?, ?, ?)"
_OLD = f"SELECT id FROM decisions WHERE at < ? ORDER BY at LIMIT {PRUNE_ROWS}"  # noqa: S608 - constants
_PRUNE = (
    f"DELETE FROM labels WHERE decision_id IN ({_OLD})",  # noqa: S608 - constants
    f"DELETE FROM shadow_labels WHERE decision_id IN ({_OLD})",  # noqa: S608 - constants
    "DELETE FROM spending WHERE at < ?",
    f"DELETE FROM decisions WHERE id IN ({_OLD})",  # noqa: S608 - constants
)


class DecisionLog(BaseDecisionLog):
    """Keep decisions, answers and labels in a SQLite file. See `BaseDecisionLog`.

    When the disk is full or broken, entries are dropped and counted, and the router keeps answering.
    """

    def __init__(self, path: str | Path, *, log_prompts: bool = False, keep_days: int | None = None) -> None:
        self.path = Path(path)
        super().__init__(str(self.path), SqliteReader(self.path), log_prompts=log_prompts, keep_days=keep_days)

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        for group in self._queue.groups():
            try:
                connection = connection or self._connect()
                with connection:
                    errors = [error for entry in group if (error := self._try_write(connection, entry)) is not None]
                if errors:
                    self._count_lost(len(errors))
                    self._report(f"{self.path}: an entry was left out because it cannot be stored ({errors[0]})")
                else:
                    self._clear_problem()
                self._prune_if_due()
            except (sqlite3.Error, OSError) as error:
                self._count_lost(len(group))
                self._report(f"{self.path}: {error}. {self.dropped} entries are lost. The router keeps answering.")
                if connection is not None:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    @property
    def _database_errors(self) -> tuple[type[Exception], ...]:
        return (sqlite3.Error,)

    def _prune_some(self, before: float) -> int:
        if not self.path.exists():
            return 0
        with contextlib.closing(self._connect()) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            *_, deleted = [connection.execute(statement, (before,)).rowcount for statement in _PRUNE]
        return deleted

    def _try_write(self, connection: sqlite3.Connection, entry: QueuedEntry) -> Exception | None:
        """Write one entry. Returns the error if the entry itself is wrong, so that the other entries are still written.

        Examples are a number that is too large and half of a surrogate pair. Errors of the disk are raised.
        """
        try:
            self._write(connection, entry)
        except (ValueError, OverflowError, sqlite3.ProgrammingError, sqlite3.IntegrityError) as error:
            return error
        return None

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=10)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        _add_later_columns(connection)
        return connection

    def _write(self, connection: sqlite3.Connection, entry: QueuedEntry) -> None:
        match entry:
            case DecisionEntry():
                connection.execute(_INSERT, decision_row(entry, log_prompts=self.log_prompts))
            case CompletionEntry():
                connection.execute(_UPDATE_COMPLETION, completion_row(entry))
            case SpendingEntry(decision_id=decision_id, call=call, usd=usd, at=at):
                connection.execute(_ADD_SPENDING, (decision_id, call, usd, at))
            case ShadowLabelEntry(decision_id=decision_id, model=model, quality=quality, judgement=judgement, at=at):
                connection.execute(_SAVE_SHADOW_LABEL, (decision_id, model, quality, at, *judgement_row(judgement)))
            case CalibrationEntry():
                connection.execute(_SAVE_CALIBRATION, astuple(entry))
            case LabelEntry(decision_id=decision_id, quality=quality, source=source, judgement=judgement, at=at):
                connection.execute(_SAVE_LABEL, (decision_id, source, quality, at, *judgement_row(judgement)))
                if outranks(source, _source_of(connection, decision_id)):
                    connection.execute(_UPDATE_LABEL, (quality, at, source, decision_id))


def _add_later_columns(connection: sqlite3.Connection) -> None:
    """Give the log of an older version the columns that it lacks, and the index over them."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")  # two processes may open the same old log at once
        for table, columns in _LATER_COLUMNS.items():
            present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for name, kind in columns.items():
                if name not in present:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
        connection.execute(_FIGURES_INDEX)


def _source_of(connection: sqlite3.Connection, decision_id: str) -> LabelSource | None:
    """Return who gave a decision its label. A label from before sources were kept is a human's."""
    found = connection.execute("SELECT label, label_source FROM decisions WHERE id = ?", (decision_id,)).fetchone()
    return None if found is None or found[0] is None else found[1] or "human"
