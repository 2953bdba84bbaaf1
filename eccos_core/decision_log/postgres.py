"""`PostgresDecisionLog`: one decision log for several replicas. See `BaseDecisionLog`.

Every replica writes its groups in transactions of their own. While the database is away, a group is kept and written
again. Writing a group twice changes nothing, as a commit may have arrived whose answer was lost.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eccos_core.decision_log.base import MAX_QUEUED, PRUNE_ROWS, BaseDecisionLog, QueuedEntry
from eccos_core.decision_log.entries import LabelEntry, LoggedDecision
from eccos_core.decision_log.postgres_statements import in_order, statements_of
from eccos_core.decision_log.postgres_tables import LABEL_LOCK, make_tables
from eccos_core.decision_log.reader import LATER, TABLES, LogReader
from eccos_core.decision_log.rows import read_decision
from eccos_core.domain import LabelSource
from eccos_core.errors import DataError, InputError, UnknownDecisionError
from eccos_core.io.postgres import CONNECT_S, PostgresPool, name_replica

if TYPE_CHECKING:
    import psycopg

RETRY_S, MAX_RETRY_S = 0.1, 2.0
CLOSE_S = 10.0  # how long a log that is closed goes on trying to reach its database
ON_ITS_WAY_S = 1.0  # how long a decision of another replica may take to arrive
BEAT_S = 5.0  # between two signs of life
ALIVE_S = 20.0  # a replica that was not seen for so long is away
FORGET_S = 86_400.0  # a replica that was not seen for so long is no longer listed
NOT_ALLOWED = "42501"  # PostgreSQL: insufficient privilege
MAX_LABELS = 1_000  # of others, read at once
_MARKS = {
    **{name: name for name in LATER},
    **{name: f"eccos_{name}" for name in TABLES},
    "floor": "floor", "integer": "BIGINT", "least": "least", "rowid": "id",
}  # fmt: skip


_LABELS_AFTER = """
SELECT l.number AS label_number, l.replica AS label_replica, l.source AS label_by, d.*
FROM eccos_labels l JOIN eccos_decisions d ON d.id = l.decision_id WHERE l.number > %s ORDER BY l.number LIMIT %s
"""
# by the clock of the database, as those of replicas may differ
_NOW = "CAST(extract(epoch FROM clock_timestamp()) AS float8)"
_BEAT = f"""
INSERT INTO eccos_replicas (name, started_at, seen_at, dropped, stopped) VALUES (%s, {_NOW}, {_NOW}, %s, %s)
ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at, dropped = excluded.dropped, stopped = excluded.stopped
"""  # noqa: S608 - constants
_FORGET = f"DELETE FROM eccos_replicas WHERE seen_at < {_NOW} - %s"  # noqa: S608 - constants
_REPLICAS = f"""
SELECT r.name, {_NOW} - r.seen_at, r.stopped, r.dropped, coalesce(d.decisions, 0), coalesce(d.paid_usd, 0.0)
FROM eccos_replicas r LEFT JOIN (
  SELECT replica, count(*) AS decisions, sum(paid_usd) AS paid_usd FROM eccos_decisions WHERE at >= %s GROUP BY replica
) d ON d.replica = r.name WHERE r.seen_at >= {_NOW} - %s ORDER BY r.name
"""  # noqa: S608 - constants
# a row that another replica deletes just now is left to it
_PRUNE = f"""
WITH old AS (
  SELECT id FROM eccos_decisions WHERE at < %(before)s ORDER BY at LIMIT {PRUNE_ROWS} FOR UPDATE SKIP LOCKED
), labels AS (DELETE FROM eccos_labels WHERE decision_id IN (SELECT id FROM old)
), shadows AS (DELETE FROM eccos_shadow_labels WHERE decision_id IN (SELECT id FROM old)
), spending AS (DELETE FROM eccos_spending WHERE at < %(before)s)
DELETE FROM eccos_decisions WHERE id IN (SELECT id FROM old)
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class ReplicaUsage:
    """One replica of a fleet. `seen_ago_s`: how long ago its last sign of life was. `dropped`: entries it has lost.

    `decisions` and `paid_usd` are since the time that was asked for. `state` is `running`, `stopped` or `away`.
    """

    name: str
    seen_ago_s: float
    state: str
    dropped: int
    decisions: int
    paid_usd: float


