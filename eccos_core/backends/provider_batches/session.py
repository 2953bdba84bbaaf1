"""The provider batches of one call: those found again, and those that it submits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from eccos_core.backends.litellm.call_loop import CALL_LOOP
from eccos_core.backends.provider_batches.collection import Collection, RowResult
from eccos_core.backends.provider_batches.connections import BatchDeployment, Connection, Connections
from eccos_core.backends.provider_batches.state import OpenBatch, ProviderBatchFolder
from eccos_core.backends.provider_batches.submission import Submission, new_batch
from eccos_core.domain import Request, batch_arm
from eccos_core.errors import BackendError

Report: TypeAlias = Callable[[str], None]  # hears in words what happens
_log = logging.getLogger("eccos.provider_batches")


class BatchSession:
    """The provider batches of one call (implements `BatchCalls`).

    As a context manager it claims the open batches of `models` that have its `scope`, and gives them back at its end.
    `finish` forgets those that were read.
    """

    def __init__(
        self,
        folder: ProviderBatchFolder,
        models: Mapping[str, BatchDeployment],
        patience_s: float,
        report: Report | None,
        scope: str,
        *,
        poll_s: float,
        max_poll_s: float,
    ) -> None:
        self._folder, self._models, self._patience_s = folder, models, patience_s
        self._report, self._scope = report, scope
        self._connections = Connections(models)
        self._collection = Collection(
            folder,
            self._connections,
            self._tell,
            poll_s=poll_s,
            max_poll_s=max_poll_s,
            outlasts_refusals=bool(scope),
        )
        self._open: dict[str, OpenBatch] = {}
        self._of_row: dict[str, OpenBatch] = {}

    def __enter__(self) -> BatchSession:
        places = {name: each.place for name, each in self._models.items()}
        for record in self._folder.records():
            if record.scope != self._scope or places.get(record.model) != record.place:
                continue
            lock = self._folder.claim(record.id)
            if lock is None:
                continue
            now = self._folder.again(record)
            if now is None:
                self._folder.release(record.id, lock)
                continue
            batch = self._open[now.id] = OpenBatch(now, lock)
            self._of_row |= {row: batch for row in now.rows if row not in self._of_row}
        return self

    def __exit__(self, *_: object) -> None:
        for batch in self._open.values():
            self._folder.release(batch.record.id, batch.lock)
        self._open.clear()
        CALL_LOOP.run(self._connections.close())

    def model_of(self, row: str) -> str | None:
        """Return the model whose open batch has this row already. None if no batch has."""
        batch = self._of_row.get(row)
        return None if batch is None else batch.record.model

    def submit(self, rows: Mapping[str, Mapping[str, Request]]) -> dict[str, BackendError]:
        """Submit the requests of each model, by the names of their rows. Those of open batches are only attached.

        Returns the rows that no batch took, with the reason.
        """
        return CALL_LOOP.run(self._submit(rows))

    async def asubmit(self, rows: Mapping[str, Mapping[str, Request]]) -> dict[str, BackendError]:
        """The asynchronous twin of `submit`."""
        return await CALL_LOOP.arun(self._submit(rows))

    def collect(self) -> dict[str, RowResult]:
        """Wait until every batch with requests is over, and return what became of each row."""
        return CALL_LOOP.run(self._collect())

    async def acollect(self) -> dict[str, RowResult]:
        """The asynchronous twin of `collect`. Cancelling the task leaves the batches running: they are found again."""
        return await CALL_LOOP.arun(self._collect())

    async def aresults(self) -> AsyncGenerator[dict[str, RowResult], None]:
        """Yield what became of the rows of each batch, as soon as that batch is over."""
        waits = [asyncio.create_task(CALL_LOOP.arun(self._collection.collect(each))) for each in self._with_requests()]
        try:
            for ended in asyncio.as_completed(waits):
                yield await ended
        finally:
            for wait in waits:
                wait.cancel()

    async def acancel(self) -> None:
        """Ask the providers to end the batches. Who waits gets the answers that there are, and errors for the rest."""
        for batch in self._open.values():
            self._folder.ask_cancel(batch.record.id)
        await CALL_LOOP.arun(self._hurry())

    def finish(self) -> None:
        """Forget the batches that were read. Rows that nobody asked for stay, unless the session has a scope."""
        for batch in self._open.values():
            if batch.is_pending or not batch.requests:
                continue
            left = tuple(row for row in batch.record.rows if row not in batch.requests)
            if left and not self._scope:
                self._folder.save(replace(batch.record, rows=left))
            else:
                self._folder.remove(batch.record.id)

    async def _submit(self, rows: Mapping[str, Mapping[str, Request]]) -> dict[str, BackendError]:
        submission = Submission(self._folder, self._connections, self._tell)
        for model, asked in rows.items():
            fresh = dict(asked)
            for row in asked:
                batch = self._of_row.get(row)
                if batch is not None and batch.record.model == model:
                    batch.requests[row] = fresh.pop(row)
            await submission.submit_new(model, fresh, partial(self._make, model))
        for batch in self._with_requests():
            if not batch.record.provider_id and not batch.is_pending:
                await submission.submit_again(batch)
        return submission.refused

    def _make(self, model: str, connection: Connection, rows: tuple[str, ...]) -> OpenBatch:
        batch = new_batch(self._folder, model, connection.place, rows, self._patience_s, self._scope)
        self._open[batch.record.id] = batch
        return batch

    async def _collect(self) -> dict[str, RowResult]:
        found: dict[str, RowResult] = {}
        for results in await asyncio.gather(*map(self._collection.collect, self._with_requests())):
            found |= results
        return found

    async def _hurry(self) -> None:
        for batch in self._open.values():
            batch.hurry.set()

    def _with_requests(self) -> list[OpenBatch]:
        return [batch for batch in self._open.values() if batch.requests]

    def _tell(self, batch: OpenBatch, what: str) -> None:
        record = batch.record
        said = f"{batch_arm(record.model)}: batch {record.provider_id or record.id}: {what}"
        extra = {"event": "provider_batch", "batch_id": record.provider_id, "model": record.model}
        _log.info("%s", said, extra={"eccos": extra})
        if self._report is not None:
            self._report(said)
