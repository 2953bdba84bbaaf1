"""One request on its way through a plan: the answers so far, who may still be asked, and the answer in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from eccos_core.domain import Completion, Plan, PlanCall, Request
from eccos_core.protocols import Workload
from eccos_core.routing.planner import NextStep, PlannedAnswer, Planner
from eccos_core.workload.latency import LatencyTracker


class PlanRun:
    """Add an answer, ask `next_model` what comes next, and take `given` and `whole` when it says None.

    Not for several threads. `request` is as the caller made it.
    """

    def __init__(
        self,
        planner: Planner,
        plan: Plan,
        request: Request,
        workload: Workload,
        latency: LatencyTracker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._planner, self._plan, self._request = planner, plan, request
        self._workload, self._latency, self._clock = workload, latency, clock
        self._seen: list[PlannedAnswer] = []
        self._failed: set[str] = set()
        self._steps: list[NextStep] = []
        self._started_at = clock()

    def add(self, completion: Completion) -> None:
        """Look at an answer."""
        confidence = self._planner.look_at(self._request, completion, self._plan)
        self._seen.append(PlannedAnswer(completion, confidence))

    def fail(self, model: str) -> None:
        """Ask a model no more, because its call failed. The answers so far stay."""
        self._failed.add(model)

    def next_model(self) -> str | None:
        """Return the model to ask now, or None if one of the answers is accepted."""
        step = self._planner.next_step(self._request, self._plan, self._seen, self._open_models())
        if len(self._steps) == len(self._seen):
            self._steps[-1] = step  # the model of the last step failed
        else:
            self._steps.append(step)
        return step.ask

    def _open_models(self) -> list[str]:
        """Who may still be asked. Nobody, once the rule or what the answer does forbids another call."""
        rule, last = self._plan.rule, self._seen[-1].completion
        if len(self._seen) >= rule.max_calls or (last.message.get("tool_calls") and not rule.with_tools):
            return []
        asked = {seen.completion.model for seen in self._seen} | self._failed
        names = [each.model for each in self._plan.models if each.may_be_asked and each.model not in asked]
        left_s = self._left_s()
        if left_s is not None and names:
            expected_s = self._latency.mean_s(names)
            # a model without recent answers may be asked while any time is left
            names = [name for name, wait_s in zip(names, expected_s, strict=True) if left_s > 0 and not wait_s > left_s]
        if not names:
            return []
        free = [name for name, slots in zip(names, self._workload.free_slots(names), strict=True) if slots > 0]
        return free or names  # where all are busy, the plan waits for a slot

    def _left_s(self) -> float | None:
        """Seconds for another answer, None for any."""
        limits = []
        if self._plan.rule.max_latency_s is not None:
            limits.append(self._plan.rule.max_latency_s - (self._clock() - self._started_at))
        if self._request.deadline is not None:
            limits.append(self._request.deadline.left_s)
        return min(limits) if limits else None

    def limit_wait_s(self, wait_s: float) -> float:
        """Return how long a call may wait for a slot: `wait_s`, but after an answer no longer than the plan has."""
        left_s = self._left_s() if self._seen else None
        return wait_s if left_s is None else max(0.0, min(wait_s, left_s))

    @property
    def accepted(self) -> int:
        """The number of the accepted answer."""
        return self._steps[-1].accept

    @property
    def given(self) -> Completion:
        """The accepted answer, with the cost of its own call."""
        seen = self._seen[self.accepted]
        quality = self._steps[-1].quality[self.accepted]
        asked = self._request.parameters.get("logprobs")  # else the plan alone asked for them
        return replace(
            seen.completion,
            confidence=replace(seen.confidence, quality=quality),
            logprobs=seen.completion.logprobs if asked else None,
        )

    @property
    def whole(self) -> Completion:
        """The accepted answer, with all calls, and the cost and the time of all of them."""
        return replace(
            self.given,
            calls=tuple(map(self._record, range(len(self._seen)))),
            cost_usd=sum(seen.completion.cost_usd for seen in self._seen),
            latency_s=self._clock() - self._started_at if len(self._seen) > 1 else self._seen[0].completion.latency_s,
            attempts=sum(seen.completion.attempts for seen in self._seen) + len(self._failed),
        )

    def _record(self, number: int) -> PlanCall:
        seen = self._seen[number]
        quality = self._steps[-1].quality[number]
        return PlanCall(
            model=seen.completion.model,
            cost_usd=seen.completion.cost_usd,
            latency_s=seen.completion.latency_s,
            input_tokens=seen.completion.input_tokens,
            output_tokens=seen.completion.output_tokens,
            confidence=replace(seen.confidence, quality=quality),
            accepted=number == self.accepted,
            why=self._steps[number].why,
        )
