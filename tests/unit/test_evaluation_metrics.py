"""Frontier, area and cost share against examples computed by hand, brute force and Hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eccos_core.errors import InputError
from eccos_core.evaluation.metrics import (
    ACCURACY_TARGETS,
    RecordedOutcomes,
    lambda_grid,
    operating_points,
    score_choices,
    score_forecast,
    score_points,
    score_random_mix,
    score_single,
    sweep,
    upper_hull,
)


def recorded_of(quality: list[list[float]], cost_usd: list[list[float]]) -> RecordedOutcomes:
    values = np.array(quality, dtype=np.float64)
    names = tuple(f"m{position}" for position in range(values.shape[1]))
    return RecordedOutcomes(names, values, np.array(cost_usd, dtype=np.float64), ~np.isnan(values))


def two_models() -> RecordedOutcomes:
    """cheap: 0.5 at 1 USD; dear: 1.0 at 3 USD."""
    return recorded_of([[1, 1], [0, 1]], [[1, 3], [1, 3]])


def test_the_random_mix_of_two_models_is_the_chord_between_them() -> None:
    score = score_random_mix(two_models())
    assert score.frontier.cost_usd.tolist() == [1, 3]
    assert score.frontier.accuracy.tolist() == [0.5, 1.0]
    # accuracy 0.9, 0.95, 0.98, 1.0 costs 2.6, 2.8, 2.92, 3 on the chord; the best single model costs 3
    assert [score.cost_share[target] for target in ACCURACY_TARGETS] == pytest.approx([2.6 / 3, 2.8 / 3, 2.92 / 3, 1.0])
    assert score.area == pytest.approx(0.75)  # the mean of a straight line is its middle
    assert score.best_accuracy == 1.0


def test_the_oracle_pays_the_dear_model_only_where_it_helps() -> None:
    recorded = two_models()
    score = score_forecast(recorded.quality, recorded.cost_usd, recorded)
    assert score.frontier.cost_usd.tolist() == [1, 2]  # question 1: cheap, question 2: dear
    assert score.frontier.accuracy.tolist() == [0.5, 1.0]
    assert score.cost_share[1.0] == pytest.approx(2 / 3)


def test_a_budget_below_the_routers_cheapest_setting_buys_nothing() -> None:
    recorded = two_models()
    score = score_points(np.array([2.0, 3.0]), np.array([0.8, 1.0]), recorded)
    assert score.area == pytest.approx((0.0 + 0.9) / 2, abs=1e-2)  # the budgets run from 1 to 3
    assert score_points(np.array([3.5]), np.array([0.8]), recorded).area == 0.0
    assert score.cost_share[0.9] == pytest.approx(2.5 / 3)
    assert score_points(np.array([2.0]), np.array([0.8]), recorded).cost_share[0.9] is None


def test_a_setting_that_costs_a_hair_more_than_the_cheapest_model_loses_a_hair() -> None:
    recorded = two_models()
    areas = [score_points(np.array([c, 3.0]), np.array([0.5, 1.0]), recorded).area for c in (1.0, 1.0001, 1.005)]
    assert areas[0] == pytest.approx(0.75)
    assert areas[0] > areas[1] > areas[2] > areas[0] - 0.003
    assert areas[0] - areas[1] < 1e-4


def test_a_single_model_has_no_area() -> None:
    recorded = recorded_of([[1, 0, 1], [0, 1, 1]], [[1, 2, 3], [1, 2, 3]])
    assert [score_single(recorded, model).area for model in range(3)] == [None, None, None]
    assert score_single(recorded, 2).cost_share[1.0] == 1.0
    assert score_single(recorded, 0).cost_share[1.0] is None


def test_points_under_the_hull_do_not_count() -> None:
    hull = upper_hull(np.array([1.0, 2.0, 3.0, 4.0, 2.0]), np.array([0.2, 0.3, 0.6, 0.5, 0.1]))
    assert hull.cost_usd.tolist() == [1, 3]
    assert hull.accuracy.tolist() == [0.2, 0.6]


def test_when_the_cheapest_model_is_the_best_the_area_is_its_accuracy() -> None:
    recorded = recorded_of([[1, 0], [1, 1]], [[1, 2], [1, 2]])
    score = score_random_mix(recorded)
    assert recorded.best_single == recorded.cheapest_single == 0
    assert score.area == 1.0
    assert score.cost_share == {0.9: 1.0, 0.95: 1.0, 0.98: 1.0, 1.0: 1.0}


def test_free_models_have_no_cost_share() -> None:
    score = score_random_mix(recorded_of([[1, 0]], [[0, 0]]))
    assert score.cost_share == {0.9: None, 0.95: None, 0.98: None, 1.0: None}
    assert score.area == 1.0


def test_of_two_equally_good_models_the_cheaper_is_the_best_single_one() -> None:
    assert recorded_of([[1, 1]], [[2, 1]]).best_single == 1


def test_missing_answers_are_never_chosen() -> None:
    nan = float("nan")
    recorded = recorded_of([[1, nan], [nan, 1], [0, 1]], [[1, nan], [nan, 5], [1, 5]])
    quality = np.array([[0.1, 0.9], [0.9, 0.1], [0.5, 0.6]])
    choices = sweep(
        quality, np.where(recorded.observed, recorded.cost_usd, 0), recorded.observed, np.array([0.0, 99.0])
    )
    assert choices.tolist() == [[0, 1, 0], [0, 1, 1]]
    assert recorded.single_accuracy.tolist() == [0.5, 1.0]
    with pytest.raises(InputError, match="not recorded"):
        operating_points(np.array([[1, 1, 1]], dtype=np.int16), recorded)


def test_a_question_without_any_answer_is_refused() -> None:
    nan = float("nan")
    with pytest.raises(InputError, match="question 1 has no outcome"):
        recorded_of([[1, 0], [nan, nan]], [[1, 1], [1, 1]])
    with pytest.raises(InputError, match="no test questions"):
        RecordedOutcomes(("a",), np.empty((0, 1)), np.empty((0, 1)), np.empty((0, 1), dtype=np.bool_))


def test_a_forecast_that_is_not_a_number_is_refused() -> None:
    recorded = two_models()
    with pytest.raises(InputError, match="forecast quality is not finite for 1 cells"):
        score_forecast(np.array([[0.5, np.nan], [0.5, 0.5]]), recorded.cost_usd, recorded)


def test_equal_forecast_costs_go_to_the_better_forecast() -> None:
    recorded = recorded_of([[0, 1, 0]], [[1, 1, 1]])
    quality = np.array([[0.2, 0.9, 0.5]])
    assert sweep(quality, np.ones((1, 3)), recorded.observed, np.array([0.0])).tolist() == [[1]]


def test_lambdas_scale_with_the_prices() -> None:
    cost = np.array([[1e-6, 1e-3], [1e-6, 3e-3]])
    assert len(lambda_grid(cost)) == 401
    assert lambda_grid(cost)[0] == 0
    assert lambda_grid(cost * 1000) == pytest.approx(1000 * lambda_grid(cost))
    assert np.isfinite(lambda_grid(np.zeros((2, 2)))).all()


def test_settings_of_a_rule_are_charged_like_any_other() -> None:
    recorded = two_models()
    score = score_choices(np.array([[0, 0], [0, 1], [1, 1]], dtype=np.int16), recorded)
    assert score.frontier.cost_usd.tolist() == [1, 2]
    assert score.frontier.accuracy.tolist() == [0.5, 1.0]


unit = st.integers(0, 1000).map(lambda n: n / 1000)
points = st.lists(st.tuples(st.integers(1, 10**6).map(lambda n: n / 1000), unit), min_size=1, max_size=30)


@given(points)
def test_the_hull_is_increasing_concave_and_over_every_point(pairs: list[tuple[float, float]]) -> None:
    cost, accuracy = np.array(pairs, dtype=np.float64).T
    hull = upper_hull(cost, accuracy)
    assert (np.diff(hull.cost_usd) > 0).all()
    assert (np.diff(hull.accuracy) > 0).all()
    slopes = np.diff(hull.accuracy) / np.diff(hull.cost_usd)
    assert (np.diff(slopes) <= 1e-9 * np.abs(slopes[:-1])).all()
    assert (np.interp(cost, hull.cost_usd, hull.accuracy) >= accuracy - 1e-9).all()
    assert set(zip(hull.cost_usd, hull.accuracy, strict=True)) <= set(zip(cost, accuracy, strict=True))


@st.composite
def histories(draw: st.DrawFn) -> RecordedOutcomes:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 4)))
    quality = draw(arrays.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.5, 1.0])))
    cost = draw(arrays.arrays(np.float64, shape, elements=st.sampled_from([0.001, 0.002, 0.01, 0.3])))
    return recorded_of(quality.tolist(), cost.tolist())


@given(histories(), st.data())
def test_every_sweep_minimises_cost_minus_lambda_quality(recorded: RecordedOutcomes, data: st.DataObject) -> None:
    shape = recorded.quality.shape
    forecast = data.draw(arrays.arrays(np.float64, shape, elements=st.floats(0, 1)))
    lambdas = lambda_grid(recorded.cost_usd)
    choices = sweep(forecast, recorded.cost_usd, recorded.observed, lambdas)
    score = recorded.cost_usd[None] - lambdas[:, None, None] * forecast[None]
    taken = np.take_along_axis(score, choices[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    assert (taken <= score.min(axis=2) + 1e-12).all()


@given(histories())
def test_nothing_beats_the_oracle_and_shares_grow_with_the_target(recorded: RecordedOutcomes) -> None:
    oracle = score_forecast(recorded.quality, recorded.cost_usd, recorded)
    mix = score_random_mix(recorded)
    assert oracle.area >= mix.area - 0.01  # the oracle is seen at 401 prices, and a setting may lie between two of them
    assert oracle.best_accuracy >= mix.best_accuracy - 1e-12
    for score in (oracle, mix):
        shares = [score.cost_share[target] for target in ACCURACY_TARGETS]
        reached = [share for share in shares if share is not None]
        assert reached == sorted(reached)
        assert None not in shares  # both contain the best single model
    assert mix.cost_share[1.0] == pytest.approx(1.0)


@given(histories())
def test_the_area_is_the_mean_over_200_costs_read_off_by_hand(recorded: RecordedOutcomes) -> None:
    mix = score_random_mix(recorded)
    cost, accuracy = recorded.single_cost_usd, recorded.single_accuracy
    grid = np.linspace(cost.min(), cost[recorded.best_single], 200)
    models = range(len(cost))

    def area(slack: float) -> float:
        """By hand. Models whose costs differ by rounding alone are both affordable, or not, as `slack` says."""
        budgets = grid * (1 + slack)
        return float(
            np.mean(
                [max(_affordable(i, j, budget, cost, accuracy) for i in models for j in models) for budget in budgets]
            )
        )

    assert area(-1e-12) - 1e-9 <= mix.area <= area(1e-12) + 1e-9


def _affordable(left: int, right: int, budget: float, cost: np.ndarray, accuracy: np.ndarray) -> float:
    """Best accuracy of a coin between two models whose mean cost is at most the budget; 0 when neither fits."""
    if cost[left] > budget:
        return 0.0
    if cost[right] <= budget:
        return float(max(accuracy[left], accuracy[right]))
    share = (budget - cost[left]) / (cost[right] - cost[left])
    return float(max(accuracy[left], (1 - share) * accuracy[left] + share * accuracy[right]))
