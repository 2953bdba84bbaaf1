"""Batches at providers: submitted once, found again after a kill, watched until they are over, and read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, TypeVar

from eccos_core.backends.litellm.call_loop import CALL_LOOP
from eccos_core.backends.litellm.load_balancer import DeploymentLike
from eccos_core.backends.litellm.provider import provider_of
from eccos_core.backends.provider_batches.api import (
    AnthropicBatchApi,
    BatchApi,
    BatchClient,
    BatchProgress,
    OpenAIBatchApi,
    RowAnswer,
    WrittenRow,
)
from eccos_core.backends.provider_batches.rows import BATCH_PATHS, BatchRows
from eccos_core.backends.provider_batches.state import ProviderBatch, ProviderBatchFolder
from eccos_core.domain import BatchOffer, Completion, Model, Request, batch_arm
from eccos_core.errors import BackendError, FailureKind, InputError, ProviderBatchError, UnknownModelError
from eccos_core.io.tokens import text_key

SUBMIT_TRIES = 4
FIRST_BACKOFF_S = 1.0
GROWTH = 1.5  # of the time between two looks at a batch
CANCELLING_S = 900.0  # that a provider may take to end a batch that was cancelled
Result = TypeVar("Result")
Report = Callable[[str], None]  # hears in words what happens
RowResult = Completion | BackendError | ProviderBatchError
_log = logging.getLogger("eccos.provider_batches")


@dataclass(frozen=True, slots=True)
class BatchDeployment:
    """A model of the pool whose deployment offers a batch API. `effort` are its call parameters, if it is an effort."""

    model: Model
    deployment: DeploymentLike
    offer: BatchOffer
    effort: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Line:
    """What is open towards one model's batch API."""

    rows: BatchRows
    place: str
    api: BatchApi
    client: BatchClient
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # rows are written and read one at a time


@dataclass(slots=True, eq=False)
class _Claimed:
    """A batch that this process waits for, with the requests that came for it."""

    record: ProviderBatch
    lock: IO[bytes]
    requests: dict[str, Request] = field(default_factory=dict)
    is_pending: bool = False


class ProviderBatches:
    """Calls models through the batch APIs of their providers (implements `BatchProvider`).

    Records of open batches are kept in `folder`. A batch is looked at after `poll_s` seconds, and then ever more
    seldom, up to every `max_poll_s` seconds. Raises `InputError` for a provider whose batch API eccos does not speak.
    """

    def __init__(
        self,
        models: Sequence[BatchDeployment],
        folder: ProviderBatchFolder,
        *,
        poll_s: float = 15.0,
        max_poll_s: float = 300.0,
    ) -> None:
        for each in models:
            if (provider := provider_of(each.deployment)) not in BATCH_PATHS:
                known = " and ".join(BATCH_PATHS)
                raise InputError(
                    f"model {each.model.name!r} offers a batch API, and its provider is {provider!r}. eccos speaks "
                    f"those of {known}. Take `batch` out of its model_info."
                )
        self.folder = folder
        self._models = {each.model.name: each for each in models}
        self._poll_s, self._max_poll_s = poll_s, max(poll_s, max_poll_s)

    @property
    def offers(self) -> Mapping[str, BatchOffer]:
        """What the batch API of each model offers."""
        return {name: each.offer for name, each in self._models.items()}

    def open_session(self, models: Sequence[str], patience_s: float, report: Report | None = None) -> BatchSession:
        """Return the batches of one call. Use it as a context manager. See `BatchSession`."""
        return BatchSession(self, models, patience_s, report)

    def cancel(self, record_id: str) -> ProviderBatch:
        """Cancel a batch at its provider, by the id of its record or the provider's.

        A process that waits for it hears of it. If none waits, the batch is forgotten. Raises `InputError` for an
        unknown id and for a model that has no batch API any more, and `BackendError`.
        """
        record = next((r for r in self.folder.records() if record_id in (r.id, r.provider_id)), None)
        if record is None:
            raise InputError(f"there is no batch {record_id!r} in {self.folder.path}. `eccos batches` lists them.")
        if record.model not in self._models:
            raise InputError(
                f"batch {record_id!r} belongs to {record.model!r}, which has no `batch` in its model_info now. Put it "
                f"back to cancel the batch, or delete {record.id}.json in {self.folder.path}, and let it run."
            )
        self.folder.ask_cancel(record.id)
        if record.provider_id:
            CALL_LOOP.run(self._cancel(record))
        lock = self.folder.claim(record.id)
        if lock is not None:
            self.folder.remove(record.id)
            self.folder.release(record.id, lock)
        return record

    async def _cancel(self, record: ProviderBatch) -> None:
        line = await self._open_line(record.model)
        try:
            await line.api.cancel(record.provider_id)
        finally:
            await line.client.close()

    async def _open_line(self, model: str) -> _Line:
        known = self._models.get(model)
        if known is None:
            raise UnknownModelError(model, self._models)
        rows = BatchRows(known.model, known.deployment, known.offer, known.effort)
        url, headers = await rows.address()
        client = BatchClient(model, url, headers)
        api = AnthropicBatchApi(client) if provider_of(known.deployment) == "anthropic" else OpenAIBatchApi(client)
        return _Line(rows, place_of(known.deployment), api, client)


