"""Waits for the batches of a provider, and reads what became of their rows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias, TypeVar

from eccos_core.backends.provider_batches.api import BatchProgress, RowAnswer
from eccos_core.backends.provider_batches.connections import Connection, Connections
from eccos_core.backends.provider_batches.state import OpenBatch, ProviderBatch, ProviderBatchFolder
from eccos_core.backends.provider_batches.submission import FIRST_BACKOFF_S, Tell
from eccos_core.domain import Completion
from eccos_core.errors import BackendError, FailureKind, ProviderBatchError

GROWTH = 1.5  # of the time between two looks at a batch
CANCELLING_S = 900.0  # that a provider may take to end a batch that was cancelled
RowResult: TypeAlias = Completion | BackendError | ProviderBatchError
Result = TypeVar("Result")
_log = logging.getLogger("eccos.provider_batches")


class Collection:
    """Waits and reads. A batch is looked at after `poll_s` seconds, then ever more seldom, up to every `max_poll_s`.

    `outlasts_refusals`: a provider that refuses to tell, such as for a key that is no longer valid, is asked again
    until patience is over. A server waits so. A caller of a function reads the error at once.
    """

    def __init__(
        self,
        folder: ProviderBatchFolder,
        connections: Connections,
        tell: Tell,
        *,
        poll_s: float,
        max_poll_s: float,
        outlasts_refusals: bool,
    ) -> None:
        self._folder, self._connections, self._tell = folder, connections, tell
        self._poll_s, self._max_poll_s, self._outlasts_refusals = poll_s, max_poll_s, outlasts_refusals

    async def collect(self, batch: OpenBatch) -> dict[str, RowResult]:
        """Wait until a batch is over, and return what became of each of its requests."""
        connection = await self._connections.get(batch.record.model)
        batch_id = batch.record.provider_id
        try:
            progress = await self._watch(batch, connection)
            answers = await self._patiently(batch, lambda: connection.api.download(batch_id, progress))
        except BackendError as error:
            if error.kind is FailureKind.NOT_FOUND:
                self._tell(batch, "is gone")
                return dict.fromkeys(batch.requests, _lost(batch.record, "the provider no longer knows its batch"))
            batch.is_pending = True
            self._tell(batch, f"cannot be read ({error})")
            said = f"it cannot be read now ({error}). Correct this, and make the same call again: it is found again."
            return {row: ProviderBatchError(batch_id, said) for row in batch.requests}
        return {row: await self._read(batch, connection, row, progress, answers) for row in batch.requests}

    async def _watch(self, batch: OpenBatch, connection: Connection) -> BatchProgress:
        """Look at a batch until it is over. Cancel it when somebody asks, or when patience ends."""
        record, pause_s, cancelled_at = batch.record, self._poll_s, None
        while True:
            progress = await self._patiently(batch, lambda: connection.api.look(record.provider_id))
            self._tell(batch, f"{progress.status}, {progress.done:,} of {progress.total or len(record.rows):,} done")
            if progress.is_over:
                return progress
            now = time.time()
            is_late = now > record.patient_until
            if cancelled_at is None and (is_late or self._folder.is_cancel_asked(record.id)):
                await self._patiently(batch, lambda: connection.api.cancel(record.provider_id))
                self._tell(batch, "cancelled, as patience is over" if is_late else "cancelled")
                cancelled_at, pause_s = now, self._poll_s
            if cancelled_at is not None and now > cancelled_at + CANCELLING_S:
                return replace(progress, is_over=True, problem="the provider did not end it after it was cancelled")
            await _pause(batch, pause_s)
            pause_s = min(GROWTH * pause_s, self._max_poll_s)

    async def _patiently(self, batch: OpenBatch, call: Callable[[], Awaitable[Result]]) -> Result:
        """Make a call until it works. Failures that may pass are waited for, and not beyond the patience."""
        pause_s = min(FIRST_BACKOFF_S, self._poll_s)
        while True:
            try:
                return await call()
            except BackendError as error:
                waits = error.retryable or (self._outlasts_refusals and error.kind is not FailureKind.NOT_FOUND)
                if not waits or time.time() > batch.record.patient_until + CANCELLING_S:
                    raise
                _log.warning("%s", error)
            await _pause(batch, pause_s)
            pause_s = min(2 * pause_s, self._max_poll_s)

    async def _read(
        self,
        batch: OpenBatch,
        connection: Connection,
        row: str,
        progress: BatchProgress,
        answers: Mapping[str, RowAnswer],
    ) -> RowResult:
        record, answer = batch.record, answers.get(row)
        if answer is None or answer.is_cancelled:
            was_late = time.time() > record.patient_until
            if self._folder.is_cancel_asked(record.id) or (progress.is_cancelled and not was_late):
                return ProviderBatchError(record.provider_id, "it was cancelled", is_cancelled=True)
            why = progress.problem or (answer.problem if answer else "") or f"it is {progress.status}"
            return _lost(record, f"its batch has no answer for it: {why}")
        try:
            async with connection.lock:
                completion = await connection.rows.read(batch.requests[row], answer)
        except BackendError as error:
            return error
        return replace(completion, latency_s=max(0.0, time.time() - record.created_at))


async def _pause(batch: OpenBatch, seconds: float) -> None:
    """Sleep. Whoever sets `batch.hurry` wakes it."""
    with suppress(TimeoutError):
        await asyncio.wait_for(batch.hurry.wait(), seconds)
    batch.hurry.clear()


def _lost(record: ProviderBatch, why: str) -> BackendError:
    return BackendError(record.model, why, kind=FailureKind.TIMEOUT)
