"""Batches: the requests of an uploaded file are assigned jointly, then called, and their results are written."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eccos_core.domain import Assignment, Budget, Decision, Request, RoutingProblem
from eccos_core.errors import DataError, EccosError
from eccos_core.io.files import read_json_lines
from eccos_core.io.tokens import count_tokens
from eccos_core.protocols import Optimizer
from eccos_core.router import Router
from eccos_core.server.asked import ROUTER, OwnFields, build_request
from eccos_core.server.batch_record import ENDED, BatchFolder, BatchRecord, certificate_of
from eccos_core.server.errors import ApiError
from eccos_core.server.files import FileStore
from eccos_core.server.gate import Caller
from eccos_core.server.openai_chat import describe_completion, read_messages, read_parameters
from eccos_core.server.serving import Serving, tell

MOST_REQUESTS = 50_000
LOOK_EVERY_S = 2.0  # for batches that nobody runs any more
MOST_AT_ONCE = 64  # calls of one batch to one model
_log = logging.getLogger("eccos.server")


class _WatchedOptimizer:
    """An `Optimizer` that keeps what it proved."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.proved: list[Assignment] = []

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer`."""
        assignment = self._optimizer.solve(problem)
        self.proved.append(assignment)
        return assignment


class Batches:
    """Runs the batches of one server, each as a task of the event loop. A restart takes up what had not ended.

    Several processes may use one folder. Each batch is run by one of them, and another one takes it up when that ends.
    """

    def __init__(self, serving: Serving, files: FileStore, folder: BatchFolder) -> None:
        self._serving, self._files, self._folder = serving, files, folder
        self._running: dict[str, asyncio.Task[None]] = {}
        self._records: dict[str, BatchRecord] = {}
        self._ended: set[str] = set()  # batches that need no look any more
        self._looking: asyncio.Task[None] | None = None

    async def create(
        self, caller: Caller, input_file_id: str, policy: str | None, metadata: Mapping[str, str]
    ) -> BatchRecord:
        """Begin a batch. Raises `ApiError` for a file that is not the caller's."""
        await asyncio.to_thread(self._files.get, input_file_id, caller.key_id)
        record = BatchRecord(input_file_id, caller.key_id, caller.tenant, caller.is_admin, policy, dict(metadata))
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
        if task is not None:
            task.cancel()

    def _begin(self, record: BatchRecord) -> None:
        self._records[record.id] = record
        task = asyncio.create_task(self._run(record), name=record.id)
        self._running[record.id] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._running.pop(record.id, None)
            self._folder.let_go(record.id, ended=record.status in ENDED)
            self._records.pop(record.id, None)

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
        """Assign what has no result yet, and call."""
        await asyncio.to_thread(self._folder.end_last_line, record)
        caller = Caller(record.owner, record.tenant, record.is_admin, is_paced=True)
        stored = await asyncio.to_thread(self._files.get, record.input_file_id, record.owner)
        path = self._files.path(stored)
        lines, errors = await asyncio.to_thread(_read_lines, path)
        if errors:
            await self._fail(record, errors)
            return
        queued = len(lines) + sum(each.queued for each in self._records.values() if each.owner == record.owner)
        if queued - record.queued > self._serving.settings.max_queued_requests and not record.resumed:
            await self._fail(record, [_too_many_queued(self._serving.settings.max_queued_requests)])
            return
        record.total = len(lines)
        done = {each["custom_id"]: each for each in await asyncio.to_thread(self._folder.results, record)}
        record.completed = sum(1 for each in done.values() if each["error"] is None)
        record.failed, record.total = len(done) - record.completed, len(lines)
        record.cost_usd = sum(each.get("cost_usd", 0.0) for each in done.values())
        record.move("in_progress")
        await asyncio.to_thread(self._folder.save, record)
        asked: dict[str, Request] = {}
        for custom_id, body in lines.items():
            if custom_id in done:
                continue
            try:
                asked[custom_id] = self._request(record, caller, body)
            except (ApiError, EccosError) as error:
                await self._add(record, custom_id, error)
        if asked:
            await self._call_all(record, caller, asked)

    def _request(self, record: BatchRecord, caller: Caller, body: Mapping[str, Any]) -> Request:
        if body.get("stream"):
            raise ApiError("invalid_request", "a batch answers as a whole, so stream must be false", param="stream")
        model = body.get("model", ROUTER)
        if model == ROUTER and record.policy is not None:
            model = f"{ROUTER}:{record.policy}"
        own = OwnFields.read(body.get("eccos"), {})
        return build_request(self._serving.router, caller, model, read_messages(body), read_parameters(body), own)

    async def _call_all(self, record: BatchRecord, caller: Caller, asked: Mapping[str, Request]) -> None:
        router = self._serving.router
        watched = _WatchedOptimizer(router.parts.optimizer)
        together = Router.from_parts(replace(router.parts, optimizer=watched))
        policy = self._rest_of_budget(record, asked)
        made = await asyncio.to_thread(together.route_each, list(asked.values()), policy=policy)
        record.certificates += [certificate_of(each) for each in watched.proved]
        await asyncio.to_thread(self._folder.save, record)
        most = {model.name: min(model.max_concurrency or MOST_AT_ONCE, MOST_AT_ONCE) for model in router.models}
        gates: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MOST_AT_ONCE))
        gates.update({name: asyncio.Semaphore(count) for name, count in most.items()})
        pacing = asyncio.Lock()  # those that wait for a rate limit pass in their order

        async def one(custom_id: str, request: Request, decision: Decision | EccosError) -> None:
            if not isinstance(decision, Decision):
                await self._add(record, custom_id, decision)
                return
            async with gates[decision.model]:
                try:
                    async with pacing:
                        await self._serving.gate.pace(caller, count_tokens(request.messages))
                    completion = await self._serving.complete(caller, request, decision)
                except Exception as error:  # noqa: BLE001 - one failed request leaves the others alone
                    await self._add(record, custom_id, error)
                    return
            body = describe_completion(completion)
            response = {"status_code": 200, "request_id": body["id"], "body": body}
            await self._add(record, custom_id, None, response, completion.cost_usd)

        jobs = zip(asked.items(), made, strict=True)
        async with asyncio.TaskGroup() as group:
            for (custom_id, request), decision in jobs:
                group.create_task(one(custom_id, request, decision))

    def _rest_of_budget(self, record: BatchRecord, asked: Mapping[str, Request]) -> Budget | None:
        """Return what is left of a batch's budget after a restart, where all its requests share one."""
        policies = {self._serving.router.parts.policy_of(each) for each in asked.values()}
        policy = policies.pop()
        if policies or not isinstance(policy, Budget) or not record.cost_usd:
            return None
        return replace(policy, usd=max(0.0, policy.usd - record.cost_usd))

    async def _add(
        self,
        record: BatchRecord,
        custom_id: str,
        error: Exception | None,
        response: Mapping[str, Any] | None = None,
        cost_usd: float = 0.0,
    ) -> None:
        result: dict[str, Any] = {"custom_id": custom_id, "response": response, "error": None, "cost_usd": cost_usd}
        if error is None:
            record.completed += 1
            record.cost_usd += cost_usd
        else:
            told = tell(error, "/v1/batches")
            body = told.body("openai")
            result["response"] = {"status_code": told.status, "request_id": f"{record.id}-{custom_id}", "body": body}
            result["error"] = {"code": told.code or told.kind, "message": told.message}
            record.failed += 1
        await asyncio.to_thread(self._folder.add_result, record, result)

    async def _fail(self, record: BatchRecord, errors: list[dict[str, Any]]) -> None:
        record.errors = errors[:100]
        record.move("failed")
        await asyncio.to_thread(self._folder.save, record)

    async def _finish(self, record: BatchRecord, status: Any) -> None:
        """Write the results into files, and end the batch."""
        if record.status == "failed":
            return
        if status == "completed":
            record.move("finalizing")
        await asyncio.to_thread(self._write, record)
        record.move(status)
        await asyncio.to_thread(self._folder.save, record)
        await asyncio.to_thread(self._folder.drop_results, record)

    def _write(self, record: BatchRecord) -> None:
        results = self._folder.results(record)
        good = [each for each in results if each["error"] is None]
        bad = [each for each in results if each["error"] is not None]
        for lines, name in ((good, "output"), (bad, "errors")):
            if lines:
                content = b"".join(_result_line(record, number, each) for number, each in enumerate(lines))
                filename = f"{record.id}_{name}.jsonl"
                stored = self._files.add(io.BytesIO(content), filename, "batch_output", record.owner)
                setattr(record, "output_file_id" if name == "output" else "error_file_id", stored.id)


def _result_line(record: BatchRecord, number: int, result: Mapping[str, Any]) -> bytes:
    told = {name: value for name, value in result.items() if name != "cost_usd"}
    line = {"id": f"batch_req_{record.id.removeprefix('batch_')}_{number}", **told}
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _too_many_queued(most: int) -> dict[str, Any]:
    message = f"your unfinished batches may have {most:,} requests together. Wait for one to end, or send fewer."
    return {"code": "queue_limit_exceeded", "message": message, "line": None}


def _read_lines(path: Path) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Read a batch file. Returns the bodies by `custom_id`, and what is wrong with which line."""
    bodies: dict[str, dict[str, Any]] = {}
    errors: list[dict[str, Any]] = []
    with path.open("rb") as stream:
        if stream.read(2) == b"\x1f\x8b":
            return {}, [{"code": "invalid_file", "message": "send plain JSON Lines, not gzip", "line": None}]
    try:
        for number, line in read_json_lines(path):
            problem = _line_problem(line, bodies)
            if problem is not None:
                errors.append({"code": "invalid_request", "message": problem, "line": number})
            elif len(bodies) == MOST_REQUESTS:
                message = f"a batch has at most {MOST_REQUESTS:,} requests"
                return {}, [{"code": "too_many_requests", "message": message, "line": number}]
            else:
                bodies[line["custom_id"]] = line["body"]
    except DataError as error:
        place = f"{error.file}:{error.line}: " if error.line is not None else f"{error.file}: "
        message = str(error).removeprefix(place)
        return {}, [{"code": "invalid_json_line", "message": message, "line": error.line}]
    if not bodies and not errors:
        errors.append({"code": "empty_file", "message": "the file has no requests", "line": None})
    return bodies, errors


def _line_problem(line: Mapping[str, Any], seen: Mapping[str, Any]) -> str | None:
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return "custom_id must be a text"
    if custom_id in seen:
        return f"custom_id {custom_id[:60]!r} is there twice"
    if line.get("method") != "POST" or line.get("url") != "/v1/chat/completions":
        return "method must be POST and url /v1/chat/completions"
    return None if isinstance(line.get("body"), dict) else "body must be an object"
