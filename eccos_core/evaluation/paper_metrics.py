"""The metrics of the literature: RouteLLM's APGR and CPT, RouterBench's AIQ, the RouterArena score, accuracy per task.

Axes: S settings, R questions, M models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray
from eccos_core.evaluation.metrics import Choices, Frontier, RecordedOutcomes, mean_accuracy

ARENA_BETA, ARENA_MIN_USD, ARENA_MAX_USD = 0.1, 0.0044, 200.0  # weight of cost, and the range of USD per 1,000


@dataclass(frozen=True, slots=True)
class GapRecovered:
    """How much of the gap between a weak and a strong model a router recovers, over the share of strong calls.

    apgr: the mean over all shares. cpt50, cpt80: the share of strong calls that recovers 50 and 80 % of the gap.
    Source: RouteLLM, arXiv 2406.18665, section 3.
    """

    apgr: float
    cpt50: float
    cpt80: float


@dataclass(frozen=True, slots=True)
class PaperMetrics:
    """The metrics of one router. None marks what is not defined for it.

    aiq: RouterBench's average improvement in quality, None for a plain model. arena: the best RouterArena score of any
    setting. gap: None unless the pool has two models of unequal accuracy. task_accuracy: accuracy of each task at the
    most accurate setting, empty without tasks.
    """

    aiq: float | None
    arena: float
    gap: GapRecovered | None
    task_accuracy: dict[str, float]

    @property
    def task_mean(self) -> float | None:
        """The mean of the tasks' accuracies, in which every task counts the same."""
        return sum(self.task_accuracy.values()) / len(self.task_accuracy) if self.task_accuracy else None


def average_improvement(frontier: Frontier, recorded: RecordedOutcomes) -> float:
    """Compute AIQ: the frontier's mean accuracy from the cheapest model's mean cost to the dearest model's.

    Budgets below the router's cheapest setting count 0. Source: RouterBench, arXiv 2403.12031, section 3.3.
    """
    costs = recorded.single_cost_usd
    return mean_accuracy(frontier, float(np.nanmin(costs)), float(np.nanmax(costs)))


def arena_score(frontier: Frontier) -> float:
    """Compute the best RouterArena score of any setting: a harmonic mean of accuracy A and cheapness C.

    S = (1 + b) A C / (b A + C) with b = 0.1. C falls with the logarithm of the cost, from 1 at 0.0044 to 0 at 200 USD
    per 1,000 questions. Source: RouterArena, arXiv 2510.00202, section 4.
    """
    cost = np.clip(1000 * frontier.cost_usd, ARENA_MIN_USD, ARENA_MAX_USD)
    cheapness = np.log(ARENA_MAX_USD / cost) / math.log(ARENA_MAX_USD / ARENA_MIN_USD)
    weighted = ARENA_BETA * frontier.accuracy + cheapness
    score = (1 + ARENA_BETA) * frontier.accuracy * cheapness / np.where(weighted > 0, weighted, 1.0)
    return float(score.max())


def gap_of_forecast(quality: FloatArray, recorded: RecordedOutcomes) -> GapRecovered | None:
    """Measure a router that sends the questions with the largest forecast gain to the strong model. quality (R, 2)."""
    gaps = gaps_of_forecast(quality, recorded, _all_questions(recorded))
    return None if gaps is None else gaps[0]


def gap_of_choices(choices: Choices, recorded: RecordedOutcomes) -> GapRecovered | None:
    """Measure a router that has a rule of its own, from its choices (S, R)."""
    gaps = gaps_of_choices(choices, recorded, _all_questions(recorded))
    return None if gaps is None else gaps[0]


def gaps_of_forecast(quality: FloatArray, recorded: RecordedOutcomes, weights: FloatArray) -> list[GapRecovered] | None:
    """Measure like `gap_of_forecast`, once per row of weights (B, R), which add up to 1."""
    pair = _weak_and_strong(recorded)
    if pair is None:
        return None
    weak, strong = pair
    gain = quality[:, strong] - quality[:, weak]
    order = np.argsort(-gain, kind="stable")
    change = (recorded.quality[:, strong] - recorded.quality[:, weak])[order]
    no_tie = np.concatenate([[True], np.diff(gain[order]) < 0, [True]])  # a tie is split by a coin
    ordered, start = weights[:, order], np.zeros((len(weights), 1))
    share = np.concatenate([start, np.cumsum(ordered, axis=1)], axis=1)[:, no_tie]
    gained = np.concatenate([start, np.cumsum(ordered * change, axis=1)], axis=1)[:, no_tie]
    return [_gap_recovered(*curve) for curve in zip(share, gained, strict=True)]


def gaps_of_choices(choices: Choices, recorded: RecordedOutcomes, weights: FloatArray) -> list[GapRecovered] | None:
    """Measure like `gap_of_choices`, once per row of weights (B, R), which add up to 1."""
    pair = _weak_and_strong(recorded)
    if pair is None:
        return None
    weak, strong = pair
    change = recorded.quality[:, strong] - recorded.quality[:, weak]
    calls = (choices == strong).astype(np.float64)
    never, always = np.zeros(len(weights)), np.ones(len(weights))
    share = np.column_stack([never, weights @ calls.T, always])
    gained = np.column_stack([never, weights @ (calls * change).T, weights @ change])
    orders = np.lexsort((gained, share), axis=1)
    return [_gap_recovered(x[order], y[order]) for x, y, order in zip(share, gained, orders, strict=True)]


def task_accuracy(chosen: Choices, recorded: RecordedOutcomes, tasks: Sequence[str | None]) -> dict[str, float]:
    """Compute the accuracy of each task at one setting. chosen (R,), tasks (R,). Questions without a task are left out.

    A question that the chosen model did not answer is left out too.
    """
    rows = np.arange(len(chosen))
    known: BoolArray = recorded.observed[rows, chosen]
    quality = recorded.quality[rows, chosen]
    names = np.array([task or "" for task in tasks])
    found = {name: known & (names == name) for name in dict.fromkeys(task for task in tasks if task)}
    return {name: float(quality[cells].mean()) for name, cells in found.items() if cells.any()}


def _weak_and_strong(recorded: RecordedOutcomes) -> tuple[int, int] | None:
    """Return the columns of the less and the more accurate of two models, None where there is no such pair."""
    if len(recorded.models) != 2 or not recorded.observed.all():
        return None
    weak, strong = np.argsort(recorded.single_accuracy)
    return None if recorded.single_accuracy[weak] == recorded.single_accuracy[strong] else (int(weak), int(strong))


def _gap_recovered(share: FloatArray, gained: FloatArray) -> GapRecovered:
    """Read the metrics off the accuracy gained over the share of strong calls, which runs from 0 to 1.

    All are NaN where the strong model is no better than the weak one, as can happen in a draw of the questions.
    """
    if gained[-1] <= 0:
        return GapRecovered(math.nan, math.nan, math.nan)
    recovered = gained / gained[-1]
    return GapRecovered(
        float(np.trapezoid(recovered, share)), _first_share(share, recovered, 0.5), _first_share(share, recovered, 0.8)
    )


def _all_questions(recorded: RecordedOutcomes) -> FloatArray:
    """Return equal weights (1, R)."""
    return np.full((1, len(recorded.quality)), 1 / len(recorded.quality))


def _first_share(share: FloatArray, recovered: FloatArray, target: float) -> float:
    """Return the smallest share at which the curve reaches the target. It ends at 1, so it always does."""
    at = int(np.argmax(recovered >= target))
    return float(np.interp(target, recovered[at - 1 : at + 1], share[at - 1 : at + 1])) if at else float(share[0])
