"""`BaseDecisionLog`: what every decision log does. A thread of its own writes, so that no answer waits for a disk."""
# ruff: noqa: S608 - every piece of a query is written in this file, and values are bound

from __future__ import annotations

import atexit
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypeAlias

from eccos_core.decision_log.entries import (
    CalibrationEntry,
    CompletionEntry,
    DecisionEntry,
    LabelEntry,
    LoggedDecision,
    ShadowLabelEntry,
    SpendingEntry,
)
from eccos_core.decision_log.reader import LogReader
from eccos_core.decision_log.rows import read_decision
from eccos_core.decision_log.write_queue import WriteQueue
from eccos_core.domain import LabellingCall, LabelSource
from eccos_core.errors import DataError, UnknownDecisionError
from eccos_core.io.forks import ProcessGuard

MAX_GROUP_S = 0.2  # a kill loses at most the entries of this time
GROUP_ROWS = 500  # so many that wait are written before their time is over
MAX_GROUP_ROWS = 5_000
MAX_QUEUED = 100_000  # entries that wait for a slow disk, later ones are dropped and counted
PRUNE_EVERY_S = 3600.0
PRUNE_ROWS = 1_000  # decisions that are deleted at once, so that others can write in between
_DAY_S = 86_400.0

QueuedEntry: TypeAlias = (
    DecisionEntry | CompletionEntry | LabelEntry | ShadowLabelEntry | CalibrationEntry | SpendingEntry
)
_log = logging.getLogger("eccos.decision_log")


class BaseDecisionLog(ABC):
    """Keep decisions, answers and labels. Safe to use from several threads.

    A writer thread commits entries in groups. The logger `eccos.decision_log` reports what goes wrong once, and
    `problem` holds the message. The router keeps answering. With `log_prompts` the log also keeps the encoded text.
    `place` names the log for people, and `reader` runs queries. `dropped` counts entries that are lost. With
    `keep_days` the writer deletes older decisions while it writes, about once an hour.
    """

    def __init__(
        self,
        place: str,
        reader: LogReader,
        *,
        log_prompts: bool,
        keep_days: int | None = None,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self.place, self.reader, self.log_prompts = place, reader, log_prompts
        self.problem: str | None = None
        self.dropped = 0
        self._keep_days, self._prune_at = keep_days, 0.0  # `_prune_at` is by `time.monotonic`
        self._counting = threading.Lock()
        self._reported: set[str] = set()  # kinds of problems since entries were last written
        self._guard = ProcessGuard(f"the decision log {place}")
        self._queue: WriteQueue[QueuedEntry] = WriteQueue(MAX_GROUP_S, GROUP_ROWS, MAX_GROUP_ROWS, max_queued)
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
        found = self.find(entry.decision_id)
        self._enqueue(entry)
        self.flush()
        return found

    def prune(self, before: float) -> int:
        """Delete the decisions made before a time (s since 1970, UTC), with their labels and what judging them cost.

        Returns how many decisions. They are deleted 1,000 at a time, and other processes may write meanwhile.
        """
        self.flush()
        deleted = 0
        while count := self._prune_some(before):
            deleted += count
        return deleted

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
        self._end_writer()

    def _end_writer(self) -> None:
        self._writer.join()

    def _enqueue(self, entry: QueuedEntry) -> None:
        self._guard.check()
        if not self._queue.put(entry):
            self._count_lost(1)
            self._report(f"{self.place} is too slow, or closed, so entries are being dropped", "full")

    @abstractmethod
    def _write_all(self) -> None:
        """Write group after group of the queue until it is closed and empty. The writer thread runs it."""

    @property
    @abstractmethod
    def _database_errors(self) -> tuple[type[Exception], ...]:
        """What the database raises."""

    @abstractmethod
    def _prune_some(self, before: float) -> int:
        """Delete at most `PRUNE_ROWS` decisions of before that time. Returns how many."""

    def _prune_if_due(self) -> None:
        """Delete some of the decisions that are too old. The writer calls it after a group.

        At most 1,000 go after one group, so that no entry waits long, and those are more than a group adds.
        """
        if self._keep_days is None or time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + PRUNE_EVERY_S
        errors: tuple[type[Exception], ...] = (OSError, DataError, *self._database_errors)
        try:
            if self._prune_some(time.time() - self._keep_days * _DAY_S) == PRUNE_ROWS:
                self._prune_at = 0.0  # there may be more
        except errors as error:
            self._report(f"{self.place}: old decisions stay for another hour, as deleting failed ({error})", "prune")

    def _count_lost(self, entries: int) -> None:
        with self._counting:
            self.dropped += entries

    def _report(self, problem: str, kind: str = "broken") -> None:
        """Keep a problem, and log the first of its kind since entries were last written."""
        if kind not in self._reported:
            self._reported.add(kind)
            _log.error("decision log: %s", problem)
        self.problem = problem

    def _clear_problem(self) -> None:
        self._reported.clear()
        self.problem = None

    # ---------------------------------------------------------------- read

    def get(self, decision_id: str) -> LoggedDecision | None:
        """Return the decision with that id, or None."""
        return next(self._select("WHERE id = ?", (decision_id,)), None)

    def find(self, decision_id: str) -> LoggedDecision:
        """Return the decision with that id, also where it is still on its way. Raises `UnknownDecisionError`."""
        self.flush()
        found = self.get(decision_id)
        if found is None:
            raise UnknownDecisionError(decision_id)
        return found

    def entries(
        self, *, model: str | None = None, labelled: bool | None = None, since: float | None = None, last: int = 100
    ) -> list[LoggedDecision]:
        """Return at most `last` decisions, the newest first. Filter by model, label, and time (s since 1970)."""
        conditions: list[str] = ["1 = 1"]
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
        taken, only, values = "a.quality", "", list[object]((source, other))
        if self.reader.has_column("labels", "uncalibrated"):  # else an older log, which nobody has written to since
            taken = "coalesce(a.uncalibrated, a.quality)"
            if judge is not None:
                only, values = "AND a.judge = ?", [source, other, judge]
        query = (
            f"SELECT {taken}, b.quality FROM {{labels}} a JOIN {{labels}} b USING (decision_id) "
            f"WHERE a.source = ? AND b.source = ? {only} ORDER BY a.at"
        )
        return self.reader.rows(query, values, table="labels")

    def judges(self) -> list[str]:
        """Return the models that have judged answers."""
        if not self.reader.has_column("labels", "judge"):
            return []
        query = "SELECT DISTINCT judge FROM {labels} WHERE judge IS NOT NULL ORDER BY judge"
        return [row[0] for row in self.reader.rows(query, table="labels")]

    def spending(self, since: float | None = None) -> list[tuple[str, LabellingCall, float]]:
        """Return (decision id, what was called, USD) of each call that labelled. `since`: in s since 1970 (UTC)."""
        query = "SELECT decision_id, call, usd FROM {spending} WHERE at >= ? ORDER BY at"
        return self.reader.rows(query, (since or 0.0,), table="spending")

    def _select(self, where: str, values: tuple[object, ...]) -> Iterator[LoggedDecision]:
        for row in self.reader.mappings(f"SELECT * FROM {{decisions}} {where}", values):
            yield read_decision(row)
