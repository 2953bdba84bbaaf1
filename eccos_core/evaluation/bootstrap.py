"""Compare routers with a paired bootstrap: draw the test questions again and again, the same ones for every router."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from eccos_core.domain import FloatArray, Forecast
from eccos_core.evaluation.metrics import (
    ACCURACY_TARGETS,
    Choices,
    PlanChoices,
    RecordedOutcomes,
    mean_accuracy,
    realised,
    upper_hull,
)
from eccos_core.evaluation.paper_metrics import gaps_of_choices, gaps_of_forecast

RESAMPLES = 1000
CONFIDENCE = 0.95
COST_SHARES = tuple(f"cost_share_{target:.2f}" for target in ACCURACY_TARGETS)
LESS_IS_BETTER = (*COST_SHARES, "cpt50", "cpt80")
METRICS = ("area", "aiq", *COST_SHARES, "apgr", "cpt50", "cpt80")

RouterDraws = Mapping[str, FloatArray]  # (1 + B,) values by metric: of all questions, then of each draw


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """How much larger a metric of `router` is than that of `other`, with the ends of its 95 % interval.

    An end is infinite if an accuracy is out of reach in too many draws.
    """

    metric: str
    router: str
    other: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the interval leaves 0 out, else `no difference`."""
        if self.low <= 0 <= self.high:
            return "no difference"
        return "better" if (self.low > 0) != (self.metric in LESS_IS_BETTER) else "worse"

    def reversed(self) -> MetricDifference:
        """Return the same comparison, seen from the other router."""
        return MetricDifference(self.metric, self.other, self.router, -self.difference, -self.high, -self.low)


def compare_routers(
    choices: Mapping[str, Choices | PlanChoices],
    answers: Mapping[str, Forecast | Choices | PlanChoices],
    recorded: RecordedOutcomes,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[MetricDifference, ...]:
    """Compare every pair of routers by every metric that both have a value of.

    choices: (S, R) of each router at its S settings. answers: what it answered, from which APGR and CPT are measured.
    The interval is the percentile interval of the paired differences (Efron and Tibshirani 1993, chapter 13). The
    cheapest, the dearest and the best model, by which metrics are defined, are those of all questions.
    """
    count = len(recorded.quality)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples) / count
    draws = np.concatenate([np.full((1, count), 1 / count), drawn])
    values = {name: _measure(choices[name], answers[name], recorded, draws) for name in choices}
    return tuple(
        found
        for metric in METRICS
        for router, other in combinations(choices, 2)
        if (found := _compare(metric, router, other, values)) is not None
    )


def _compare(metric: str, router: str, other: str, values: Mapping[str, RouterDraws]) -> MetricDifference | None:
    mine, theirs = values[router].get(metric), values[other].get(metric)
    if mine is None or theirs is None or not math.isfinite(mine[0]) or not math.isfinite(theirs[0]):
        return None
    same = mine == theirs  # also where an accuracy is out of reach of both, and infinity - infinity is no number
    differences = np.subtract(mine, theirs, out=np.zeros(len(mine)), where=~same)
    ordered = np.sort(differences[1:][~np.isnan(differences[1:])])
    tail = 0.5 * (1 - CONFIDENCE) * (len(ordered) - 1)
    low, high = ordered[math.floor(tail)], ordered[len(ordered) - 1 - math.floor(tail)]
    return MetricDifference(metric, router, other, float(differences[0]), float(low), float(high))


def _measure(
    choices: Choices | PlanChoices,
    answer: Forecast | Choices | PlanChoices,
    recorded: RecordedOutcomes,
    draws: FloatArray,
) -> RouterDraws:
    """Measure one router on each draw (B, R), whose rows are weights of the questions. Infinite: out of reach."""
    singles = recorded.single_cost_usd
    best, cheapest, dearest = recorded.best_single, recorded.cheapest_single, int(np.nanargmax(singles))
    best_accuracy = _resampled_mean(recorded.quality, recorded, best, draws)
    low, high, top = (_resampled_mean(recorded.cost_usd, recorded, model, draws) for model in (cheapest, best, dearest))
    spent, quality = realised(choices, recorded)
    _, distinct = np.unique(np.column_stack([spent.mean(axis=1), quality.mean(axis=1)]), axis=0, return_index=True)
    cost = draws @ spent[distinct].T
    accuracy = draws @ quality[distinct].T
    found = {metric: np.full(len(draws), np.nan) for metric in ("area", "aiq", *COST_SHARES)}
    for b in range(len(draws)):
        frontier = upper_hull(cost[b], accuracy[b])
        found["area"][b] = mean_accuracy(frontier, float(low[b]), float(high[b]))
        found["aiq"][b] = mean_accuracy(frontier, float(low[b]), float(top[b]))
        for metric, target in zip(COST_SHARES, ACCURACY_TARGETS, strict=True):
            paid = frontier.cost_of(target * float(best_accuracy[b]))
            found[metric][b] = math.inf if paid is None or high[b] == 0 else paid / high[b]
    gaps = None  # plans may call both models, so there is no share of strong calls
    if isinstance(answer, Forecast):
        gaps = gaps_of_forecast(answer.quality, recorded, draws)
    elif not isinstance(answer, PlanChoices):
        gaps = gaps_of_choices(answer, recorded, draws)
    if gaps is not None:
        found |= {name: np.array([getattr(gap, name) for gap in gaps]) for name in ("apgr", "cpt50", "cpt80")}
    return found


def _resampled_mean(values: FloatArray, recorded: RecordedOutcomes, model: int, draws: FloatArray) -> FloatArray:
    """Return the mean (B,) of a model's column of values (R, M) over the questions of each draw that it answered."""
    known = recorded.observed[:, model]
    weight = draws[:, known].sum(axis=1)
    return np.asarray((draws[:, known] @ values[known, model]) / np.where(weight > 0, weight, 1.0))
