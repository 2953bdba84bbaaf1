"""What an optimizer sees, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from eccos_core.domain.arrays import BoolArray, FloatArray, IntArray
from eccos_core.domain.policy import Policy

Engine: TypeAlias = Literal["min_cost_flow", "dual", "cp_sat", "glop", "greedy"]


@dataclass(frozen=True, slots=True, eq=False)
class GroupShare:
    """Send at least, or at most, a share of the batch to a group of models (committed spend, data residency).

    `members` is (M,) bool. `at_least` and `at_most` are shares of the R requests, in [0, 1].
    """

    name: str
    members: BoolArray
    at_least: float = 0.0
    at_most: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class RoutingProblem:
    """What an optimizer sees. It knows neither prompts nor providers.

    - `quality` (R, M): predicted quality, in [0, 1].
    - `cost_usd` (R, M): predicted cost of each call, at least 0.
    - `eligible` (R, M) bool: which model may answer which request.
    - `capacity` (M,) int: how many requests each model can take now. With R or more, the cap does not bind.
    - `min_quality` (R,): least quality of each request, or None.
    """

    quality: FloatArray
    cost_usd: FloatArray
    eligible: BoolArray
    capacity: IntArray
    policy: Policy
    models: tuple[str, ...]
    min_quality: FloatArray | None = None
    groups: tuple[GroupShare, ...] = ()


class SolutionStatus(StrEnum):
    """Whether an assignment is proved optimal, within its reported gap, or the nearest attainable answer."""

    OPTIMAL = "optimal"
    WITHIN_GAP = "within_gap"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """The dual prices of an assignment.

    `quality` is lambda: what one more unit of quality of one request costs, in USD. `slots` (M,) is mu: what one more
    slot of each model would save, in USD.
    """

    quality: float
    slots: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Which model answers which request, at what prices, and how far that is from the best possible.

    `model_index` is (R,). `cost_usd` is the total, `quality` the mean over the batch. No feasible assignment costs
    less than `lower_bound_usd`. Under a budget, none has a mean quality above `upper_bound_quality`. `gap` is the
    relative distance to that bound, at least 0: the certificate. `engine` is the method that solved it: OR-Tools'
    `min_cost_flow`, `cp_sat` or `glop`, or `dual` or `greedy`.
    """

    model_index: IntArray
    prices: Prices
    cost_usd: float
    quality: float
    lower_bound_usd: float
    gap: float
    status: SolutionStatus
    engine: Engine
    upper_bound_quality: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamChoice:
    """The model that a stream's steering chose, and why.

    `model` is its index. `usd_per_quality` is lambda at that moment. `guarded` says that the prices alone would have
    chosen another model. `floor_met` is False where the last window or the run so far could not reach the floor.
    `note` then says which of them, and by how much. `best_quality` is that of the best open model.
    """

    model: int
    quality: float
    cost_usd: float
    usd_per_quality: float
    guarded: bool
    floor_met: bool = True
    note: str = ""
    best_quality: float = 1.0
