"""APGR, CPT, AIQ, the RouterArena score and accuracy per task, against examples computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eccos_core.evaluation.metrics import Frontier, RecordedOutcomes
from eccos_core.evaluation.paper_metrics import (
    PaperMetrics,
    arena_score,
    average_improvement,
    gap_of_choices,
    gap_of_forecast,
    task_accuracy,
)


def pair(weak: list[float], strong: list[float]) -> RecordedOutcomes:
    quality = np.array([weak, strong], dtype=np.float64).T
    return RecordedOutcomes(("weak", "strong"), quality, np.tile([1.0, 10.0], (len(weak), 1)), ~np.isnan(quality))


# the strong model is right everywhere, the weak one on the first two of four questions: the gap is half
HALF = pair([1, 1, 0, 0], [1, 1, 1, 1])


def test_a_router_that_knows_where_the_strong_model_helps_recovers_the_gap_first() -> None:
    gain = np.array([[0.9, 0.9], [0.9, 0.9], [0.1, 0.9], [0.2, 0.9]])
    found = gap_of_forecast(gain, HALF)
    assert found is not None
    # recovered over the share of strong calls: 0 at 0, 1/2 at 1/4, 1 at 1/2, and 1 from there on
    assert found.apgr == pytest.approx(0.25 * 0.25 + 0.25 * 0.75 + 0.5 * 1.0)
    assert found.cpt50 == pytest.approx(0.25)
    assert found.cpt80 == pytest.approx(0.25 + 0.25 * 0.6)


def test_a_forecast_that_says_nothing_is_a_coin() -> None:
    found = gap_of_forecast(np.full((4, 2), 0.5), HALF)
    assert found is not None
    assert (found.apgr, found.cpt50, found.cpt80) == pytest.approx((0.5, 0.5, 0.8))


def test_a_rule_is_measured_by_its_own_settings() -> None:
    choices = np.array([[0, 0, 1, 1], [0, 0, 0, 1]], dtype=np.int16)
    found = gap_of_choices(choices, HALF)
    assert found is not None
    assert found.apgr == pytest.approx(0.25 * 0.25 + 0.25 * 0.75 + 0.5 * 1.0)
    assert found.cpt50 == pytest.approx(0.25)


@pytest.mark.parametrize(
    "recorded",
    [
        pair([1, 0], [0, 1]),  # equally good: there is no gap
        pair([1, math.nan], [1, 1]),  # a missing answer
        RecordedOutcomes(("a", "b", "c"), np.eye(3), np.ones((3, 3)), np.ones((3, 3), dtype=np.bool_)),
    ],
)
def test_without_a_pair_of_unequal_models_there_is_no_gap(recorded: RecordedOutcomes) -> None:
    assert gap_of_forecast(np.full(recorded.quality.shape, 0.5), recorded) is None
    choices = np.zeros((1, len(recorded.quality)), dtype=np.int16)
    assert gap_of_choices(choices, recorded) is None


def test_aiq_runs_to_the_dearest_model_and_counts_nothing_below_the_cheapest_setting() -> None:
    # costs run from 1 to 10; from 5.5, the middle, on the accuracy is 0.8
    frontier = Frontier(np.array([5.5]), np.array([0.8]))
    assert average_improvement(frontier, HALF) == pytest.approx(0.4, abs=5e-3)
    assert average_improvement(Frontier(np.array([1.0, 10.0]), np.array([0.5, 1.0])), HALF) == pytest.approx(0.75)


def test_the_arena_score_is_that_of_the_best_setting() -> None:
    middle = math.sqrt(200 * 0.0044) / 1000  # USD per question at which cheapness is one half
    alone = 1.1 * 0.7 * 0.5 / (0.1 * 0.7 + 0.5)
    assert arena_score(Frontier(np.array([middle]), np.array([0.7]))) == pytest.approx(alone)
    assert arena_score(Frontier(np.array([middle, 1.0]), np.array([0.7, 0.9]))) == pytest.approx(alone)
    assert arena_score(Frontier(np.array([0.0]), np.array([0.7]))) == pytest.approx(1.1 * 0.7 / 1.07)
    assert arena_score(Frontier(np.array([1.0]), np.array([0.0]))) == 0.0


def test_every_task_counts_the_same_in_the_task_mean() -> None:
    recorded = pair([1, 0, 0, math.nan], [1, 1, 1, 1])
    found = task_accuracy(np.array([0, 0, 0, 0]), recorded, ("maths", "maths", "law", None))
    assert found == {"maths": 0.5, "law": 0.0}
    assert PaperMetrics(None, 0.0, None, found).task_mean == 0.25
    assert PaperMetrics(None, 0.0, None, {}).task_mean is None
