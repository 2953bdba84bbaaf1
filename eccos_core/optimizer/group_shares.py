"""Decide exactly which loads keep caps and group shares, whatever the number of requests."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, GroupShare, IntArray
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.optimizer.canonical import LoadProblem
from eccos_core.optimizer.cp_sat import SearchLimits, new_solver
from eccos_core.optimizer.feasibility import place_patterns
from eccos_core.optimizer.linear_program import count_limits

_TIME_LIMIT_S = 20.0


def counts_error(problem: LoadProblem) -> InfeasibleError | None:
    """Return the error for the first group share that cannot be kept beside those before it, None if all can."""
    requests, capacity = problem.requests, problem.capacity
    kept: list[GroupShare] = []
    for group in problem.groups:
        members = group.members
        model = _LoadModel(problem, *count_limits(requests, capacity, kept))
        calls = sum(model.loads[j] for j in np.flatnonzero(members))
        least, most = (int(_attained(model.minimize(sign * calls))[members].sum()) for sign in (1, -1))
        beside = f" beside {', '.join(repr(other.name) for other in kept)}" if kept else ""
        if most < np.ceil(group.at_least * requests - 1e-9):
            return _share_error(group.name, "at least", group.at_least, most / requests, requests, beside)
        if least > np.floor(group.at_most * requests + 1e-9):
            return _share_error(group.name, "at most", group.at_most, least / requests, requests, beside)
        kept.append(group)
        if _LoadModel(problem, *count_limits(requests, capacity, kept)).minimize(0) is None:
            return InfeasibleError(
                f"group {group.name!r}",
                group.at_least,
                most / requests,
                f"group {group.name!r}: no whole number of the {requests} calls lies between the shares "
                f"{group.at_least:.4g} and {group.at_most:.4g} and can be had{beside}",
            )
    return None


def _attained(loads: IntArray | None) -> IntArray:
    assert loads is not None, "capacity and the groups before this one were checked"
    return loads


def _share_error(name: str, side: str, wanted: float, attainable: float, requests: int, beside: str) -> InfeasibleError:
    return InfeasibleError(
        f"group {name!r}",
        wanted,
        attainable,
        f"group {name!r} wants {side} {wanted:.4g} of the {requests} calls; with these caps and eligible "
        f"models{beside} {attainable:.4f} can be had",
    )


class _LoadModel:
    """A CP-SAT model of the loads: one whole number per model, and the limits on them.

    Eligibility enters by cuts. Loads that the requests cannot fill are refused by the min cut of a max flow, and
    CP-SAT solves again (Hall's condition, separated by a flow).
    """

    def __init__(self, problem: LoadProblem, rows: FloatArray, limits: FloatArray) -> None:
        from ortools.sat.python import cp_model

        self.patterns, self.sizes = problem.patterns, problem.sizes
        self.model = cp_model.CpModel()
        self.loads = [self.model.new_int_var(0, problem.requests, "") for _ in problem.capacity]
        self.model.add(sum(self.loads) == problem.requests)
        for row, limit in zip(rows, limits, strict=True):
            self.model.add(sum(int(weight) * load for weight, load in zip(row, self.loads, strict=True)) <= int(limit))

        for group in problem.groups:
            self._add_cut(group.members)
            self._add_cut(~group.members)

    def _add_cut(self, models: BoolArray) -> None:
        """Demand that the loads of these `models` (M,) cover the requests that may use no other."""
        confined = int(self.sizes[~self.patterns[:, ~models].any(axis=1)].sum())
        self.model.add(sum(self.loads[j] for j in np.flatnonzero(models)) >= confined)

    def minimize(self, objective: Any) -> IntArray | None:
        """Return the loads (M,) of least objective that the requests can fill, None if there are none."""
        from ortools.sat.python import cp_model

        self.model.minimize(objective)
        ends_s = time.monotonic() + _TIME_LIMIT_S
        while True:
            solver = new_solver(SearchLimits(seconds=max(0.0, ends_s - time.monotonic())))
            status = solver.solve(self.model)
            if status == cp_model.INFEASIBLE:
                return None
            if status != cp_model.OPTIMAL:
                raise InputError(f"the group shares were not decided in {_TIME_LIMIT_S} s. Use fewer groups.")
            loads = np.asarray([solver.value(load) for load in self.loads], dtype=np.int64)
            placed, too_small = place_patterns(self.patterns, self.sizes, loads)
            if placed == self.sizes.sum():
                return loads
            self._add_cut(too_small)

    def distance(self, wanted: FloatArray) -> Any:
        """Return an expression for how far the loads are from `wanted` (M,), in calls."""
        terms = []
        for load, target in zip(self.loads, np.rint(wanted), strict=True):
            term = self.model.new_int_var(0, 2 * int(self.sizes.sum()), "")
            self.model.add_abs_equality(term, load - int(target))
            terms.append(term)
        return sum(terms)


def nearest_counts(problem: LoadProblem, rows: FloatArray, limits: FloatArray, wanted: FloatArray) -> IntArray | None:
    """Return the whole loads (M,) that keep every limit and differ least from `wanted` (M,), None if there are none."""
    model = _LoadModel(problem, rows, limits)
    return model.minimize(model.distance(wanted))
