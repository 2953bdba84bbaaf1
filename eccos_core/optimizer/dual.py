"""Solve through dual prices: an assignment at these prices, exact repair, slack used up, and a certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Assignment, BoolArray, Engine, IntArray, RoutingProblem
from eccos_core.optimizer.canonical import CanonicalProblem, canonicalize
from eccos_core.optimizer.cp_sat import SearchLimits, improve
from eccos_core.optimizer.dual_newton import Relaxation, relax
from eccos_core.optimizer.feasibility import check_capacity, out_of_reach, solve_or_best_effort
from eccos_core.optimizer.group_shares import counts_error, nearest_counts
from eccos_core.optimizer.linear_program import ROUNDING, DualPrices, LinearProgram
from eccos_core.optimizer.local_search import LocalSearch
from eccos_core.optimizer.min_cost_flow import (
    cap_prices,
    repair_caps,
    round_shares,
    solve_transport,
    transport_rounding,
)
from eccos_core.optimizer.validation import allowed_models, check

DEFAULT_GAP = 1e-6
_BISECTIONS = 24
_MAX_GROUP_PAIRS = 20_000  # (request, model) pairs up to which CP-SAT decides what group shares leave open
_GROUP_SEARCH = SearchLimits(seconds=5.0)


@dataclass(frozen=True, slots=True)
class DualOptimizer:
    """Optimises through dual prices, for batches of any size (the method of docs/design/optimizer.md).

    `gap` is the relative distance to the Lagrangian bound at which the search for improvements may stop.
    """

    gap: float = DEFAULT_GAP

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. Raises `InputError`, `NoEligibleModelError`, `InfeasibleError`."""
        check(problem)
        return solve_or_best_effort(problem, lambda problem: solve_by_prices(problem, self.gap).assignment())


@dataclass(frozen=True, slots=True, eq=False)
class PricedSolution:
    """A feasible assignment `choice` (R,), the dual prices it was found at, and the best lower bound known."""

    canonical: CanonicalProblem
    program: LinearProgram
    prices: DualPrices
    choice: IntArray
    bound: float
    engine: Engine

    @property
    def gap(self) -> float:
        """The relative distance of the objective to the bound, at least 0."""
        objective = self.program.objective_of(self.choice)
        return max(objective - self.bound, 0.0) / max(abs(objective), 1e-300)

    def improved(self, limits: SearchLimits) -> PricedSolution:
        """Return the solution after a search by CP-SAT."""
        choice, bound, engine = improve(self.program, self.prices, self.choice, limits)
        return replace(self, choice=choice, bound=bound, engine=engine)

    def assignment(self) -> Assignment:
        """Return the answer with its certificate."""
        prices = _drop_negligible_prices(self.program, self.prices, self.choice)
        return self.canonical.assignment(self.choice, prices, self.bound, self.engine)


def solve_by_prices(
    problem: RoutingProblem,
    gap: float,
    relaxed: Callable[[LinearProgram], Relaxation | None] = lambda program: None,
    engine: Engine = "dual",
) -> PricedSolution:
    """Solve a checked problem. `relaxed` may solve the relaxation. Where it returns None, Newton's method does.

    Raises `NoEligibleModelError` and `InfeasibleError`.
    """
    canonical = canonicalize(problem, allowed_models(problem))
    check_capacity(canonical.load_problem())
    program = canonical.program()
    if program.side is None and not problem.groups:
        return _solve_flow(canonical, program)
    accuracy = max(gap, min(1e-3, 0.1 / canonical.requests))
    relaxation = relaxed(program) or relax(program, accuracy)
    if not relaxation.converged and not problem.groups:
        program, start_at, must_fill = _narrow_to_side_constraint(canonical, program)
        tight = _solve_tight(canonical, program, must_fill, start_at.side, relaxation)
        if tight is not None:
            return tight
        narrowed = relax(program, accuracy, start_at)
        if narrowed.bound < relaxation.bound:
            narrowed = replace(narrowed, prices=relaxation.prices, bound=relaxation.bound)
        relaxation = narrowed
    if not problem.groups and _side_seems_slack(program, relaxation):
        solution = _solve_flow(canonical, program)
        if program.is_feasible(solution.choice):
            return solution
    costs = program.lagrangian_costs(relaxation.prices)
    caps_only = _fix_loads(canonical, program, relaxation) if problem.groups else program
    choice = repair_caps(caps_only, costs, round_shares(relaxation.shares))
    gap_tolerance = gap * max(abs(relaxation.bound), 1e-300)
    search = LocalSearch(program, costs, relaxation.bound, choice)
    if not search.run(gap_tolerance):
        start = _repair_side_constraint(canonical, program, relaxation.prices)
        search = LocalSearch(program, costs, relaxation.bound, start)
        search.run(gap_tolerance)
    return PricedSolution(canonical, program, relaxation.prices, search.choice, relaxation.bound, engine)


