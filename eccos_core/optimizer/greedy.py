"""Route every request on its own, in the order given: a baseline.

This is the rule of AIOS and RouteLLM: the cheapest model whose predicted quality reaches the floor, else the best one.
Here it keeps caps too. It sees neither later requests nor what a slot is worth to them.
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
from eccos_core.optimizer.feasibility import budget_error, floor_error, solve_or_best_effort
from eccos_core.optimizer.validation import allowed_models, check, least_quality, most_usd, totals


@dataclass(frozen=True, slots=True)
class GreedyOptimizer:
    """Decides requests one by one. It may miss an answer that exists, and its error says so."""

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. An `InfeasibleError` says that this rule failed, not that no answer exists."""
        check(problem)
        return solve_or_best_effort(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        allowed = allowed_models(problem)
        match problem.policy:
            case QualityFloor(alpha=alpha):
                choice = _assign_in_order(problem, allowed, _CheapestAboveFloor(alpha))
                quality = totals(problem, choice)[1]
                if quality < least_quality(alpha):
                    choice = _assign_in_order(problem, allowed, _BestQuality())
                    quality = totals(problem, choice)[1]
                if quality < least_quality(alpha):
                    raise _as_greedy_failure(floor_error(len(problem.quality), problem.capacity, alpha, quality))
            case Budget(usd=usd):
                choice = _assign_in_order(problem, allowed, _BestAffordable(usd, len(problem.quality)))
                cost = totals(problem, choice)[0]
                if cost > most_usd(usd):
                    choice = _assign_in_order(problem, allowed, _CheapestAboveFloor(0.0))
                    cost = totals(problem, choice)[0]
                if cost > most_usd(usd):
                    raise _as_greedy_failure(budget_error(len(problem.quality), problem.capacity, usd, cost))
            case QualityPrice() as priced:
                choice = _assign_in_order(problem, allowed, _LeastNetCost(priced.usd_per_quality))
        return _with_trivial_bound(problem, allowed, choice)


class _CheapestAboveFloor:
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        good = free & (quality >= self.alpha)
        if good.any():
            return int(np.where(good, cost, np.inf).argmin())
        return int(np.where(free, quality, -1.0).argmax())


class _BestQuality:
    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        return int(np.where(free, quality, -1.0).argmax())


class _LeastNetCost:
    def __init__(self, usd_per_quality: float) -> None:
        self.usd_per_quality = usd_per_quality

    def __call__(self, quality: FloatArray, cost: FloatArray, free: BoolArray) -> int:
        return int(np.where(free, cost - self.usd_per_quality * quality, np.inf).argmin())


class _BestAffordable:
    """The best model at no more than an equal share of the remaining budget, else the cheapest."""

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


_Rule = _CheapestAboveFloor | _BestQuality | _LeastNetCost | _BestAffordable


def _assign_in_order(problem: RoutingProblem, allowed: BoolArray, rule: _Rule) -> IntArray:
    """Return each request's model, (R,), picked by the rule among models with a free slot whose groups allow it."""
    requests = len(problem.quality)
    slots_left = np.asarray(problem.capacity).astype(np.int64).copy()
    calls_left = [int(np.floor(group.at_most * requests + 1e-9)) for group in problem.groups]
    choice = np.zeros(requests, dtype=np.int64)
    for request in range(requests):
        free = allowed[request] & (slots_left > 0)
        for group, calls in zip(problem.groups, calls_left, strict=True):
            if calls <= 0:
                free &= ~np.asarray(group.members)
        if not free.any():
            raise _as_greedy_failure(
                InfeasibleError(
                    "capacity",
                    float(requests),
                    float(request),
                    f"{requests} requests; request {request} finds no free slot at a model that it may use",
                )
            )
        chosen = rule(problem.quality[request], problem.cost_usd[request], free)
        choice[request] = chosen
        slots_left[chosen] -= 1
        calls_left = [
            calls - int(group.members[chosen]) for group, calls in zip(problem.groups, calls_left, strict=True)
        ]
    for group in problem.groups:
        calls = int(np.asarray(group.members)[choice].sum())
        if calls < np.ceil(group.at_least * requests - 1e-9):
            raise _as_greedy_failure(
                InfeasibleError(
                    f"group {group.name!r}",
                    group.at_least,
                    calls / requests,
                    f"group {group.name!r} wants at least {group.at_least:.4g} of the {requests} calls and got {calls}",
                )
            )
    return choice


def _as_greedy_failure(error: InfeasibleError) -> InfeasibleError:
    return InfeasibleError(
        error.constraint, error.wanted, error.attainable, f"{error} (deciding one by one; DualOptimizer may do better)"
    )


def _with_trivial_bound(problem: RoutingProblem, allowed: BoolArray, choice: IntArray) -> Assignment:
    """Return the assignment with the bound at zero prices: every request at its cheapest, or at its best."""
    canonical = canonicalize(problem, allowed)
    rank = np.argsort(canonical.model_order)
    canonical_choice = rank[choice[canonical.request_order]]
    program = canonical.program()
    prices = program.zero_prices()
    return canonical.assignment(canonical_choice, prices, program.lagrangian_bound(prices), "greedy")
