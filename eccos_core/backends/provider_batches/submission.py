"""Submits rows to a provider, so that nothing is submitted twice: not after a lost answer, and not after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from eccos_core.backends.provider_batches.api import BatchApi, WrittenRow
from eccos_core.backends.provider_batches.connections import Connection, Connections
from eccos_core.backends.provider_batches.state import OpenBatch, ProviderBatch, ProviderBatchFolder
from eccos_core.domain import Request
from eccos_core.errors import BackendError, FailureKind

SUBMIT_TRIES = 4
FIRST_BACKOFF_S = 1.0
ROW_FRAME_BYTES = 200  # of a row around its body: its name, its path
Tell = Callable[[OpenBatch, str], None]  # hears what happens to a batch, in words


class Submission:
    """One submission of rows. `refused` are the rows that no batch took, with the reason."""

    def __init__(self, folder: ProviderBatchFolder, connections: Connections, tell: Tell) -> None:
        self._folder, self._connections, self._tell = folder, connections, tell
        self.refused: dict[str, BackendError] = {}

    async def submit_new(
        self, model: str, asked: Mapping[str, Request], make: Callable[[Connection, tuple[str, ...]], OpenBatch]
    ) -> None:
        """Submit the requests of one model. `make` makes and keeps the batch of some rows before it is submitted."""
        try:
            connection = await self._connections.get(model)
        except BackendError as error:
            self.refused |= dict.fromkeys(asked, error)
            return
        written = await self._write(connection, asked)
        for rows in split_rows(written, connection.api):
            names = tuple(row.name for row in rows)
            batch = make(connection, names)
            batch.requests |= {name: asked[name] for name in names}
            self._folder.save(batch.record)  # before it is submitted, so that a kill in between is found out
            await self._send(batch, connection, rows, may_be_there=False)

    async def submit_again(self, batch: OpenBatch) -> None:
        """Go on with a batch whose submission was cut off. The provider may have it."""
        connection = await self._connections.get(batch.record.model)
        rows = await self._write(connection, batch.requests)
        for name in self.refused.keys() & batch.requests.keys():
            del batch.requests[name]
        if rows:
            await self._send(batch, connection, rows, may_be_there=True)

    async def _write(self, connection: Connection, asked: Mapping[str, Request]) -> list[WrittenRow]:
        written = []
        for name, request in asked.items():
            try:
                async with connection.lock:
                    written.append(await connection.rows.write(name, request))
            except BackendError as error:
                self.refused[name] = error
        return written

    async def _send(
        self, batch: OpenBatch, connection: Connection, rows: Sequence[WrittenRow], *, may_be_there: bool
    ) -> None:
        """Submit a batch. After a doubtful failure it is looked for first."""
        refusal: BackendError | None = None
        for attempt in range(SUBMIT_TRIES):
            try:
                if attempt > 0:
                    await asyncio.sleep(FIRST_BACKOFF_S * 2 ** (attempt - 1))
                if may_be_there:
                    taken = frozenset(each.provider_id for each in self._folder.records())
                    found = await connection.api.find(batch.record, taken)
                    if found is not None:
                        self._accept(batch, found, "found again")
                        return
                    batch.record = replace(batch.record, rows=tuple(row.name for row in rows))
                    self._folder.save(batch.record)
                provider_id = await connection.api.submit(batch.record, rows)
            except BackendError as error:
                refusal, may_be_there = error, True
                if not error.retryable:
                    break
                continue
            self._accept(batch, provider_id, "submitted")
            return
        assert refusal is not None
        batch.is_pending = refusal.retryable  # its record stays, as the provider may have taken it after all
        self._refuse(batch, refusal)

    def _accept(self, batch: OpenBatch, provider_id: str, how: str) -> None:
        batch.record = replace(batch.record, provider_id=provider_id)
        self._folder.save(batch.record)
        self._tell(batch, f"{how}, {len(batch.record.rows):,} requests")

    def _refuse(self, batch: OpenBatch, error: BackendError) -> None:
        """Give the rows of a batch back that the provider did not take. The refusal blames no single request."""
        said = f"the provider did not take its batch: {error}"
        refusal = BackendError(batch.record.model, said, kind=FailureKind.UNAVAILABLE)
        self.refused |= dict.fromkeys(batch.requests, refusal)
        batch.requests.clear()
        if not batch.is_pending:
            self._folder.remove(batch.record.id)
        self._tell(batch, f"refused ({error})")


def new_batch(
    folder: ProviderBatchFolder, model: str, place: str, rows: tuple[str, ...], patience_s: float, scope: str
) -> OpenBatch:
    """Make the record of a batch that is about to be submitted, and claim it."""
    record = ProviderBatch.new(model, place, rows, patience_s, scope)
    lock = folder.claim(record.id)
    assert lock is not None, "nobody else knows this id"
    return OpenBatch(record, lock)


def split_rows(written: Sequence[WrittenRow], api: BatchApi) -> Iterator[list[WrittenRow]]:
    """Split rows into batches that the provider takes."""
    part: list[WrittenRow] = []
    size = 0
    for row in written:
        length = row.size + ROW_FRAME_BYTES
        if part and (len(part) >= api.most_rows or size + length > api.most_bytes):
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part
