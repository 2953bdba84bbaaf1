"""`DecisionLog`: SQLite in WAL mode. A thread of its own writes it in groups, so that no answer waits for the disk."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from eccos_core.decision_log.calls import calls_json, read_calls
from eccos_core.decision_log.entries import (
    CalibrationEntry,
    CompletionEntry,
    DecisionEntry,
    LabelEntry,
    LoggedDecision,
    ShadowLabelEntry,
    SpendingEntry,
    outranks,
)
from eccos_core.decision_log.write_queue import WriteQueue
from eccos_core.domain import Judgement, LabellingCall, LabelSource
from eccos_core.errors import Attempt, UnknownDecisionError
from eccos_core.io.forks import ProcessGuard
from eccos_core.io.tokens import text_key

MAX_GROUP_S = 0.2  # a kill loses at most the entries of this time
MAX_GROUP_ROWS = 500
MAX_QUEUED = 100_000  # entries that wait for a slow disk, later ones are dropped and counted

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
_INSERT = """
INSERT OR IGNORE INTO decisions (id, at, request_id, session_id, tenant, decided_model, quality, cost_usd,
  usd_per_quality, floor_met, reason, forecast, text, text_key, vector, input_tokens,
  propensity, quality_asked, left_out)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
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

_QueuedEntry: TypeAlias = (
    DecisionEntry | CompletionEntry | LabelEntry | ShadowLabelEntry | CalibrationEntry | SpendingEntry
)
_log = logging.getLogger("eccos.decision_log")


