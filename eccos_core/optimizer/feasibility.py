"""What cannot be done, by name and number: capacity, group shares, floor, budget; and the nearest that can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from eccos_core.domain import Assignment, Budget, IntArray, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.canonical import CanonicalProblem, canonicalize
from eccos_core.optimizer.min_cost_flow import solve_transport


def check_capacity(prepared: CanonicalProblem) -> None:
    """Raise `InfeasibleError` when fewer slots are free than requests wait; a first, cheap, necessary condition."""
    problem = prepared.problem
    usable = np.full(len(prepared.model_order), prepared.requests)
    if prepared.allowed is not None:
        usable[prepared.model_order] = prepared.allowed.sum(axis=1)
    capacity = np.minimum(np.asarray(problem.capacity), usable)
    if capacity.sum() < prepared.requests:
        raise capacity_error(problem, int(capacity.sum()))


def capacity_error(problem: RoutingProblem, placed: int) -> InfeasibleError:
    """The error for a batch of which only `placed` requests find a free slot at a model that may answer them."""
    requests, free = len(problem.quality), int(np.minimum(problem.capacity, len(problem.quality)).sum())
    if free < requests:
        message = f"{requests} requests, {free} free slots"
        if placed < free:
            message += f", of which only {placed} are at models that these requests may use"
    else:
        message = f"{requests} requests; with their eligible models only {placed} find a free slot"
    return InfeasibleError("capacity", float(requests), float(placed), f"{message}; wait for slots or send fewer")


def refuse_excess(prepared: CanonicalProblem, choice: IntArray) -> None:
    """Raise `InfeasibleError` when an assignment that places as many requests as possible still passes a limit."""
    caps = np.asarray(prepared.problem.capacity)[prepared.model_order]
    loads = np.bincount(choice, minlength=len(caps))
    excess = int(np.maximum(loads - caps, 0).sum())
    if excess:
        raise capacity_error(prepared.problem, prepared.requests - excess)


def floor_error(problem: RoutingProblem, wanted: float, attainable: float) -> InfeasibleError:
    """The error for a quality floor above the best attainable mean quality."""
    capped = "with these caps " if (np.asarray(problem.capacity) < len(problem.quality)).any() else ""
    return InfeasibleError(
        "quality floor",
        wanted,
        attainable,
        f"quality floor {wanted:.4g} is out of reach; the best these {len(problem.quality)} requests can reach "
        f"{capped}is {attainable:.4f}",
    )


def budget_error(problem: RoutingProblem, wanted: float, attainable: float) -> InfeasibleError:
    """The error for a budget below the cheapest possible cost."""
    capped = " with these caps" if (np.asarray(problem.capacity) < len(problem.quality)).any() else ""
    return InfeasibleError(
        "budget",
        wanted,
        attainable,
        f"budget {wanted:.6g} USD is out of reach; the cheapest these {len(problem.quality)} requests can be answered "
        f"for{capped} is {attainable:.6g} USD",
    )


def solve_or_nearest(problem: RoutingProblem, attempt: Callable[[RoutingProblem], Assignment]) -> Assignment:
    """Solve; where the policy says `best_effort` and the problem is infeasible, solve the nearest feasible one instead.

    Floor and budget are moved to what is attainable, least qualities per request by the least total. Capacity and
    group shares are never relaxed. The answer then has
    `SolutionStatus.BEST_EFFORT`, and its note says what was not met.
    """
    notes: list[str] = []
    while True:
        try:
            answer = attempt(problem)
        except InfeasibleError as error:
            nearest = _nearest(problem, error) if problem.policy.on_infeasible == "best_effort" else None
            if nearest is None or len(notes) > 2:
                raise
            notes.append(str(error))
            problem = nearest
        else:
            return replace(answer, status=SolutionStatus.BEST_EFFORT, note="; ".join(notes)) if notes else answer


def _nearest(problem: RoutingProblem, error: InfeasibleError) -> RoutingProblem | None:
    """The same problem asking for what is attainable in place of the constraint in the error; None if it must stand."""
    match problem.policy:
        case QualityFloor() as floor if error.constraint == "quality floor":
            return replace(problem, policy=replace(floor, alpha=min(max(error.attainable, 0.0), 1.0)))
        case Budget() as budget if error.constraint == "budget":
            return replace(problem, policy=replace(budget, usd=error.attainable))
    if problem.min_quality is None or not (
        error.constraint.startswith("min_quality") or error.constraint == "capacity"
    ):
        return None
    asked = problem.min_quality
    short = replace(
        problem,
        cost_usd=np.maximum(asked[:, None] - problem.quality, 0.0),
        min_quality=None,
        groups=(),
        policy=QualityPrice(0.0),
    )
    prepared = canonicalize(short, short.eligible)
    check_capacity(prepared)
    choice, _ = solve_transport(prepared.least_cost())
    refuse_excess(prepared, choice)
    reached = problem.quality[np.arange(len(asked)), prepared.in_problem_order(choice)]
    if (reached >= asked).all():
        return None
    return replace(problem, min_quality=np.minimum(asked, reached))
