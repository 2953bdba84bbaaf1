"""Calls a batch in packs. What a pack leaves open, because its call failed or an answer is missing, is asked alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from eccos_core.domain import Completion, Deadline, Decision, PlanCall, Policy, Request
from eccos_core.errors import Attempt, BackendError, EccosError, FailureKind, Overloaded
from eccos_core.io.tokens import count_text_tokens
from eccos_core.packing import add_spent, build_pack, share_call
from eccos_core.routing.batch import acall_all, call_all
from eccos_core.routing.execution import Execution
from eccos_core.routing.fallbacks import FallbackChain
from eccos_core.routing.packed_plan import DecidedPack, PackedRoute

if TYPE_CHECKING:
    from eccos_core.routing.pipeline import Pipeline, RequestLike

_MISSING = "its pack's answer has none for it"
_log = logging.getLogger("eccos.packing")


@dataclass(frozen=True, slots=True)
class _Single:
    """A request that is asked alone. `spent` is its share of a pack that left it open, `failures` are failed calls."""

    request: Request
    decision: Decision
    spent: Completion | None = None
    failures: tuple[Attempt, ...] = ()

    @property
    def model(self) -> str:
        return self.decision.model


_Job: TypeAlias = DecidedPack | _Single
_Answers: TypeAlias = list[Completion | _Single]


def complete_packed(
    pipeline: Pipeline, requests: Sequence[RequestLike], policy: Policy | None, *, in_place: bool
) -> list[Completion | BaseException]:
    """Decide a batch, call packs and single requests, then ask alone what is left. Results are in order.

    With `in_place`, a request that no model may answer has its error in its place. Else that is raised.
    """
    batch = _Batch(pipeline, requests, policy, in_place=in_place)

    def call_jobs(jobs: Sequence[_Job]) -> list[_Answers | BaseException]:
        return call_all(
            [pipeline.deployment(job.model) for job in jobs], pipeline.most_at_once, lambda i: _call(pipeline, jobs[i])
        )

    while jobs := batch.take_jobs():
        batch.settle(jobs, call_jobs(jobs))
    return batch.results()


async def acomplete_packed(
    pipeline: Pipeline, requests: Sequence[RequestLike], policy: Policy | None, *, in_place: bool
) -> list[Completion | BaseException]:
    """The asynchronous twin of `complete_packed`."""
    batch = await asyncio.to_thread(_Batch, pipeline, requests, policy, in_place=in_place)

    async def call_jobs(jobs: Sequence[_Job]) -> list[_Answers | BaseException]:
        return await acall_all(
            [pipeline.deployment(job.model) for job in jobs], pipeline.most_at_once, lambda i: _acall(pipeline, jobs[i])
        )

    while jobs := batch.take_jobs():
        batch.settle(jobs, await call_jobs(jobs))
    return batch.results()


class _Batch:
    """The calls that are left to make, and the results so far."""

    def __init__(
        self, pipeline: Pipeline, requests: Sequence[RequestLike], policy: Policy | None, *, in_place: bool
    ) -> None:
        route = PackedRoute(pipeline)
        decided = pipeline.decide_batch(requests, policy, in_place=in_place, route=route.route)
        self._results: dict[int, Completion | BaseException] = {}
        self._row: dict[str, int] = {}
        self._jobs: list[_Job] = []
        for row, each in enumerate(decided):
            if isinstance(each, EccosError):
                self._results[row] = each
                continue
            request, decision = each
            self._row[decision.id] = row
            pack = route.pack_of.get(decision.id)
            if pack is None:
                self._jobs.append(_Single(request, decision))
            elif decision.id == pack.decisions[0].id:
                self._jobs.append(pack)

    def take_jobs(self) -> list[_Job]:
        """Return the calls to make now."""
        jobs, self._jobs = self._jobs, []
        return jobs

    def settle(self, jobs: Sequence[_Job], outcomes: Sequence[_Answers | BaseException]) -> None:
        """Keep what the calls gave. Requests that a pack left open are called next."""
        for job, outcome in zip(jobs, outcomes, strict=True):
            decisions = job.decisions if isinstance(job, DecidedPack) else (job.decision,)
            for place, decision in enumerate(decisions):
                result = outcome if isinstance(outcome, BaseException) else outcome[place]
                if isinstance(result, _Single):
                    self._jobs.append(result)
                else:
                    self._results[self._row[decision.id]] = result

    def results(self) -> list[Completion | BaseException]:
        """Return the results in the order of the requests."""
        return [self._results[row] for row in range(len(self._results))]


# ------------------------------------------------------------------------------------------------------ single requests


def _call(pipeline: Pipeline, job: _Job) -> _Answers:
    if isinstance(job, _Single):
        return [pipeline.caller.call(_execution(pipeline, job))]
    call = _PackCall(pipeline, job)
    try:
        with pipeline.parts.workload.acquire(call.hold, call.wait_s):
            completion = pipeline.parts.backend.complete(job.model, call.request)
    except (BackendError, Overloaded) as error:
        return call.give_up(error)
    return call.hand_out(completion)


async def _acall(pipeline: Pipeline, job: _Job) -> _Answers:
    if isinstance(job, _Single):
        return [await pipeline.caller.acall(_execution(pipeline, job))]
    call = _PackCall(pipeline, job)
    try:
        with await pipeline.parts.workload.aacquire(call.hold, call.wait_s):
            completion = await pipeline.parts.backend.acomplete(job.model, call.request)
    except (BackendError, Overloaded) as error:
        return call.give_up(error)
    return call.hand_out(completion)


def _execution(pipeline: Pipeline, job: _Single) -> Execution:
    if job.spent is None and not job.failures:
        return pipeline.execute(job.request, job.decision)
    return _AfterPack(pipeline, job)


class _AfterPack(Execution):
    """Asks a request alone after its pack. The answer bears the pack's share, and the log knows of its failed call."""

    def __init__(self, pipeline: Pipeline, job: _Single) -> None:
        parts = pipeline.parts
        super().__init__(
            job.request,
            job.decision,
            parts.workload,
            parts.decision_store,
            parts.latency,
            max_attempts=parts.max_attempts,
            deadline_s=parts.answer_deadline_s,
            answered=pipeline.show_answer,
        )
        self._fallbacks = FallbackChain(job.decision, parts.max_attempts, earlier=job.failures)
        self._spent = job.spent

    def complete(self, completion: Completion) -> Completion:
        given = self.observe(completion)
        if self._spent is None:
            return self.give(given)
        calls = (_record(self._spent, why=_MISSING), _record(given, accepted=True, why="asked alone"))
        whole = replace(add_spent(given, self._spent), calls=calls, attempts=given.attempts + 1)
        return self.give(given, whole)


