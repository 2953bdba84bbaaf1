"""Compute the prices that a stream starts with: the dual prices of the training requests for its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, Budget, FloatArray, Policy, Prices, QualityFloor, RoutingProblem
from eccos_core.errors import InputError
from eccos_core.protocols import Optimizer
from eccos_core.streaming.insured_account import compute_insured_floor
from eccos_core.streaming.targets import SECONDS, FloorTarget, RateTarget

_LEAST_USD = 1e-12  # so that a free answer has a logarithm


@dataclass(frozen=True, slots=True, eq=False)
class InitialPrices:
    """The prices that a stream starts with.

    quality: lambda, in USD per unit of a request's quality. slots (M,): mu, in USD per slot. None for zero.
    best_quality (N,): of the best model on each training request, which shows how hard requests are. None if unknown.
    quality_in_debt: lambda when all the quality is owed that a floor's promise allows, in USD. None if unknown.
    log_cost (M,): mean logarithm of each model's USD per answer where these prices come from. None if unknown.
    """

    quality: float
    slots: FloatArray | None = None
    best_quality: FloatArray | None = None
    quality_in_debt: float | None = None
    log_cost: FloatArray | None = None


def log_costs(cost_usd: FloatArray) -> FloatArray:
    """Return the logarithm of costs in USD, of the same shape. A free answer counts as 1e-12 USD."""
    logs: FloatArray = np.log(np.maximum(cost_usd, _LEAST_USD))
    return logs


def fit_initial_prices(
    quality: FloatArray,
    cost_usd: FloatArray,
    target: FloorTarget | RateTarget,
    optimizer: Optimizer,
    *,
    models: Sequence[str],
    most_share: FloatArray | None = None,
    eligible: BoolArray | None = None,
    requests_per_second: float | None = None,
) -> InitialPrices:
    """Return the prices at which the training requests, quality and cost_usd (N, M), meet the target.

    most_share (M,): the largest share of the stream that each model can take. requests_per_second: turns a budget per
    hour or day into one per request. If the training requests cannot reach the floor, you get the prices of the best
    quality they reach. The floor is raised by what its insurance needs.
    """
    rows = len(quality)
    allowed = np.ones(quality.shape, dtype=np.bool_) if eligible is None else eligible
    best_quality: FloatArray = np.where(allowed, quality, 0.0).max(axis=1)
    capacity = np.full(len(models), rows) if most_share is None else np.ceil(most_share * rows).astype(np.int64)

    def solve(policy: Policy) -> Prices:
        problem = RoutingProblem(
            quality=quality,
            cost_usd=cost_usd,
            eligible=allowed,
            capacity=capacity.astype(np.int64),
            policy=policy,
            models=tuple(models),
        )
        return optimizer.solve(problem).prices

    in_debt: float | None = None
    if isinstance(target, FloorTarget):
        floor = compute_insured_floor(target, best_quality)
        prices = solve(QualityFloor(floor, on_infeasible="best_effort"))
        highest = max(floor, float(best_quality.mean()) - target.tolerance)
        in_debt = solve(QualityFloor(min(highest, 1.0), on_infeasible="best_effort")).quality
    else:
        prices = solve(Budget(usd_per_request(target, requests_per_second) * rows, on_infeasible="best_effort"))
    return InitialPrices(
        prices.quality, np.maximum(prices.slots, 0.0), best_quality, in_debt, log_costs(cost_usd).mean(axis=0)
    )


def usd_per_request(target: RateTarget, requests_per_second: float | None) -> float:
    """Return a budget rate in USD per request.

    Raises `InputError` for a budget per hour or day without requests_per_second.
    """
    if target.per == "request":
        return target.usd
    if requests_per_second is None or requests_per_second <= 0:
        raise InputError(f"a budget per {target.per} needs requests_per_second > 0, got {requests_per_second}")
    return target.usd / (SECONDS[target.per] * requests_per_second)
