"""The default optimizer: dual prices for batches of any size, and CP-SAT to finish and prove the small ones."""

from __future__ import annotations

from dataclasses import dataclass

from eccos_core.domain import Assignment, RoutingProblem
from eccos_core.optimizer.cp_sat import SearchLimits
from eccos_core.optimizer.dual import DEFAULT_GAP, solve_by_prices
from eccos_core.optimizer.feasibility import solve_or_best_effort
from eccos_core.optimizer.validation import GAP_TOLERANCE, check

_SMALL_PAIRS = 2_000  # (request, model) pairs of a batch whose optimum is worth proving
_MAX_PAIRS, _WIDE_GAP = 20_000, 4e-4  # larger batches have small gaps, but near the best attainable quality
_SEARCH = SearchLimits(work=0.1)


@dataclass(frozen=True, slots=True)
class AutoOptimizer:
    """Chooses the engine by the problem, and says in `Assignment.engine` which one solved it.

    Caps at a fixed price of quality are a min-cost flow. A floor or a budget is solved through dual prices. If a gap
    is left and the batch is small, CP-SAT searches what the prices leave open. It stops after a fixed amount of work,
    about 0.1 s, so the answer is a pure function of the problem.
    """

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. Raises `InputError`, `NoEligibleModelError`, `InfeasibleError`."""
        check(problem)
        return solve_or_best_effort(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        solution = solve_by_prices(problem, DEFAULT_GAP)
        pairs = solution.program.objective.size
        if pairs <= _MAX_PAIRS and solution.gap > (GAP_TOLERANCE if pairs <= _SMALL_PAIRS else _WIDE_GAP):
            solution = solution.improved(_SEARCH)
        return solution.assignment()
