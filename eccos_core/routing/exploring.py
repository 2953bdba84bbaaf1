"""Take another model now and then, to learn about it. Hard filters, floors, tenants' rules and the budget hold."""

from __future__ import annotations

from eccos_core.domain import BoolArray, QualityFloor, StreamChoice
from eccos_core.protocols import Steering
from eccos_core.routing.parts import Parts
from eccos_core.routing.prepared import PreparedBatch


def explore(
    parts: Parts, prepared: PreparedBatch, choice: StreamChoice, open_now: BoolArray, steering: Steering
) -> tuple[int, float]:
    """Return the model to call for one request, and the probability with which it was chosen.

    open_now (M,): the models that may answer, reach the request's own quality, and have a free slot. Under a quality
    floor, only models that are forecast at least as good as `choice` are explored. With a certificate none is.
    """
    learner = parts.applied_learner
    if learner is None or learner.rule.explore == "off":
        return choice.model, 1.0
    quality, cost = prepared.forecast.quality[0], prepared.cost_usd[0]
    policy = parts.policy_of(prepared.requests[0])
    allowed = open_now & (quality >= quality[choice.model]) if isinstance(policy, QualityFloor) else open_now
    vector = prepared.vectors[0]
    model, propensity = learner.explore(choice.model, choice.usd_per_quality, vector, quality, cost, allowed)
    if model != choice.model:
        steering.correct_cost(float(cost[model] - cost[choice.model]))
    return model, propensity
