"""The default optimizer: prices, an assignment at these prices, exact repair, slack spent, and a certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Assignment, FloatArray, IntArray, RoutingProblem
from eccos_core.optimizer.canonical import CanonicalProblem, canonicalize
from eccos_core.optimizer.dual_newton import Relaxation, relax
from eccos_core.optimizer.dynamic_program import improve, is_worth_solving
from eccos_core.optimizer.exact import least_objective, out_of_reach
from eccos_core.optimizer.feasibility import check_capacity, check_placed, solve_or_best_effort
from eccos_core.optimizer.group_shares import counts_error, nearest_counts
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram
from eccos_core.optimizer.local_search import LocalSearch
from eccos_core.optimizer.min_cost_flow import (
    optimal_cap_prices,
    place_requests,
    rounded_shares,
    settle_excess,
    solve_transport,
)
from eccos_core.optimizer.validation import allowed_models, check

_BISECTIONS = 24
_PROVABLE_PAIRS = 20_000  # (request, model) pairs up to which CP-SAT decides what group shares leave open
_PROOF_TIME_S = 5.0


@dataclass(frozen=True, slots=True)
class DualOptimizer:
    """Optimises through dual prices (the method of docs/design/optimizer.md); the default for batches of any size.

    gap: relative distance to the Lagrangian bound at which the search for improvements may stop.
    """

    gap: float = 1e-6

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. Raises `InputError`, `NoEligibleModelError`, `InfeasibleError`."""
        check(problem)
        return solve_or_best_effort(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        canonical = canonicalize(problem, allowed_models(problem))
        check_capacity(canonical)
        program = canonical.program()
        if program.side is None and not canonical.problem.groups:
            choice, bound = solve_transport(program)
            check_placed(canonical, choice)
            prices = optimal_cap_prices(program, choice)
            return canonical.assignment(choice, prices, max(bound, program.lagrangian_bound(prices)))
        relaxation = relax(program, max(self.gap, min(1e-3, 0.1 / canonical.requests)))
        values = program.lagrangian_costs(relaxation.prices)
        choice = settle_excess(program, values, rounded_shares(relaxation.shares))
        if canonical.problem.groups:
            choice = _repair_counts(canonical, program, relaxation, choice)
        else:
            check_placed(canonical, choice)
        gap_tolerance = self.gap * max(abs(relaxation.bound), 1e-300)
        search = LocalSearch(program, values, relaxation.bound, choice)
        if not search.run(gap_tolerance):
            start = _repair_side_constraint(canonical, program, relaxation.prices, choice)
            search = LocalSearch(program, values, relaxation.bound, start)
            search.run(gap_tolerance)
        choice, tighter_bound = search.choice, relaxation.bound
        if is_worth_solving(program) and search.objective - relaxation.bound > gap_tolerance:
            choice, tighter_bound = improve(program, relaxation.prices, choice)
        prices, bound = _drop_negligible_prices(program, relaxation, choice)
        return canonical.assignment(choice, prices, bound, tighter_bound)


def _drop_negligible_prices(
    program: LinearProgram, relaxation: Relaxation, choice: IntArray
) -> tuple[DualPrices, float]:
    """Set prices to zero that smoothing left on limits with slack, if the bound stays as good."""
    prices, bound = relaxation.prices, relaxation.bound
    zero = program.zero_prices()
    zero_bound = program.lagrangian_bound(zero)
    if zero_bound >= bound - 1e-12 * abs(bound):
        return zero, zero_bound
    negligible = 1e-3 * float(np.median(np.ptp(program.objective, axis=0)))
    side = 0.0 if program.side_slack(choice) > 0 and prices.side <= negligible else prices.side
    counts = np.where((program.count_slack(choice) > 0) & (prices.counts <= negligible), 0.0, prices.counts)
    if len(counts) == program.models and counts.min() > 0 and (program.count_rows == np.eye(program.models)).all():
        counts = counts - counts.min()  # (every model is capped: only differences of prices matter)
    if side == prices.side and (counts == prices.counts).all():
        return prices, bound
    cleaned = DualPrices(side, counts)
    cleaned_bound = program.lagrangian_bound(cleaned)
    return (cleaned, cleaned_bound) if cleaned_bound >= bound - 1e-12 * abs(bound) else (prices, bound)


def _repair_counts(
    canonical: CanonicalProblem, program: LinearProgram, relaxation: Relaxation, choice: IntArray
) -> IntArray:
    """An assignment that keeps group shares too, at the loads nearest to the relaxation's that do.

    Raises `InfeasibleError` naming capacity or the group that cannot be kept.
    """
    if (program.count_slack(choice) >= 0).all():
        return choice
    loads = nearest_counts(canonical, program.count_rows, program.count_limits, relaxation.shares.sum(axis=1))
    if loads is None:
        error = counts_error(canonical)
        assert error is not None, "loads that cannot be kept have a reason"
        raise error
    fixed = _with_fixed_loads(program, loads.astype(np.float64))
    return settle_excess(fixed, program.lagrangian_costs(relaxation.prices), choice)


def _with_fixed_loads(program: LinearProgram, loads: FloatArray) -> LinearProgram:
    return replace(program, count_rows=np.eye(program.models), count_limits=loads)


def _repair_side_constraint(
    canonical: CanonicalProblem, program: LinearProgram, prices: DualPrices, start: IntArray
) -> IntArray:
    """An assignment that keeps the floor or budget, found by raising its price; exists whenever one is feasible.

    `start` (R,) keeps the counts. Raises `InfeasibleError` with what is attainable when even the assignment that is
    best for the side constraint fails.
    """
    assert program.side is not None
    best = fallback = _best_for_side(canonical, program, start)
    low, high = prices.side, max(2 * prices.side, 1e-6)
    for _ in range(_BISECTIONS):
        price = high if best is fallback else (low + high) / 2
        choice, _ = solve_transport(program.without_side(program.objective + price * program.side))
        if program.is_feasible(choice):
            best, high = choice, price
        elif best is fallback:
            low, high = high, 8 * high
        else:
            low = price
        if high - low <= 1e-9 * high:
            break
    return best


def _best_for_side(canonical: CanonicalProblem, program: LinearProgram, start: IntArray) -> IntArray:
    """The assignment with the most quality (for a floor) or the least cost (for a budget) within the counts.

    Exact without group shares; with them by CP-SAT for a short time, and the error says so if that proves nothing.
    """
    assert program.side is not None
    only_side = program.without_side(program.side)
    choice, bound = solve_transport(only_side)
    reached = only_side.objective_of(choice)
    if canonical.problem.groups and not program.is_feasible(choice):
        choice = place_requests(
            _with_fixed_loads(only_side, program.loads(start)),
            only_side.lagrangian_costs(only_side.zero_prices()),
            start,
        )
        if not program.is_feasible(choice) and only_side.objective.size <= _PROVABLE_PAIRS:
            found = least_objective(only_side, _PROOF_TIME_S)
            if found is not None:
                choice, bound = found
        reached = only_side.objective_of(choice)
    else:
        bound = reached
    if program.side_slack(choice) < 0:
        raise out_of_reach(canonical, choice, proved=reached - bound <= 1e-6 * max(abs(bound), 1e-12))
    return choice
