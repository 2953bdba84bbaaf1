"""The default optimizer: prices, an assignment at these prices, exact repair, slack spent, and a certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Assignment, FloatArray, IntArray, RoutingProblem
from eccos_core.optimizer.canonical import CanonicalProblem, canonicalize
from eccos_core.optimizer.dual_newton import Relaxation, relax
from eccos_core.optimizer.dynamic_program import improve, is_worth_solving
from eccos_core.optimizer.exact import least_objective, out_of_reach
from eccos_core.optimizer.feasibility import check_capacity, refuse_excess, solve_or_nearest
from eccos_core.optimizer.group_shares import counts_error, nearest_counts
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram
from eccos_core.optimizer.local_search import LocalSearch
from eccos_core.optimizer.min_cost_flow import (
    place_requests,
    prove_optimal,
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
        return solve_or_nearest(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        prepared = canonicalize(problem, allowed_models(problem))
        check_capacity(prepared)
        program = prepared.program()
        if program.side is None and not prepared.problem.groups:
            choice, bound = solve_transport(program)
            refuse_excess(prepared, choice)
            prices = prove_optimal(program, choice)
            return prepared.assignment(choice, prices, max(bound, program.bound(prices)))
        relaxation = relax(program, max(self.gap, min(1e-3, 0.1 / prepared.requests)))
        values = program.values(relaxation.prices)
        choice = settle_excess(program, values, rounded_shares(relaxation.shares))
        if prepared.problem.groups:
            choice = _within_counts(prepared, program, relaxation, choice)
        else:
            refuse_excess(prepared, choice)
        enough = self.gap * max(abs(relaxation.bound), 1e-300)
        search = LocalSearch(program, values, relaxation.bound, choice)
        if not search.run(enough):
            start = _within_side_limit(prepared, program, relaxation.prices, choice)
            search = LocalSearch(program, values, relaxation.bound, start)
            search.run(enough)
        choice, sharper = search.choice, relaxation.bound
        if is_worth_solving(program) and search.objective - relaxation.bound > enough:
            choice, sharper = improve(program, relaxation.prices, choice)
        prices, bound = _tidied(program, relaxation, choice)
        return prepared.assignment(choice, prices, bound, sharper)


def _tidied(program: LinearProgram, relaxation: Relaxation, choice: IntArray) -> tuple[DualPrices, float]:
    """Prices without the dust that smoothing leaves on limits that are not used up, where that costs no bound."""
    prices, bound = relaxation.prices, relaxation.bound
    free = program.no_prices()
    free_bound = program.bound(free)
    if free_bound >= bound - 1e-12 * abs(bound):
        return free, free_bound
    dust = 1e-3 * float(np.median(np.ptp(program.objective, axis=0)))
    side = 0.0 if program.side_slack(choice) > 0 and prices.side <= dust else prices.side
    counts = np.where((program.count_slack(choice) > 0) & (prices.counts <= dust), 0.0, prices.counts)
    if len(counts) == program.models and counts.min() > 0 and (program.count_rows == np.eye(program.models)).all():
        counts = counts - counts.min()  # (every model is capped: only differences of prices matter)
    if side == prices.side and (counts == prices.counts).all():
        return prices, bound
    cleaner = DualPrices(side, counts)
    cleaner_bound = program.bound(cleaner)
    return (cleaner, cleaner_bound) if cleaner_bound >= bound - 1e-12 * abs(bound) else (prices, bound)


def _within_counts(
    prepared: CanonicalProblem, program: LinearProgram, relaxation: Relaxation, choice: IntArray
) -> IntArray:
    """An assignment that keeps group shares too, at the loads nearest to the relaxation's that do.

    Raises `InfeasibleError` naming capacity or the group that cannot be kept.
    """
    if (program.count_slack(choice) >= 0).all():
        return choice
    loads = nearest_counts(prepared, program.count_rows, program.count_limits, relaxation.shares.sum(axis=1))
    if loads is None:
        error = counts_error(prepared)
        assert error is not None, "loads that cannot be kept have a reason"
        raise error
    fixed = _with_loads(program, loads.astype(np.float64))
    return settle_excess(fixed, program.values(relaxation.prices), choice)


def _with_loads(program: LinearProgram, loads: FloatArray) -> LinearProgram:
    return replace(program, count_rows=np.eye(program.models), count_limits=loads)


def _within_side_limit(
    prepared: CanonicalProblem, program: LinearProgram, prices: DualPrices, start: IntArray
) -> IntArray:
    """An assignment that keeps the floor or budget, found by raising its price; exists whenever one is feasible.

    `start` (R,) keeps the counts. Raises `InfeasibleError` with what is attainable when even the assignment that is
    best for the side constraint fails.
    """
    assert program.side is not None
    best = extreme = _extreme(prepared, program, start)
    low, high = prices.side, max(2 * prices.side, 1e-6)
    for _ in range(_BISECTIONS):
        middle = high if best is extreme else (low + high) / 2
        choice, _ = solve_transport(program.without_side(program.objective + middle * program.side))
        if program.feasible(choice):
            best, high = choice, middle
        elif best is extreme:
            low, high = high, 8 * high
        else:
            low = middle
        if high - low <= 1e-9 * high:
            break
    return best


def _extreme(prepared: CanonicalProblem, program: LinearProgram, start: IntArray) -> IntArray:
    """The assignment with the most quality (for a floor) or the least cost (for a budget) within the counts.

    Exact without group shares; with them by CP-SAT for a short time, and the error says so if that proves nothing.
    """
    assert program.side is not None
    only_side = program.without_side(program.side)
    choice, bound = solve_transport(only_side)
    reached = only_side.objective_of(choice)
    if prepared.problem.groups and not program.feasible(choice):
        choice = place_requests(
            _with_loads(only_side, program.loads(start)), only_side.values(only_side.no_prices()), start
        )
        if not program.feasible(choice) and only_side.objective.size <= _PROVABLE_PAIRS:
            found = least_objective(only_side, _PROOF_TIME_S)
            if found is not None:
                choice, bound = found
        reached = only_side.objective_of(choice)
    else:
        bound = reached
    if program.side_slack(choice) < 0:
        raise out_of_reach(prepared, choice, proved=reached - bound <= 1e-6 * max(abs(bound), 1e-12))
    return choice