class PostgresReader(LogReader):
    """Reads a decision log in PostgreSQL. Raises `DatabaseAwayError` where the database does not answer."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    def rows(self, query: str, values: Sequence[object] = (), *, table: str = "decisions") -> list[Any]:
        """See `LogReader`."""
        return self._pool.read(_written(query), values)

    def mappings(self, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        """See `LogReader`."""
        return self._pool.read(_written(query), values, as_mappings=True)

    def has_column(self, table: str, column: str) -> bool:
        """See `LogReader`. The version of the tables was checked when the log was opened."""
        return True

    def forecast_of(self, model: str, part: int) -> tuple[str, str]:
        """See `LogReader`."""
        return f"CAST(CAST(forecast AS json) -> CAST(? AS text) ->> {part} AS float8)", model


class PostgresDecisionLog(BaseDecisionLog):
    """Keep decisions, answers and labels in a PostgreSQL database, together with other replicas.

    `address`: `postgresql://user:password@host/name`. `replica`: the name of this process among them. Raises
    `InputError` for an address, password or user that the server refuses, and for tables of another version. A
    database that is away raises nothing: entries wait for it, at most `max_queued` of them.
    """

    def __init__(
        self,
        address: str,
        *,
        log_prompts: bool = False,
        keep_days: int | None = None,
        replica: str | None = None,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        pool = PostgresPool(address, "the decision log")
        self.pool, self.replica = pool, replica or name_replica()
        self._faults = pool.errors_of_values  # errors of an entry, which no second try mends
        self._closing = threading.Event()
        self._gives_up_at = float("inf")  # by `time.monotonic`
        self._made = False
        self._last_label: int | None = None  # of the labels of others that were read
        self._beaten_at: float | None = None  # by `time.monotonic`
        problem = self._prepare()
        super().__init__(
            pool.place, PostgresReader(pool), log_prompts=log_prompts, keep_days=keep_days, max_queued=max_queued
        )
        if problem is not None:
            self._report(f"{pool.place}: {problem} Entries wait, and the router keeps answering.", "away")

    def close(self) -> None:
        """Write all queued entries, for at most 10 s where the database is away, and end the connections."""
        if self._guard.is_forked:
            return
        self._gives_up_at = time.monotonic() + CLOSE_S
        self._closing.set()
        super().close()
        with contextlib.suppress(DataError):  # it then counts as away
            if self._beaten_at is not None:
                self.beat(stopped=True)
        self.pool.close()

    def _end_writer(self) -> None:
        self._writer.join(CLOSE_S + CONNECT_S)
        if self._writer.is_alive():  # the server took the connection, and says nothing
            self._report(
                f"{self.place}: the database hangs. Entries that wait are lost, as the log was closed.", "lost"
            )

    def find(self, decision_id: str) -> LoggedDecision:
        """Return the decision with that id. One of another replica may be on its way for a second.

        Raises `UnknownDecisionError`.
        """
        self.flush()
        until = time.monotonic() + ON_ITS_WAY_S
        while (found := self.get(decision_id)) is None:
            if time.monotonic() >= until:
                raise UnknownDecisionError(decision_id)
            time.sleep(0.05)
        return found

    # ---------------------------------------------------------------- the fleet

    def new_labels(self) -> list[tuple[LoggedDecision, LabelSource]]:
        """Return decisions that other replicas have labelled since the last call, at most 1,000, with the source.

        Each is as the log has it now. A label that a more trusted one outranks is left out. The first call returns what
        came since this log was opened. For one thread. Raises `DatabaseAwayError` where the database does not answer.
        """
        if self._last_label is None:
            self._last_label = self._newest_label()
        rows = self.pool.read(_LABELS_AFTER, (self._last_label, MAX_LABELS), as_mappings=True)
        found: list[tuple[LoggedDecision, LabelSource]] = []
        for row in rows:
            self._last_label = row.pop("label_number")
            by, source = row.pop("label_replica"), row.pop("label_by")
            if by != self.replica and row["label_source"] == source:
                found.append((read_decision(row), source))
        return found

    def beat(self, *, stopped: bool = False) -> None:
        """Say that this replica lives, at most once in five seconds, or that it stops.

        Raises `DatabaseAwayError` where the database does not answer.
        """
        now = time.monotonic()
        if not stopped and self._beaten_at is not None and now - self._beaten_at < BEAT_S:
            return
        with self.pool.told(), self.pool.transaction() as connection:
            connection.execute(_BEAT, (self.replica, self.dropped, stopped))
            connection.execute(_FORGET, (FORGET_S,))
        self._beaten_at = now

    def replicas(self, since: float) -> tuple[ReplicaUsage, ...]:
        """Return the replicas that lived in the last day, with what each decided since a time (s since 1970, UTC)."""
        found = self.pool.read(_REPLICAS, (since, FORGET_S))
        return tuple(
            ReplicaUsage(name, seen_ago_s, _state(seen_ago_s, stopped=stopped), dropped, decisions, paid)
            for name, seen_ago_s, stopped, dropped, decisions, paid in found
        )

    def _newest_label(self) -> int:
        return int(self.pool.read("SELECT coalesce(max(number), 0) FROM eccos_labels")[0][0])

    # ---------------------------------------------------------------- the writer thread

    def _prepare(self) -> str | None:
        """Make the tables. Returns why that must wait, and raises what waiting does not mend."""
        try:
            with self.pool.transaction() as connection:
                make_tables(connection, self.pool.place)
            self._last_label, self._made = self._newest_label(), True
        except DataError as error:  # it went away just now
            return str(error)
        except self.pool.error as error:
            if self.pool.refusal(error) is not None or getattr(error, "sqlstate", None) == NOT_ALLOWED:
                raise InputError(f"the decision log {self.pool.place}: {self.pool.explain(error)}") from None
            return self.pool.explain(error)
        return None

    def _write_all(self) -> None:
        for group in self._queue.groups():
            self._count_lost(self._write_until_done(group))
            self._prune_if_due()

    @property
    def _database_errors(self) -> tuple[type[Exception], ...]:
        return (self.pool.error,)

    def _prune_some(self, before: float) -> int:
        with self.pool.told(), self.pool.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LABEL_LOCK,))  # no label is written meanwhile
            return connection.execute(_PRUNE.encode(), {"before": before}).rowcount

    def _write_until_done(self, group: Sequence[QueuedEntry]) -> int:
        """Write a group, as often as it takes. Returns how many of its entries are lost."""
        key, wait_s = uuid4().hex, RETRY_S
        while True:
            try:
                errors = self._write_group(group, key)
            except (self.pool.error, OSError, InputError) as error:
                said = str(error) if isinstance(error, InputError) else f"{self.place}: {self.pool.explain(error)}"
                self._report(f"{said} Entries wait, and the router keeps answering.", "away")
                self.pool.forget_idle()
            else:
                self._clear_problem()
                if errors:
                    self._report(f"{self.place}: an entry was left out because it cannot be stored ({errors[0]})")
                return len(errors)
            if time.monotonic() >= self._gives_up_at:
                self._report(
                    f"{self.place}: entries are lost, as the log was closed while its database was away", "lost"
                )
                return len(group)
            if not self._closing.wait(wait_s):
                wait_s = min(2 * wait_s, MAX_RETRY_S)
            else:
                time.sleep(RETRY_S)

    def _write_group(self, group: Sequence[QueuedEntry], key: str) -> list[str]:
        """Write a group in one transaction. Returns what is wrong with entries that cannot be stored."""
        entries = [(entry, f"{key}-{place}") for place, entry in enumerate(group)]
        try:
            with self._writing(group) as connection:
                self._write(connection, entries)
        except self._faults:
            errors = []
            with self._writing(group) as connection:
                for each in entries:
                    try:
                        with connection.transaction():
                            self._write(connection, [each])
                    except self._faults as error:
                        errors.append(type(error).__name__)
            return errors
        return []

    @contextlib.contextmanager
    def _writing(self, group: Sequence[QueuedEntry]) -> Iterator[psycopg.Connection[Any]]:
        with self.pool.transaction() as connection:
            if not self._made:
                make_tables(connection, self.place)
                self._made = True
            if any(isinstance(entry, LabelEntry) for entry in group):
                # numbers of labels are committed in their order, so that whoever reads on from a number misses none
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (LABEL_LOCK,))
            yield connection

    def _write(self, connection: psycopg.Connection[Any], entries: Sequence[tuple[QueuedEntry, str]]) -> None:
        made = [
            each
            for entry, key in entries
            for each in statements_of(entry, key, self.replica, log_prompts=self.log_prompts)
        ]
        with connection.cursor() as cursor:
            for statement, rows in in_order(made):
                cursor.executemany(statement.encode(), rows)


def _written(query: str) -> str:
    """Write a query for psycopg. No value is part of it, so no `%` of a value is."""
    return query.format(**_MARKS).replace("%", "%%").replace("?", "%s")


def _state(seen_ago_s: float, *, stopped: bool) -> str:
    if stopped:
        return "stopped"
    return "running" if seen_ago_s < ALIVE_S else "away"