def place_of(deployment: DeploymentLike) -> str:
    """A digest of where a deployment is. A batch belongs to it, whatever the model is called in the pool."""
    given = deployment.parameters
    return text_key(f"{deployment.litellm_model} {given.get('api_base') or given.get('base_url') or ''}")[:16]


class BatchSession:
    """The provider batches of one call of `complete_batch`: those found again, and those that it submits.

    As a context manager it claims the open batches of `models`, and gives them back at its end. `finish` forgets those
    that were read.
    """

    def __init__(self, owner: ProviderBatches, models: Sequence[str], patience_s: float, report: Report | None) -> None:
        self._owner, self._models, self._patience_s = owner, tuple(models), patience_s
        self._report = report
        self._claimed: dict[str, _Claimed] = {}
        self._of_row: dict[str, _Claimed] = {}
        self._lines: dict[str, _Line] = {}

    def __enter__(self) -> BatchSession:
        folder = self._owner.folder
        places = {name: place_of(self._owner._models[name].deployment) for name in self._models}
        for record in folder.records() if folder.path.is_dir() else ():
            if places.get(record.model) != record.place or (lock := folder.claim(record.id)) is None:
                continue
            now = folder.again(record)
            if now is None:
                folder.release(record.id, lock)
                continue
            claimed = self._claimed[now.id] = _Claimed(now, lock)
            self._of_row |= {row: claimed for row in now.rows if row not in self._of_row}
        return self

    def __exit__(self, *_: object) -> None:
        for claimed in self._claimed.values():
            self._owner.folder.release(claimed.record.id, claimed.lock)
        self._claimed.clear()
        lines, self._lines = self._lines, {}
        for line in lines.values():
            CALL_LOOP.run(line.client.close())

    def model_of(self, row: str) -> str | None:
        """Return the model whose open batch has this row already. None if no batch has."""
        claimed = self._of_row.get(row)
        return None if claimed is None else claimed.record.model

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

    def finish(self) -> None:
        """Forget the batches that were read. Rows that nobody asked for stay."""
        folder = self._owner.folder
        for claimed in self._claimed.values():
            if not claimed.requests or claimed.is_pending:
                continue
            left = tuple(row for row in claimed.record.rows if row not in claimed.requests)
            if left:
                folder.save(replace(claimed.record, rows=left))
            else:
                folder.remove(claimed.record.id)

    # ---------------------------------------------------------------- submit

    async def _submit(self, rows: Mapping[str, Mapping[str, Request]]) -> dict[str, BackendError]:
        refused: dict[str, BackendError] = {}
        for model, asked in rows.items():
            fresh = dict(asked)
            for row in asked:
                claimed = self._of_row.get(row)
                if claimed is not None and claimed.record.model == model:
                    claimed.requests[row] = fresh.pop(row)
            try:
                line = await self._line(model)
            except BackendError as error:
                refused |= dict.fromkeys(fresh, error)
                continue
            written = await self._write(line, fresh, refused)
            for part in _parts(written, line.api):
                await self._submit_part(model, line, part, fresh, refused)
        for claimed in list(self._claimed.values()):
            if claimed.requests and not claimed.record.provider_id and not claimed.is_pending:
                await self._submit_again(claimed, refused)
        return refused

    async def _write(
        self, line: _Line, asked: Mapping[str, Request], refused: dict[str, BackendError]
    ) -> list[WrittenRow]:
        written = []
        for row, request in asked.items():
            try:
                written.append(await line.rows.write(row, request))
            except BackendError as error:
                refused[row] = error
        return written

    async def _submit_part(
        self,
        model: str,
        line: _Line,
        part: Sequence[WrittenRow],
        asked: Mapping[str, Request],
        refused: dict[str, BackendError],
    ) -> None:
        names = tuple(row.name for row in part)
        record = ProviderBatch.new(model, line.place, names, self._patience_s)
        lock = self._owner.folder.claim(record.id)
        assert lock is not None
        claimed = self._claimed[record.id] = _Claimed(record, lock, {name: asked[name] for name in names})
        self._owner.folder.save(record)  # before it is submitted, so that a kill in between is found out
        await self._send(claimed, line, part, refused, may_be_there=False)

    async def _submit_again(self, claimed: _Claimed, refused: dict[str, BackendError]) -> None:
        """Go on with a batch whose submission was cut off. The provider may have it."""
        line = await self._line(claimed.record.model)
        part = await self._write(line, claimed.requests, refused)
        for row in refused.keys() & claimed.requests.keys():
            del claimed.requests[row]
        if part:
            await self._send(claimed, line, part, refused, may_be_there=True)

    async def _send(
        self,
        claimed: _Claimed,
        line: _Line,
        part: Sequence[WrittenRow],
        refused: dict[str, BackendError],
        *,
        may_be_there: bool,
    ) -> None:
        """Submit a batch. Nothing is submitted twice: after a doubtful failure it is looked for first."""
        refusal: BackendError | None = None
        for attempt in range(SUBMIT_TRIES):
            try:
                if attempt > 0:
                    await asyncio.sleep(FIRST_BACKOFF_S * 2 ** (attempt - 1))
                if may_be_there:
                    taken = frozenset(each.provider_id for each in self._owner.folder.records())
                    found = await line.api.find(claimed.record, taken)
                    if found is not None:
                        self._accept(claimed, found, "found again")
                        return
                    claimed.record = replace(claimed.record, rows=tuple(row.name for row in part))
                    self._owner.folder.save(claimed.record)
                provider_id = await line.api.submit(claimed.record, part)
            except BackendError as error:
                refusal, may_be_there = error, True
                if not error.retryable:
                    break
                continue
            self._accept(claimed, provider_id, "submitted")
            return
        assert refusal is not None
        claimed.is_pending = refusal.retryable  # its record stays, as the provider may have taken it after all
        self._refuse(claimed, refusal, refused)

    def _refuse(self, claimed: _Claimed, error: BackendError, refused: dict[str, BackendError]) -> None:
        """Give the rows of a batch back that the provider did not take. The refusal blames no single request."""
        said = BackendError(
            claimed.record.model, f"the provider did not take its batch: {error}", kind=FailureKind.UNAVAILABLE
        )
        refused |= dict.fromkeys(claimed.requests, said)
        claimed.requests.clear()
        if not claimed.is_pending:
            self._owner.folder.remove(claimed.record.id)
        self._tell(claimed, f"refused ({error})")

    def _accept(self, claimed: _Claimed, provider_id: str, how: str) -> None:
        claimed.record = replace(claimed.record, provider_id=provider_id)
        self._owner.folder.save(claimed.record)
        self._tell(claimed, f"{how}, {len(claimed.record.rows):,} requests")

    # ---------------------------------------------------------------- wait and read

    async def _collect(self) -> dict[str, RowResult]:
        waiting = [each for each in self._claimed.values() if each.requests]
        found: dict[str, RowResult] = {}
        for results in await asyncio.gather(*(self._wait(each) for each in waiting)):
            found |= results
        return found

    async def _wait(self, claimed: _Claimed) -> dict[str, RowResult]:
        line = await self._line(claimed.record.model)
        batch_id = claimed.record.provider_id
        try:
            progress = await self._watch(claimed, line)
            answers = await self._patiently(claimed.record, lambda: line.api.download(batch_id, progress))
        except BackendError as error:
            if error.kind is FailureKind.NOT_FOUND:
                self._tell(claimed, "is gone")
                return {row: self._lost(claimed, "the provider no longer knows its batch") for row in claimed.requests}
            claimed.is_pending = True
            self._tell(claimed, f"cannot be read ({error})")
            said = f"it cannot be read now ({error}). Correct this, and make the same call again: it is found again."
            return {row: ProviderBatchError(batch_id, said) for row in claimed.requests}
        return {row: await self._read(claimed, line, row, progress, answers) for row in claimed.requests}

    async def _watch(self, claimed: _Claimed, line: _Line) -> BatchProgress:
        """Look at a batch until it is over. Cancel it when somebody asks, or when patience ends."""
        record, pause_s, cancelled_at = claimed.record, self._owner._poll_s, None
        while True:
            progress = await self._patiently(record, lambda: line.api.look(record.provider_id))
            self._tell(claimed, f"{progress.status}, {progress.done:,} of {progress.total or len(record.rows):,} done")
            if progress.is_over:
                return progress
            now = time.time()
            if cancelled_at is None and (now > record.patient_until or self._owner.folder.is_cancel_asked(record.id)):
                await self._patiently(record, lambda: line.api.cancel(record.provider_id))
                self._tell(claimed, "cancelled" if now <= record.patient_until else "cancelled, as patience is over")
                cancelled_at, pause_s = now, self._owner._poll_s
            if cancelled_at is not None and now > cancelled_at + CANCELLING_S:
                return replace(progress, is_over=True, problem="the provider did not end it after it was cancelled")
            await asyncio.sleep(pause_s)
            pause_s = min(GROWTH * pause_s, self._owner._max_poll_s)

    async def _patiently(self, record: ProviderBatch, call: Callable[[], Awaitable[Result]]) -> Result:
        """Make a call until it works. Only failures that pass are waited for, and not beyond the patience."""
        pause_s = min(FIRST_BACKOFF_S, self._owner._poll_s)
        while True:
            try:
                return await call()
            except BackendError as error:
                if not error.retryable or time.time() > record.patient_until + CANCELLING_S:
                    raise
                _log.warning("%s", error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._owner._max_poll_s)

    async def _read(
        self, claimed: _Claimed, line: _Line, row: str, progress: BatchProgress, answers: Mapping[str, RowAnswer]
    ) -> RowResult:
        record = claimed.record
        answer = answers.get(row)
        stopped = self._owner.folder.is_cancel_asked(record.id) or (
            progress.is_cancelled and time.time() <= record.patient_until
        )
        if answer is None or answer.is_cancelled:
            if stopped:
                return ProviderBatchError(record.provider_id, "it was cancelled", is_cancelled=True)
            why = progress.problem or (answer.problem if answer else "") or f"it is {progress.status}"
            return self._lost(claimed, f"its batch has no answer for it: {why}")
        try:
            async with line.lock:
                completion = await line.rows.read(claimed.requests[row], answer)
        except BackendError as error:
            return error
        return replace(completion, latency_s=max(0.0, time.time() - record.created_at))

    def _lost(self, claimed: _Claimed, why: str) -> BackendError:
        return BackendError(claimed.record.model, why, kind=FailureKind.TIMEOUT)

    async def _line(self, model: str) -> _Line:
        if model not in self._lines:
            self._lines[model] = await self._owner._open_line(model)
        return self._lines[model]

    def _tell(self, claimed: _Claimed, what: str) -> None:
        record = claimed.record
        said = f"{batch_arm(record.model)}: batch {record.provider_id or record.id}: {what}"
        extra = {"event": "provider_batch", "batch_id": record.provider_id, "model": record.model}
        _log.info("%s", said, extra={"eccos": extra})
        if self._report is not None:
            self._report(said)


def _parts(written: Sequence[WrittenRow], api: BatchApi) -> Iterator[list[WrittenRow]]:
    """Split rows into batches that the provider takes."""
    part: list[WrittenRow] = []
    size = 0
    for row in written:
        length = row.size + 200
        if part and (len(part) >= api.most_rows or size + length > api.most_bytes):
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part
