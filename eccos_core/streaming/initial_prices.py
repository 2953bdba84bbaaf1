"""Compute the prices that a stream starts with: the dual prices of the training requests for its target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, Budget, FloatArray, Policy, QualityFloor, RoutingProblem
from eccos_core.errors import InputError
from eccos_core.protocols import Optimizer
from eccos_core.streaming.insured_account import compute_insured_floor
from eccos_core.streaming.targets import SECONDS, FloorTarget, RateTarget

_LEAST_USD = 1e-12  # so that a free answer has a logarithm
_LEAST_STEP = 1e-3  # of quality: no better answer is bought whose gain is less
_SAMPLE_ROWS = 500


@dataclass(frozen=True, slots=True, eq=False)
class PriceSample:
    """Training requests that tell the price of a mean quality, also when costs have changed.

    quality, cost_usd (K, M): forecasts. The cost is infinite where a model may not answer.
    """

    quality: FloatArray
    cost_usd: FloatArray

    def usd_per_quality(self, mean_quality: float, cost_factor: FloatArray | float = 1.0) -> float:
        """Return the least lambda at which these requests reach a mean quality, in USD per unit, within 1 %.

        cost_factor (M,): what each model costs now, as a multiple. A quality out of reach gets the price of the best.
        """
        cost, rows = self.cost_usd * cost_factor, np.arange(len(self.quality))

        def reaches(usd_per_quality: float) -> bool:
            chosen = (cost - usd_per_quality * self.quality).argmin(axis=1)
            return bool(self.quality[rows, chosen].mean() >= mean_quality)

        high = float(np.where(np.isfinite(cost), cost, 0.0).max()) / _LEAST_STEP
        low = high * _LEAST_STEP * _LEAST_STEP
        if reaches(0.0):
            return 0.0
        while high > 1.01 * low:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if reaches(middle) else (middle, high)
        return high


@dataclass(frozen=True, slots=True, eq=False)
class InitialPrices:
    """The prices that a stream starts with.

    quality: lambda, in USD per unit of a request's quality. slots (M,): mu, in USD per slot. None for zero.
    best_quality (N,): of the best model on each training request, which shows how hard requests are. None if unknown.
    log_cost (M,): mean logarithm of each model's USD per training request. None if unknown.
    sample: training requests from which lambda is found again when costs change. None if unknown.
    """

    quality: float
    slots: FloatArray | None = None
    best_quality: FloatArray | None = None
    log_cost: FloatArray | None = None
    sample: PriceSample | None = None


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
    policy: Policy
    match target:
        case FloorTarget():
            policy = QualityFloor(compute_insured_floor(target, best_quality), on_infeasible="best_effort")
        case RateTarget():
            policy = Budget(usd_per_request(target, requests_per_second) * rows, on_infeasible="best_effort")
    capacity = np.full(len(models), rows) if most_share is None else np.ceil(most_share * rows).astype(np.int64)
    problem = RoutingProblem(
        quality=quality,
        cost_usd=cost_usd,
        eligible=allowed,
        capacity=capacity.astype(np.int64),
        policy=policy,
        models=tuple(models),
    )
    prices = optimizer.solve(problem).prices
    rows_kept = np.linspace(0, rows - 1, min(rows, _SAMPLE_ROWS)).astype(np.int64)
    sample = PriceSample(quality[rows_kept], np.where(allowed, cost_usd, np.inf)[rows_kept])
    return InitialPrices(
        prices.quality, np.maximum(prices.slots, 0.0), best_quality, log_costs(cost_usd).mean(axis=0), sample
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
