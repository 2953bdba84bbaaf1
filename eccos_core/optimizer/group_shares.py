"""Whether caps and group shares can be kept at all, decided exactly whatever the number of requests.

Requests with the same eligible models are interchangeable here, so it is enough to count them by pattern: a handful of
whole numbers, one per (pattern, model), for CP-SAT. Without group shares no solver is needed (see `min_cost_flow`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, GroupShare, IntArray
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.optimizer.canonical import CanonicalProblem
from eccos_core.optimizer.feasibility import capacity_error
from eccos_core.optimizer.linear_program import LinearProgram, count_limits
from eccos_core.optimizer.min_cost_flow import place_requests

_TIME_LIMIT_S = 20.0


def counts_error(canonical: CanonicalProblem) -> InfeasibleError | None:
    """The error for capacity or the first group share that cannot be kept beside those before it; None if all can."""
    problem = canonical.problem
    capacity = np.asarray(problem.capacity)[canonical.model_order]
    plain = replace(canonical, problem=replace(problem, groups=()))
    rows, limits = count_limits(canonical.requests, capacity, ())
    caps_only = LinearProgram(np.zeros_like(plain.cost), None, 0.0, plain.allowed, rows, limits)
    placed = place_requests(caps_only, caps_only.lagrangian_costs(caps_only.zero_prices()), _first_allowed(plain))
    excess = int(np.maximum(np.bincount(placed, minlength=len(capacity)) - capacity, 0).sum())
    if excess:
        return capacity_error(problem, canonical.requests - excess)
    kept: list[GroupShare] = []
    for group in problem.groups:
        members = np.asarray(group.members, dtype=np.bool_)[canonical.model_order]
        rows, limits = count_limits(canonical.requests, capacity, kept)
        most = _extreme_count(canonical, rows, limits, members, maximise=True)
        least = _extreme_count(canonical, rows, limits, members, maximise=False)
        beside = f" beside {', '.join(repr(other.name) for other in kept)}" if kept else ""
        requests = canonical.requests
        if most < np.ceil(group.at_least * requests - 1e-9):
            return _share_error(group.name, "at least", group.at_least, most / requests, requests, beside)
        if least > np.floor(group.at_most * requests + 1e-9):
            return _share_error(group.name, "at most", group.at_most, least / requests, requests, beside)
        kept.append(GroupShare(group.name, members, group.at_least, group.at_most))
        rows, limits = count_limits(requests, capacity, kept)
        if nearest_counts(canonical, rows, limits, np.zeros(len(capacity))) is None:
            return InfeasibleError(
                f"group {group.name!r}",
                group.at_least,
                most / requests,
                f"group {group.name!r}: no whole number of the {requests} calls lies between the shares "
                f"{group.at_least:.4g} and {group.at_most:.4g} and can be had{beside}",
            )
    return None


def _share_error(name: str, side: str, wanted: float, attainable: float, requests: int, beside: str) -> InfeasibleError:
    return InfeasibleError(
        f"group {name!r}",
        wanted,
        attainable,
        f"group {name!r} wants {side} {wanted:.4g} of the {requests} calls; with these caps and eligible "
        f"models{beside} {attainable:.4f} can be had",
    )


def _first_allowed(canonical: CanonicalProblem) -> IntArray:
    if canonical.allowed is None:
        return np.zeros(canonical.requests, dtype=np.int64)
    first: IntArray = canonical.allowed.argmax(axis=0)
    return first


def _patterns(canonical: CanonicalProblem) -> tuple[FloatArray, IntArray]:
    """(P, M) distinct eligibility rows, and (P,) how many requests have each."""
    models = len(canonical.model_order)
    if canonical.allowed is None:
        return np.ones((1, models)), np.array([canonical.requests])
    patterns, sizes = np.unique(canonical.allowed.T, axis=0, return_counts=True)
    return patterns.astype(np.float64), sizes


def _model(canonical: CanonicalProblem, rows: FloatArray, limits: FloatArray) -> tuple[Any, list[Any]]:
    """The CP-SAT model of counts per (pattern, model), and the load of each model as an expression."""
    from ortools.sat.python import cp_model

    patterns, sizes = _patterns(canonical)
    model = cp_model.CpModel()
    parts: list[list[Any]] = [[] for _ in range(patterns.shape[1])]
    for pattern, size in zip(patterns, sizes, strict=True):
        counts = []
        for column in np.flatnonzero(pattern):
            count = model.new_int_var(0, int(size), "")
            counts.append(count)
            parts[column].append(count)
        model.add(sum(counts) == int(size))
    loads = [sum(part) if part else cp_model.LinearExpr.constant(0) for part in parts]
    for row, limit in zip(rows, limits, strict=True):
        model.add(sum(int(weight) * loads[j] for j, weight in enumerate(row) if weight) <= int(limit))
    return model, loads


def _solve(model: Any) -> Any:
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = _TIME_LIMIT_S
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise InputError(f"group shares: not decided in {_TIME_LIMIT_S} s; use fewer groups or eligibility patterns")
    return solver


def _extreme_count(
    canonical: CanonicalProblem, rows: FloatArray, limits: FloatArray, members: BoolArray, *, maximise: bool
) -> float:
    model, loads = _model(canonical, rows, limits)
    calls = sum(load for load, member in zip(loads, members, strict=True) if member)
    if isinstance(calls, int):
        return 0.0
    if maximise:
        model.maximize(calls)
    else:
        model.minimize(calls)
    solver = _solve(model)
    return float(solver.value(calls))


def nearest_counts(
    canonical: CanonicalProblem, rows: FloatArray, limits: FloatArray, wanted: FloatArray
) -> IntArray | None:
    """(M,) whole loads that keep every limit and differ least from `wanted` (M,); None when no loads do."""
    model, loads = _model(canonical, rows, limits)
    off = []
    for load, target in zip(loads, np.rint(wanted), strict=True):
        distance = model.new_int_var(0, 2 * canonical.requests, "")
        model.add_abs_equality(distance, load - int(target))
        off.append(distance)
    model.minimize(sum(off))
    solver = _solve(model)
    if solver is None:
        return None
    return np.asarray([solver.value(load) for load in loads], dtype=np.int64)
