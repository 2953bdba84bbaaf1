"""Explain prices in words, and answer what-if questions. Every number comes from solving again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Assignment, Budget, QualityFloor, QualityPrice, RoutingProblem, SolutionStatus
from eccos_core.errors import InfeasibleError
from eccos_core.optimizer.auto import AutoOptimizer
from eccos_core.protocols import Optimizer

_CAPS_EXPLAINED = 3
_POINT = 0.01  # of quality


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What one quality floor would cost on this batch.

    `next_point_usd` is what the next 0.01 of mean quality would cost on the whole batch, at the dual price. `attained`
    is False where the floor is out of reach. The numbers are then those of the nearest attainable answer, and `note`
    says what is attainable.
    """

    floor: float
    cost_usd: float
    quality: float
    next_point_usd: float
    attained: bool
    note: str = ""


def what_if(problem: RoutingProblem, floors: Sequence[float], optimizer: Optimizer | None = None) -> tuple[WhatIf, ...]:
    """Solve each floor and return one row for each. Raises `InfeasibleError` if capacity or groups allow no answer."""
    solver = optimizer if optimizer is not None else AutoOptimizer()
    rows = []
    for floor in floors:
        answer = solver.solve(replace(problem, policy=QualityFloor(floor, on_infeasible="best_effort")))
        rows.append(
            WhatIf(
                floor,
                answer.cost_usd,
                answer.quality,
                answer.prices.quality * _POINT * len(problem.quality),
                answer.status is not SolutionStatus.BEST_EFFORT,
                answer.note,
            )
        )
    return tuple(rows)


def explain(problem: RoutingProblem, assignment: Assignment, optimizer: Optimizer | None = None) -> list[str]:
    """Explain an assignment in sentences: what a point of quality, more budget, and more slots are worth.

    It solves once more per sentence, so each number is a difference of two answers, not a marginal price.
    """
    solver = optimizer if optimizer is not None else AutoOptimizer()
    sentences = [_policy_sentence(problem, assignment, solver)]
    loads = np.bincount(assignment.model_index, minlength=len(problem.models))
    full = np.flatnonzero(loads >= np.asarray(problem.capacity))
    dearest = sorted((int(j) for j in full), key=lambda j: -assignment.prices.slots[j])
    sentences += [_cap_sentence(problem, assignment, solver, model) for model in dearest[:_CAPS_EXPLAINED]]
    if assignment.status is SolutionStatus.BEST_EFFORT:
        sentences.insert(0, f"best effort: {assignment.note}")
    return [sentence for sentence in sentences if sentence]


def _policy_sentence(problem: RoutingProblem, assignment: Assignment, solver: Optimizer) -> str:
    match problem.policy:
        case QualityFloor(alpha=alpha):
            if alpha + _POINT > 1:
                return ""
            try:
                dearer = solver.solve(replace(problem, policy=QualityFloor(alpha + _POINT)))
            except InfeasibleError as error:
                return f"the floor cannot be raised from {alpha:.4g} to {alpha + _POINT:.4g}: {error}"
            return (
                f"raising the floor from {alpha:.4g} to {alpha + _POINT:.4g} costs "
                f"{_usd(dearer.cost_usd - assignment.cost_usd)} more on this batch"
            )
        case Budget(usd=usd):
            more = usd * 1.1 if usd > 0 else 0.01
            better = solver.solve(replace(problem, policy=Budget(more)))
            return (
                f"raising the budget from {_usd(usd)} to {_usd(more)} buys "
                f"{100 * (better.quality - assignment.quality):.2f} points of quality"
            )
        case QualityPrice(usd_per_quality_point=price):
            doubled = min(2 * price, sys.float_info.max / 100) if price > 0 else 1e-4
            dearer = solver.solve(replace(problem, policy=QualityPrice(doubled)))
            return (
                f"paying twice as much for a point of quality would give "
                f"{100 * (dearer.quality - assignment.quality):.2f} points more for "
                f"{_usd(dearer.cost_usd - assignment.cost_usd)} more on this batch"
            )


def _cap_sentence(problem: RoutingProblem, assignment: Assignment, solver: Optimizer, model: int) -> str:
    name, cap = problem.models[model], int(problem.capacity[model])
    wider = np.asarray(problem.capacity).copy()
    wider[model] = max(2 * cap, 1)
    raised = f"raising the cap of {name} from {cap} to {wider[model]}"
    other = solver.solve(replace(problem, capacity=wider))
    if isinstance(problem.policy, Budget):
        gained = 100 * (other.quality - assignment.quality)
        return f"{raised} gains {gained:.2f} points of quality at this budget" if gained > 0 else ""
    requests = len(problem.quality)
    worth = problem.policy.usd_per_quality * requests if isinstance(problem.policy, QualityPrice) else 0.0
    saved = assignment.cost_usd - other.cost_usd - worth * (assignment.quality - other.quality)
    if saved <= 0:
        return ""
    return f"{raised} saves {_usd(saved)} on this batch"


def _usd(amount: float) -> str:
    """Format an amount so that small ones stay visible: 1.23 USD, 0.0042 USD."""
    return f"{amount:.2f} USD" if abs(amount) >= 1 else f"{amount:.2g} USD"
