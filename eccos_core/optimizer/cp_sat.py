"""Finish a problem with CP-SAT: search only what the Lagrangian bound leaves open, and prove the optimum.

After reduced cost fixing (`LinearProgram.open_options`) few requests keep more than one choice. They are the core, and
CP-SAT decides them.

CP-SAT works on integers. All roundings are conservative: the objective is rounded down, so that its bound is valid, and
the side constraint is rounded towards infeasible, so that what is found is feasible in floating point too. The rounding
is below the tolerances of `eccos_core.optimizer.validation`, so every floor and budget that is attainable is attained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from eccos_core.domain import BoolArray, Engine, FloatArray, IntArray
from eccos_core.optimizer.linear_program import ROUNDING, DualPrices, LinearProgram

_BITS = 45  # of the side limit, and of the range of the objective


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """When CP-SAT stops: after `seconds` on the wall, or after `work`, OR-Tools' reproducible deterministic time."""

    seconds: float = math.inf
    work: float = math.inf
    workers: int = 1


def improve(
    program: LinearProgram, prices: DualPrices, incumbent: IntArray, limits: SearchLimits
) -> tuple[IntArray, float, Engine]:
    """Return an assignment (R,) at least as good as the feasible `incumbent` (R,), a lower bound, and the engine.

    The bound is at least the Lagrangian bound of `prices`. It equals the objective if the optimum is proved. The engine
    is `dual` where reduced cost fixing decides everything.
    """
    columns = np.arange(program.requests)
    lagrangian, upper = program.lagrangian_bound(prices), program.objective_of(incumbent)
    options = program.open_options(prices, incumbent)
    side: FloatArray | None = None
    if program.side is not None:
        least = np.where(options, program.side, np.inf).min(axis=0)
        side = program.side - least
        side_slack = max(program.side_limit - math.fsum(least.tolist()), float(side[incumbent, columns].sum()))
        options &= side <= side_slack
        side = np.ceil(side / (side_slack or 1.0) * 2.0**_BITS)
    if (options.sum(axis=0) == 1).all():
        return incumbent, upper, "dual"
    least = np.where(options, program.objective, np.inf).min(axis=0)
    objective = program.objective - least
    unit = (float(np.where(options, objective, 0.0).max(axis=0).sum()) or 1.0) / 2.0**_BITS
    found = _solve(_Core(program, options, np.floor(objective / unit), side, incumbent), limits)
    if found is None:
        return incumbent, lagrangian, "dual"
    choice, bound = found
    if not program.is_feasible(choice) or program.objective_of(choice) >= upper:
        choice = incumbent
    proved = (
        bound * unit + math.fsum(least.tolist()) - ROUNDING * float(np.abs(program.objective[incumbent, columns]).sum())
    )
    return choice, max(lagrangian, min(proved, program.objective_of(choice))), "cp_sat"


@dataclass(frozen=True, slots=True, eq=False)
class _Core:
    """The options (M, R) that reduced cost fixing leaves, and objective and side constraint in integers (M, R).

    Both are relative to each request's least option. So requests with one option add nothing.
    """

    program: LinearProgram
    options: BoolArray
    objective: FloatArray
    side: FloatArray | None
    incumbent: IntArray

    @property
    def side_limit(self) -> int:
        """The limit on the integer side constraint. The incumbent keeps it in spite of its rounding."""
        assert self.side is not None
        return max(1 << _BITS, int(self.side[self.incumbent, np.arange(len(self.incumbent))].sum()))


def _solve(core: _Core, limits: SearchLimits) -> tuple[IntArray, float] | None:
    """Return an assignment (R,) and a lower bound on the integer objective, None if CP-SAT found nothing to trust."""
    from ortools.sat.python import cp_model

    program, choice = core.program, core.options.argmax(axis=0)
    undecided = np.flatnonzero(core.options.sum(axis=0) > 1)
    request, model_index = np.nonzero(core.options[:, undecided].T)
    request = undecided[request]
    model = cp_model.CpModel()
    variables = [model.new_bool_var("") for _ in request]
    for start, end in pairwise([0, *(np.flatnonzero(np.diff(request)) + 1), len(request)]):
        model.add_exactly_one(variables[start:end])
    decided = np.delete(choice, undecided)
    for row, limit in zip(program.count_rows, program.count_limits, strict=True):
        model.add(_weighted_sum(variables, row[model_index]) <= int(limit - row[decided].sum()))
    if core.side is not None:
        model.add(_weighted_sum(variables, core.side[model_index, request]) <= core.side_limit)
    weights = core.objective[model_index, request]
    model.minimize(_weighted_sum(variables, weights))
    for variable, is_chosen in zip(variables, core.incumbent[request] == model_index, strict=True):
        model.add_hint(variable, bool(is_chosen))
    solver = new_solver(limits)
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    taken = np.array([solver.boolean_value(variable) for variable in variables], dtype=np.bool_)
    choice[request[taken]] = model_index[taken]
    incumbent_value = weights[core.incumbent[request] == model_index].sum()
    if solver.best_objective_bound >= incumbent_value + 1:
        return None  # a contradiction: the incumbent is feasible
    return choice, solver.best_objective_bound


def new_solver(limits: SearchLimits) -> Any:
    """Return a CP-SAT solver that proves optima to the last unit."""
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.max_time_in_seconds, parameters.max_deterministic_time = limits.seconds, limits.work
    parameters.num_workers, parameters.relative_gap_limit = limits.workers, 0.0
    parameters.presolve_inclusion_work_limit = 0  # this presolve removes optimal solutions: google/or-tools#5293
    return solver


def _weighted_sum(variables: list[Any], weights: FloatArray) -> Any:
    from ortools.sat.python import cp_model

    used = np.flatnonzero(weights)
    return cp_model.LinearExpr.weighted_sum([variables[i] for i in used], [int(weights[i]) for i in used])
