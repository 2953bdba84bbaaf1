"""Report which constraint is infeasible and what is attainable, and relax it for `best_effort`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from eccos_core.domain import Assignment, Budget, IntArray, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.canonical import CanonicalProblem, canonicalize
from eccos_core.optimizer.min_cost_flow import solve_transport


def check_capacity(canonical: CanonicalProblem) -> None:
    """Raise `InfeasibleError` when there are fewer usable slots than requests: a cheap necessary condition."""
    problem = canonical.problem
    usable = np.full(len(canonical.model_order), canonical.requests)
    if canonical.allowed is not None:
        usable[canonical.model_order] = canonical.allowed.sum(axis=1)
    capacity = np.minimum(np.asarray(problem.capacity), usable)
    if capacity.sum() < canonical.requests:
        raise capacity_error(problem, int(capacity.sum()))


def capacity_error(problem: RoutingProblem, placed: int) -> InfeasibleError:
    """Return the error for a batch of which only `placed` requests find a free slot at an eligible model."""
    requests, free = len(problem.quality), int(np.minimum(problem.capacity, len(problem.quality)).sum())
    if free < requests:
        message = f"{requests} requests, {free} free slots"
        if placed < free:
            message += f", of which only {placed} are at models that these requests may use"
    else:
        message = f"{requests} requests; with their eligible models only {placed} find a free slot"
    return InfeasibleError("capacity", float(requests), float(placed), f"{message}; wait for slots or send fewer")


def check_placed(canonical: CanonicalProblem, choice: IntArray) -> None:
    """Raise `InfeasibleError` when `choice` (R,), which places as many requests as possible, still exceeds a cap."""
    caps = np.asarray(canonical.problem.capacity)[canonical.model_order]
    loads = np.bincount(choice, minlength=len(caps))
    excess = int(np.maximum(loads - caps, 0).sum())
    if excess:
        raise capacity_error(canonical.problem, canonical.requests - excess)


def floor_error(problem: RoutingProblem, wanted: float, attainable: float) -> InfeasibleError:
    """Return the error for a quality floor above the best attainable mean quality."""
    capped = "with these caps " if (np.asarray(problem.capacity) < len(problem.quality)).any() else ""
    return InfeasibleError(
        "quality floor",
        wanted,
        attainable,
        f"quality floor {wanted:.4g} is out of reach; the best these {len(problem.quality)} requests can reach "
        f"{capped}is {attainable:.4f}",
    )


def budget_error(problem: RoutingProblem, wanted: float, attainable: float) -> InfeasibleError:
    """Return the error for a budget below the cheapest possible cost."""
    capped = " with these caps" if (np.asarray(problem.capacity) < len(problem.quality)).any() else ""
    return InfeasibleError(
        "budget",
        wanted,
        attainable,
        f"budget {wanted:.6g} USD is out of reach; the cheapest these {len(problem.quality)} requests can be answered "
        f"for{capped} is {attainable:.6g} USD",
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


def _relax_to_attainable(problem: RoutingProblem, error: InfeasibleError) -> RoutingProblem | None:
    """Return the problem with the constraint of `error` relaxed to what is attainable, None if it is a hard one."""
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
    least_shortfall = replace(
        problem,
        cost_usd=np.maximum(asked[:, None] - problem.quality, 0.0),
        min_quality=None,
        groups=(),
        policy=QualityPrice(0.0),
    )
    canonical = canonicalize(least_shortfall, least_shortfall.eligible)
    check_capacity(canonical)
    choice, _ = solve_transport(canonical.least_cost())
    check_placed(canonical, choice)
    reached = problem.quality[np.arange(len(asked)), canonical.in_problem_order(choice)]
    if (reached >= asked).all():
        return None
    return replace(problem, min_quality=np.minimum(asked, reached))
