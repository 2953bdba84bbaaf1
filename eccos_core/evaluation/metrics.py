"""Score routers: the accuracy that each buys per USD, from recorded costs and outcomes.

A *sweep* tries many settings of one router. Each setting chooses a model per question. The recorded cost and quality of
the chosen models give one *operating point*. A router can also pick between two settings at random. So it can reach the
upper concave hull of its points, the *frontier*. `area` and `cost_share` are read off that hull. `paper_metrics.py` has
the metrics of the literature.

Axes: S settings, R questions, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.errors import InputError

LAMBDA_COUNT = 400
AREA_POINTS = 200
ACCURACY_TARGETS = (0.90, 0.95, 0.98, 1.00)
_TOLERANCE = 1e-12
_COST_TOLERANCE = 1e-9  # sums of the same costs in another order differ in the last digit

Choices = npt.NDArray[np.int16]  # (S, R) model chosen at each setting


@dataclass(frozen=True, slots=True, eq=False)
class PlanChoices:
    """The choices of a router whose plans may take several calls, at S settings.

    accepted (S, R): the model whose answer was accepted. cost_usd (S, R): of all calls. calls (S, R): their number.
    """

    accepted: Choices
    cost_usd: FloatArray
    calls: npt.NDArray[np.int16]

    @classmethod
    def joined(cls, parts: Sequence[PlanChoices]) -> PlanChoices:
        """Join the choices for several groups of questions, at the same settings."""
        return cls(
            np.concatenate([part.accepted for part in parts], axis=1),
            np.concatenate([part.cost_usd for part in parts], axis=1),
            np.concatenate([part.calls for part in parts], axis=1),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RecordedOutcomes:
    """Recorded quality and cost of R questions and M models.

    quality (R, M) in [0, 1], cost_usd (R, M) >= 0, both NaN where no outcome is recorded. observed (R, M) says where
    one is. Every question has at least one observed model.
    """

    models: tuple[str, ...]
    quality: FloatArray
    cost_usd: FloatArray
    observed: BoolArray

    def __post_init__(self) -> None:
        if not len(self.quality):
            raise InputError("there are no test questions with a known outcome. Give a larger outcomes file.")
        for row in np.flatnonzero(~self.observed.any(axis=1)):
            raise InputError(f"question {row} has no outcome of any model. Leave it out before replaying.")

    @property
    def single_accuracy(self) -> FloatArray:
        """(M,) mean quality of each model over the questions that it answered. NaN for a model without any."""
        return _column_means(self.quality, self.observed)

    @property
    def single_cost_usd(self) -> FloatArray:
        """(M,) mean USD per question of each model over the questions that it answered."""
        return _column_means(self.cost_usd, self.observed)

    @property
    def best_single(self) -> int:
        """The index of the most accurate model. The cheapest one wins a tie."""
        accuracy = np.where(np.isnan(self.single_accuracy), -1.0, self.single_accuracy)
        return int(np.lexsort((self.single_cost_usd, -accuracy))[0])

    @property
    def cheapest_single(self) -> int:
        """The index of the model with the lowest mean cost."""
        return int(np.nanargmin(self.single_cost_usd))


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """The increasing part of the upper concave hull: cost_usd (P,) per question and accuracy (P,), both increasing."""

    cost_usd: FloatArray
    accuracy: FloatArray

    def cost_of(self, accuracy: float) -> float | None:
        """Return the lowest mean USD per question that buys this accuracy, None when no setting reaches it."""
        if accuracy > self.accuracy[-1] + _TOLERANCE:
            return None
        return float(np.interp(accuracy, self.accuracy, self.cost_usd))


@dataclass(frozen=True, slots=True, eq=False)
class RoutingScore:
    """The score of one router. `area` is None for a plain model, which has one setting and so no curve.

    cost_share maps a share of the best single model's accuracy to the share of its cost that buys it, None where the
    router cannot reach it.
    """

    frontier: Frontier
    area: float | None
    cost_share: dict[float, float | None]

    @property
    def best_accuracy(self) -> float:
        """The highest accuracy of any setting, at any cost."""
        return float(self.frontier.accuracy[-1])


def lambda_grid(cost_usd: FloatArray) -> FloatArray:
    """Return (401,) prices of quality in USD per unit: 0, then 400 log-spaced values.

    They span nine decades around the most expensive model's mean predicted cost, from cost_usd (R, M). So the sweep
    works alike at every price level. At the low end quality decides ties only. At the high end cost does.
    """
    highest_cost = float(np.max(np.mean(cost_usd, axis=0), initial=0.0))
    return np.concatenate([[0.0], np.logspace(-5, 4, LAMBDA_COUNT) * (highest_cost or 1.0)])


def sweep(quality: FloatArray, cost_usd: FloatArray, eligible: BoolArray, lambdas: FloatArray) -> Choices:
    """Choose the model that minimises cost - lambda * quality, for every lambda. Returns (S, R).

    quality and cost_usd (R, M) are forecasts. On equal scores the higher forecast quality wins, then the cheaper model.
    Raises `InputError` for a forecast that is not finite where a model is eligible. Source: mathematics.md, "Prices".
    """
    for name, values in (("quality", quality), ("cost", cost_usd)):
        if not np.isfinite(values[eligible]).all():
            raise InputError(
                f"the forecast {name} is not finite for {int((~np.isfinite(values[eligible])).sum())} cells"
            )
    columns = np.lexsort((cost_usd.mean(axis=0), -quality.mean(axis=0)))  # a stable order for models that tie
    costs = np.ascontiguousarray(np.where(eligible, cost_usd, np.inf)[:, columns].T)
    qualities = np.ascontiguousarray(np.where(eligible, quality, 0.0)[:, columns].T)
    chosen = np.empty((len(lambdas), len(quality)), dtype=np.int16)
    for position, price in enumerate(lambdas):
        best = costs[0] - price * qualities[0]
        winner = np.zeros(len(quality), dtype=np.int16)
        winner_quality = qualities[0].copy()
        for model in range(1, len(costs)):
            score = costs[model] - price * qualities[model]
            better = (score < best) | ((score == best) & (qualities[model] > winner_quality))
            best = np.where(better, score, best)
            winner[better] = model
            winner_quality = np.where(better, qualities[model], winner_quality)
        chosen[position] = columns[winner]
    return chosen


def accepted_models(choices: Choices | PlanChoices) -> Choices:
    """Return the model (S, R) whose answer counts at each setting."""
    return choices.accepted if isinstance(choices, PlanChoices) else choices


def realised(choices: Choices | PlanChoices, recorded: RecordedOutcomes) -> tuple[FloatArray, FloatArray]:
    """Return (USD paid, quality of the answer), both (S, R), from recorded costs and outcomes.

    Raises `InputError` when a setting chose a model without a recorded answer to the question.
    """
    accepted = accepted_models(choices)
    rows = np.arange(accepted.shape[1])
    if not recorded.observed[rows, accepted].all():
        raise InputError(
            "a router chose a model whose answer to that question is not recorded. It must choose an eligible model."
        )
    cost = choices.cost_usd if isinstance(choices, PlanChoices) else recorded.cost_usd[rows, accepted]
    return cost, recorded.quality[rows, accepted]


def operating_points(choices: Choices | PlanChoices, recorded: RecordedOutcomes) -> tuple[FloatArray, FloatArray]:
    """Return (mean USD per question (S,), accuracy (S,)) of each setting, from recorded costs and outcomes.

    Raises `InputError` when a setting chose a model without a recorded answer to the question.
    """
    cost, quality = realised(choices, recorded)
    return cost.mean(axis=1), quality.mean(axis=1)


def calls_to_reach(choices: PlanChoices, recorded: RecordedOutcomes) -> dict[float, float | None]:
    """Return the mean number of calls at the cheapest setting that reaches each share of the best single accuracy.

    None where no setting does.
    """
    cost, accuracy = operating_points(choices, recorded)
    calls = choices.calls.mean(axis=1)
    best = recorded.single_accuracy[recorded.best_single]
    found: dict[float, float | None] = {}
    for target in ACCURACY_TARGETS:
        reached = np.flatnonzero(accuracy >= target * best - _TOLERANCE)
        found[target] = float(calls[reached[cost[reached].argmin()]]) if len(reached) else None
    return found


def upper_hull(cost_usd: FloatArray, accuracy: FloatArray) -> Frontier:
    """Return the upper concave hull, from the cheapest point to the most accurate one (Andrew's monotone chain)."""
    order = np.lexsort((-accuracy, cost_usd))
    hull: list[tuple[float, float]] = []
    for cost, gain in zip(cost_usd[order].tolist(), accuracy[order].tolist(), strict=True):
        if hull and gain <= hull[-1][1]:
            continue  # costs more and is no better
        while len(hull) >= 2 and _not_above_chord(hull[-2], hull[-1], (cost, gain)):
            hull.pop()
        hull.append((cost, gain))
    points = np.array(hull, dtype=np.float64)
    return Frontier(points[:, 0], points[:, 1])


def score_points(cost_usd: FloatArray, accuracy: FloatArray, recorded: RecordedOutcomes) -> RoutingScore:
    """Compute the area and the cost shares of a router's operating points, cost_usd (S,) and accuracy (S,).

    `area`: the frontier's mean accuracy over 200 equally spaced costs. They run from the cheapest single model's mean
    cost to the best single model's. Budgets below the router's cheapest setting count 0. If the cheapest model is also
    the best one, the area is the accuracy at its cost.

    `cost_share`: the frontier's cost at a share of the best single model's accuracy, over that model's cost. None where
    the accuracy is out of reach, or where the best model is free.
    """
    frontier = upper_hull(cost_usd, accuracy)
    best = recorded.best_single
    high = recorded.single_cost_usd[best]
    area = mean_accuracy(frontier, float(recorded.single_cost_usd[recorded.cheapest_single]), float(high))
    shares: dict[float, float | None] = {}
    for target in ACCURACY_TARGETS:
        cost = frontier.cost_of(target * float(recorded.single_accuracy[best]))
        shares[target] = None if cost is None or high == 0 else cost / float(high)
    return RoutingScore(frontier, area, shares)


def sweep_forecast(quality: FloatArray, cost_usd: FloatArray, recorded: RecordedOutcomes) -> Choices:
    """Return the choices (S, R) of a router that routes by these forecasts (R, M), over the grid of lambda."""
    return sweep(quality, cost_usd, recorded.observed, lambda_grid(np.where(recorded.observed, cost_usd, 0.0)))


def score_forecast(quality: FloatArray, cost_usd: FloatArray, recorded: RecordedOutcomes) -> RoutingScore:
    """Score a router that routes by these forecasts (R, M)."""
    return score_choices(sweep_forecast(quality, cost_usd, recorded), recorded)


def score_choices(choices: Choices | PlanChoices, recorded: RecordedOutcomes) -> RoutingScore:
    """Score a router by its choices (S, R) at S settings: charge the recorded outcomes."""
    return score_points(*operating_points(choices, recorded), recorded)


def score_random_mix(recorded: RecordedOutcomes) -> RoutingScore:
    """Score a random mix of single models: their convex hull, which every router has to beat."""
    known = ~np.isnan(recorded.single_accuracy)
    return score_points(recorded.single_cost_usd[known], recorded.single_accuracy[known], recorded)


def score_single(recorded: RecordedOutcomes, model: int) -> RoutingScore:
    """Score one model that answers everything. It has no area: one point is no curve."""
    cost, accuracy = recorded.single_cost_usd[model : model + 1], recorded.single_accuracy[model : model + 1]
    return replace(score_points(cost, accuracy, recorded), area=None)


def mean_accuracy(frontier: Frontier, low: float, high: float) -> float:
    """Return the mean accuracy over `AREA_POINTS` equally spaced budgets from `low` to `high`, in USD per question.

    A budget below the cheapest setting buys no answer, so it counts 0. The last such budget counts in part, by how much
    of the step to the next one is affordable. So a setting that costs a hair more does not lose a whole budget.
    """
    cheapest = frontier.cost_usd[0] * (1 - _COST_TOLERANCE)
    if high - low <= _COST_TOLERANCE * high:
        return float(np.interp(high, frontier.cost_usd, frontier.accuracy)) if high >= cheapest else 0.0
    budgets, step = np.linspace(low, high, AREA_POINTS, retstep=True)
    affordable = np.clip((budgets - cheapest) / step + 1, 0.0, 1.0)
    return float((affordable * np.interp(budgets, frontier.cost_usd, frontier.accuracy)).mean())


def _column_means(values: FloatArray, observed: BoolArray) -> FloatArray:
    counts = observed.sum(axis=0)
    sums = np.where(observed, values, 0.0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _not_above_chord(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> bool:
    """Tell whether `middle` lies on or under the straight line from `left` to `right`."""
    return (middle[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (middle[0] - left[0])
