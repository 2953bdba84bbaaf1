"""Prove an optimum with OR-Tools, within a time that you choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eccos_core.domain import Assignment, RoutingProblem
from eccos_core.optimizer.cp_sat import SearchLimits
from eccos_core.optimizer.dual import DEFAULT_GAP, solve_by_prices
from eccos_core.optimizer.feasibility import solve_or_best_effort
from eccos_core.optimizer.glop import simplex
from eccos_core.optimizer.validation import GAP_TOLERANCE, check


@dataclass(frozen=True, slots=True)
class ExactOptimizer:
    """Proves an optimum where it can. The status is `within_gap` when `time_limit_s` ends the search.

    `cp_sat` searches what the dual prices leave open. `glop` takes the prices from the simplex method and does not
    search: its gap is that of the linear relaxation. Both solve caps at a fixed price of quality as a min-cost flow.
    Meant for up to some ten thousand (request, model) pairs.
    """

    engine: Literal["cp_sat", "glop"] = "cp_sat"
    time_limit_s: float = 10.0
    workers: int = 1

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. Raises `InputError`, `NoEligibleModelError`, `InfeasibleError`."""
        check(problem)
        return solve_or_best_effort(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        if self.engine == "glop":
            return solve_by_prices(problem, DEFAULT_GAP, simplex, "glop").assignment()
        solution = solve_by_prices(problem, DEFAULT_GAP)
        if solution.gap > GAP_TOLERANCE:
            solution = solution.improved(SearchLimits(self.time_limit_s, workers=self.workers))
        return solution.assignment()
