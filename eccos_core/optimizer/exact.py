"""OR-Tools, for small problems and for proof: CP-SAT, GLOP, and SimpleMinCostFlow for caps at a fixed price of quality.

These solvers work on integers (all but GLOP). `COST_UNIT` and `QUALITY_UNIT` name them: an objective is exact to half a
unit per request, and floor and budget are kept within the tolerances of `eccos_core.optimizer.validation`. ortools is
imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from eccos_core.domain import Assignment, Budget, FloatArray, IntArray, QualityFloor, QualityPrice, RoutingProblem
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.io.optional import needs_extra
from eccos_core.optimizer.canonical import CanonicalProblem, canonicalize
from eccos_core.optimizer.feasibility import budget_error, check_capacity, floor_error, solve_or_best_effort
from eccos_core.optimizer.group_shares import counts_error
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram
from eccos_core.optimizer.local_search import LocalSearch
from eccos_core.optimizer.min_cost_flow import optimal_cap_prices, rounded_shares, settle_excess
from eccos_core.optimizer.validation import allowed_models, check, totals

COST_UNIT = 2.0**-36  # of the dearest call: 1.5e-11
QUALITY_UNIT = 2.0**-36  # of quality 1
_SIDE_UNIT = 2.0**-40


@dataclass(frozen=True, slots=True)
class ExactOptimizer:
    """Proves an optimum where it can. `cp_sat`: branch and bound over integers, with a status `within_gap` when
    `time_limit_s` ends it; `glop`: simplex prices, then the few fractional requests by exchange.

    `QualityPrice` without group shares is a min-cost flow and always solved as one. Meant for up to some ten thousand
    (request, model) pairs; beyond, `DualOptimizer` is as good and far faster.
    """

    engine: Literal["cp_sat", "glop"] = "cp_sat"
    time_limit_s: float = 10.0
    workers: int = 1

    def solve(self, problem: RoutingProblem) -> Assignment:
        """See `Optimizer.solve`. Raises `InputError` when the time limit ends before any assignment was found."""
        check(problem)
        return solve_or_best_effort(problem, self._solve)

    def _solve(self, problem: RoutingProblem) -> Assignment:
        canonical = canonicalize(problem, allowed_models(problem))
        check_capacity(canonical)
        program = canonical.program()
        refused = counts_error(canonical)
        if refused is not None:
            raise refused
        if program.side is None and not canonical.problem.groups:
            choice = least_objective_flow(program)
            prices = optimal_cap_prices(program, choice)
            return canonical.assignment(choice, prices, program.lagrangian_bound(prices))
        if self.engine == "glop":
            return self._with_glop(canonical, program)
        return self._with_cp_sat(canonical, program)

    def _with_cp_sat(self, canonical: CanonicalProblem, program: LinearProgram) -> Assignment:
        found = least_objective(program, self.time_limit_s, self.workers)
        if found is None:
            raise self._out_of_reach(canonical, program)
        choice, bound = found
        prices, _, relaxed = simplex(program)
        return canonical.assignment(choice, prices, max(bound, relaxed))

    def _with_glop(self, canonical: CanonicalProblem, program: LinearProgram) -> Assignment:
        try:
            prices, shares, bound = simplex(program)
        except InfeasibleError:
            raise self._out_of_reach(canonical, program) from None
        choice = settle_excess(program, program.lagrangian_costs(prices), rounded_shares(shares))
        search = LocalSearch(program, program.lagrangian_costs(prices), bound, choice)
        if not search.run(0.0) or (search.program.count_slack(search.choice) < 0).any():
            return self._with_cp_sat(canonical, program)
        return canonical.assignment(search.choice, prices, bound)

    def _out_of_reach(self, canonical: CanonicalProblem, program: LinearProgram) -> InfeasibleError:
        """The error for a floor or budget that no assignment keeps, with the exact attainable value."""
        assert program.side is not None
        found = least_objective(program.without_side(program.side), self.time_limit_s, self.workers)
        if found is None:
            raise InputError(f"CP-SAT found no assignment in {self.time_limit_s} s; raise time_limit_s")
        return out_of_reach(canonical, found[0])


def out_of_reach(canonical: CanonicalProblem, best: IntArray, *, proved: bool = True) -> InfeasibleError:
    """The error for the policy's floor or budget; `best` (R,) comes nearest to it, in canonical order."""
    cost, quality = totals(canonical.problem, canonical.in_problem_order(best))
    match canonical.problem.policy:
        case QualityFloor(alpha=alpha):
            error = floor_error(canonical.problem, alpha, quality)
        case Budget(usd=usd):
            error = budget_error(canonical.problem, usd, cost)
        case QualityPrice():
            raise AssertionError("a priced problem has neither floor nor budget")
    if proved:
        return error
    return InfeasibleError(
        error.constraint,
        error.wanted,
        error.attainable,
        f"{error} (the nearest that was found in the time given; with group shares a little more may be attainable)",
    )


