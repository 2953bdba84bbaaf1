"""Plans in a decision: what a plan that starts with each model is worth, in place of one call alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import (
    BoolArray,
    Budget,
    Decision,
    EscalationRule,
    FloatArray,
    Forecast,
    IntArray,
    Plan,
    PlannedModel,
    Policy,
    QualityFloor,
    QualityPrice,
    Request,
)
from eccos_core.routing.planner import Planner, PricedPlans

PRICE_STEPS = 24  # halvings of the range in which lambda is searched
MOST_USD_PER_QUALITY = 1e4
MOST_SEARCHED = 2000  # requests of a batch that lambda is searched on, evenly spread over it


@dataclass(frozen=True, slots=True, eq=False)
class PlanGains:
    """What plans add to single calls: quality (R, M), and cost in USD (R, M), at a lambda.

    `calls` (R, M) is how many calls a plan is expected to take. `planned` (R,) says which requests have one at all.
    """

    quality: FloatArray
    cost_usd: FloatArray
    calls: FloatArray
    planned: BoolArray
    usd_per_quality: float

    def rows(self, index: slice | IntArray) -> PlanGains:
        """Return those of the chosen requests."""
        return PlanGains(
            self.quality[index], self.cost_usd[index], self.calls[index], self.planned[index], self.usd_per_quality
        )


def may_plan(requests: Sequence[Request], eligible: BoolArray) -> BoolArray:
    """Say which requests (R,) may be asked of several models.

    One needs two models that may answer. A tool that the provider itself runs could act twice, so such a request is
    asked once. Functions are run by the caller, after an answer was accepted.
    """
    runs_there = [
        any(isinstance(tool, dict) and tool.get("type", "function") != "function" for tool in tools)
        if isinstance(tools := request.parameters.get("tools"), list)
        else False
        for request in requests
    ]
    several = np.array([request.parameters.get("n", 1) != 1 for request in requests], dtype=np.bool_)
    return np.asarray((eligible.sum(axis=1) > 1) & ~np.array(runs_there, dtype=np.bool_) & ~several)


@dataclass(frozen=True, slots=True, eq=False)
class BatchPlans:
    """The plans of R requests before their first call. A request without a plan gains nothing.

    planned (R,) says which have one. plans: those of the ones that have. None if none has.
    """

    planned: BoolArray
    plans: PricedPlans | None
    forecast: Forecast
    cost_usd: FloatArray

    @classmethod
    def of(
        cls,
        planner: Planner,
        requests: Sequence[Request],
        forecast: Forecast,
        cost_usd: FloatArray,
        eligible: BoolArray,
    ) -> BatchPlans:
        """Look ahead for the requests that may be asked of several models. Arrays are (R, M)."""
        planned = may_plan(requests, eligible)
        rows = np.flatnonzero(planned)
        plans = planner.first_plans(forecast.rows(rows), cost_usd[rows], eligible[rows]) if len(rows) else None
        return cls(planned, plans, forecast, cost_usd)

    def gains(self, usd_per_quality: float) -> PlanGains:
        """Compare plans with single calls at a lambda."""
        quality, cost = np.zeros(self.cost_usd.shape), np.zeros(self.cost_usd.shape)
        calls = np.ones(self.cost_usd.shape)
        if self.plans is not None:
            found = self.plans.value(usd_per_quality)
            quality[self.planned] = found[0] - self.forecast.quality[self.planned]
            cost[self.planned] = found[1] - self.cost_usd[self.planned]
            calls[self.planned] = found[2]
        return PlanGains(quality, cost, calls, self.planned, usd_per_quality)


def price_of_policy(
    policy: Policy,
    gains_at: Callable[[float], PlanGains],
    quality: FloatArray,
    cost_usd: FloatArray,
    allowed: BoolArray,
) -> float:
    """Return the lambda at which plans, each at its best, keep a policy in the mean. Slots do not count here.

    quality, cost_usd and allowed (R, M) are those of single calls, as the policy counts them. A floor is met at the
    least lambda that reaches it. A budget is spent at the greatest lambda that it affords.
    """
    if isinstance(policy, QualityPrice):
        return policy.usd_per_quality

    def is_enough(price: float) -> bool:
        gains = gains_at(price)
        worth, usd = quality + gains.quality, cost_usd + gains.cost_usd
        chosen = np.where(allowed, usd - price * worth, np.inf).argmin(axis=1)
        rows = np.arange(len(chosen))
        if isinstance(policy, QualityFloor):
            return bool(worth[rows, chosen].mean() >= policy.alpha)
        return bool(usd[rows, chosen].mean() * len(chosen) > policy.usd)

    low, high = np.log(_least_price(cost_usd)), np.log(MOST_USD_PER_QUALITY)
    if is_enough(0.0):
        return 0.0
    for _ in range(PRICE_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(float(np.exp(middle))) else (middle, high)
    return float(np.exp(low if isinstance(policy, Budget) else high))


def _least_price(cost_usd: FloatArray) -> float:
    """A lambda at which quality counts for nothing beside the cost."""
    known = cost_usd[cost_usd > 0]
    return 1e-3 * float(known.min()) if known.size else 1e-12


def attach_plan(
    decision: Decision,
    rule: EscalationRule,
    gains: PlanGains,
    row: int,
    forecast: Forecast,
    cost_usd: FloatArray,
    eligible: BoolArray,
) -> Decision:
    """Return the decision with its plan, or as it was if its request has none. Arrays are (R, M)."""
    if not gains.planned[row]:
        return decision
    first = forecast.models.index(decision.model)
    numbers = (forecast.quality, forecast.quality_se, cost_usd, forecast.output_tokens, eligible)
    values = zip(forecast.models, *(array[row].tolist() for array in numbers), strict=True)
    quality = float(np.clip(forecast.quality[row, first] + gains.quality[row, first], 0.0, 1.0))
    cost = float(cost_usd[row, first] + gains.cost_usd[row, first])
    plan = Plan(
        rule=rule,
        usd_per_quality=gains.usd_per_quality,
        quality=quality,
        cost_usd=cost,
        first_cost_usd=float(cost_usd[row, first]),
        calls=float(gains.calls[row, first]),
        models=tuple(PlannedModel(*each) for each in values),
    )
    said = (
        f" Its answer is looked at, and up to {rule.max_calls - 1} more models may be asked: {plan.calls:.2f} calls "
        "are expected, and their cost is counted."
    )
    return replace(decision, plan=plan, quality=quality, cost_usd=cost, reason=decision.reason + said)
