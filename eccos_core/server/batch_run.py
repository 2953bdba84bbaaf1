"""Answers the rows of one batch: at a provider's batch API where that pays, and by calls."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

from eccos_core.domain import Assignment, Budget, Completion, Decision, Request, RoutingProblem
from eccos_core.errors import EccosError
from eccos_core.io.tokens import count_tokens
from eccos_core.protocols import Optimizer
from eccos_core.routing.batch_arms import usable_offers
from eccos_core.routing.pipeline import Pipeline
from eccos_core.server.asked import ROUTER, OwnFields, build_request
from eccos_core.server.batch_record import BatchFolder, BatchRecord, certificate_of
from eccos_core.server.batch_results import ResultLog
from eccos_core.server.errors import ApiError
from eccos_core.server.gate import Caller
from eccos_core.server.openai_chat import describe_completion, read_messages, read_parameters
from eccos_core.server.provider_rows import ProviderRows
from eccos_core.server.serving import Serving, tell

MOST_AT_ONCE = 64  # calls of one batch to one model


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


class BatchRun:
    """One run of a batch, from the first row without a result to the last. A restart makes another run."""

    def __init__(self, serving: Serving, folder: BatchFolder, record: BatchRecord) -> None:
        self.record = record
        self._serving, self._folder = serving, folder
        self._caller = Caller(record.owner, record.tenant, record.is_admin, is_paced=True)
        self._at_provider: ProviderRows | None = None  # while rows wait there
        self._calls: set[asyncio.Task[None]] = set()
        self._gates: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MOST_AT_ONCE))
        self._pacing = asyncio.Lock()  # those that wait for a rate limit pass in their order

    async def answer(self, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """Assign the rows that have no result yet, and answer them. `bodies`: all requests by `custom_id`."""
        record = self.record
        done = await asyncio.to_thread(self._count_results)
        record.total = len(bodies)
        record.move("in_progress")
        await asyncio.to_thread(self._folder.save, record)
        left = {custom_id: body for custom_id, body in bodies.items() if custom_id not in done}
        async with self._open_results() as results:
            asked: dict[str, Request] = {}
            for custom_id, built in (await asyncio.to_thread(self._build_requests, left)).items():
                if isinstance(built, Request):
                    asked[custom_id] = built
                else:
                    self._add_failure(results, custom_id, built)
            narrowed = await self._serving.gate.narrow(self._caller, list(asked.values()))
            for custom_id, request in zip(list(asked), narrowed, strict=True):
                if isinstance(request, Request):
                    asked[custom_id] = request
                else:
                    del asked[custom_id]
                    self._add_failure(results, custom_id, request)
            if asked:
                await self._assign_and_ask(results, asked)

    async def cancel(self) -> bool:
        """Stop the calls, and ask providers to stop. Returns False if no provider has rows.

        After True `answer` ends by itself, once the providers have told which rows they had answered.
        """
        if self._at_provider is None:
            return False
        for call in self._calls:
            call.cancel()
        await self._at_provider.cancel()
        return True

    # ---------------------------------------------------------------- assign

    async def _assign_and_ask(self, results: ResultLog, asked: Mapping[str, Request]) -> None:
        parts, record = self._serving.router.parts, self.record
        watched = _WatchedOptimizer(parts.optimizer)
        pipeline = Pipeline(replace(parts, optimizer=watched))
        most = {model.name: min(model.max_concurrency or MOST_AT_ONCE, MOST_AT_ONCE) for model in parts.models}
        self._gates.update({name: asyncio.Semaphore(count) for name, count in most.items()})
        policy = self._rest_of_budget(asked)
        with self._open_provider_rows(pipeline, asked) as at_provider:
            route = None if at_provider is None else at_provider.route
            made = await asyncio.to_thread(pipeline.route_each, list(asked.values()), policy, route)
            record.certificates += [certificate_of(each) for each in watched.proved]
            await asyncio.to_thread(self._folder.save, record)
            decided = dict(zip(asked, made, strict=True))
            if at_provider is None:
                await self._call_all(results, asked, decided)
            else:
                await self._ask_both(results, asked, decided, at_provider)

    @contextmanager
    def _open_provider_rows(self, pipeline: Pipeline, asked: Mapping[str, Request]) -> Iterator[ProviderRows | None]:
        provider = pipeline.parts.provider_batches
        offers = {} if provider is None else usable_offers(pipeline.parts, self.record.patience_s)
        if provider is None or not offers:
            yield None
            return
        with provider.open_session(tuple(offers), self.record.patience_s, scope=self.record.id) as session:
            yield ProviderRows(pipeline, offers, session, self.record, asked)

    def _rest_of_budget(self, asked: Mapping[str, Request]) -> Budget | None:
        """Return what is left of a batch's budget after a restart, where all its requests share one."""
        policies = {self._serving.router.parts.policy_of(each) for each in asked.values()}
        policy = policies.pop()
        if policies or not isinstance(policy, Budget) or not self.record.cost_usd:
            return None
        return replace(policy, usd=max(0.0, policy.usd - self.record.cost_usd))

    # ---------------------------------------------------------------- ask

    async def _ask_both(
        self,
        results: ResultLog,
        asked: Mapping[str, Request],
        decided: Mapping[str, Decision | EccosError],
        at_provider: ProviderRows,
    ) -> None:
        """Submit rows to providers, call the others meanwhile, and then those that a provider leaves open."""
        live: dict[str, Decision | EccosError] = dict(decided)
        left = await at_provider.submit(self._serving.gate, self._caller, decided)
        for custom_id in at_provider.waiting:
            del live[custom_id]
        live |= {custom_id: each for custom_id, each in left.items() if not isinstance(each, Completion)}
        self.record.at_providers = len(at_provider.waiting)
        await asyncio.to_thread(self._folder.save, self.record)
        self._at_provider = at_provider
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._collect(results, asked, at_provider))
                group.create_task(self._call_all(results, asked, live))
        finally:
            self._at_provider = None
        await results.sync()
        await at_provider.settle(self.record.batched_usd)

    async def _collect(self, results: ResultLog, asked: Mapping[str, Request], at_provider: ProviderRows) -> None:
        """Keep what the providers answer, and call at once what they leave open."""
        async with asyncio.TaskGroup() as group, aclosing(at_provider.results()) as found:
            async for custom_id, outcome in found:
                self.record.at_providers -= 1
                if isinstance(outcome, Completion):
                    self.record.batched_usd += outcome.cost_usd
                    self._add_answer(results, custom_id, outcome, is_batched=True)
                elif isinstance(outcome, EccosError):
                    self._add_failure(results, custom_id, outcome)
                elif not at_provider.is_cancelled:
                    self._begin_call(group, results, custom_id, asked[custom_id], outcome)
                await asyncio.sleep(0)  # others pass between the rows of a large batch

    async def _call_all(
        self, results: ResultLog, asked: Mapping[str, Request], decided: Mapping[str, Decision | EccosError]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            for custom_id, decision in decided.items():
                if isinstance(decision, Decision):
                    self._begin_call(group, results, custom_id, asked[custom_id], decision)
                else:
                    self._add_failure(results, custom_id, decision)

    def _begin_call(
        self, group: asyncio.TaskGroup, results: ResultLog, custom_id: str, request: Request, decision: Decision
    ) -> None:
        call = group.create_task(self._call(results, custom_id, request, decision))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, results: ResultLog, custom_id: str, request: Request, decision: Decision) -> None:
        async with self._gates[decision.model]:
            try:
                async with self._pacing:
                    await self._serving.gate.pace(self._caller, count_tokens(request.messages))
                completion = await self._serving.complete(self._caller, request, decision)
            except Exception as error:  # noqa: BLE001 - one failed request leaves the others alone
                self._add_failure(results, custom_id, error)
                return
        self._add_answer(results, custom_id, completion)

    # ---------------------------------------------------------------- requests and results

    def _build_requests(self, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Request | Exception]:
        built: dict[str, Request | Exception] = {}
        for custom_id, body in bodies.items():
            try:
                built[custom_id] = self._build_request(body)
            except (ApiError, EccosError) as error:
                built[custom_id] = error
        return built

    def _build_request(self, body: Mapping[str, Any]) -> Request:
        if body.get("stream"):
            raise ApiError("invalid_request", "a batch answers as a whole, so stream must be false", param="stream")
        model = body.get("model", ROUTER)
        if model == ROUTER and self.record.policy is not None:
            model = f"{ROUTER}:{self.record.policy}"
        own = OwnFields.read(body.get("eccos"), {})
        return build_request(self._serving.router, self._caller, model, read_messages(body), read_parameters(body), own)

    @asynccontextmanager
    async def _open_results(self) -> AsyncGenerator[ResultLog, None]:
        results = ResultLog(self._folder.results_path(self.record.id))
        try:
            yield results
        finally:
            await results.close()

    def _count_results(self) -> set[str]:
        """Take the counts from the results that are there. Returns the `custom_id` of each."""
        record, kept = self.record, {each["custom_id"]: each for each in self._folder.results(self.record)}
        record.completed = sum(1 for each in kept.values() if each["error"] is None)
        record.failed = len(kept) - record.completed
        record.cost_usd = sum(each.get("cost_usd", 0.0) for each in kept.values())
        record.batched_usd = sum(each["cost_usd"] for each in kept.values() if each.get("is_batched"))
        return set(kept)

    def _add_answer(
        self, results: ResultLog, custom_id: str, completion: Completion, *, is_batched: bool = False
    ) -> None:
        body = describe_completion(completion)
        response = {"status_code": 200, "request_id": body["id"], "body": body}
        noted = {"cost_usd": completion.cost_usd, "is_batched": is_batched}
        results.add({"custom_id": custom_id, "response": response, "error": None, **noted})
        self.record.completed += 1
        self.record.cost_usd += completion.cost_usd

    def _add_failure(self, results: ResultLog, custom_id: str, error: Exception) -> None:
        told = tell(error, "/v1/batches")
        request_id = f"{self.record.id}-{custom_id}"
        response = {"status_code": told.status, "request_id": request_id, "body": told.body("openai")}
        said = {"code": told.code or told.kind, "message": told.message}
        results.add({"custom_id": custom_id, "response": response, "error": said, "cost_usd": 0.0})
        self.record.failed += 1
