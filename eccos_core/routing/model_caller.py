"""Calls the model of a decided request, then its fallbacks, or the models of its plan."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, closing
from functools import partial
from typing import TYPE_CHECKING

from eccos_core.backends.logprobs import LogprobBackend
from eccos_core.domain import Chunk, Completion
from eccos_core.errors import BackendError, FailureKind, Overloaded
from eccos_core.routing.plan_calls import adrive, drive, finish_chunks, walk_plan
from eccos_core.routing.plan_run import PlanRun

if TYPE_CHECKING:
    from eccos_core.protocols import Backend
    from eccos_core.routing.execution import Execution
    from eccos_core.routing.parts import Parts


class ModelCaller:
    """Makes the calls of executions with the parts of a router. Safe to use from several threads and tasks."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._planned_backend: Backend = parts.backend
        if parts.planner is not None and parts.planner.wants_logprobs:
            self._planned_backend = LogprobBackend(parts.backend)

    def call(self, execution: Execution) -> Completion:
        """Call the decision's model, then its fallbacks, or those of its plan. Raises as `Router.complete` does."""
        run = self._plan_run(execution)
        if run is not None:
            with execution:
                return drive(walk_plan(execution, run), partial(self._call_planned, execution, run))
        with execution:
            while True:
                try:
                    self._wait_for_slot(execution)
                    return execution.complete(self.parts.backend.complete(execution.model, execution.outgoing))
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    async def acall(self, execution: Execution) -> Completion:
        """The asynchronous twin of `call`."""
        run = self._plan_run(execution)
        if run is not None:
            with execution:
                return await adrive(walk_plan(execution, run), partial(self._acall_planned, execution, run))
        with execution:
            while True:
                try:
                    await self._await_slot(execution)
                    return execution.complete(await self.parts.backend.acomplete(execution.model, execution.outgoing))
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    def stream(self, execution: Execution) -> Generator[Chunk, None, None]:
        """Stream from the decision's model, or from a fallback when it fails before its first chunk.

        With a plan nothing flows until an answer is accepted. Then its chunks follow each other at once.
        """
        run = self._plan_run(execution, streamed=True)
        if run is not None:
            with execution:
                answers: list[list[Chunk]] = []
                call = partial(self._stream_planned, execution, run, answers)
                given = drive(walk_plan(execution, run), call)
            yield from finish_chunks(answers[run.accepted], given)
            return
        with execution:
            while True:
                try:
                    self._wait_for_slot(execution)
                    with closing(self.parts.backend.stream(execution.model, execution.outgoing)) as chunks:
                        for chunk in chunks:
                            yield execution.forward_chunk(chunk)
                    return
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    async def astream(self, execution: Execution) -> AsyncGenerator[Chunk, None]:
        """The asynchronous twin of `stream`."""
        run = self._plan_run(execution, streamed=True)
        if run is not None:
            with execution:
                answers: list[list[Chunk]] = []
                call = partial(self._astream_planned, execution, run, answers)
                given = await adrive(walk_plan(execution, run), call)
            for chunk in finish_chunks(answers[run.accepted], given):
                yield chunk
            return
        with execution:
            while True:
                try:
                    await self._await_slot(execution)
                    async with aclosing(self.parts.backend.astream(execution.model, execution.outgoing)) as chunks:
                        async for chunk in chunks:
                            yield execution.forward_chunk(chunk)
                    return
                except (BackendError, Overloaded) as error:
                    execution.record_failure(error)

    # ---------------------------------------------------------------- the calls of a plan

    def _plan_run(self, execution: Execution, *, streamed: bool = False) -> PlanRun | None:
        """Start the plan of a decided request. None if the first answer is given whatever it is."""
        planner, plan = self.parts.planner, execution.decision.plan
        if planner is None or plan is None or (streamed and plan.streams_first(execution.decision.model)):
            return None
        return PlanRun(planner, plan, execution.request, self.parts.workload, self.parts.latency)

    def _call_planned(self, execution: Execution, run: PlanRun) -> Completion:
        self._wait_for_slot(execution, run)
        return self._planned_backend.complete(execution.model, execution.outgoing)

    async def _acall_planned(self, execution: Execution, run: PlanRun) -> Completion:
        await self._await_slot(execution, run)
        return await self._planned_backend.acomplete(execution.model, execution.outgoing)

    def _stream_planned(self, execution: Execution, run: PlanRun, answers: list[list[Chunk]]) -> Completion:
        """Collect a streamed answer into `answers`, one list of chunks for each answer that ended."""
        self._wait_for_slot(execution, run)
        with closing(self._planned_backend.stream(execution.model, execution.outgoing)) as stream:
            chunks = list(stream)
        return _keep_chunks(execution.model, chunks, answers)

    async def _astream_planned(self, execution: Execution, run: PlanRun, answers: list[list[Chunk]]) -> Completion:
        """The asynchronous twin of `_stream_planned`."""
        await self._await_slot(execution, run)
        async with aclosing(self._planned_backend.astream(execution.model, execution.outgoing)) as stream:
            chunks = [chunk async for chunk in stream]
        return _keep_chunks(execution.model, chunks, answers)

    # ---------------------------------------------------------------- slots

    def _wait_for_slot(self, execution: Execution, run: PlanRun | None = None) -> None:
        if not execution.has_slot:
            self.parts.workload.acquire(execution.hold, self._most_wait_s(execution, run))

    async def _await_slot(self, execution: Execution, run: PlanRun | None = None) -> None:
        if not execution.has_slot:
            await self.parts.workload.aacquire(execution.hold, self._most_wait_s(execution, run))

    def _most_wait_s(self, execution: Execution, run: PlanRun | None) -> float:
        """How long a request may wait for a slot now. After an answer it waits no longer than its plan has time."""
        wait_s = execution.limit_wait_s(self.parts.slot_wait_s(execution.request))
        return wait_s if run is None else run.limit_wait_s(wait_s)


def _keep_chunks(model: str, chunks: list[Chunk], answers: list[list[Chunk]]) -> Completion:
    """Keep the chunks of an answer that ended, and return its completion."""
    completion = chunks[-1].completion if chunks else None
    if completion is None:
        raise BackendError(
            model, "the stream ended without its last chunk", retryable=True, kind=FailureKind.MALFORMED_RESPONSE
        )
    answers.append(chunks)
    return completion
