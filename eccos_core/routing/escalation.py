"""The planner of a router: a plan rule that was fitted to outcomes, or a rule of thumb."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.answers import SeenAnswer, agreement, measure_answer
from eccos_core.domain import (
    AnswerConfidence,
    BoolArray,
    Completion,
    EscalationRule,
    FloatArray,
    Forecast,
    Plan,
    Request,
)
from eccos_core.io.tokens import conversation_text
from eccos_core.plans import FirstPlans, PlanRule, PlanState
from eccos_core.routing.planner import NextStep, PlannedAnswer


@dataclass(frozen=True, slots=True, eq=False)
class ValuedPlans:
    """The plans of R requests before their first call (implements `planner.PricedPlans`)."""

    plans: FirstPlans
    eligible: BoolArray

    def value(self, usd_per_quality: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """See `planner.PricedPlans`."""
        found = self.plans.values(usd_per_quality, self.eligible)
        return found.quality, found.cost_usd, found.calls


@dataclass(frozen=True, slots=True, eq=False)
class EscalationPlanner:
    """Values plans and walks them by a plan rule (implements `Planner`).

    `plan_rule` is of the router's pool, in its order, with the `max_calls` of `rule`.
    """

    rule: EscalationRule
    plan_rule: PlanRule

    @property
    def wants_logprobs(self) -> bool:
        """See `Planner`."""
        return True

    def first_plans(self, forecast: Forecast, cost_usd: FloatArray, eligible: BoolArray) -> ValuedPlans:
        """See `Planner`."""
        return ValuedPlans(self.plan_rule.first_plans(PlanState.of_forecast(forecast, cost_usd)), eligible)

    def look_at(self, request: Request, completion: Completion, plan: Plan) -> AnswerConfidence:
        """See `Planner`."""
        expected = {each.model: each.output_tokens for each in plan.models}.get(completion.model)
        return measure_answer(request, completion, expected or None)

    def next_step(
        self, request: Request, plan: Plan, answers: Sequence[PlannedAnswer], open_models: Collection[str]
    ) -> NextStep:
        """See `Planner`."""
        state = self._state(request, plan, answers)
        allowed = np.array([each.model in open_models for each in plan.models])
        step = self.plan_rule.next_step(state, plan.usd_per_quality, allowed)
        quality = self.plan_rule.verifier.quality(state)[0]
        columns = {name: column for column, name in enumerate(state.models)}
        known = tuple(float(quality[columns[each.completion.model]]) for each in answers)
        names = [each.completion.model for each in answers]
        accept = int(np.argmax(known)) if step.accept is None else names.index(step.accept)
        return NextStep(step.ask, accept, known, step.reason)

    def _state(self, request: Request, plan: Plan, answers: Sequence[PlannedAnswer]) -> PlanState:
        """Return all that is known of a request and its answers."""
        numbers = np.array([(each.quality, each.cost_usd, each.output_tokens) for each in plan.models]).T
        state = PlanState.start([each.model for each in plan.models], *numbers)
        question = conversation_text(request.messages)
        seen = [SeenAnswer.of(each.completion, question) for each in answers]
        same = agreement(seen)
        for place, each in enumerate(answers):
            pairs = [None if np.isnan(same[place, other]) else float(same[place, other]) for other in range(place)]
            is_known = not np.isnan(same[place, place])
            state = state.after(each.completion.model, each.confidence, pairs, answer_known=is_known)
        return state
