"""What cannot be done, by name and number: capacity, group shares, floor, budget; and the nearest that can."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray, IntArray, RoutingProblem
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.prepare import Prepared
from eccos_core.optimizer.problem import totals
from eccos_core.optimizer.program import Program
from eccos_core.optimizer.transport import transport


def check_capacity(prepared: Prepared) -> None:
    """Raise `InfeasibleError` when fewer slots are free than requests wait; a first, cheap, necessary condition."""
    problem = prepared.problem
    capacity = np.minimum(np.asarray(problem.capacity), problem.eligible.sum(axis=0))
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


def refuse_excess(prepared: Prepared, choice: IntArray) -> None:
    """Raise `InfeasibleError` when an assignment that places as many requests as possible still passes a limit."""
    caps = np.asarray(prepared.problem.capacity)[prepared.model_order]
    loads = np.bincount(choice, minlength=len(caps))
    excess = int(np.maximum(loads - caps, 0).sum())
    if excess:
        raise capacity_error(prepared.problem, prepared.requests - excess)


def attainable_quality(prepared: Prepared) -> tuple[float, IntArray]:
    """The best mean quality under caps and eligibility (exact without group shares), and its assignment (R,)."""
    choice, _ = transport(prepared.best_quality())
    return totals(prepared.problem, prepared.in_problem_order(choice))[1], choice


def attainable_cost(prepared: Prepared) -> tuple[float, IntArray]:
    """The least cost in USD under caps and eligibility (exact without group shares), and its assignment (R,)."""
    choice, _ = transport(prepared.least_cost())
    return totals(prepared.problem, prepared.in_problem_order(choice))[0], choice


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


def exact_prices(program: Program, choice: IntArray, distance: FloatArray) -> FloatArray:
    """(K,): prices of caps that prove a least-objective assignment: the cost of the best way out of each full model.

    distance (M, M): least change of the objective when one unit moves from j to k. Where no way leads to a free slot
    any large price proves as much. (Shortest distances to a node that all free slots reach are feasible potentials.)
    """
    caps = program.count_rows.argmax(axis=1)
    free = np.ones(program.models, dtype=np.bool_)
    free[caps] = program.count_slack(choice) > 0
    large = (program.models + 1) * float(np.abs(distance[np.isfinite(distance)]).max(initial=0.0))
    price: FloatArray = (distance + np.where(free, 0.0, large)[None, :]).min(axis=1)
    price = np.maximum(price if free.any() else price - price.min(), 0.0)
    return price[caps]
