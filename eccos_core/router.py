"""The story: predict -> optimise -> hold -> complete -> record.

A `Router` is given its parts and owns none of their logic. `Router.from_yaml` builds the parts that a file names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, cast

from eccos_core.attempts import Attempts
from eccos_core.batching import MOST_THREADS, acall_all, call_all
from eccos_core.decider import Decider, Prepared
from eccos_core.domain import (
    Chunk,
    Completion,
    Decision,
    Message,
    Model,
    Policy,
    Request,
)
from eccos_core.errors import BackendError, EccosError
from eccos_core.protocols import Backend, Workload
from eccos_core.records import Records

RequestLike: TypeAlias = str | Sequence[Message] | Request


class Router:
    """Answers every request with the cheapest model that is good enough.

    `decider` predicts and optimises; `policy` is what a batch is solved under. `max_attempts`: most calls of one
    request, fallbacks included; `deadline_s`: longest wait for a slot. Safe to use from several threads and tasks.
    """

    def __init__(
        self,
        decider: Decider,
        backend: Backend,
        workload: Workload,
        policy: Policy,
        *,
        records: Records | None = None,
        max_attempts: int = 3,
        deadline_s: float = 60.0,
    ) -> None:
        self.decider = decider
        self.backend = backend
        self.workload = workload
        self.policy = policy
        self.records = records or Records()
        self._max_attempts = max_attempts
        self._deadline_s = deadline_s

    @classmethod
    def from_yaml(cls, path: str | Path) -> Router:
        """The router that a configuration file describes. Raises `ConfigError` with every problem of the file."""
        # found by name: the one module that knows every concrete class stands above this one
        return cast(Router, import_module("eccos_core.build").build_router(path))

    @property
    def models(self) -> tuple[Model, ...]:
        """The pool."""
        return self.decider.models

    # ---------------------------------------------------------------- decide

    def route(self, requests: Sequence[RequestLike], *, policy: Policy | None = None) -> list[Decision]:
        """Assigns a whole batch jointly (ECCOS, eq. 1). Nothing is called and no slot is held.

        Raises `InfeasibleError` when the policy cannot be met, `NoEligibleModelError`, `RequestError`.
        """
        if not requests:
            return []
        prepared = self.decider.prepare([Request.of(each) for each in requests])
        made = self.decider.assign(prepared, policy or self.policy, self.workload.free_slots())
        self.records.decided(prepared, made)
        return made

    def decide(self, request: RequestLike) -> Decision:
        """One request of a stream, decided alone at the current price. Nothing is called and no slot is held."""
        return self.explain(request)[1]

    def explain(self, request: RequestLike) -> tuple[Prepared, Decision]:
        """`decide`, with all the numbers that it was decided by."""
        prepared = self.decider.prepare([Request.of(request)])
        decision = self.decider.choose(prepared, self.workload.free_slots())
        self.records.decided(prepared, [decision])
        return prepared, decision

    # ---------------------------------------------------------------- complete

    def complete(self, request: RequestLike, **parameters: Any) -> Completion:
        """Decides, holds a slot and calls; a model that fails is followed by the next best of the same decision.

        `parameters` are OpenAI call parameters. Raises `Overloaded`, `NoEligibleModelError`, `AttemptsExhausted`,
        or the `BackendError` of a request that no model can take.
        """
        asked = _with_parameters(request, parameters)
        prepared = self.decider.prepare([asked])
        decision, slot = self.workload.when_free(partial(self._choose_and_hold, prepared), self._patience(asked))
        return self._call(asked, decision, slot)

    async def acomplete(self, request: RequestLike, **parameters: Any) -> Completion:
        """The asynchronous twin of `complete`."""
        asked = _with_parameters(request, parameters)
        prepared = await asyncio.to_thread(self.decider.prepare, [asked])
        decision, slot = await self.workload.awhen_free(partial(self._choose_and_hold, prepared), self._patience(asked))
        return await self._acall(asked, decision, slot)

    def stream(self, request: RequestLike, **parameters: Any) -> Iterator[Chunk]:
        """Chunks as they come; the last one carries the completion with its decision.

        A model that fails before its first chunk is followed by the next best; a stream that breaks later raises
        `StreamInterrupted`. The slot is released when the iterator ends, is closed, or is garbage-collected.
        """
        asked = _with_parameters(request, parameters)
        prepared = self.decider.prepare([asked], streaming=True)
        decision, slot = self.workload.when_free(partial(self._choose_and_hold, prepared), self._patience(asked))
        with slot:
            attempts = Attempts(decision, self._max_attempts)
            while True:
                started = time.perf_counter()
                try:
                    for chunk in self.backend.stream(attempts.model, asked):
                        yield self._finished_chunk(asked, decision, attempts, chunk)
                    return
                except BackendError as error:
                    slot.close()
                    self._failed(decision, attempts, error, started)
                self.workload.when_free(partial(self._hold, attempts.model, slot), self._patience(asked))

    async def astream(self, request: RequestLike, **parameters: Any) -> AsyncIterator[Chunk]:
        """The asynchronous twin of `stream`."""
        asked = _with_parameters(request, parameters)
        prepared = await asyncio.to_thread(self.decider.prepare, [asked], streaming=True)
        decision, slot = await self.workload.awhen_free(partial(self._choose_and_hold, prepared), self._patience(asked))
        with slot:
            attempts = Attempts(decision, self._max_attempts)
            while True:
                started = time.perf_counter()
                try:
                    async for chunk in self.backend.astream(attempts.model, asked):
                        yield self._finished_chunk(asked, decision, attempts, chunk)
                    return
                except BackendError as error:
                    slot.close()
                    self._failed(decision, attempts, error, started)
                await self.workload.awhen_free(partial(self._hold, attempts.model, slot), self._patience(asked))

    def complete_batch(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | BaseException]:
        """Assigns the batch jointly, then calls, as many at once as the models' slots allow. Results in order.

        With `return_exceptions` a request that failed has its error in its place; else the first error is raised
        after every call has ended. The assignment itself raises as `route` does.
        """
        asked = [Request.of(each) for each in requests]
        made = self.route(asked, policy=policy)
        results = call_all(
            [decision.model for decision in made],
            self._most_at_once,
            lambda i: self._call_when_free(asked[i], made[i]),
        )
        return _settled(results, return_exceptions=return_exceptions)

    async def acomplete_batch(
        self, requests: Sequence[RequestLike], *, policy: Policy | None = None, return_exceptions: bool = False
    ) -> list[Completion] | list[Completion | BaseException]:
        """The asynchronous twin of `complete_batch`."""
        asked = [Request.of(each) for each in requests]
        made = await asyncio.to_thread(self.route, asked, policy=policy)
        results = await acall_all(
            [decision.model for decision in made],
            self._most_at_once,
            lambda i: self._acall_when_free(asked[i], made[i]),
        )
        return _settled(results, return_exceptions=return_exceptions)

    # ---------------------------------------------------------------- calls and slots

    def _most_at_once(self, model: str) -> int:
        cap = next(each.max_concurrency for each in self.models if each.name == model)
        return cap if cap is not None else MOST_THREADS

    def _patience(self, request: Request) -> float:
        return self._deadline_s if request.deadline_s is None else request.deadline_s

    def _choose_and_hold(self, prepared: Prepared) -> tuple[Decision, ExitStack]:
        """Decides and holds in one critical section, so that two threads never take the same last slot."""
        slot = ExitStack()
        with self.workload.deciding() as free:
            decision = self.decider.choose(prepared, free)
            self._hold(decision.model, slot)
        self.records.decided(prepared, [decision])
        return decision, slot

    def _hold(self, model: str, slot: ExitStack) -> None:
        slot.enter_context(self.workload.hold(model))

    def _call_when_free(self, request: Request, decision: Decision) -> Completion:
        slot = ExitStack()
        self.workload.when_free(partial(self._hold, decision.model, slot), self._patience(request))
        return self._call(request, decision, slot)

    async def _acall_when_free(self, request: Request, decision: Decision) -> Completion:
        slot = ExitStack()
        await self.workload.awhen_free(partial(self._hold, decision.model, slot), self._patience(request))
        return await self._acall(request, decision, slot)

    def _call(self, request: Request, decision: Decision, slot: ExitStack) -> Completion:
        """Calls the chosen model, then its fallbacks; the slot held in `slot` is given back whatever happens."""
        with slot:
            attempts = Attempts(decision, self._max_attempts)
            while True:
                started = time.perf_counter()
                try:
                    completion = self.backend.complete(attempts.model, request)
                    return self._finished(request, decision, attempts, completion)
                except BackendError as error:
                    slot.close()
                    self._failed(decision, attempts, error, started)
                self.workload.when_free(partial(self._hold, attempts.model, slot), self._patience(request))

    async def _acall(self, request: Request, decision: Decision, slot: ExitStack) -> Completion:
        """The asynchronous twin of `_call`."""
        with slot:
            attempts = Attempts(decision, self._max_attempts)
            while True:
                started = time.perf_counter()
                try:
                    completion = await self.backend.acomplete(attempts.model, request)
                    return self._finished(request, decision, attempts, completion)
                except BackendError as error:
                    slot.close()
                    self._failed(decision, attempts, error, started)
                await self.workload.awhen_free(partial(self._hold, attempts.model, slot), self._patience(request))

    def _failed(self, decision: Decision, attempts: Attempts, error: BackendError, started: float) -> None:
        """Learns from a failed call and moves on to the next model, or raises."""
        self.workload.observe(attempts.model, None, error)
        try:
            attempts.failed(error, time.perf_counter() - started)
        except EccosError:
            self.records.unanswered(decision, attempts)
            raise

    def _finished(self, request: Request, decision: Decision, attempts: Attempts, completion: Completion) -> Completion:
        """Learns from an ended call and signs its completion with the decision."""
        self.workload.observe(completion.model, completion)
        self.records.answered(decision, request.session_id, completion, attempts)
        return replace(completion, decision=decision, attempts=attempts.count)

    def _finished_chunk(self, request: Request, decision: Decision, attempts: Attempts, chunk: Chunk) -> Chunk:
        if chunk.completion is None:
            return chunk
        return replace(chunk, completion=self._finished(request, decision, attempts, chunk.completion))

    # ---------------------------------------------------------------- record

    def record(self, decision_id: str, quality: float) -> None:
        """Labels the answer of a decision, now or later, once or again: quality in [0, 1]. Joins the history.

        Raises `UnknownDecisionError`, and `InputError` for a quality outside [0, 1].
        """
        self.records.label(decision_id, quality)


def _with_parameters(request: RequestLike, parameters: Mapping[str, Any]) -> Request:
    """The request, with these call parameters over its own."""
    asked = Request.of(request)
    return replace(asked, parameters={**asked.parameters, **parameters}) if parameters else asked


def _settled(
    results: list[Completion | BaseException], *, return_exceptions: bool
) -> list[Completion] | list[Completion | BaseException]:
    """The results as they are, or the first error raised."""
    if return_exceptions:
        return results
    completions = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        completions.append(result)
    return completions
