"""Turn a checked problem into the arrays that the solvers work on, and a solution into an assignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import (
    Assignment,
    BoolArray,
    Budget,
    Engine,
    FloatArray,
    GroupShare,
    IntArray,
    Prices,
    QualityFloor,
    QualityPrice,
    RoutingProblem,
    SolutionStatus,
)
from eccos_core.optimizer.linear_program import (
    DualPrices,
    LinearProgram,
    canonical_order,
    count_limits,
    duplicate_classes,
    round_mantissa,
)
from eccos_core.optimizer.validation import GAP_TOLERANCE, least_quality, most_usd, totals


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalProblem:
    """A problem in canonical order (models by name, requests by content), with costs in units of `usd_unit`.

    `quality` and `cost` are (M, R), `allowed` is (M, R), or None when all are. `request_order` (R,) and `model_order`
    (M,) are the positions in the problem.
    """

    problem: RoutingProblem
    quality: FloatArray
    cost: FloatArray
    allowed: BoolArray | None
    count_rows: FloatArray
    count_limits: FloatArray
    request_order: IntArray
    model_order: IntArray
    usd_unit: float
    duplicate_class: IntArray | None

    @property
    def requests(self) -> int:
        """R, the number of requests."""
        return len(self.request_order)

    @property
    def objective_usd(self) -> float:
        """What one unit of the objective is worth, in USD. A budget's objective is quality, and has no such worth."""
        policy = self.problem.policy
        return max(self.usd_unit, policy.usd_per_quality) if isinstance(policy, QualityPrice) else self.usd_unit

    def program(self) -> LinearProgram:
        """Return the program of the problem's policy."""
        match self.problem.policy:
            case QualityFloor(alpha=alpha):
                return self._program(self.cost, -self.quality, -self.requests * least_quality(alpha))
            case Budget(usd=usd):
                return self._program(-self.quality, self.cost, most_usd(usd) / self.usd_unit)
            case QualityPrice() as priced:
                weight, cost = priced.usd_per_quality / self.objective_usd, self.usd_unit / self.objective_usd
                return self._program(cost * self.cost - weight * self.quality, None, 0.0)

    def _program(self, objective: FloatArray, side: FloatArray | None, limit: float) -> LinearProgram:
        return LinearProgram(
            objective, side, limit, self.allowed, self.count_rows, self.count_limits, self.duplicate_class
        )

    def eligibility_patterns(self) -> tuple[BoolArray, IntArray]:
        """Return the distinct sets of allowed models, (P, M), and how many requests have each, (P,)."""
        if self.allowed is None:
            return np.ones((1, len(self.model_order)), dtype=np.bool_), np.array([self.requests])
        packed = np.packbits(self.allowed, axis=0).T
        patterns, sizes = np.unique(packed, axis=0, return_counts=True)
        return np.unpackbits(patterns, axis=1, count=len(self.model_order)).astype(np.bool_), sizes

    def in_problem_order(self, choice: IntArray) -> IntArray:
        """Return a canonical assignment (R,) in the order of the problem's requests and models."""
        original = np.empty_like(choice)
        original[self.request_order] = self.model_order[choice]
        return original

    def assignment(self, choice: IntArray, prices: DualPrices, bound: float, engine: Engine) -> Assignment:
        """Return the answer with its certificate, from a canonical `choice` (R,) and a lower bound on the objective."""
        program = self.program()
        bound = max(bound, program.lagrangian_bound(prices))
        excess = max(program.objective_of(choice) - bound, 0.0)
        model_index = self.in_problem_order(choice)
        cost, quality = totals(self.problem, model_index)
        count_price = np.zeros(len(self.model_order))
        count_price[self.model_order] = prices.counts @ self.count_rows
        unit, requests = self.objective_usd, self.requests
        cheapest = float(
            (self.cost if self.allowed is None else np.where(self.allowed, self.cost, np.inf)).min(axis=0).sum()
            * self.usd_unit
        )
        upper: float | None = None
        match self.problem.policy:
            case QualityFloor():
                usd_per_quality = prices.side * unit
                lower = cost - excess * unit
                slots = count_price * unit
            case Budget():
                usd_per_quality = self._usd_per_quality_under_budget(choice, prices)
                lower = 0.0
                if prices.side > 0:  # at this quality, the budget's own Lagrangian bounds the cost
                    at_prices = program.lagrangian_bound(prices) + prices.side * program.side_limit
                    lower = (at_prices + requests * quality) / prices.side * unit
                slots = count_price * usd_per_quality
                upper = min(quality + excess / requests, 1.0)
            case QualityPrice() as priced:
                usd_per_quality = priced.usd_per_quality
                lower = cost - excess * unit
                slots = count_price * unit
        lower = min(max(lower, cheapest), cost)
        if upper is None:
            gap = (cost - lower) / cost if cost > 0 else 0.0
        else:
            gap = (upper - quality) / upper if upper > 0 else 0.0
        return Assignment(
            model_index=model_index,
            prices=Prices(quality=usd_per_quality, slots=slots),
            cost_usd=cost,
            quality=quality,
            lower_bound_usd=lower,
            gap=gap,
            status=SolutionStatus.OPTIMAL if gap <= GAP_TOLERANCE else SolutionStatus.WITHIN_GAP,
            engine=engine,
            upper_bound_quality=upper,
        )

    def _usd_per_quality_under_budget(self, choice: IntArray, prices: DualPrices) -> float:
        """Return what one more unit of quality costs in USD: the inverse of the budget's price.

        If the budget does not bind, it is the least price of quality at which every request chooses as it did.
        """
        if prices.side > 0:
            return self.usd_unit / prices.side
        columns = np.arange(self.requests)
        worth = self.quality - (prices.counts @ self.count_rows)[:, None]
        dearer = self.cost[choice, columns] - self.cost
        better = worth[choice, columns] - worth
        usable = (dearer > 0) & (better > 0)
        if self.allowed is not None:
            usable &= self.allowed
        return float((dearer[usable] / better[usable]).max(initial=0.0)) * self.usd_unit


def canonicalize(problem: RoutingProblem, allowed: BoolArray) -> CanonicalProblem:
    """Return the problem in canonical order, costs scaled to at most 1. `allowed` (R, M) is from `allowed_models`."""
    model_order = np.asarray(sorted(range(len(problem.models)), key=lambda j: problem.models[j]), dtype=np.int64)
    cost = np.asarray(problem.cost_usd, dtype=np.float64)
    usd_unit = float(cost.max())
    usd_unit = usd_unit if usd_unit > 0 else 1.0
    scaled = round_mantissa(cost[:, model_order] / usd_unit)
    quality = np.asarray(problem.quality, dtype=np.float64)[:, model_order]
    allowed = allowed[:, model_order]
    all_allowed = bool(allowed.all())
    order = canonical_order(quality, scaled, *([] if all_allowed else [allowed.astype(np.float64)]))
    groups = [
        GroupShare(group.name, np.asarray(group.members)[model_order], group.at_least, group.at_most)
        for group in problem.groups
    ]
    by_model = [np.ascontiguousarray(array[order].T) for array in (quality, scaled)]
    eligible = None if all_allowed else np.ascontiguousarray(allowed[order].T)
    rows, limits = count_limits(len(order), np.asarray(problem.capacity)[model_order], groups)
    return CanonicalProblem(
        problem=problem,
        quality=by_model[0],
        cost=by_model[1],
        allowed=eligible,
        count_rows=rows,
        count_limits=limits,
        request_order=order,
        model_order=model_order,
        usd_unit=usd_unit,
        duplicate_class=duplicate_classes(*by_model, *([] if eligible is None else [eligible])),
    )
