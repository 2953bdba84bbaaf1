"""Compare routers with a paired bootstrap: draw the test questions again and again, the same ones for every router."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.evaluation.metrics import Choices, RecordedOutcomes, mean_accuracy, operating_points, upper_hull

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class AreaDifference:
    """How much larger the area of `router` is than that of `other`, with the ends of its 95 % interval."""

    router: str
    other: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the interval leaves 0 out, else `no difference`."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference"

    def reversed(self) -> AreaDifference:
        """Return the same comparison, seen from the other router."""
        return AreaDifference(self.other, self.router, -self.difference, -self.high, -self.low)


def compare_areas(
    choices: Mapping[str, Choices],
    areas: Mapping[str, float],
    recorded: RecordedOutcomes,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[AreaDifference, ...]:
    """Compare the areas of every pair of routers, from the choices (S, R) of each at its S settings.

    The interval is the percentile interval of the paired differences (Efron and Tibshirani 1993, chapter 13). The
    cheapest and the best model, between which an area is taken, are those of all questions.
    """
    count = len(recorded.quality)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples) / count
    bounds = [_resampled_cost(recorded, model, draws) for model in (recorded.cheapest_single, recorded.best_single)]
    drawn = {name: _resampled_areas(chosen, recorded, draws, *bounds) for name, chosen in choices.items()}
    tail = 50 * (1 - CONFIDENCE)
    found = []
    for router, other in combinations(choices, 2):
        low, high = np.percentile(drawn[router] - drawn[other], [tail, 100 - tail])
        found.append(AreaDifference(router, other, areas[router] - areas[other], float(low), float(high)))
    return tuple(found)


def _resampled_cost(recorded: RecordedOutcomes, model: int, draws: FloatArray) -> FloatArray:
    """Return the mean cost (B,) of a model over the questions of each draw that it answered."""
    known = recorded.observed[:, model]
    weight = draws[:, known].sum(axis=1)
    return np.asarray((draws[:, known] @ recorded.cost_usd[known, model]) / np.where(weight > 0, weight, 1.0))


def _resampled_areas(
    choices: Choices, recorded: RecordedOutcomes, draws: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Return the area (B,) of one router on each draw. low, high (B,): the costs between which it is taken."""
    points = np.column_stack(operating_points(choices, recorded))
    _, distinct = np.unique(points, axis=0, return_index=True)
    rows = np.arange(choices.shape[1])
    cost = draws @ recorded.cost_usd[rows, choices[distinct]].T
    accuracy = draws @ recorded.quality[rows, choices[distinct]].T
    return np.array(
        [mean_accuracy(upper_hull(cost[b], accuracy[b]), float(low[b]), float(high[b])) for b in range(len(draws))]
    )
