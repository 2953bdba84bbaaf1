"""What others do: every request for itself, in the order given. For comparison.

The rule is AIOS's and RouteLLM's: the cheapest model whose predicted quality reaches the floor, else the best one; here
with caps respected. It sees neither later requests nor what a slot is worth to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import (
    Assignment,
    BoolArray,
    Budget,
    FloatArray,
    IntArray,
    QualityFloor,
    QualityPrice,
    RoutingProblem,
)
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.canonical import canonicalize
from eccos_core.optimizer.feasibility import budget_error, floor_error, solve_or_nearest
from eccos_core.optimizer.validation import allowed_models, check, least_quality, most_usd, totals


@dataclass(frozen=True, slots=True)
class GreedyOptimizer:
    """Decides requests one by one. Never infeasible, but it may find no answer where one exists, and then says so."""

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`; an `InfeasibleError` here says that this rule failed, not that nothing is feasible."""
        check(problem)
        return solve_or_nearest(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        allowed = allowed_models(problem)
        match problem.policy:
            case QualityFloor(alpha=alpha):
                choice = _in_turn(problem, allowed, _CheapestGoodEnough(alpha))
                quality = totals(problem, choice)[1]
                if quality < least_quality(alpha):
                    choice = _in_turn(problem, allowed, _Best())
                    quality = totals(problem, choice)[1]
                if quality < least_quality(alpha):
                    raise _by_this_rule(floor_error(problem, alpha, quality))
            case Budget(usd=usd):
                choice = _in_turn(problem, allowed, _BestAffordable(usd, len(problem.quality)))
                cost = totals(problem, choice)[0]
                if cost > most_usd(usd):
                    choice = _in_turn(problem, allowed, _CheapestGoodEnough(0.0))
                    cost = totals(problem, choice)[0]
                if cost > most_usd(usd):
                    raise _by_this_rule(budget_error(problem, usd, cost))
            case QualityPrice() as priced:
                choice = _in_turn(problem, allowed, _LeastNetCost(priced.usd_per_quality))
        return _certified(problem, allowed, choice)


class _CheapestGoodEnough:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        good = free & (quality >= self.alpha)
        if good.any():
            return int(np.where(good, cost, np.inf).argmin())
        return int(np.where(free, quality, -1.0).argmax())


class _Best:
    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        return int(np.where(free, quality, -1.0).argmax())


class _LeastNetCost:
    def __init__(self, usd_per_quality: float) -> None:
        self.usd_per_quality = usd_per_quality

    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        return int(np.where(free, cost - self.usd_per_quality * quality, np.inf).argmin())


class _BestAffordable:
    """The best model at no more than an equal share of what is left of the budget, else the cheapest."""

    def __init__(self, usd: float, requests: int) -> None:
        self.usd, self.requests = usd, requests

    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        affordable = free & (cost <= self.usd / self.requests)
        chosen = int(
            np.where(affordable, quality, -1.0).argmax() if affordable.any() else np.where(free, cost, np.inf).argmin()
        )
        self.usd -= float(cost[chosen])
        self.requests = max(self.requests - 1, 1)
        return chosen


_Rule = _CheapestGoodEnough | _Best | _LeastNetCost | _BestAffordable


def _in_turn(problem: RoutingProblem, allowed: BoolArray, rule: _Rule) -> IntArray:
    """(R,): each request's model by the rule among those with a free slot. Group limits on calls are kept too."""
    requests = len(problem.quality)
    left = np.asarray(problem.capacity).astype(np.int64).copy()
    most = [int(np.floor(group.at_most * requests + 1e-9)) for group in problem.groups]
    choice = np.zeros(requests, dtype=np.int64)
    for request in range(requests):
        free = allowed[request] & (left > 0)
        for group, calls in zip(problem.groups, most, strict=True):
            if calls <= 0:
                free &= ~np.asarray(group.members)
        if not free.any():
            raise _by_this_rule(
                InfeasibleError(
                    "capacity",
                    float(requests),
                    float(request),
                    f"{requests} requests; request {request} finds no free slot at a model that it may use",
                )
            )
        chosen = rule(problem.quality[request], problem.cost_usd[request], free)
        choice[request] = chosen
        left[chosen] -= 1
        most = [calls - int(group.members[chosen]) for group, calls in zip(problem.groups, most, strict=True)]
    for group in problem.groups:
        calls = int(np.asarray(group.members)[choice].sum())
        if calls < np.ceil(group.at_least * requests - 1e-9):
            raise _by_this_rule(
                InfeasibleError(
                    f"group {group.name!r}",
                    group.at_least,
                    calls / requests,
                    f"group {group.name!r} wants at least {group.at_least:.4g} of the {requests} calls and got {calls}",
                )
            )
    return choice


def _by_this_rule(error: InfeasibleError) -> InfeasibleError:
    return InfeasibleError(
        error.constraint, error.wanted, error.attainable, f"{error} (deciding one by one; DualOptimizer may do better)"
    )


def _certified(problem: RoutingProblem, allowed: BoolArray, choice: IntArray) -> Assignment:
    """The choice with the only bound that needs no prices: every request at its cheapest, or at its best."""
    prepared = canonicalize(problem, allowed)
    rank = np.argsort(prepared.model_order)
    canonical = rank[choice[prepared.request_order]]
    program = prepared.program()
    prices = program.no_prices()
    return prepared.assignment(canonical, prices, program.bound(prices))