class DecisionLog:
    """Keep decisions, answers and labels in a SQLite file.

    A writer thread commits entries in groups. The logger `eccos.decision_log` reports a full or broken disk once, and
    `problem` holds the message. The router keeps answering. With `log_prompts` the log also keeps the encoded text.
    """

    def __init__(self, path: str | Path, *, log_prompts: bool = False) -> None:
        self.path = Path(path)
        self.log_prompts = log_prompts
        self.problem: str | None = None
        self.dropped = 0
        self._guard = ProcessGuard(f"the decision log {self.path}")
        self._queue: WriteQueue[_QueuedEntry] = WriteQueue(MAX_GROUP_S, MAX_GROUP_ROWS, MAX_QUEUED)
        self._writer = threading.Thread(target=self._write_all, name="eccos-decision-log", daemon=True)
        self._writer.start()
        atexit.register(self.close)  # a daemon thread does not keep the process alive, so the last entries need this

    # ---------------------------------------------------------------- write

    def add_decision(self, entry: DecisionEntry) -> None:
        """Queue a decision and return at once."""
        self._enqueue(entry)

    def add_completion(self, entry: CompletionEntry) -> None:
        """Queue the result of a decision and return at once."""
        self._enqueue(entry)

    def add_spending(self, entry: SpendingEntry) -> None:
        """Queue what a call that labels has cost, and return at once."""
        self._enqueue(entry)

    def add_shadow_label(self, entry: ShadowLabelEntry) -> None:
        """Queue the label of another model's answer, and return at once."""
        self._enqueue(entry)

    def add_calibration(self, entry: CalibrationEntry) -> None:
        """Queue a correction of a judge's grades, and return at once."""
        self._enqueue(entry)

    def label(self, decision_id: str, quality: float, source: LabelSource = "human") -> LoggedDecision:
        """Label a decision, and return it as it was before. Raises `UnknownDecisionError`.

        A new label replaces one of the same source or of a less trusted one. `label_pairs` finds all of them.
        """
        return self.add_label(LabelEntry(decision_id, quality, source))

    def add_label(self, entry: LabelEntry) -> LoggedDecision:
        """Label a decision as `label` does, with what a judge said."""
        self.flush()
        found = self.get(entry.decision_id)
        if found is None:
            raise UnknownDecisionError(entry.decision_id)
        self._enqueue(entry)
        self.flush()
        return found

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all entries so far are written or dropped. Returns False after `timeout_s`."""
        self._guard.check()
        return self._queue.wait_until_written(timeout_s)

    def close(self) -> None:
        """Write all queued entries and end the writer. This happens by itself when the process ends.

        In a forked child this does nothing, because the entries belong to the parent.
        """
        if self._guard.is_forked:
            return
        atexit.unregister(self.close)
        self._queue.close()
        self._writer.join()

    def _enqueue(self, entry: _QueuedEntry) -> None:
        self._guard.check()
        if not self._queue.put(entry):
            self.dropped += 1
            self._report("decisions are being dropped because the disk is too slow or the log is closed")

    # ---------------------------------------------------------------- read

    def get(self, decision_id: str) -> LoggedDecision | None:
        """Return the decision with that id, or None."""
        return next(self._select("WHERE id = ?", (decision_id,)), None)

    def entries(
        self, *, model: str | None = None, labelled: bool | None = None, since: float | None = None, last: int = 100
    ) -> list[LoggedDecision]:
        """Return at most `last` decisions, the newest first. Filter by model, label, and time (s since 1970)."""
        conditions: list[str] = ["1"]
        values: list[object] = []
        if model is not None:
            conditions.append("coalesce(model, decided_model) = ?")
            values.append(model)
        if labelled is not None:
            conditions.append(f"label IS {'NOT ' if labelled else ''}NULL")
        if since is not None:
            conditions.append("at >= ?")
            values.append(since)
        where = f"WHERE {' AND '.join(conditions)} ORDER BY at DESC LIMIT ?"
        return list(self._select(where, (*values, last)))

    def label_pairs(
        self, source: LabelSource, other: LabelSource = "human", *, judge: str | None = None
    ) -> list[tuple[float, float]]:
        """Return (label of `source`, label of `other`) for each decision that both labelled, the oldest first.

        A judge's label is taken as it was before any calibration. `judge` takes the labels of one judge only.
        """
        query = (
            "SELECT {}, b.quality FROM labels a JOIN labels b USING (decision_id) "
            "WHERE a.source = ? AND b.source = ? {} ORDER BY a.at"
        )
        if not self._has_column("labels", "uncalibrated"):  # an older log, which nobody has written to since
            return self._rows_of("labels", query.format("a.quality", ""), (source, other))
        query = query.format("coalesce(a.uncalibrated, a.quality)", "" if judge is None else "AND a.judge = ?")
        return self._rows_of("labels", query, (source, other) if judge is None else (source, other, judge))

    def judges(self) -> list[str]:
        """Return the models that have judged answers."""
        if not self._has_column("labels", "judge"):
            return []
        query = "SELECT DISTINCT judge FROM labels WHERE judge IS NOT NULL ORDER BY judge"
        return [row[0] for row in self._rows_of("labels", query, ())]

    def _has_column(self, table: str, column: str) -> bool:
        rows = self._rows_of(table, f"PRAGMA table_info({table})", ())
        return any(row[1] == column for row in rows)

    def spending(self, since: float | None = None) -> list[tuple[str, LabellingCall, float]]:
        """Return (decision id, what was called, USD) of each call that labelled. `since`: in s since 1970 (UTC)."""
        query = "SELECT decision_id, call, usd FROM spending WHERE at >= ? ORDER BY at"
        return self._rows_of("spending", query, (since or 0.0,))

    def _rows_of(self, table: str, query: str, values: tuple[object, ...]) -> list[Any]:
        """Return the rows of a query. An older log, which nobody has written to since, may lack the table."""
        if not self.path.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                return []
            return connection.execute(query, values).fetchall()

    def _select(self, where: str, values: tuple[object, ...]) -> Iterator[LoggedDecision]:
        if not self.path.exists():
            return
        with contextlib.closing(sqlite3.connect(self.path, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(f"SELECT * FROM decisions {where}", values):  # noqa: S608  # `where` is written in this file
                yield _row_to_decision(row)

    # ---------------------------------------------------------------- the writer thread

    def _write_all(self) -> None:
        connection: sqlite3.Connection | None = None
        for group in self._queue.groups():
            try:
                connection = connection or self._connect()
                with connection:
                    errors = [error for entry in group if (error := self._try_write(connection, entry)) is not None]
                if errors:
                    self.dropped += len(errors)
                    self._report(f"{self.path}: an entry was left out because it cannot be stored ({errors[0]})")
                else:
                    self.problem = None
            except (sqlite3.Error, OSError) as error:
                self.dropped += len(group)
                self._report(f"{self.path}: {error}. {self.dropped} entries are lost. The router keeps answering.")
                if connection is not None:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def _try_write(self, connection: sqlite3.Connection, entry: _QueuedEntry) -> Exception | None:
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

    def _write(self, connection: sqlite3.Connection, entry: _QueuedEntry) -> None:
        match entry:
            case DecisionEntry():
                connection.execute(_INSERT, _decision_row(entry, log_prompts=self.log_prompts))
            case CompletionEntry(decision_id=decision_id, completion=None, attempts=attempts):
                connection.execute(_UPDATE_COMPLETION, (*[None] * 6, _attempts_json(attempts), "[]", decision_id))
            case CompletionEntry(decision_id=decision_id, completion=completion, attempts=attempts) if (
                completion is not None
            ):
                values = (
                    completion.model,
                    completion.input_tokens,
                    completion.output_tokens,
                    completion.cost_usd,
                    completion.latency_s,
                    completion.time_to_first_token_s,
                )
                connection.execute(
                    _UPDATE_COMPLETION, (*values, _attempts_json(attempts), calls_json(completion.calls), decision_id)
                )
            case SpendingEntry(decision_id=decision_id, call=call, usd=usd, at=at):
                connection.execute(_ADD_SPENDING, (decision_id, call, usd, at))
            case ShadowLabelEntry(decision_id=decision_id, model=model, quality=quality, judgement=judgement, at=at):
                connection.execute(_SAVE_SHADOW_LABEL, (decision_id, model, quality, at, *_judged(judgement)))
            case CalibrationEntry():
                connection.execute(_SAVE_CALIBRATION, astuple(entry))
            case LabelEntry(decision_id=decision_id, quality=quality, source=source, judgement=judgement, at=at):
                connection.execute(_SAVE_LABEL, (decision_id, source, quality, at, *_judged(judgement)))
                if outranks(source, _source_of(connection, decision_id)):
                    connection.execute(_UPDATE_LABEL, (quality, at, source, decision_id))

    def _report(self, problem: str) -> None:
        if self.problem is None:
            _log.error("decision log: %s", problem)
        self.problem = problem


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


def _judged(judgement: Judgement | None) -> tuple[object, ...]:
    if judgement is None:
        return (None,) * 5
    return judgement.judge, judgement.grade, judgement.uncalibrated, judgement.preference, judgement.calibration


def _source_of(connection: sqlite3.Connection, decision_id: str) -> LabelSource | None:
    """Return who gave a decision its label. A label from before sources were kept is a human's."""
    found = connection.execute("SELECT label, label_source FROM decisions WHERE id = ?", (decision_id,)).fetchone()
    return None if found is None or found[0] is None else found[1] or "human"


