"""The default optimizer: prices, an assignment at these prices, exact repair, slack spent, and a certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Assignment, Budget, IntArray, Priced, QualityFloor, RoutingProblem, Status
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.ascent import relax
from eccos_core.optimizer.exchange import Exchange
from eccos_core.optimizer.feasibility import (
    attainable_cost,
    attainable_quality,
    budget_error,
    check_capacity,
    exact_prices,
    floor_error,
    refuse_excess,
)
from eccos_core.optimizer.prepare import Prepared, prepare
from eccos_core.optimizer.problem import allowed_models, check
from eccos_core.optimizer.program import DualPrices, Program
from eccos_core.optimizer.transport import ModelGraph, place, rounded_shares, transport

_BISECTIONS = 24


@dataclass(frozen=True, slots=True)
class DualOptimizer:
    """Optimises through dual prices (the method of `docs/optimisation.md`); the default for batches of any size.

    gap: relative distance to the Lagrangian bound at which the search for improvements may stop.
    """

    gap: float = 1e-6

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. Raises `InputError`, `NoEligibleModelError`, `InfeasibleError`."""
        check(problem)
        prepared = prepare(problem, allowed_models(problem))
        check_capacity(prepared)
        try:
            return self._solve(prepared)
        except InfeasibleError as error:
            nearest = _nearest_policy(problem, error)
            if nearest is None:
                raise
            answer = self._solve(replace(prepared, problem=replace(problem, policy=nearest)))
            return replace(answer, status=Status.BEST_EFFORT, note=str(error))

    def _solve(self, prepared: Prepared) -> Assignment:
        program = prepared.program()
        if program.side is None:
            return self._least_objective(prepared, program)
        relaxation = relax(program, self._accuracy(prepared))
        values = program.values(relaxation.prices)
        choice = place(program, program.values(relaxation.prices.side_only()), rounded_shares(relaxation.shares))
        refuse_excess(prepared, choice)
        search = Exchange(program, values, relaxation.bound, choice)
        if not search.run(self.gap * max(abs(relaxation.bound), 1e-300)):
            start = self._within_side_limit(prepared, program, relaxation.prices)
            search = Exchange(program, values, relaxation.bound, start)
            search.run(self.gap * max(abs(relaxation.bound), 1e-300))
        return prepared.assignment(search.choice, relaxation.prices, relaxation.bound)

    def _accuracy(self, prepared: Prepared) -> float:
        return max(self.gap, min(1e-3, 0.3 / prepared.requests))

    def _least_objective(self, prepared: Prepared, program: Program) -> Assignment:
        """Caps and eligibility only: exact, and proved by the prices that the exchange graph implies."""
        choice, bound = transport(program)
        refuse_excess(prepared, choice)
        prices = program.no_prices()
        if len(program.count_limits):
            distance, _ = ModelGraph(program.values(prices), choice).shortest()
            prices = DualPrices(0.0, exact_prices(program, choice, distance))
        return prepared.assignment(choice, prices, max(bound, program.bound(prices)))

    def _within_side_limit(self, prepared: Prepared, program: Program, prices: DualPrices) -> IntArray:
        """An assignment that keeps the floor or budget, found by raising its price; exists whenever one is feasible.

        Raises `InfeasibleError` with what is attainable when even the best assignment for the side constraint fails.
        """
        extreme = self._extreme(prepared, program)
        low, high = prices.side, max(2 * prices.side, 1e-6)
        best = extreme
        for _ in range(_BISECTIONS):
            middle = high if best is extreme else (low + high) / 2
            assert program.side is not None
            choice, _ = transport(program.without_side(program.objective + middle * program.side))
            if program.feasible(choice):
                best, high = choice, middle
            elif best is extreme:
                low, high = high, 8 * high
            else:
                low = middle
            if high - low <= 1e-9 * high:
                break
        return best

    def _extreme(self, prepared: Prepared, program: Program) -> IntArray:
        problem = prepared.problem
        match problem.policy:
            case QualityFloor(alpha=alpha):
                quality, choice = attainable_quality(prepared)
                error = floor_error(problem, alpha, quality)
            case Budget(usd=usd):
                cost, choice = attainable_cost(prepared)
                error = budget_error(problem, usd, cost)
            case Priced():
                raise AssertionError("a priced problem has no side constraint")
        refuse_excess(prepared, choice)
        if program.side_slack(choice) < 0:
            raise error
        return choice


def _nearest_policy(problem: RoutingProblem, error: InfeasibleError) -> QualityFloor | Budget | None:
    """The same policy asking for what is attainable, where it allows that; None where the error must stand."""
    match problem.policy:
        case QualityFloor(on_infeasible="best_effort") if error.constraint == "quality floor":
            return QualityFloor(min(max(error.attainable, 0.0), 1.0))
        case Budget(on_infeasible="best_effort") if error.constraint == "budget" and math.isfinite(error.attainable):
            return Budget(error.attainable)
        case _:
            return None
