"""Check the numbers of a routing problem once, and name what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from eccos_core.domain import BoolArray, Budget, GroupShare, QualityFloor, QualityPrice, RoutingProblem
from eccos_core.errors import InfeasibleError, InputError, NoEligibleModelError

FLOOR_TOLERANCE = 1e-9  # of mean quality, see `least_quality`
BUDGET_TOLERANCE = 1e-9  # of the budget, see `most_usd`
GAP_TOLERANCE = 1e-9  # relative: an assignment counts as proved optimal when it is this close to its bound


def least_quality(alpha: float) -> float:
    """Return the mean quality that counts as meeting the floor `alpha`.

    Every optimizer asks this and nothing else, so that all agree on what is feasible. The tolerance covers the rounding
    of sums of floats. A solver that works on integers may round by another 1e-12.
    """
    return alpha - FLOOR_TOLERANCE


def most_usd(usd: float) -> float:
    """Return the total cost that counts as keeping a budget of `usd`. Every optimizer asks this, as `least_quality`."""
    return usd * (1 + BUDGET_TOLERANCE)


def check(problem: RoutingProblem) -> None:
    """Raise `InputError` when shapes, numbers or the policy of the problem cannot be right; name the first bad entry.

    Raises `NoEligibleModelError` for a request that no model may answer.
    """
    shape = np.shape(problem.quality)
    if len(shape) != 2:
        raise InputError(f"quality has shape {shape}, must be (requests, models)")
    requests, models = shape
    if requests == 0:
        raise InputError("the batch has no requests; an optimizer needs at least one")
    if models == 0 or len(problem.models) != models:
        raise InputError(
            f"quality has {models} columns for {len(problem.models)} models; one column a model, at least one"
        )
    if len(set(problem.models)) != models:
        raise InputError(f"model names must differ, got {', '.join(problem.models)}")
    for label, array, wanted in (
        ("cost_usd", problem.cost_usd, shape),
        ("eligible", problem.eligible, shape),
        ("capacity", problem.capacity, (models,)),
        ("min_quality", problem.min_quality, (requests,)),
    ):
        if array is not None and np.shape(array) != wanted:
            raise InputError(f"{label} has shape {np.shape(array)}, must be {wanted}")
    if np.asarray(problem.eligible).dtype != np.bool_:
        raise InputError(f"eligible has type {np.asarray(problem.eligible).dtype}, must be bool")
    _check_numbers(problem)
    _check_policy(problem)
    for group in problem.groups:
        _check_group(group, models)
    _check_eligible(problem)


def _check_numbers(problem: RoutingProblem) -> None:
    names = problem.models
    _raise_first_bad(~np.isfinite(problem.quality), problem.quality, "quality", "a finite number in [0, 1]", names)
    _raise_first_bad((problem.quality < 0) | (problem.quality > 1), problem.quality, "quality", "in [0, 1]", names)
    _raise_first_bad(~np.isfinite(problem.cost_usd), problem.cost_usd, "cost_usd", "a finite number >= 0", names)
    _raise_first_bad(problem.cost_usd < 0, problem.cost_usd, "cost_usd", ">= 0", names)
    capacity = np.asarray(problem.capacity)
    if not np.issubdtype(capacity.dtype, np.integer):
        raise InputError(f"capacity has type {capacity.dtype}, must be whole numbers")
    if (capacity < 0).any():
        first = int(np.flatnonzero(capacity < 0)[0])
        raise InputError(f"capacity of model {names[first]!r} is {capacity[first]}, must be >= 0")
    minimum = problem.min_quality
    if minimum is not None:
        bad = ~((minimum >= 0) & (minimum <= 1))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(f"min_quality of request {row} is {minimum[row]}, must be in [0, 1]")


def _raise_first_bad(bad: BoolArray, array: npt.NDArray[Any], label: str, rule: str, models: tuple[str, ...]) -> None:
    if bad.any():
        row, column = (int(index) for index in np.argwhere(bad)[0])
        raise InputError(
            f"{label} of request {row} and model {models[column]!r} is {array[row, column]}, must be {rule}"
        )


def _check_policy(problem: RoutingProblem) -> None:
    match problem.policy:
        case QualityFloor(alpha=value):
            right, rule = 0 <= value <= 1, "a floor in [0, 1]"
        case Budget(usd=value):
            right, rule = math.isfinite(value) and value >= 0, "a budget >= 0 USD"
        case QualityPrice(usd_per_quality_point=value):
            right, rule = math.isfinite(value) and value >= 0, "a price >= 0 USD per point"
        case other:
            raise InputError(f"policy is {other!r}, must be a QualityFloor, a Budget or a QualityPrice")
    if not right:
        raise InputError(f"policy has the value {value}, must be {rule}")


def _check_group(group: GroupShare, models: int) -> None:
    if np.shape(group.members) != (models,):
        raise InputError(f"group {group.name!r}: members has shape {np.shape(group.members)}, must be {(models,)}")
    if not 0 <= group.at_least <= group.at_most <= 1:
        raise InputError(
            f"group {group.name!r}: shares must be 0 <= at_least <= at_most <= 1, "
            f"got at_least {group.at_least} and at_most {group.at_most}"
        )


def _check_eligible(problem: RoutingProblem) -> None:
    unserved = ~problem.eligible.any(axis=1)
    if unserved.any():
        row = int(np.flatnonzero(unserved)[0])
        others = int(unserved.sum()) - 1
        suffix = f" (and {others} more requests)" if others else ""
        raise NoEligibleModelError(
            f"#{row}{suffix}", dict.fromkeys(problem.models, "not eligible (eligibility mask of the problem)")
        )


def unreachable_error(row: int, wanted: float, model: str, best: float, others: int) -> InfeasibleError:
    """Return the error for a request whose `min_quality` no eligible model reaches. `model` reaches `best`."""
    return InfeasibleError(
        f"min_quality of request {row}",
        wanted,
        best,
        f"request {row} asks for a predicted quality of at least {wanted:.3f}; the best of its eligible models, "
        f"{model!r}, reaches {best:.3f}" + (f" ({others} more requests are out of reach too)" if others else ""),
    )


def allowed_models(problem: RoutingProblem) -> BoolArray:
    """Return the eligible models that reach the request's `min_quality`, (R, M).

    Raises `InfeasibleError` for the first request whose `min_quality` no eligible model reaches.
    """
    if problem.min_quality is None:
        return problem.eligible
    allowed: BoolArray = problem.eligible & (problem.quality >= problem.min_quality[:, None] - FLOOR_TOLERANCE)
    unreachable = ~allowed.any(axis=1)
    if unreachable.any():
        row = int(np.flatnonzero(unreachable)[0])
        best = np.where(problem.eligible[row], problem.quality[row], -1.0)
        model, wanted = int(best.argmax()), float(problem.min_quality[row])
        raise unreachable_error(row, wanted, problem.models[model], float(best[model]), int(unreachable.sum()) - 1)
    return allowed


def totals(problem: RoutingProblem, choice: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the total cost in USD and the mean quality of an assignment (R,). The sums are exact in any order."""
    rows = np.arange(len(choice))
    cost = math.fsum(problem.cost_usd[rows, choice].tolist())
    quality = math.fsum(problem.quality[rows, choice].tolist()) / len(choice)
    return cost, quality
