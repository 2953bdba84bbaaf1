"""The pipeline of one set of parts: decide, hold a slot, call, fall back.

A router has one pipeline at a time. A swap replaces it, and a request keeps to the pipeline that it began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias
from weakref import WeakMethod

import numpy as np

from eccos_core.domain import (
    Completion,
    Decision,
    Judgement,
    LabellingCall,
    LabelSource,
    Message,
    Policy,
    QualityPrice,
    Request,
)
from eccos_core.errors import (
    Attempt,
    EccosError,
    InfeasibleError,
    NoEligibleModelError,
    Overloaded,
    RequestError,
    UnknownModelError,
)
from eccos_core.io.tokens import count_tokens
from eccos_core.routing.batch import MOST_THREADS
from eccos_core.routing.decider import Decider
from eccos_core.routing.decision_store import LabelledDecision
from eccos_core.routing.execution import Execution, Settle
from eccos_core.routing.microbatch import MicroBatch
from eccos_core.routing.model_caller import ModelCaller
from eccos_core.routing.named_policies import check_policy_name
from eccos_core.routing.parts import Parts
from eccos_core.routing.prepared import PreparedBatch, quality_asked
from eccos_core.routing.request_check import check_request

_log = logging.getLogger("eccos.certificate")

RequestLike: TypeAlias = str | Sequence[Message] | Request
Arrival: TypeAlias = tuple[PreparedBatch, Execution | None]  # decided, and held unless every slot was taken
Route: TypeAlias = Callable[[Sequence[RequestLike], Policy | None], list[Decision]]  # assigns a batch
_Together: TypeAlias = Callable[[Sequence[Request]], list[Arrival | EccosError]]


class Pipeline:
    """Runs requests through the parts. Safe to use from several threads and tasks."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.successor: Pipeline | None = None  # that of the next parts of the router
        self.decider = Decider(parts)
        self.caller = ModelCaller(parts)
        self._window: MicroBatch[Request, Arrival] | None = None
        if parts.window_s > 0:
            # The window knows its pipeline weakly: no reference cycle keeps parts that nobody uses, local models among
            # them. Whoever waits in the window uses the pipeline.
            decide_together = partial(_decide_together, WeakMethod(self._begin_together))
            self._window = MicroBatch(decide_together, parts.window_s, unclaimed=_release_unclaimed)

    # ---------------------------------------------------------------- decide

    def parse(self, request: RequestLike, **parameters: object) -> Request:
        """Make a request, with these call parameters, under the rules of its tenant. Raises `RequestError`."""
        asked = check_request(Request.of(request).with_parameters(parameters), self.parts.allowed_call_params)
        return check_policy_name(self.parts.tenants.narrow(asked), self.parts.policies)

    def route(self, requests: Sequence[RequestLike], policy: Policy | None) -> list[Decision]:
        """Assign a batch jointly. See `Router.route`."""
        parts = self.parts
        asked = [self.parse(each) for each in requests]
        made: dict[int, Decision] = {}
        free = parts.workload.free_slots(parts.names)
        for part, rows in self.group_by_policy(asked, policy).items():
            with parts.telemetry.step("route", [asked[row] for row in rows]):
                prepared = self.decider.prepare([asked[row] for row in rows])
                decided = self.decider.assign(prepared, part, free)
            self.remember(prepared, decided, part)
            made.update(zip(rows, decided, strict=True))
            calls = np.array([sum(each.model == name for each in decided) for name in parts.names])
            free = self.decider.deployments.take(free, calls)
        return [made[row] for row in range(len(asked))]

    def route_each(
        self, requests: Sequence[RequestLike], policy: Policy | None, route: Route | None = None
    ) -> list[Decision | EccosError]:
        """Assign a batch jointly, without the requests that no model may answer. See `Router.route_each`."""
        route = route or self.route
        try:
            return list(route(requests, policy))
        except (RequestError, UnknownModelError, NoEligibleModelError, InfeasibleError):
            found = {row: self._find_fault(each) for row, each in enumerate(requests)}
            faults = {row: error for row, error in found.items() if error is not None}
            if not faults:
                raise
        sound = [each for row, each in enumerate(requests) if row not in faults]
        made = iter(route(sound, policy) if sound else ())
        return [faults[row] if row in faults else next(made) for row in range(len(requests))]

    def decide_batch(
        self, requests: Sequence[RequestLike], policy: Policy | None, *, in_place: bool, route: Route | None = None
    ) -> list[tuple[Request, Decision] | EccosError]:
        """Assign a batch jointly. With `in_place`, a request that no model may answer has its error in its place.

        `route` assigns it, `Pipeline.route` by default.
        """
        route = route or self.route
        asked = [self._parse_or_refuse(each) if in_place else self.parse(each) for each in requests]
        sound = [each for each in asked if isinstance(each, Request)]
        decided = iter(self.route_each(sound, policy, route) if in_place else route(sound, policy))
        batch: list[tuple[Request, Decision] | EccosError] = []
        for each in asked:
            if isinstance(each, Request):
                made = next(decided)
                batch.append((each, made) if isinstance(made, Decision) else made)
            else:
                batch.append(each)
        return batch

    def _parse_or_refuse(self, request: RequestLike) -> Request | EccosError:
        try:
            return self.parse(request)
        except RequestError as error:
            return error

    def explain(self, request: RequestLike) -> tuple[PreparedBatch, Decision]:
        """Decide one request of a stream, and return all the numbers that decided it."""
        prepared = self.decider.prepare([self.parse(request)])
        decision = self.decider.choose(prepared, self.parts.workload.free_slots(self.parts.names))
        self.remember(prepared, [decision])
        return prepared, decision

    def _find_fault(self, request: RequestLike) -> EccosError | None:
        """Say why no model may answer this very request. None when one may."""
        try:
            asked = self.parse(request)
            self.decider.eligible([asked], [count_tokens(asked.messages, asked.parameters.get("tools"))])
            if asked.min_quality is not None:
                prepared = self.decider.prepare([asked])
                self.decider.assign(prepared, QualityPrice(0.0), np.ones(len(self.parts.models), np.int64))
        except (RequestError, UnknownModelError, NoEligibleModelError, InfeasibleError) as error:
            return error
        return None

    def group_by_policy(self, asked: Sequence[Request], policy: Policy | None) -> dict[Policy, list[int]]:
        """Say which rows are assigned together. A policy given with the call holds for all."""
        groups: dict[Policy, list[int]] = {}
        for row, request in enumerate(asked):
            chosen = policy or self.parts.policy_of(request)
            groups.setdefault(chosen, []).append(row)
        return groups

    def record(self, decision_id: str, quality: float, source: LabelSource, judgement: Judgement | None = None) -> None:
        """Label an answer, and let the pipeline in use learn from it. See `Router.record`."""
        labelled = self.parts.decision_store.label(decision_id, quality, source, judgement)
        if labelled is not None:
            in_use = self
            while in_use.successor is not None:
                in_use = in_use.successor
            in_use.learn(labelled)

    def learn(self, labelled: LabelledDecision) -> None:
        """Learn from a label, and compare it with its forecast. A model that has become worse raises an alarm.

        Rewards raise none: a reward model expects of each model what it learned, so it does not see the model fall.
        """
        if self.parts.learner is not None:
            self.parts.learner.learn(labelled.id, labelled.model, labelled.vector, labelled.quality)
        if labelled.forecast is None or labelled.source == "reward":
            return
        alarm = self.parts.drift.observe(labelled.id, labelled.model, labelled.forecast, labelled.quality)
        if alarm is not None:
            self.parts.telemetry.record_drift(alarm)
            if self.parts.certificate_problem is not None:
                _log.error("%s", self.parts.certificate_problem, extra={"eccos": {"event": "certificate_void"}})

    def remember(self, prepared: PreparedBatch, made: Sequence[Decision], policy: Policy | None = None) -> None:
        """Remember decisions, for labels and bills. They were made under `policy`, or each under its own."""
        asked = [quality_asked(request, policy or self.parts.policy_of(request)) for request in prepared.requests]
        self.parts.decision_store.add_decisions(prepared, made, asked)
        if self.parts.learner is not None:
            for decision in made:
                first_usd = decision.cost_usd if decision.plan is None else decision.plan.first_cost_usd
                self.parts.learner.cost_ratios.expect(decision.id, decision.model, first_usd)
        self.parts.telemetry.record_decisions(made)

    # ---------------------------------------------------------------- begin: decide and hold

    def begin(self, asked: Request, decision: Decision | None) -> Execution:
        """Start executing a request. It is decided now, unless a decision is given."""
        if decision is not None:
            return self.execute(asked, decision)
        with self.parts.telemetry.step("route", [asked]):
            prepared, execution = self._window.submit(asked) if self._window else (self.decider.prepare([asked]), None)
            if execution is None:
                take = partial(self._decide_and_hold, prepared)
                execution = self.parts.workload.acquire(take, self.parts.slot_wait_s(asked))
        return execution

    async def abegin(self, asked: Request, decision: Decision | None) -> Execution:
        """The asynchronous twin of `begin`."""
        if decision is not None:
            return self.execute(asked, decision)
        execution: Execution | None = None
        with self.parts.telemetry.step("route", [asked]):
            if self._window:
                prepared, execution = await self._window.asubmit(asked)
            elif self.decider.is_quick:
                prepared = self.decider.prepare([asked])
            else:
                prepared = await asyncio.to_thread(self.decider.prepare, [asked])
            if execution is None:
                take = partial(self._decide_and_hold, prepared)
                execution = await self.parts.workload.aacquire(take, self.parts.slot_wait_s(asked))
        return execution

    def _decide_and_hold(self, prepared: PreparedBatch) -> Execution:
        """Decide and hold in one critical section, so that two threads never take the same last slot."""
        slots: list[AbstractContextManager[None]] = []

        def hold(model: str) -> None:
            slot = self.parts.workload.hold(model)
            slot.__enter__()
            slots.append(slot)

        with self.parts.workload.deciding(self.parts.names) as free:
            decision = self.decider.choose(prepared, free, hold)
        self.remember(prepared, [decision])
        return self.execute(prepared.requests[0], decision, slots[0], settle=self.decider.settle)

    def _begin_together(self, asked: Sequence[Request]) -> list[Arrival | EccosError]:
        """Decide and hold for what arrived in one window. A request that finds no slot has no execution yet."""
        try:
            prepared = self.decider.prepare(asked)
        except EccosError as error:
            return [error] if len(asked) == 1 else [self._begin_together([each])[0] for each in asked]
        arrivals: list[Arrival | EccosError] = []
        slots: dict[int, AbstractContextManager[None]] = {}

        def hold(row: int, model: str) -> None:
            slot = self.parts.workload.hold(model)
            slot.__enter__()
            slots[row] = slot

        with self.parts.workload.deciding(self.parts.names) as free:
            for row, decision in enumerate(self.decider.choose_together(prepared, free, hold)):
                if isinstance(decision, Overloaded):
                    arrivals.append((prepared.row(row), None))
                elif isinstance(decision, EccosError):
                    arrivals.append(decision)
                else:
                    self.remember(prepared.row(row), [decision])
                    execution = self.execute(asked[row], decision, slots[row], settle=self.decider.settle)
                    arrivals.append((prepared.row(row), execution))
        return arrivals

    def execute(
        self,
        request: Request,
        decision: Decision,
        slot: AbstractContextManager[None] | None = None,
        settle: Settle | None = None,
        earlier: Sequence[Attempt] = (),
    ) -> Execution:
        """Make the execution of a decided request. `slot` is a slot of its model that is held already.

        `earlier` are calls that failed before.
        """
        return Execution(
            request,
            decision,
            self.parts.workload,
            self.parts.decision_store,
            self.parts.latency,
            max_attempts=self.parts.max_attempts,
            deadline_s=self.parts.answer_deadline_s,
            slot=slot,
            settle=settle,
            answered=self.show_answer,
            earlier=earlier,
        )

    def show_answer(self, request: Request, decision: Decision, completion: Completion) -> None:
        """Show an answer to who labels answers in the background."""
        if self.parts.learner is not None:
            self.parts.learner.cost_ratios.observe(decision.id, completion.model, completion.cost_usd)
        observer = self.parts.answer_observer
        if observer is not None:
            observer.observe_answer(request, decision, completion, _Labels(self, decision.id))

    # ---------------------------------------------------------------- slots

    def packs(self, asked: bool | None) -> bool:
        """Whether a batch is packed: as its caller says, or else as the router does."""
        return self.parts.packing is not None if asked is None else asked

    def deployment(self, model: str) -> str:
        """Return the deployment whose slots a call of the model takes."""
        return self.decider.deployments.of_model[model]

    def most_at_once(self, deployment: str) -> int:
        """Return how many calls of a deployment a batch may have in flight."""
        cap = next(each.max_concurrency for each in self.parts.models if each.deployment == deployment)
        return cap if cap is not None else MOST_THREADS


@dataclass(frozen=True, slots=True)
class _Labels:
    """What is found out about the answer of one decision (implements `AnswerLabels`)."""

    pipeline: Pipeline
    decision_id: str

    def record(self, quality: float, source: LabelSource, judgement: Judgement | None = None) -> None:
        """See `AnswerLabels`."""
        self.pipeline.record(self.decision_id, quality, source, judgement)

    def record_other(self, completion: Completion, quality: float, judgement: Judgement | None = None) -> None:
        """See `AnswerLabels`."""
        self.pipeline.parts.decision_store.add_other_answer(self.decision_id, completion, quality, judgement)

    def add_spending(self, call: LabellingCall, usd: float) -> None:
        """See `AnswerLabels`."""
        self.pipeline.parts.decision_store.add_spending(self.decision_id, call, usd)


def _decide_together(begin: WeakMethod[_Together], asked: Sequence[Request]) -> list[Arrival | EccosError]:
    method = begin()
    assert method is not None
    return method(asked)


def _release_unclaimed(arrival: Arrival) -> None:
    """Release the slot of a request that was cancelled while its window was decided."""
    execution = arrival[1]
    if execution is not None:
        execution.release()