def _decision_row(entry: DecisionEntry, *, log_prompts: bool) -> tuple[object, ...]:
    decision = entry.decision
    return (
        decision.id,
        entry.at,
        decision.request_id,
        entry.session_id,
        entry.tenant,
        decision.model,
        decision.quality,
        decision.cost_usd,
        decision.usd_per_quality,
        int(decision.floor_met),
        decision.reason,
        json.dumps(entry.forecast),
        entry.text if log_prompts else None,
        text_key(entry.text),
        np.asarray(entry.vector, dtype=np.float32).tobytes(),
        entry.input_tokens,
        decision.propensity,
        entry.quality_asked,
        json.dumps(entry.left_out),
    )


def _attempts_json(attempts: tuple[Attempt, ...]) -> str:
    return json.dumps([asdict(attempt) for attempt in attempts]) if attempts else "[]"


def _row_to_decision(row: sqlite3.Row) -> LoggedDecision:
    values = dict(row)
    values["floor_met"] = bool(values["floor_met"])
    values["forecast"] = {model: (each[0], each[1]) for model, each in json.loads(values["forecast"]).items()}
    values["vector"] = np.frombuffer(values["vector"], dtype=np.float32)
    values["attempts"] = tuple(Attempt(**each) for each in json.loads(values["attempts"]))
    values["calls"] = read_calls(values.get("calls") or "[]")
    values["left_out"] = tuple(json.loads(values.get("left_out") or "[]"))
    return LoggedDecision(**values)
