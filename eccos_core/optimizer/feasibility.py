"""Report which constraint is infeasible and what is attainable, and relax it for `best_effort`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from eccos_core.domain import (
    Assignment,
    BoolArray,
    Budget,
    IntArray,
    Policy,
    QualityFloor,
    QualityPrice,
    RoutingProblem,
    SolutionStatus,
)
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.canonical import CanonicalProblem, LoadProblem, canonicalize
from eccos_core.optimizer.min_cost_flow import solve_transport
from eccos_core.optimizer.validation import totals


def check_capacity(problem: LoadProblem) -> None:
    """Raise `InfeasibleError` when not every request finds a free slot at a model that it may use."""
    requests = problem.requests
    capacity = np.minimum(problem.capacity, requests)
    free = int(capacity.sum())
    placed, _ = place_patterns(problem.patterns, problem.sizes, capacity)
    if placed == requests:
        return
    if free < requests:
        message = f"{requests} requests, {free} free slots"
        if placed < free:
            message += f", of which only {placed} are at models that these requests may use"
    else:
        message = f"{requests} requests; with their eligible models only {placed} find a free slot"
    raise InfeasibleError("capacity", float(requests), float(placed), f"{message}; wait for slots or send fewer")


def place_patterns(patterns: BoolArray, sizes: IntArray, capacity: IntArray) -> tuple[int, BoolArray]:
    """Return how many requests find a slot, at most, and the models (M,) that are too small for those that need them.

    `sizes` (P,) requests have the allowed models `patterns` (P, M), and `capacity` is (M,). This is a max flow, and the
    models are those of its min cut: the requests that may use only these are more than their slots.
    """
    from ortools.graph.python import max_flow

    pattern, model = np.nonzero(patterns)
    first_model, source = len(sizes), len(sizes) + len(capacity)
    sink = source + 1
    flow = max_flow.SimpleMaxFlow()
    flow.add_arcs_with_capacity(np.full(len(sizes), source), np.arange(len(sizes)), sizes)
    flow.add_arcs_with_capacity(pattern, first_model + model, sizes[pattern])
    flow.add_arcs_with_capacity(first_model + np.arange(len(capacity)), np.full(len(capacity), sink), capacity)
    status = flow.solve(source, sink)
    assert status == flow.OPTIMAL, f"SimpleMaxFlow ended with {status.name}"
    too_small = np.zeros(len(capacity), dtype=np.bool_)
    reached = np.asarray(flow.get_source_side_min_cut(), dtype=np.int64)
    too_small[reached[(reached >= first_model) & (reached < source)] - first_model] = True
    return int(flow.optimal_flow()), too_small


def floor_error(requests: int, capacity: IntArray, wanted: float, attainable: float) -> InfeasibleError:
    """Return the error for a quality floor above the best attainable mean quality. capacity is (M,)."""
    capped = "with these caps " if (np.asarray(capacity) < requests).any() else ""
    return InfeasibleError(
        "quality floor",
        wanted,
        attainable,
        f"quality floor {wanted:.4g} is out of reach; the best these {requests} requests can reach "
        f"{capped}is {attainable:.4f}",
    )


def budget_error(requests: int, capacity: IntArray, wanted: float, attainable: float) -> InfeasibleError:
    """Return the error for a budget below the cheapest possible cost. capacity is (M,)."""
    capped = " with these caps" if (np.asarray(capacity) < requests).any() else ""
    return InfeasibleError(
        "budget",
        wanted,
        attainable,
        f"budget {wanted:.6g} USD is out of reach; the cheapest these {requests} requests can be answered "
        f"for{capped} is {attainable:.6g} USD",
    )


def policy_error(policy: Policy, requests: int, capacity: IntArray, cost_usd: float, quality: float) -> InfeasibleError:
    """Return the error for a floor or budget, where the best there is has this total cost and this mean quality."""
    match policy:
        case QualityFloor(alpha=alpha):
            return floor_error(requests, capacity, alpha, quality)
        case Budget(usd=usd):
            return budget_error(requests, capacity, usd, cost_usd)
        case QualityPrice():
            raise AssertionError("a quality price has neither floor nor budget")


def out_of_reach(canonical: CanonicalProblem, best: IntArray, *, proved: bool) -> InfeasibleError:
    """Return the error for the policy's floor or budget. `best` (R,) is the canonical assignment nearest to it."""
    problem = canonical.problem
    cost, quality = totals(problem, canonical.in_problem_order(best))
    error = policy_error(problem.policy, canonical.requests, problem.capacity, cost, quality)
    if proved:
        return error
    return InfeasibleError(
        error.constraint,
        error.wanted,
        error.attainable,
        f"{error} (the nearest found in the time given; with group shares a little more may be attainable)",
    )


def solve_or_best_effort(problem: RoutingProblem, attempt: Callable[[RoutingProblem], Assignment]) -> Assignment:
    """Solve the problem. If it is infeasible and the policy says `best_effort`, relax it and solve that.

    Floor and budget move to what is attainable, `min_quality` by the least total shortfall. Capacity and group shares
    are never relaxed. The answer then has `SolutionStatus.BEST_EFFORT`, and its note says what was not met.
    """
    notes: list[str] = []
    while True:
        try:
            answer = attempt(problem)
        except InfeasibleError as error:
            relaxed = _relax_to_attainable(problem, error) if problem.policy.on_infeasible == "best_effort" else None
            if relaxed is None or len(notes) > 2:
                raise
            notes.append(str(error))
            problem = relaxed
        else:
            return replace(answer, status=SolutionStatus.BEST_EFFORT, note="; ".join(notes)) if notes else answer


def relax_policy(policy: Policy, error: InfeasibleError) -> Policy | None:
    """Return the policy with the floor or budget of `error` moved to what is attainable, None for other errors."""
    match policy:
        case QualityFloor() as floor if error.constraint == "quality floor":
            return replace(floor, alpha=min(max(error.attainable, 0.0), 1.0))
        case Budget() as budget if error.constraint == "budget":
            return replace(budget, usd=error.attainable)
    return None


def _relax_to_attainable(problem: RoutingProblem, error: InfeasibleError) -> RoutingProblem | None:
    """Return the problem with the constraint of `error` relaxed to what is attainable, None if it is a hard one."""
    policy = relax_policy(problem.policy, error)
    if policy is not None:
        return replace(problem, policy=policy)
    if problem.min_quality is None or not (
        error.constraint.startswith("min_quality") or error.constraint == "capacity"
    ):
        return None
    asked = problem.min_quality
    least_shortfall = replace(
        problem,
        cost_usd=np.maximum(asked[:, None] - problem.quality, 0.0),
        min_quality=None,
        groups=(),
        policy=QualityPrice(0.0),
    )
    canonical = canonicalize(least_shortfall, least_shortfall.eligible)
    check_capacity(canonical.load_problem())
    choice = solve_transport(canonical.program())
    reached = problem.quality[np.arange(len(asked)), canonical.in_problem_order(choice)]
    if (reached >= asked).all():
        return None
    return replace(problem, min_quality=np.minimum(asked, reached))
