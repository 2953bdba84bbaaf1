"""The story: predict -> optimise -> hold -> complete -> record.

A `Router` is given its parts and owns none of their logic. `Router.from_yaml` builds the parts that a file names.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, cast
from weakref import WeakMethod

import numpy as np

from eccos_core.backends.retrying import RetryingBackend
from eccos_core.domain import (
    Chunk,
    Completion,
    Decision,
    Message,
    Model,
    Policy,
    QualityPrice,
    Request,
    RouterStatus,
)
from eccos_core.errors import (
    BackendError,
    EccosError,
    InfeasibleError,
    NoEligibleModelError,
    Overloaded,
    RequestError,
    UnknownModelError,
)
from eccos_core.io.tokens import count_tokens
from eccos_core.protocols import Backend, Workload
from eccos_core.routing.batch import MOST_THREADS, acall_all, call_all, settled
from eccos_core.routing.decider import Decider, PreparedBatch
from eccos_core.routing.decision_store import DecisionStore
from eccos_core.routing.eligibility import eligibility_mask
from eccos_core.routing.execution import Execution, Settle
from eccos_core.routing.tenants import Tenants
from eccos_core.streaming import MicroBatch
from eccos_core.telemetry.base import NO_TELEMETRY, Telemetry

RequestLike: TypeAlias = str | Sequence[Message] | Request
_Arrival: TypeAlias = tuple[PreparedBatch, Execution | None]  # decided, and held unless every slot was taken
_Together: TypeAlias = Callable[[Sequence[Request]], list[_Arrival | EccosError]]


class Router:
    """Answers every request with the cheapest model that is good enough.

    `decider` predicts and optimises; `policy` is what a batch is solved under. `max_attempts`: most calls of one
    request, fallbacks included; `deadline_s`: longest wait for a slot; `window_s` (0 to 0.05): single requests that
    arrive within it are decided together. Safe to use from several threads and tasks.
    """

    def __init__(
        self,
        decider: Decider,
        backend: Backend,
        workload: Workload,
        policy: Policy,
        *,
        decision_store: DecisionStore | None = None,
        tenants: Tenants | None = None,
        max_attempts: int = 3,
        deadline_s: float = 60.0,
        window_s: float = 0.0,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self.decider = decider
        self.backend = backend
        self.workload = workload
        self.policy = policy
        self.decision_store = decision_store or DecisionStore()
        self.telemetry = telemetry
        self._tenants = tenants or Tenants({})
        self._max_attempts = max_attempts
        self._deadline_s = deadline_s
        self._window: MicroBatch[Request, _Arrival] | None = (
            MicroBatch(partial(_together, WeakMethod(self._set_out_together)), window_s, unclaimed=_give_back)
            if window_s > 0
            else None
        )

    @classmethod
    def from_yaml(cls, path: str | Path) -> Router:
        """The router that a configuration file describes. Raises `ConfigError` with every problem of the file."""
        # found by name: the one module that knows every concrete class stands above this one
        return cast(Router, import_module("eccos_core.assembly.build").build_router(path))

    def with_window(self, window_s: float) -> Router:
        """A router of the same parts, slots and memory that decides together what arrives within `window_s` seconds.

        Raises `InputError` for a window that is not between 0 and 0.05.
        """
        return Router(
            self.decider,
            self.backend,
            self.workload,
            self.policy,
            decision_store=self.decision_store,
            tenants=self._tenants,
            max_attempts=self._max_attempts,
            deadline_s=self._deadline_s,
            window_s=window_s,
            telemetry=self.telemetry,
        )

    @property
    def models(self) -> tuple[Model, ...]:
        """The pool."""
        return self.decider.models

    # ---------------------------------------------------------------- decide

    def route(self, requests: Sequence[RequestLike], *, policy: Policy | None = None) -> list[Decision]:
        """Assigns a whole batch jointly (ECCOS, eq. 1). Nothing is called and no slot is held.

        Requests of tenants with a policy of their own are assigned jointly among themselves. Raises `InfeasibleError`
        when the policy cannot be met, `NoEligibleModelError`, `RequestError`.
        """
        asked = [self._tenants.narrowed(Request.of(each)) for each in requests]
        made: dict[int, Decision] = {}
        free = self.workload.free_slots()
        for part, rows in self._by_policy(asked, policy).items():
            with self.telemetry.step("route", [asked[row] for row in rows]):
                prepared = self.decider.prepare([asked[row] for row in rows])
                decided = self.decider.assign(prepared, part, free)
            self._noted(prepared, decided)
            made.update(zip(rows, decided, strict=True))
            free = free - np.array([sum(each.model == model.name for each in decided) for model in self.models])
        return [made[row] for row in range(len(asked))]

    def route_each(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None
    ) -> list[Decision | EccosError]:
        """`route`, but a request that no model may be asked has its error in its place instead of failing the batch.

        The others are assigned jointly without it. What concerns them all together (a floor or budget out of reach,
        too few slots) is raised as `InfeasibleError`.
        """
        try:
            return list(self.route(requests, policy=policy))
        except (RequestError, UnknownModelError, NoEligibleModelError, InfeasibleError):
            refused = {row: error for row, each in enumerate(requests) if (error := self._refusal(each)) is not None}
            if not refused:
                raise
        sound = [each for row, each in enumerate(requests) if row not in refused]
        made = iter(self.route(sound, policy=policy) if sound else ())
        return [refused[row] if row in refused else next(made) for row in range(len(requests))]

    def _refusal(self, request: RequestLike) -> EccosError | None:
        """Why no model may be asked this very request; None when one may."""
        try:
            asked = self._tenants.narrowed(Request.of(request))
            eligibility_mask([asked], self.models, [count_tokens(asked.messages)])
            if asked.min_quality is not None:
                self.decider.assign(
                    self.decider.prepare([asked]), QualityPrice(0.0), np.ones(len(self.models), np.int64)
                )
        except (RequestError, UnknownModelError, NoEligibleModelError, InfeasibleError) as error:
            return error
        return None

    def _by_policy(self, asked: Sequence[Request], policy: Policy | None) -> dict[Policy, list[int]]:
        """Which rows are assigned together. A policy given with the call holds for all."""
        parts: dict[Policy, list[int]] = {}
        for row, request in enumerate(asked):
            parts.setdefault(policy or self._tenants.policy_of(request) or self.policy, []).append(row)
        return parts

    def decide(self, request: RequestLike) -> Decision:
        """One request of a stream, decided alone at the current price. Nothing is called and no slot is held."""
        return self.explain(request)[1]

    def explain(self, request: RequestLike) -> tuple[PreparedBatch, Decision]:
        """`decide`, with all the numbers that it was decided by."""
        prepared = self.decider.prepare([self._tenants.narrowed(Request.of(request))])
        decision = self.decider.choose(prepared, self.workload.free_slots())
        self._noted(prepared, [decision])
        return prepared, decision

    # ---------------------------------------------------------------- complete

    def complete(self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any) -> Completion:
        """Decides, holds a slot and calls; a model that fails is followed by the next best of the same decision.

        `parameters` are OpenAI call parameters. With `decision`, made before by `route` for this request, nothing is
        decided anew: so a batch that was assigned jointly can be called one by one. Raises `Overloaded`,
        `NoEligibleModelError`, `AttemptsExhausted`, or the `BackendError` of a request that no model can take.
        """
        asked = self._tenants.narrowed(Request.of(request).with_parameters(parameters))
        with self.telemetry.step("complete", [asked]):
            return self._call(self._begun(asked, decision))

    async def acomplete(
        self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any
    ) -> Completion:
        """The asynchronous twin of `complete`."""
        asked = self._tenants.narrowed(Request.of(request).with_parameters(parameters))
        with self.telemetry.step("complete", [asked]):
            return await self._acall(await self._abegun(asked, decision))

    def stream(self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any) -> Iterator[Chunk]:
        """Chunks as they come; the last one carries the completion with its decision.

        A model that fails before its first chunk is followed by the next best; a stream that breaks later raises
        `StreamInterrupted`. The slot is released when the iterator ends, is closed, or is garbage-collected.
        """
        asked = self._tenants.narrowed(Request.of(request).with_parameters(parameters)).streamed()
        with self._begun(asked, decision) as execution:
            while True:
                try:
                    if not execution.has_slot:
                        self.workload.acquire(execution.hold, min(self._patience(asked), execution.left_s))
                    with closing(self._backend_for(execution).stream(execution.model, asked)) as chunks:
                        for chunk in chunks:
                            yield execution.forward_chunk(chunk)
                    return
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    async def astream(
        self, request: RequestLike, *, decision: Decision | None = None, **parameters: Any
    ) -> AsyncIterator[Chunk]:
        """The asynchronous twin of `stream`."""
        asked = self._tenants.narrowed(Request.of(request).with_parameters(parameters)).streamed()
        with await self._abegun(asked, decision) as execution:
            while True:
                try:
                    if not execution.has_slot:
                        await self.workload.aacquire(execution.hold, min(self._patience(asked), execution.left_s))
                    async with aclosing(self._backend_for(execution).astream(execution.model, asked)) as chunks:
                        async for chunk in chunks:
                            yield execution.forward_chunk(chunk)
                    return
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    def complete_batch(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | BaseException]:
        """Assigns the batch jointly, then calls, as many at once as the models' slots allow. Results in order.

        With `return_exceptions` a request that failed has its error in its place; else the first error is raised
        after every call has ended. The assignment itself raises as `route` does.
        """
        asked = [self._tenants.narrowed(Request.of(each)) for each in requests]
        made = self.route(asked, policy=policy)
        results = call_all(
            [decision.model for decision in made],
            self._most_at_once,
            lambda i: self._call(self._journey(asked[i], made[i])),
        )
        return settled(results, return_exceptions=return_exceptions)

    async def acomplete_batch(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | BaseException]:
        """The asynchronous twin of `complete_batch`."""
        asked = [self._tenants.narrowed(Request.of(each)) for each in requests]
        made = await asyncio.to_thread(self.route, asked, policy=policy)
        results = await acall_all(
            [decision.model for decision in made],
            self._most_at_once,
            lambda i: self._acall(self._journey(asked[i], made[i])),
        )
        return settled(results, return_exceptions=return_exceptions)

    # ---------------------------------------------------------------- calls and slots

    def _most_at_once(self, model: str) -> int:
        cap = next(each.max_concurrency for each in self.models if each.name == model)
        return cap if cap is not None else MOST_THREADS

    def _patience(self, request: Request) -> float:
        return self._deadline_s if request.deadline_s is None else request.deadline_s

    def _set_out(self, prepared: PreparedBatch) -> Execution:
        """Decides and holds in one critical section, so that two threads never take the same last slot."""
        with self.workload.deciding() as free:
            decision = self.decider.choose(prepared, free)
            slot = self.workload.hold(decision.model)
            slot.__enter__()
        self._noted(prepared, [decision])
        return self._journey(prepared.requests[0], decision, slot, settle=self.decider.settle)

    def _set_out_together(self, asked: Sequence[Request]) -> list[_Arrival | EccosError]:
        """What arrived in one window: prepared, decided and held together. Who finds no slot has no journey yet."""
        try:
            prepared = self.decider.prepare(asked)
        except EccosError as error:
            return [error] if len(asked) == 1 else [self._set_out_together([each])[0] for each in asked]
        arrivals: list[_Arrival | EccosError] = []
        with self.workload.deciding() as free:
            for row, decision in enumerate(self.decider.choose_together(prepared, free)):
                if isinstance(decision, Overloaded):
                    arrivals.append((prepared.row(row), None))
                elif isinstance(decision, EccosError):
                    arrivals.append(decision)
                else:
                    slot = self.workload.hold(decision.model)
                    slot.__enter__()
                    self._noted(prepared.row(row), [decision])
                    execution = self._journey(asked[row], decision, slot, settle=self.decider.settle)
                    arrivals.append((prepared.row(row), execution))
        return arrivals

    def _begun(self, asked: Request, decision: Decision | None) -> Execution:
        """The journey of a request, decided now unless it was before."""
        if decision is not None:
            return self._journey(asked, decision)
        with self.telemetry.step("route", [asked]):
            prepared, execution = self._window.submit(asked) if self._window else (self.decider.prepare([asked]), None)
            if execution is None:
                execution = self.workload.acquire(partial(self._set_out, prepared), self._patience(asked))
        return execution

    async def _abegun(self, asked: Request, decision: Decision | None) -> Execution:
        """The asynchronous twin of `_begun`."""
        if decision is not None:
            return self._journey(asked, decision)
        execution: Execution | None = None
        with self.telemetry.step("route", [asked]):
            if self._window:
                prepared, execution = await self._window.asubmit(asked)
            elif self.decider.is_quick:
                prepared = self.decider.prepare([asked])
            else:
                prepared = await asyncio.to_thread(self.decider.prepare, [asked])
            if execution is None:
                execution = await self.workload.aacquire(partial(self._set_out, prepared), self._patience(asked))
        return execution

    def _noted(self, prepared: PreparedBatch, made: Sequence[Decision]) -> None:
        self.decision_store.add_decisions(prepared, made)
        self.telemetry.record_decisions(made)

    def _journey(
        self,
        request: Request,
        decision: Decision,
        slot: AbstractContextManager[None] | None = None,
        settle: Settle | None = None,
    ) -> Execution:
        return Execution(
            request,
            decision,
            self.workload,
            self.decision_store,
            most_attempts=self._max_attempts,
            deadline_s=self.backend.deadline_s if isinstance(self.backend, RetryingBackend) else math.inf,
            slot=slot,
            settle=settle,
        )

    def _backend_for(self, execution: Execution) -> Backend:
        """The backend for the next call: what it retries ends with the one deadline over all calls of the request."""
        if execution.failed_since is None or not isinstance(self.backend, RetryingBackend):
            return self.backend
        return self.backend.since(execution.failed_since)

    def _call(self, execution: Execution) -> Completion:
        with execution:
            while True:
                try:
                    if not execution.has_slot:
                        self.workload.acquire(execution.hold, min(self._patience(execution.request), execution.left_s))
                    return execution.complete(self._backend_for(execution).complete(execution.model, execution.request))
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    async def _acall(self, execution: Execution) -> Completion:
        with execution:
            while True:
                try:
                    if not execution.has_slot:
                        await self.workload.aacquire(
                            execution.hold, min(self._patience(execution.request), execution.left_s)
                        )
                    return execution.complete(
                        await self._backend_for(execution).acomplete(execution.model, execution.request)
                    )
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    # ---------------------------------------------------------------- record

    def record(self, decision_id: str, quality: float) -> None:
        """Labels the answer of a decision, now or later, once or again: quality in [0, 1]. Joins the history.

        Raises `UnknownDecisionError`, and `InputError` for a quality outside [0, 1].
        """
        self.decision_store.label(decision_id, quality)

    # ---------------------------------------------------------------- status

    def status(self) -> RouterStatus:
        """A snapshot of every model's load and health, of who waits, and of the decision log."""
        log = self.decision_store.log
        return RouterStatus(
            self.workload.status(),
            decision_log_problem=log.problem if log is not None else None,
            decisions_dropped=log.dropped if log is not None else 0,
        )


def _together(set_out: WeakMethod[_Together], asked: Sequence[Request]) -> list[_Arrival | EccosError]:
    """A window knows its router weakly: without a cycle a router, and the models that it alone needs, are freed at once
    when nobody uses it any more. Whoever waits in the window uses it."""
    method = set_out()
    assert method is not None
    return method(asked)


def _give_back(arrival: _Arrival) -> None:
    """A request that was cancelled while its window was decided on gives its slot back."""
    execution = arrival[1]
    if execution is not None:
        execution.release()
