"""Decides: requests become forecasts, costs and eligibility, and these become an assignment. Nothing is called."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from eccos_core.domain import (
    Assignment,
    BoolArray,
    Budget,
    Decision,
    FloatArray,
    IntArray,
    Policy,
    Prices,
    QualitySource,
    Request,
    RoutingProblem,
    SolutionStatus,
)
from eccos_core.errors import InfeasibleError, Overloaded, RoutingError
from eccos_core.io.tokens import conversation_text, count_tokens
from eccos_core.optimizer.canonical import distinct_patterns
from eccos_core.protocols import Encoder, Optimizer, Predictor, Steering, unsupported_parameters
from eccos_core.routing.capacity import batch_capacity
from eccos_core.routing.decisions import build_decisions
from eccos_core.routing.deployments import Deployments
from eccos_core.routing.eligibility import eligibility_mask
from eccos_core.routing.exploring import explore
from eccos_core.routing.forecast import predict_in_blocks
from eccos_core.routing.latency import leave_out_slow_models, waiting_usd
from eccos_core.routing.parts import Parts
from eccos_core.routing.planner import Planner
from eccos_core.routing.planning import MOST_SEARCHED, BatchPlans, attach_plan, price_of_policy
from eccos_core.routing.prepared import PreparedBatch
from eccos_core.routing.pricing import cost_usd, output_limit
from eccos_core.routing.sessions import Sessions

HoldSlot: TypeAlias = Callable[[str], None]  # takes a slot of a model, or raises `Overloaded`
QUICK_S = 0.003  # handing work to a thread and back costs about as much on a busy machine
SMOOTHING = 0.3


class Decider:
    """Predicts and optimises with the parts of a router. Safe to use from several threads."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._caps = np.array([model.max_concurrency or np.inf for model in parts.models])
        self.deployments = Deployments(parts.models)
        self._sessions = parts.decision_store.sessions
        self._prepare_s = 1.0  # a running mean, slow until seen otherwise

    @property
    def encoder(self) -> Encoder:
        """What turns a text into a vector."""
        return self.parts.encoder

    @property
    def predictor(self) -> Predictor:
        """What forecasts quality and tokens."""
        return self.parts.predictor

    @property
    def optimizer(self) -> Optimizer:
        """What assigns a batch."""
        return self.parts.optimizer

    @property
    def steering(self) -> Steering:
        """What decides the requests of a stream."""
        return self.parts.steering

    @property
    def sessions(self) -> Sessions | None:
        """The conversations, and the models that they are on."""
        return self._sessions

    @property
    def is_quick(self) -> bool:
        """Whether preparing one request takes so little time that an event loop may do it itself."""
        return self._prepare_s < QUICK_S

    def prepare(self, requests: Sequence[Request]) -> PreparedBatch:
        """Compute all that a decision needs. Raises `NoEligibleModelError` for a request that no model may answer."""
        started, learner = time.perf_counter(), self.parts.applied_learner
        view = self.parts.conversation
        texts = [conversation_text(each.messages, view, has_tools=bool(_tools(each))) for each in requests]
        with self.parts.telemetry.step("predict", requests):
            input_tokens, mask = self._counted(requests)  # first: a request that no model may answer is not encoded
            vectors = self.encoder.encode(texts)
            expected = predict_in_blocks(self.predictor, vectors, input_tokens)
            if learner is not None:
                expected = learner.correct(expected, vectors)
            expected = self.parts.drift.widen(expected)
        output_tokens = np.minimum(
            expected.output_tokens, output_limit(self.parts.models, [request.parameters for request in requests])
        )
        cached = self._sessions.cached_tokens(requests, self.parts.models, input_tokens) if self._sessions else None
        cost = expected.with_recorded_cost(cost_usd(self.parts.models, input_tokens, output_tokens, cached))
        if learner is not None:
            cost = cost * learner.cost_ratios.of(self.parts.names)
        if len(requests) == 1:
            self._prepare_s += SMOOTHING * (time.perf_counter() - started - self._prepare_s)
        return PreparedBatch(
            requests,
            texts,
            vectors,
            input_tokens,
            expected,
            expected.quality,
            cost,
            mask,
            started,
            waiting_usd(self.parts),
        )

    def _counted(self, requests: Sequence[Request]) -> tuple[FloatArray, BoolArray]:
        """((R,) input tokens, (R, M) who may answer what)."""
        tokens = [count_tokens(request.messages, _tools(request)) for request in requests]
        return np.asarray(tokens, dtype=np.float64), self.eligible(requests, tokens)

    def eligible(self, requests: Sequence[Request], input_tokens: Sequence[int]) -> BoolArray:
        """Say who may answer what, (R, M). Raises as `eligibility_mask` does."""
        unsupported = partial(unsupported_parameters, self.parts.backend)
        mask = eligibility_mask(requests, self.parts.models, input_tokens, unsupported=unsupported)
        return leave_out_slow_models(self.parts, requests, mask)

    def problem(self, prepared: PreparedBatch, policy: Policy, free_slots: IntArray) -> RoutingProblem:
        """Build the problem that the optimizer sees. Its floor is the forecast at which yours is realised."""
        prepared = prepared.under(policy)
        asked = [request.min_quality or 0.0 for request in prepared.requests]
        capacity = self.batch_capacity(*distinct_patterns(prepared.good), free_slots)
        return RoutingProblem(
            quality=prepared.quality,
            cost_usd=prepared.weighed_usd,
            eligible=prepared.eligible,
            capacity=capacity,
            policy=self.parts.floor_map.apply(policy),
            models=self.parts.names,
            min_quality=np.array(asked) if any(asked) else None,
            groups=self.parts.groups + self.deployments.shared_caps(capacity, len(asked)),
        )

    def assign(self, prepared: PreparedBatch, policy: Policy, free_slots: IntArray) -> list[Decision]:
        """Assign the batch jointly. Raises `InfeasibleError` when the policy cannot be met."""
        with self.parts.telemetry.step("optimise", prepared.requests):
            prepared = self.with_plans(prepared, policy)
            problem = self.problem(prepared, policy, free_slots)
            return self._decisions(prepared.under(policy), self.solve(problem, policy))

    def with_plans(self, prepared: PreparedBatch, policy: Policy) -> PreparedBatch:
        """Return the requests of a batch with plans in place of single calls, where the router plans.

        Plans are valued at the lambda at which they keep the policy. The optimizer then meets floor, budget and slots
        with what is expected of plans.
        """
        planner = self.parts.planner
        if planner is None:
            return prepared
        sample = prepared.under(policy)
        if len(sample.requests) > MOST_SEARCHED:
            sample = sample.rows(np.linspace(0, len(sample.requests) - 1, MOST_SEARCHED).astype(np.int64))
        target = self.parts.floor_map.apply(policy)
        if isinstance(target, Budget):
            target = replace(target, usd=target.usd * len(sample.requests) / len(prepared.requests))
        plans = self._plans_of(sample, planner)
        price = price_of_policy(target, plans.gains, sample.quality, sample.weighed_usd, sample.good)
        if len(sample.requests) < len(prepared.requests):
            plans = self._plans_of(prepared, planner)
        return prepared.with_gains(plans.gains(price))

    def _plans_of(self, prepared: PreparedBatch, planner: Planner) -> BatchPlans:
        return BatchPlans.of(planner, prepared.requests, prepared.forecast, prepared.cost_usd, prepared.eligible)

    def _with_plans_of_stream(self, prepared: PreparedBatch, steering: Steering) -> PreparedBatch:
        """Return requests of a stream with plans, valued at the price of now."""
        if self.parts.planner is None:
            return prepared
        return prepared.with_gains(self._plans_of(prepared, self.parts.planner).gains(steering.usd_per_quality))

    def solve(self, problem: RoutingProblem, policy: Policy) -> Assignment:
        """Solve the problem of a policy. Raises `InfeasibleError` in the numbers of that policy."""
        try:
            return self.optimizer.solve(problem)
        except InfeasibleError as error:
            raise self.parts.floor_map.explain(error, policy) from None

    def choose(self, prepared: PreparedBatch, free_slots: IntArray, hold: HoldSlot | None = None) -> Decision:
        """Decide one request alone, among the models with a free slot, in O(M).

        `hold` takes the chosen model's slot. Where it raises `Overloaded`, the choice is taken back. Raises
        `Overloaded` when none is free, and `InfeasibleError` when no model reaches its `min_quality`.
        """
        steering = self.parts.steering_of(prepared.requests[0])
        prepared = prepared.under(self.parts.policy_of(prepared.requests[0]))
        prepared = self._with_plans_of_stream(prepared, steering)
        quality, cost = prepared.quality[0], prepared.weighed_usd[0]
        open_now = prepared.good[0] & (free_slots > 0)
        if not open_now.any():
            raise _nobody_open(prepared)
        with self.parts.telemetry.step("optimise", prepared.requests):
            choice = steering.decide(quality, cost, open_now, self._occupancy(free_slots))
        model, propensity = explore(self.parts, prepared, choice, open_now, steering)
        if hold is not None:
            try:
                hold(self.parts.names[model])
            except Overloaded:
                steering.retract(choice)
                steering.correct_cost(float(prepared.cost_usd[0, choice.model] - prepared.cost_usd[0, model]))
                raise
        decision = self._decision(prepared, model, choice.usd_per_quality, floor_met=choice.floor_met)
        return decision if propensity == 1.0 else replace(decision, propensity=propensity)

    def choose_together(
        self, prepared: PreparedBatch, free_slots: IntArray, hold: Callable[[int, str], None]
    ) -> list[Decision | RoutingError]:
        """Decide requests that arrived together. A request that cannot be decided gets its error in its place.

        `hold` takes the slot of a request, by its row, at a model. It may raise `Overloaded`.

        Requests under one steering are decided jointly, so that slots go where they serve most. Others are decided
        one after the other, in the order of their arrival.
        """
        prepared = prepared.under(self.parts.policy_of(prepared.requests[0]))
        rows = [prepared.row(i) for i in range(len(prepared.requests))]
        steering = {
            id(self.parts.steering_of(request)): self.parts.steering_of(request) for request in prepared.requests
        }
        only = next(iter(steering.values()))
        overflow = self.deployments.can_overflow(free_slots, len(rows))  # efforts could together exceed their slots
        if len(steering) > 1 or overflow or not prepared.good.any(axis=1).all():
            return self._choose_in_order(rows, free_slots, hold)
        prepared = self._with_plans_of_stream(prepared, only)
        rows = [prepared.row(i) for i in range(len(prepared.requests))]
        with self.parts.telemetry.step("optimise", prepared.requests):
            choices = only.decide_jointly(
                prepared.quality,
                prepared.weighed_usd,
                prepared.good,
                free_slots,
                self.optimizer,
                self.parts.names,
            )
        made: list[Decision | RoutingError] = []
        for number, (row, choice) in enumerate(zip(rows, choices, strict=True)):
            if isinstance(choice, RoutingError):
                made.append(choice)
                continue
            try:
                hold(number, self.parts.names[choice.model])
            except Overloaded as error:
                only.retract(choice)
                made.append(error)
            else:
                made.append(self._decision(row, choice.model, choice.usd_per_quality, floor_met=choice.floor_met))
        return made

    def _choose_in_order(
        self, rows: Sequence[PreparedBatch], free_slots: IntArray, hold: Callable[[int, str], None]
    ) -> list[Decision | RoutingError]:
        left, one = free_slots, np.eye(len(self.parts.names), dtype=np.int64)
        made: list[Decision | RoutingError] = []
        for number, row in enumerate(rows):
            try:
                decision = self.choose(row, left, partial(hold, number))
            except RoutingError as error:
                made.append(error)
            else:
                left = self.deployments.take(left, one[self.parts.names.index(decision.model)])
                made.append(decision)
        return made

    def _decision(self, prepared: PreparedBatch, model: int, price: float, *, floor_met: bool = True) -> Decision:
        prices = Prices(price, np.zeros(len(self.parts.models)))
        overhead_s = time.perf_counter() - prepared.started
        return self._build_decisions(prepared, np.array([model]), prices, floor_met=floor_met, overhead_s=overhead_s)[0]

    def _decisions(self, prepared: PreparedBatch, assignment: Assignment) -> list[Decision]:
        return self._build_decisions(
            prepared,
            assignment.model_index,
            assignment.prices,
            floor_met=assignment.status is not SolutionStatus.BEST_EFFORT,
            overhead_s=(time.perf_counter() - prepared.started) / len(prepared.requests),
        )

    def _build_decisions(
        self, prepared: PreparedBatch, chosen: IntArray, prices: Prices, *, floor_met: bool, overhead_s: float
    ) -> list[Decision]:
        """Build the decisions of an assignment, with their plans."""
        gains, forecast = prepared.gains, prepared.forecast
        if gains is not None:
            forecast = replace(forecast, quality=np.clip(forecast.quality + gains.quality, 0.0, 1.0))
        made = build_decisions(
            prepared.requests,
            forecast,
            prepared.planned_usd,
            prepared.good,
            chosen,
            prices,
            floor_met=floor_met,
            overhead_s=overhead_s,
            certificate=self.parts.valid_certificate,
            sources=self.sources(),
            waiting_usd=prepared.waiting_usd,
            counted_quality=prepared.quality,
        )
        if gains is None or self.parts.planner is None:
            return made
        rule = self.parts.planner.rule
        return [
            attach_plan(decision, rule, gains, row, prepared.forecast, prepared.cost_usd, prepared.eligible)
            for row, decision in enumerate(made)
        ]

    def sources(self) -> tuple[QualitySource, ...]:
        """Return what each model's forecast starts from (M,). An online predictor adds models as it serves."""
        sources = self.parts.quality_sources
        if all(source == "outcomes" for source in sources):
            return sources
        graded: frozenset[str] = getattr(self.predictor, "graded", frozenset())
        return tuple("outcomes" if n in graded else s for n, s in zip(self.parts.names, sources, strict=True))

    def _occupancy(self, free_slots: IntArray) -> FloatArray:
        """Return (M,) the share of each model's slots that is taken, 0 where there is no cap."""
        return np.where(np.isinf(self._caps), 0.0, np.clip(1 - free_slots / self._caps, 0.0, 1.0))

    def settle(self, request: Request, decision: Decision, cost_usd: float) -> None:
        """Tell the steering what a request really cost. A budget rate is kept in real USD, not in forecast USD."""
        self.parts.steering_of(request).correct_cost(cost_usd - decision.cost_usd)

    def batch_capacity(self, kinds: BoolArray, counts: IntArray, free_slots: IntArray) -> IntArray:
        """Return (M,) how many of a batch each model can take, where counts (P,) requests may use kinds (P, M)."""
        return batch_capacity(self.deployments, self._caps, kinds, counts, free_slots)


def _tools(request: Request) -> Sequence[Mapping[str, Any]]:
    """Return the tools that a request offers. They are input too, of the context window and on the bill."""
    return [*(request.parameters.get("tools") or ()), *(request.parameters.get("functions") or ())]


def _nobody_open(prepared: PreparedBatch) -> RoutingError:
    """Why no model can take a request: none reaches the quality that it asks for, or all that do are busy."""
    request = prepared.requests[0]
    if prepared.good[0].any():
        return Overloaded("every model that may answer this request is busy", retry_after_s=1.0)
    best = float(prepared.quality[0, prepared.eligible[0]].max())
    return InfeasibleError(
        "min_quality",
        request.min_quality or 0.0,
        best,
        f"request {request.id!r}: no model reaches min_quality {request.min_quality}; the best that may answer is "
        f"expected to reach {best:.3f}",
    )
