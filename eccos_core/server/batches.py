"""Batches: the requests of an uploaded file are assigned jointly, answered, and their results are written."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Mapping
from typing import Any

from eccos_core.errors import BackendError
from eccos_core.server.batch_file import read_requests, write_results
from eccos_core.server.batch_record import DAY_S, ENDED, BatchFolder, BatchRecord
from eccos_core.server.batch_run import BatchRun
from eccos_core.server.errors import ApiError
from eccos_core.server.files import FileStore
from eccos_core.server.gate import Caller
from eccos_core.server.serving import Serving, tell

LOOK_EVERY_S = 2.0  # for batches that nobody runs any more
_log = logging.getLogger("eccos.server")


class Batches:
    """Runs the batches of one server, each as a task of the event loop. A restart takes up what had not ended.

    Several processes may use one folder. Each batch is run by one of them, and another one takes it up when that ends.
    """

    def __init__(self, serving: Serving, files: FileStore, folder: BatchFolder) -> None:
        self._serving, self._files, self._folder = serving, files, folder
        self._running: dict[str, asyncio.Task[None]] = {}
        self._records: dict[str, BatchRecord] = {}
        self._runs: dict[str, BatchRun] = {}
        self._ended: set[str] = set()  # batches that need no look any more
        self._looking: asyncio.Task[None] | None = None

    async def create(
        self,
        caller: Caller,
        input_file_id: str,
        policy: str | None,
        metadata: Mapping[str, str],
        patience_s: float = DAY_S,
    ) -> BatchRecord:
        """Begin a batch, whose answers may take `patience_s`. Raises `ApiError` for a file that is not the caller's."""
        await asyncio.to_thread(self._files.get, input_file_id, caller.key_id)
        owner = (caller.key_id, caller.tenant, caller.is_admin)
        record = BatchRecord(input_file_id, *owner, policy, dict(metadata), patience_s=patience_s)
        await asyncio.to_thread(self._folder.take, record.id)  # before others can see it
        await asyncio.to_thread(self._folder.save, record)
        self._begin(record)
        return record

    async def resume(self) -> None:
        """Take up the batches that a shutdown has cut off, now, and later those of other processes that end."""
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking(), name="eccos-batches")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._look()
            except OSError as error:
                _log.warning("the folder of batches cannot be read: %s", error.strerror or type(error).__name__)

    async def _look(self) -> None:
        """Take up what nobody runs, and cancel what another process was asked to cancel."""
        for found in await asyncio.to_thread(lambda: list(self._folder.records(without=self._ended))):
            running = self._records.get(found.id)
            if running is not None:
                if running.status not in ENDED and await asyncio.to_thread(self._folder.is_to_cancel, found.id):
                    await self._cancel(running)
            elif found.status in ENDED:
                self._ended.add(found.id)
                await asyncio.to_thread(self._folder.drop_results, found)  # that a kill has left behind
            elif await asyncio.to_thread(self._folder.take, found.id):
                await self._take_up(found.id)

    async def _take_up(self, batch_id: str) -> None:
        record = await asyncio.to_thread(self._folder.read, batch_id)  # it may have ended just now
        if record is None or record.status in ENDED:
            await asyncio.to_thread(self._folder.let_go, batch_id, ended=True)
            return
        record.resumed += record.status != "validating"
        if await asyncio.to_thread(self._folder.is_to_cancel, batch_id):
            record.move("cancelling")
        self._begin(record)

    async def stop(self) -> None:
        """Stop all batches. They stay unfinished, and a restart takes them up."""
        tasks = [*self._running.values(), *([self._looking] if self._looking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def get(self, batch_id: str, caller: Caller) -> BatchRecord:
        """Return a batch of the caller. Raises `ApiError`."""
        kept = await asyncio.to_thread(self._folder.get, batch_id, caller.key_id)
        running = self._records.get(batch_id)
        return await asyncio.to_thread(self._folder.as_seen, kept) if running is None else running

    async def owned(self, caller: Caller) -> list[BatchRecord]:
        """Return the batches of the caller."""
        kept = await asyncio.to_thread(lambda: list(self._folder.records()))
        own = [record for record in kept if record.owner == caller.key_id]
        seen = await asyncio.to_thread(lambda: [self._folder.as_seen(record) for record in own])
        return [self._records.get(record.id, record) for record in seen]

    async def cancel(self, batch_id: str, caller: Caller) -> BatchRecord:
        """Cancel a batch. Answers that are there are kept. Raises `ApiError` for one that has ended."""
        record = await self.get(batch_id, caller)
        if record.status in ENDED or record.status == "finalizing":
            raise ApiError("invalid_request", f"the batch is {record.status}, and cannot be cancelled")
        if record.id not in self._records:
            await asyncio.to_thread(self._folder.ask_to_cancel, record.id)
            record.status = "cancelling"
            return record
        await self._cancel(record)
        return record

    async def _cancel(self, record: BatchRecord) -> None:
        if record.status in {"cancelling", "finalizing"}:
            return
        record.move("cancelling")
        await asyncio.to_thread(self._folder.save, record)  # a restart does not take it up again
        task = self._running.get(record.id)
        if task is not None and not await self._runs[record.id].cancel():
            task.cancel()

    def _begin(self, record: BatchRecord) -> None:
        self._records[record.id] = record
        self._runs[record.id] = BatchRun(self._serving, self._folder, record)
        task = asyncio.create_task(self._run(record), name=record.id)
        self._running[record.id] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._running.pop(record.id, None)
            self._folder.let_go(record.id, ended=record.status in ENDED)
            self._records.pop(record.id, None)
            self._runs.pop(record.id, None)

        task.add_done_callback(ended)

    async def _run(self, record: BatchRecord) -> None:
        try:
            if record.status != "cancelling":
                await self._answer(record)
            await self._finish(record, "cancelled" if record.status == "cancelling" else "completed")
        except asyncio.CancelledError:
            if record.status != "cancelling":
                raise  # the server stops. The record says where to go on.
            await self._finish(record, "cancelled")
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller reads it in the batch
            told = tell(error, "/v1/batches")
            await self._fail(record, [{"code": told.code or told.kind, "message": told.message, "line": None}])

    async def _answer(self, record: BatchRecord) -> None:
        """Read the file, and answer what has no result yet."""
        stored = await asyncio.to_thread(self._files.get, record.input_file_id, record.owner)
        bodies, errors = await asyncio.to_thread(read_requests, self._files.path(stored))
        most = self._serving.settings.max_queued_requests
        if not errors and not record.resumed and len(bodies) + self._queued_beside(record) > most:
            errors = [_too_many_queued(most)]
        if errors:
            await self._fail(record, errors)
            return
        await self._runs[record.id].answer(bodies)

    def _queued_beside(self, record: BatchRecord) -> int:
        others = [each for each in self._records.values() if each.owner == record.owner and each is not record]
        return sum(each.queued for each in others)

    async def _fail(self, record: BatchRecord, errors: list[dict[str, Any]]) -> None:
        await asyncio.to_thread(self._abandon, record)
        record.errors = errors[:100]
        record.move("failed")
        await asyncio.to_thread(self._folder.save, record)

    async def _finish(self, record: BatchRecord, status: Any) -> None:
        """Write the results into files, and end the batch."""
        if record.status == "failed":
            return
        if status == "completed":
            record.move("finalizing")
        else:
            await asyncio.to_thread(self._abandon, record)
        await asyncio.to_thread(self._write, record)
        record.move(status)
        await asyncio.to_thread(self._folder.save, record)
        await asyncio.to_thread(self._folder.drop_results, record)

    def _abandon(self, record: BatchRecord) -> None:
        """Cancel what a batch that ends here still has at providers."""
        provider = self._serving.router.parts.provider_batches
        if provider is None:
            return
        record.at_providers = 0
        try:
            provider.abandon(record.id)
        except BackendError as error:
            _log.warning("%s: a provider's batch could not be cancelled: %s", record.id, error)

    def _write(self, record: BatchRecord) -> None:
        results = self._folder.results(record)
        good = [each for each in results if each["error"] is None]
        bad = [each for each in results if each["error"] is not None]
        for lines, name in ((good, "output"), (bad, "errors")):
            if lines:
                content, filename = write_results(record.id, lines), f"{record.id}_{name}.jsonl"
                stored = self._files.add(io.BytesIO(content), filename, "batch_output", record.owner)
                setattr(record, "output_file_id" if name == "output" else "error_file_id", stored.id)


def _too_many_queued(most: int) -> dict[str, Any]:
    message = f"your unfinished batches may have {most:,} requests together. Wait for one to end, or send fewer."
    return {"code": "queue_limit_exceeded", "message": message, "line": None}
