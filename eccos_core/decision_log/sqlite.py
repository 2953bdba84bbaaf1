"""`DecisionLog`: SQLite in WAL mode. A thread of its own writes it in groups, so that no answer waits for the disk."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TypeVar

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

Entry = TypeVar("Entry")
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
# One statement writes all rows of a kind. Each statement gives Python's lock away, and this thread waits up to 5 ms to
# get it back while another one computes. So one statement for each row falls behind a busy router.
_INSERT = f"INSERT OR IGNORE INTO decisions ({', '.join(DECISION_COLUMNS)}) VALUES {{rows}}"  # noqa: S608 - constants
_UPDATE_COMPLETIONS = """
WITH given (model, input_tokens, output_tokens, paid_usd, latency_s, time_to_first_token_s, attempts, calls, id)
  AS (VALUES {rows})
UPDATE decisions SET model = given.model, input_tokens = coalesce(given.input_tokens, decisions.input_tokens),
  output_tokens = given.output_tokens, paid_usd = given.paid_usd, latency_s = given.latency_s,
  time_to_first_token_s = given.time_to_first_token_s, attempts = given.attempts, calls = given.calls
FROM given WHERE decisions.id = given.id
"""
_WRONG_VALUE = (ValueError, OverflowError, sqlite3.ProgrammingError, sqlite3.IntegrityError)
MAX_VALUES = 32_000  # of one statement. SQLite takes 32,766
MAX_STATEMENTS = 16  # that a connection keeps compiled, as those of many rows are large
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
                    connection.execute("BEGIN IMMEDIATE")
                    errors = self._write_group(connection, group)
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

    def _write_group(self, connection: sqlite3.Connection, group: Sequence[QueuedEntry]) -> list[Exception]:
        """Write a group: its decisions, then its completions, then the rest. Returns what is wrong with single entries.

        Examples are a number that is too large and half of a surrogate pair. Errors of the disk are raised.
        """
        decisions = [entry for entry in group if isinstance(entry, DecisionEntry)]
        errors = _try_rows(connection, _INSERT, decisions, partial(decision_row, log_prompts=self.log_prompts))
        for completions in _split_repeated(entry for entry in group if isinstance(entry, CompletionEntry)):
            errors += _try_rows(connection, _UPDATE_COMPLETIONS, completions, completion_row)
        for entry in group:
            try:
                _write_rare(connection, entry)
            except _WRONG_VALUE as error:
                errors.append(error)
        return errors

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=10, cached_statements=MAX_STATEMENTS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        _add_later_columns(connection)
        return connection


def _write_rare(connection: sqlite3.Connection, entry: QueuedEntry) -> None:
    """Write an entry that is neither a decision nor a completion."""
    match entry:
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


def _try_rows(
    connection: sqlite3.Connection, statement: str, entries: Sequence[Entry], row: Callable[[Entry], tuple[object, ...]]
) -> list[Exception]:
    """Write entries by one statement, or each by itself where one is wrong. Returns what is wrong with those."""
    if not entries:
        return []
    try:
        rows = [row(entry) for entry in entries]
        places = f"({', '.join('?' * len(rows[0]))})"
        step = MAX_VALUES // len(rows[0])
        for some in (rows[begin : begin + step] for begin in range(0, len(rows), step)):
            values = [value for each in some for value in each]
            connection.execute(statement.format(rows=", ".join([places] * len(some))), values)
    except _WRONG_VALUE as error:
        if len(entries) == 1:
            return [error]
        return [found for entry in entries for found in _try_rows(connection, statement, [entry], row)]
    return []


def _split_repeated(completions: Iterable[CompletionEntry]) -> Iterator[list[CompletionEntry]]:
    """Yield runs in which no decision comes twice, as one statement takes any one of two rows for a decision."""
    run: dict[str, CompletionEntry] = {}
    for entry in completions:
        if entry.decision_id in run:
            yield list(run.values())
            run = {}
        run[entry.decision_id] = entry
    yield list(run.values())


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