def _solve_flow(canonical: CanonicalProblem, program: LinearProgram) -> PricedSolution:
    """Solve a program without group shares, whose side constraint is dropped, exactly."""
    caps_only = program.without_side()
    choice = solve_transport(caps_only)
    prices = cap_prices(caps_only, choice)
    return PricedSolution(canonical, program, prices, choice, program.lagrangian_bound(prices), "min_cost_flow")


def _narrow_to_side_constraint(
    canonical: CanonicalProblem, program: LinearProgram
) -> tuple[LinearProgram, DualPrices, BoolArray]:
    """Return the program without the choices that a tight floor or budget rules out, and prices to start at.

    The assignment that is best for the side constraint has prices of its own, and every choice a reduced cost. The
    reduced costs of a feasible assignment, and the prices of the slots that it leaves free, add up to at most what the
    limit leaves. So each choice must fit into that. Models (M,) whose price does not fit must be full. Raises
    `InfeasibleError` if nothing fits.
    """
    assert program.side is not None
    only_side = program.without_side(program.side)
    choice = solve_transport(only_side)
    if not program.is_feasible(choice):
        raise out_of_reach(canonical, choice, proved=True)
    prices = cap_prices(only_side, choice)
    costs = only_side.lagrangian_costs(prices)
    reduced = costs - costs.min(axis=0)
    room = program.side_limit - only_side.lagrangian_bound(prices, costs) + ROUNDING * abs(program.side_limit)
    fitting = reduced <= room
    fitting[choice, np.arange(program.requests)] = True
    must_fill = np.zeros(program.models, dtype=np.bool_)
    must_fill[program.count_rows.argmax(axis=1)] = (prices.counts > room) & (program.count_slack(choice) == 0)
    change = np.abs(program.objective - program.objective[choice, np.arange(program.requests)])
    side_price = float(change[fitting].sum()) / max(float(reduced[fitting].sum()), 1e-300)
    return replace(program, allowed=fitting), DualPrices(side_price, side_price * prices.counts), must_fill


def _solve_tight(
    canonical: CanonicalProblem,
    narrowed: LinearProgram,
    must_fill: BoolArray,
    side_price: float,
    relaxation: Relaxation,
) -> PricedSolution | None:
    """Solve a narrowed program whose side constraint the remaining choices and full models nearly imply.

    Without that constraint it is a flow, whose objective is a lower bound. Where its assignment breaks the constraint,
    the constraint gets a price, which is bisected: each flow gives a bound, and those at high prices an assignment that
    keeps it. Exchanges then use up what it leaves. `side_price` is where to begin. None where no price is high enough.
    """
    best, bound, price, low, high = None, relaxation.bound, 0.0, 0.0, max(side_price, 1e-6)
    for _ in range(_BISECTIONS):
        assert narrowed.side is not None
        priced = narrowed.without_side(narrowed.objective + price * narrowed.side)
        choice = solve_transport(priced, must_fill)
        at_least = priced.objective_of(choice) - transport_rounding(priced) - price * narrowed.side_limit
        bound = max(bound, at_least)
        if narrowed.is_feasible(choice):
            if best is None or narrowed.objective_of(choice) < best.program.objective_of(best.choice):
                best = PricedSolution(canonical, narrowed, relaxation.prices, choice, bound, "min_cost_flow")
            best, high = replace(best, bound=bound), price
        else:
            low = price
        if best is not None and (best.gap <= DEFAULT_GAP or high - low <= 1e-9 * high):
            break
        if best is None:
            price, high = high, 8 * high
        else:
            price = (low + high) / 2
    if best is None:
        return None
    assert narrowed.side is not None
    priced = narrowed.without_side(narrowed.objective + high * narrowed.side)
    search = LocalSearch(narrowed, priced.lagrangian_costs(cap_prices(priced, best.choice)), bound, best.choice)
    search.run(DEFAULT_GAP * abs(bound))
    return replace(best, choice=search.choice, bound=bound)


