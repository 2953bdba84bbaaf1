"""Turn a checked problem into the arrays that the solvers work on, and a solution into an assignment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import (
    Assignment,
    BoolArray,
    Budget,
    Engine,
    FloatArray,
    GroupShare,
    IntArray,
    Policy,
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
class LoadProblem:
    """Which loads of the models are possible: requests by the set of models that they may use, caps and group shares.

    `patterns` (P, M) are distinct sets of allowed models, and `sizes` (P,) how many requests have each. `capacity` is
    (M,). Members of `groups` are in the same order of models.
    """

    patterns: BoolArray
    sizes: IntArray
    capacity: IntArray
    groups: tuple[GroupShare, ...] = ()

    @property
    def requests(self) -> int:
        """R, the number of requests."""
        return int(self.sizes.sum())


def distinct_patterns(allowed: BoolArray) -> tuple[BoolArray, IntArray]:
    """Return the distinct rows of `allowed` (R, M), (P, M), and how many requests have each, (P,)."""
    patterns, sizes = np.unique(np.packbits(allowed, axis=1), axis=0, return_counts=True)
    return np.unpackbits(patterns, axis=1, count=allowed.shape[1]).astype(np.bool_), sizes.astype(np.int64)


def policy_terms(
    policy: Policy, quality: FloatArray, cost: FloatArray, requests: int, usd_unit: float
) -> tuple[FloatArray, FloatArray | None, float]:
    """Return objective, side constraint and its limit of a policy over `requests` requests.

    quality and cost have one shape. cost is in units of `usd_unit`. They may be those of a part of the requests.
    """
    match policy:
        case QualityFloor(alpha=alpha):
            return cost, -quality, -requests * least_quality(alpha)
        case Budget(usd=usd):
            return -quality, cost, most_usd(usd) / usd_unit
        case QualityPrice() as priced:
            unit = objective_usd(policy, usd_unit)
            return usd_unit / unit * cost - priced.usd_per_quality / unit * quality, None, 0.0


def objective_usd(policy: Policy, usd_unit: float) -> float:
    """Return what one unit of a policy's objective is worth, in USD. A budget's objective, quality, has no worth."""
    return max(usd_unit, policy.usd_per_quality) if isinstance(policy, QualityPrice) else usd_unit


@dataclass(frozen=True, slots=True)
class BudgetBound:
    """The price of a side constraint, and the Lagrangian bound at it without the term of its limit."""

    side_price: float
    value: float


@dataclass(frozen=True, slots=True)
class OptimalityProof:
    """How far an assignment can be from the best: `Assignment` has the same fields."""

    lower_usd: float
    upper_quality: float | None
    gap: float

    @property
    def status(self) -> SolutionStatus:
        """Whether the assignment counts as proved optimal."""
        return SolutionStatus.OPTIMAL if self.gap <= GAP_TOLERANCE else SolutionStatus.WITHIN_GAP


def prove(
    policy: Policy,
    cost_usd: float,
    quality: float,
    requests: int,
    excess: float,
    unit: float,
    budget: BudgetBound,
    cheapest_usd: float,
) -> OptimalityProof:
    """Turn the distance of an assignment to its Lagrangian bound into bounds on cost or quality.

    cost_usd is the total, quality the mean. excess is in units of the objective, and `unit` what one is worth in USD.
    cheapest_usd is what the requests cost at least, whatever the policy.
    """
    lower, upper = cost_usd - excess * unit, None
    if isinstance(policy, Budget):
        lower = 0.0
        if budget.side_price > 0:  # at this quality, the budget's own Lagrangian bounds the cost
            lower = (budget.value + requests * quality) / budget.side_price * unit
        upper = min(quality + excess / requests, 1.0)
    lower = min(max(lower, cheapest_usd), cost_usd)
    if upper is None:
        return OptimalityProof(lower, None, (cost_usd - lower) / cost_usd if cost_usd > 0 else 0.0)
    return OptimalityProof(lower, upper, (upper - quality) / upper if upper > 0 else 0.0)


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
        return objective_usd(self.problem.policy, self.usd_unit)

    def program(self) -> LinearProgram:
        """Return the program of the problem's policy."""
        return self._program(*policy_terms(self.problem.policy, self.quality, self.cost, self.requests, self.usd_unit))

    def _program(self, objective: FloatArray, side: FloatArray | None, limit: float) -> LinearProgram:
        return LinearProgram(
            objective, side, limit, self.allowed, self.count_rows, self.count_limits, self.duplicate_class
        )

    def load_problem(self) -> LoadProblem:
        """Return what decides which loads of the models are possible."""
        capacity = np.asarray(self.problem.capacity)[self.model_order]
        groups = tuple(
            replace(group, members=np.asarray(group.members, dtype=np.bool_)[self.model_order])
            for group in self.problem.groups
        )
        if self.allowed is None:
            patterns, sizes = np.ones((1, len(self.model_order)), dtype=np.bool_), np.array([self.requests])
        else:
            patterns, sizes = distinct_patterns(self.allowed.T)
        return LoadProblem(patterns, sizes, capacity, groups)

    def in_problem_order(self, choice: IntArray) -> IntArray:
        """Return a canonical assignment (R,) in the order of the problem's requests and models."""
        original = np.empty_like(choice)
        original[self.request_order] = self.model_order[choice]
        return original

    def assignment(self, choice: IntArray, prices: DualPrices, bound: float, engine: Engine) -> Assignment:
        """Return the answer with its certificate, from a canonical `choice` (R,) and a lower bound on the objective."""
        program = self.program()
        at_prices = program.lagrangian_bound(prices)
        bound = max(bound, at_prices)
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
        budget = BudgetBound(prices.side, at_prices + prices.side * program.side_limit)
        proof = prove(self.problem.policy, cost, quality, requests, excess, unit, budget, cheapest)
        match self.problem.policy:
            case QualityFloor():
                usd_per_quality = prices.side * unit
                slots = count_price * unit
            case Budget():
                usd_per_quality = self._usd_per_quality_under_budget(choice, prices)
                slots = count_price * usd_per_quality
            case QualityPrice() as priced:
                usd_per_quality = priced.usd_per_quality
                slots = count_price * unit
        return Assignment(
            model_index=model_index,
            prices=Prices(quality=usd_per_quality, slots=slots),
            cost_usd=cost,
            quality=quality,
            lower_bound_usd=proof.lower_usd,
            gap=proof.gap,
            status=proof.status,
            engine=engine,
            upper_bound_quality=proof.upper_quality,
        )

    def _usd_per_quality_under_budget(self, choice: IntArray, prices: DualPrices) -> float:
        """Return what one more unit of quality costs in USD: the inverse of the budget's price.

        If the budget does not bind, it is the least price of quality at which every request chooses as it did.
        """
        if prices.side > 0:
            return self.usd_unit / prices.side
        worth = self.quality - (prices.counts @ self.count_rows)[:, None]
        return price_of_choice(worth, self.cost, self.allowed, choice) * self.usd_unit


def price_of_choice(worth: FloatArray, cost: FloatArray, allowed: BoolArray | None, choice: IntArray) -> float:
    """Return the least price of quality at which no request would rather have a cheaper model than its own.

    choice is (R,). worth, the quality less the price of a slot, and cost are (M, R). So is allowed, or None.
    """
    columns = np.arange(len(choice))
    dearer = cost[choice, columns] - cost
    better = worth[choice, columns] - worth
    usable = (dearer > 0) & (better > 0)
    if allowed is not None:
        usable &= allowed
    return float((dearer[usable] / better[usable]).max(initial=0.0))


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