def _record(call: Completion, *, accepted: bool = False, why: str) -> PlanCall:
    return PlanCall(
        call.model, call.cost_usd, call.latency_s, call.input_tokens, call.output_tokens, accepted=accepted, why=why
    )


# ---------------------------------------------------------------------------------------------------------------- packs


class _PackCall:
    """One call for several requests: `hold` a slot, call, then `hand_out` the answers or `give_up`."""

    def __init__(self, pipeline: Pipeline, pack: DecidedPack) -> None:
        self._pipeline, self._parts, self._pack = pipeline, pipeline.parts, pack
        self._prompt = build_pack(pack.requests)
        self._called_at = time.monotonic()
        self.request = self._prompt.request

    @property
    def wait_s(self) -> float:
        """How long the call may wait for a slot, in seconds."""
        asked = self.request.deadline_s
        return self._parts.deadline_s if asked is None else asked

    def hold(self) -> ExitStack:
        """Hold one slot of the model until the stack is left. Raises `Overloaded`."""
        stack = ExitStack()
        stack.enter_context(self._parts.workload.hold(self._pack.model))
        self._called_at = time.monotonic()
        deadline = Deadline.after(self._parts.answer_deadline_s, now_s=self._called_at)
        self.request = replace(self.request, deadline=self.request.deadline or deadline)
        return stack

    def hand_out(self, call: Completion) -> _Answers:
        """Give each request its answer and its share of the cost. One without an answer is to be asked alone."""
        parts, pack = self._parts, self._pack
        parts.workload.observe(pack.model, call)
        parts.latency.observe(pack.arm, call.latency_s)
        answers = self._prompt.split(call.text, ended=call.finish_reason in (None, "stop"))
        shares = share_call(
            call,
            next(model for model in parts.models if model.name == pack.model),
            [count_text_tokens(str(request.messages[-1]["content"])) for request in pack.requests],
            [count_text_tokens(answer or "") for answer in answers],
            pack.arm,
        )
        self._log_event("answered", call=call, missing=sum(answer is None for answer in answers))
        rows = range(len(answers))
        return [
            self._leave(row, _MISSING, spent=shares[row])
            if (answer := answers[row]) is None
            else self._give(row, answer, shares[row])
            for row in rows
        ]

    def give_up(self, error: BackendError | Overloaded) -> _Answers:
        """Learn from a failed call. Every request is to be asked alone, of another model first if this one failed."""
        if isinstance(error, BackendError):
            self._parts.workload.observe(self._pack.model, None, error)
            kind, failures = error.kind, tuple(error.attempts)
        else:
            kind, failures = FailureKind.OVERLOADED, ()
        latency_s = time.monotonic() - self._called_at
        failures = failures or (Attempt(self._pack.model, kind, str(error), latency_s),)
        self._log_event("call_failed", kind=kind, latency_s=latency_s)
        why = f"the call of its pack failed ({kind})"
        return [
            self._leave(row, why, failures=failures, avoid_model=kind.blames_model)
            for row in range(len(self._pack.requests))
        ]

    def _give(self, row: int, answer: str, share: Completion) -> Completion:
        decision, request = self._pack.decisions[row], self._pack.requests[row]
        message = {"role": "assistant", "content": answer}
        completion = replace(share, text=answer, message=message, finish_reason="stop")
        chain = FallbackChain(decision, self._parts.max_attempts)
        self._parts.decision_store.add_completion(decision, None, completion, chain)
        self._pipeline.show_answer(request, decision, completion)
        return replace(completion, decided_by=decision)

    def _leave(
        self,
        row: int,
        why: str,
        *,
        spent: Completion | None = None,
        failures: tuple[Attempt, ...] = (),
        avoid_model: bool = False,
    ) -> _Single:
        """Return the request as it is asked alone, within the time that the pack has left."""
        decision = self._pack.alone[row]
        if avoid_model and decision.fallbacks:
            first, *others = decision.fallbacks
            decision = replace(decision, model=first, fallbacks=(*others, decision.model))
        decision = replace(decision, reason=f"{decision.reason} Asked alone: {why}.")
        deadline = self.request.deadline
        request = replace(self._pack.requests[row], deadline=None if deadline is None else deadline.used())
        return _Single(request, decision, spent, failures)

    def _log_event(self, event: str, call: Completion | None = None, **fields: object) -> None:
        """Log fields only, as `Execution` does."""
        if not _log.isEnabledFor(logging.INFO):
            return
        told = {} if call is None else {"cost_usd": call.cost_usd, "latency_s": call.latency_s}
        counted = {"model": self._pack.arm, "requests": len(self._pack.requests), **told, **fields}
        extra = {"event": event, "request_id": self.request.id, **counted}
        _log.info("%s: %s", event, self._pack.arm, extra={"eccos": extra})