def least_objective(program: LinearProgram, time_limit_s: float, workers: int = 1) -> tuple[IntArray, float] | None:
    """CP-SAT: an assignment (R,) and a proved bound; None when there is none. Raises `InputError` out of time."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    pairs = np.argwhere(np.ones_like(program.objective, dtype=bool) if program.allowed is None else program.allowed)
    chosen: dict[tuple[int, int], Any] = {(int(j), int(i)): model.new_bool_var("") for j, i in pairs}
    by_request: dict[int, list[Any]] = {}
    for (_, request), variable in chosen.items():
        by_request.setdefault(request, []).append(variable)
    for variables in by_request.values():
        model.add_exactly_one(variables)
    for row, limit in zip(program.count_rows, program.count_limits, strict=True):
        model.add(_sum(cp_model, chosen, np.broadcast_to(row[:, None], program.objective.shape)) <= int(limit))
    if program.side is not None:
        side = np.rint(program.side / _SIDE_UNIT)
        # each request's share is rounded by up to half a unit: what lies within that of the limit keeps it
        limit = int(np.floor(program.side_limit / _SIDE_UNIT + 0.5 * program.requests))
        model.add(_sum(cp_model, chosen, side) <= limit)
    model.minimize(_sum(cp_model, chosen, np.rint(program.objective / COST_UNIT)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = time_limit_s
    solver.parameters.num_workers = workers
    solver.parameters.relative_gap_limit = 0.0
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise InputError(
            f"CP-SAT found no assignment of {program.requests} requests to {program.models} models in "
            f"{time_limit_s} s; raise time_limit_s or use DualOptimizer"
        )
    choice = np.zeros(program.requests, dtype=np.int64)
    for (model_index, request), variable in chosen.items():
        if solver.boolean_value(variable):
            choice[request] = model_index
    bound = solver.best_objective_bound * COST_UNIT - 0.5 * COST_UNIT * program.requests
    return choice, bound


def _sum(cp_model: Any, chosen: Mapping[tuple[int, int], Any], weights: FloatArray) -> Any:
    used = [(variable, int(weights[pair])) for pair, variable in chosen.items() if weights[pair]]
    return cp_model.LinearExpr.weighted_sum([variable for variable, _ in used], [weight for _, weight in used])


def simplex(program: LinearProgram) -> tuple[DualPrices, FloatArray, float]:
    """GLOP on the linear relaxation: prices, shares (M, R), and the bound that the prices imply.

    Raises `InfeasibleError` (constraint "relaxation") when even shares of requests cannot keep all limits.
    """
    from ortools.linear_solver.python import model_builder_helper

    with needs_extra("exact", "the exact optimizer"):
        from scipy import sparse

    models, requests, size = program.models, program.requests, program.objective.size
    column = np.arange(size)
    blocks = [sparse.csr_matrix((np.ones(size), (column % requests, column)), shape=(requests, size))]
    if program.side is not None:
        blocks.append(sparse.csr_matrix(program.side.reshape(1, -1)))
    if len(program.count_rows):
        blocks.append(sparse.csr_matrix(np.repeat(program.count_rows, requests, axis=1)))
    matrix = sparse.vstack(blocks, format="csr")
    coupled = matrix.shape[0] - requests
    limits = np.concatenate([[] if program.side is None else [program.side_limit], program.count_limits])
    upper = np.ones(size) if program.allowed is None else program.allowed.astype(np.float64).ravel()
    helper: Any = model_builder_helper.ModelBuilderHelper()  # (its stubs refuse plain numpy arrays)
    helper.fill_model_from_sparse_data(
        np.zeros(size),
        upper,
        program.objective.ravel(),
        np.concatenate([np.ones(requests), np.full(coupled, -np.inf)]),
        np.concatenate([np.ones(requests), limits]),
        matrix,
    )
    solver = model_builder_helper.ModelSolverHelper("GLOP")
    solver.solve(helper)
    if not solver.has_solution():
        raise InfeasibleError("relaxation", 0.0, 0.0, "the linear relaxation has no solution")
    dual = np.maximum(-np.asarray(solver.dual_values())[requests:], 0.0)
    prices = DualPrices(0.0, dual) if program.side is None else DualPrices(float(dual[0]), dual[1:])
    shares = np.asarray(solver.variable_values()).reshape(models, requests)
    return prices, shares, program.lagrangian_bound(prices)


def least_objective_flow(program: LinearProgram) -> IntArray:
    """SimpleMinCostFlow: the least objective under caps and eligibility, (R,). Capacity must have been checked."""
    from ortools.graph.python import min_cost_flow

    models, requests = program.models, program.requests
    allowed = np.ones((models, requests), dtype=bool) if program.allowed is None else program.allowed
    model, request = np.nonzero(allowed)
    cost = np.rint((program.objective - program.objective.min()) / COST_UNIT).astype(np.int64)[model, request]
    caps = np.full(models, requests, dtype=np.int64)
    caps[program.count_rows.argmax(axis=1)] = program.count_limits.astype(np.int64)
    sink = requests + models
    flow = min_cost_flow.SimpleMinCostFlow()
    arcs = flow.add_arcs_with_capacity_and_unit_cost(
        request, requests + model, np.ones(len(model), dtype=np.int64), cost
    )
    flow.add_arcs_with_capacity_and_unit_cost(
        requests + np.arange(models), np.full(models, sink), caps, np.zeros(models, dtype=np.int64)
    )
    flow.set_nodes_supplies(
        np.arange(sink + 1), np.concatenate([np.ones(requests), np.zeros(models), [-requests]]).astype(np.int64)
    )
    status = flow.solve()
    if status != flow.OPTIMAL:
        raise InputError(f"SimpleMinCostFlow ended with {status.name}: costs of too many sizes for its integers")
    used = flow.flows(arcs) > 0
    choice = np.zeros(requests, dtype=np.int64)
    choice[request[used]] = model[used]
    return choice