def _side_seems_slack(program: LinearProgram, relaxation: Relaxation) -> bool:
    """Return whether the bound is as good without the price of the floor or budget."""
    without = program.lagrangian_bound(replace(relaxation.prices, side=0.0))
    return without >= relaxation.bound - 1e-3 * abs(relaxation.bound)


def _drop_negligible_prices(program: LinearProgram, prices: DualPrices, choice: IntArray) -> DualPrices:
    """Set prices to zero that smoothing left on limits with slack, if the bound stays as good."""
    least_bound = program.lagrangian_bound(prices)
    least_bound -= 1e-12 * abs(least_bound)
    if program.lagrangian_bound(program.zero_prices()) >= least_bound:
        return program.zero_prices()
    negligible = 1e-3 * float(np.median(np.ptp(program.objective, axis=0)))
    side = 0.0 if program.side_slack(choice) > 0 and prices.side <= negligible else prices.side
    counts = np.where((program.count_slack(choice) > 0) & (prices.counts <= negligible), 0.0, prices.counts)
    if len(counts) == program.models and counts.min() > 0 and (program.count_rows == np.eye(program.models)).all():
        counts = counts - counts.min()  # when every model is capped, only differences of prices matter
    cleaned = DualPrices(side, counts)
    return cleaned if program.lagrangian_bound(cleaned) >= least_bound else prices


def _fix_loads(canonical: CanonicalProblem, program: LinearProgram, relaxation: Relaxation) -> LinearProgram:
    """Return the program with group shares replaced by caps: the loads nearest to the relaxation's that keep them.

    Raises `InfeasibleError` naming the group that cannot be kept.
    """
    loads = nearest_counts(
        canonical.load_problem(), program.count_rows, program.count_limits, relaxation.shares.sum(axis=1)
    )
    if loads is None:
        error = counts_error(canonical.load_problem())
        assert error is not None, "loads that cannot be kept have a reason"
        raise error
    return replace(program, count_rows=np.eye(program.models), count_limits=loads.astype(np.float64))


def _solve_counts(canonical: CanonicalProblem, program: LinearProgram) -> tuple[IntArray, float]:
    """Return an assignment of low objective under the count limits alone, and a bound. Exact without group shares."""
    if not canonical.problem.groups:
        choice = solve_transport(program)
        return choice, program.objective_of(choice)
    relaxation = relax(program, 1e-4)
    return solve_transport(_fix_loads(canonical, program, relaxation)), relaxation.bound


def _repair_side_constraint(canonical: CanonicalProblem, program: LinearProgram, prices: DualPrices) -> IntArray:
    """Return an assignment (R,) that keeps the floor or budget, found by bisection of its price.

    Raises `InfeasibleError` with what is attainable if even the best assignment for the side constraint violates it.
    """
    assert program.side is not None
    best = fallback = _best_for_side(canonical, program)
    low, high = prices.side, max(2 * prices.side, 1e-6)
    for _ in range(_BISECTIONS):
        price = high if best is fallback else (low + high) / 2
        choice, _ = _solve_counts(canonical, program.without_side(program.objective + price * program.side))
        if program.is_feasible(choice):
            best, high = choice, price
        elif best is fallback:
            low, high = high, 8 * high
        else:
            low = price
        if high - low <= 1e-9 * high:
            break
    return best


def _best_for_side(canonical: CanonicalProblem, program: LinearProgram) -> IntArray:
    """Return the assignment with the most quality (for a floor) or the least cost (for a budget) within the counts.

    Exact without group shares. With them CP-SAT searches for a short time, and the error says if that proved nothing.
    """
    assert program.side is not None
    only_side = program.without_side(program.side)
    choice, bound = _solve_counts(canonical, only_side)
    if canonical.problem.groups and not program.is_feasible(choice) and program.objective.size <= _MAX_GROUP_PAIRS:
        choice, bound, _ = improve(only_side, relax(only_side, 1e-6).prices, choice, _GROUP_SEARCH)
    if not program.is_feasible(choice):
        reached = only_side.objective_of(choice)
        raise out_of_reach(canonical, choice, proved=reached - bound <= 1e-6 * max(abs(bound), 1e-12))
    return choice
