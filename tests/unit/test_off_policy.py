"""Off-policy evaluation: unbiased on problems that can be added up, and honest about what a log cannot tell."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.off_policy import (
    BanditFeedback,
    IntervalEstimate,
    calibrate_cost,
    calibrate_quality,
    doubly_robust_scores,
    evaluate_policy,
    student_t_quantile,
)

MODELS = ("small", "large")


def feedback(
    action: IntArray, propensity: FloatArray, quality: FloatArray, forecast: FloatArray, cost: FloatArray | None = None
) -> BanditFeedback:
    """All requests were offered both models. Costs are 1 and 10 USD, as forecast."""
    forecast_cost = np.tile([1.0, 10.0], (len(action), 1))
    return BanditFeedback(
        models=MODELS,
        action=action,
        propensity=propensity,
        offered=np.ones((len(action), 2), dtype=np.bool_),
        quality=quality,
        cost_usd=forecast_cost[np.arange(len(action)), action] if cost is None else cost,
        forecast_quality=forecast,
        forecast_cost_usd=forecast_cost,
    )


def explored_log(
    seed: int, requests: int = 1000, share: float = 0.1, large: float = 0.95
) -> tuple[BanditFeedback, FloatArray]:
    """A log of `small`, with a share of random choices, and the true quality (R, 2). Forecasts are too high."""
    draw = np.random.default_rng(seed)
    truth = (draw.random((requests, 2)) < [0.8, large]).astype(np.float64)
    action = np.where(draw.random(requests) < share, draw.integers(2, size=requests), 0)
    propensity = np.where(action == 0, 1 - share / 2, share / 2)
    forecast = np.tile([0.85, 0.99], (requests, 1))
    return feedback(action, propensity, truth[np.arange(requests), action], forecast), truth


UNIT = st.floats(0, 1)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 4))
def test_the_estimate_is_unbiased_over_all_logs_whatever_was_forecast(data: st.DataObject, requests: int) -> None:
    def table(values: st.SearchStrategy[float]) -> FloatArray:
        pairs = st.lists(st.tuples(values, values), min_size=requests, max_size=requests)
        return np.array(data.draw(pairs))

    truth, model = table(UNIT), table(UNIT)
    first = np.array(data.draw(st.lists(st.floats(0.05, 0.95), min_size=requests, max_size=requests)))
    chosen = np.array(data.draw(st.lists(st.integers(0, 1), min_size=requests, max_size=requests)))
    rows, expected = np.arange(requests), 0.0
    for actions in itertools.product((0, 1), repeat=requests):
        action = np.array(actions)
        propensity = np.where(action == 0, first, 1 - first)
        log = feedback(action, propensity, truth[rows, action], model)
        scores, _ = doubly_robust_scores(log, log.quality, model, chosen)
        expected += float(propensity.prod() * scores.mean())
    assert expected == pytest.approx(truth[rows, chosen].mean(), abs=1e-9)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=20))
def test_with_right_forecasts_the_estimate_is_right_whatever_the_propensities(propensities: list[float]) -> None:
    count = len(propensities)
    truth = np.random.default_rng(count).random((count, 2))
    action = np.arange(count) % 2
    log = feedback(action, np.array(propensities), truth[np.arange(count), action], truth)
    for chosen in (np.zeros(count, np.int64), np.ones(count, np.int64)):
        scores, _ = doubly_robust_scores(log, log.quality, truth, chosen)
        np.testing.assert_allclose(scores, truth[np.arange(count), chosen])


def test_the_intervals_hold_the_truth_when_the_log_holds_no_bad_answer_by_chance() -> None:
    """About 25 of 1,000 answers are of the model that is evaluated. In half of the logs all of them are good."""
    held = [0, 0]
    for seed in range(300):
        log, truth = explored_log(seed, share=0.05, large=0.97)
        value = evaluate_policy(log, np.ones(len(truth), np.int64))
        held[0] += value.quality.low <= 0.97 <= value.quality.high
        held[1] += value.quality_change.low <= 0.97 - (0.975 * 0.8 + 0.025 * 0.97) <= value.quality_change.high
    assert min(held) >= 0.93 * 300


def test_labels_that_are_missing_more_often_for_one_model_do_not_bias() -> None:
    estimates = []
    for seed in range(40):
        log, truth = explored_log(seed, requests=4000, share=0.5)
        hidden = np.random.default_rng(seed).random(len(truth)) < np.where(log.action == 1, 0.8, 0.2)
        partial = replace(log, quality=np.where(hidden, np.nan, log.quality))
        estimates.append(evaluate_policy(partial, np.ones(len(truth), np.int64)).quality.value)
    assert np.mean(estimates) == pytest.approx(0.95, abs=0.01)


def test_a_log_without_exploration_measures_only_where_the_policies_agree() -> None:
    draw = np.random.default_rng(1)
    action = (np.arange(400) % 2).astype(np.int64)
    quality = (draw.random(400) < 0.8).astype(np.float64)
    log = feedback(action, np.ones(400), quality, np.full((400, 2), 0.8))
    chosen = np.where(np.arange(400) % 4 == 0, 1, action)  # other than logged on a quarter
    value = evaluate_policy(log, chosen)
    assert (value.agreement, value.measurable) == (0.75, 0.75)
    agreed = quality[chosen == action].sum() / 400
    # whatever the unseen answers would have been, the interval holds it
    assert value.quality.low <= agreed
    assert value.quality.high >= agreed + 0.25
    assert not value.quality_change.excludes_zero
    assert value.cost_change_usd.value == pytest.approx(0.25 * 9)


def test_the_same_choices_change_nothing_and_a_model_that_was_not_offered_is_not_measured() -> None:
    log, truth = explored_log(0)
    same = evaluate_policy(log, log.action)
    assert same.quality_change == same.cost_change_usd == IntervalEstimate(0, 0, 0)
    assert same.agreement == 1
    absent = replace(log, offered=np.tile([True, False], (len(truth), 1)))
    never = evaluate_policy(absent, np.ones(len(truth), np.int64))
    assert never.measurable == pytest.approx((log.action == 1).mean())


def test_without_labels_quality_is_the_forecast_and_anything_is_possible() -> None:
    log, truth = explored_log(0)
    value = evaluate_policy(replace(log, quality=np.full(len(truth), np.nan)), np.ones(len(truth), np.int64))
    assert value.quality == IntervalEstimate(pytest.approx(0.99), 0.0, 1.0)
    assert value.effective_sample_size == 0
    assert value.measurable == 0
    differ = 1 - value.agreement  # where the choices are the same, nothing changes
    assert (value.quality_change.low, value.quality_change.high) == pytest.approx((-differ, differ))


def test_choices_that_could_not_be_logged_are_noticed() -> None:
    """A third of the requests could go to `small` alone, and the log says otherwise."""
    log, truth = explored_log(0, requests=3000, share=0.4)
    assert not evaluate_policy(log, np.ones(len(truth), np.int64)).positivity_in_doubt
    barred = np.arange(len(truth)) % 3 == 0
    wrong = replace(log, action=np.where(barred, 0, log.action), propensity=np.where(barred, 0.8, log.propensity))
    assert evaluate_policy(wrong, np.ones(len(truth), np.int64)).positivity_in_doubt
    certain = replace(wrong, propensity=np.where(barred, 1.0, log.propensity))  # what such a log should say
    assert not evaluate_policy(certain, np.ones(len(truth), np.int64)).positivity_in_doubt


def test_what_was_done_is_measured_when_every_answer_has_a_label() -> None:
    log, _ = explored_log(0)
    value = evaluate_policy(log, np.zeros(len(log.action), np.int64))
    assert value.logged_quality.value == pytest.approx(log.quality.mean())
    assert value.logged_cost_usd == pytest.approx(log.cost_usd.mean())


def test_calibration_learns_each_models_error_from_the_other_requests_only() -> None:
    log, _ = explored_log(0, share=0.5)
    shifted = calibrate_quality(log)
    for model in (0, 1):
        seen = log.quality[log.action == model].mean()
        assert shifted[:, model].mean() == pytest.approx(seen, abs=0.01)
    own = log.quality.copy()
    own[7] = 1 - own[7]
    again = calibrate_quality(replace(log, quality=own))
    np.testing.assert_array_equal(again[7], shifted[7])
    assert not np.array_equal(again[8], shifted[8])
    dearer = replace(log, cost_usd=np.where(log.action == 1, 3.0, 1.0) * log.cost_usd)
    np.testing.assert_allclose(calibrate_cost(dearer).mean(axis=0), [1.0, 30.0], rtol=0.15)


@pytest.mark.parametrize("probability", [0.9, 0.975, 0.995])
@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 12.5, 100, 1e6])
def test_the_quantile_of_student_is_right_within_a_per_cent(probability: float, degrees: float) -> None:
    from scipy.stats import t

    expected = t.ppf(probability, degrees)
    tolerance = 0.01 if probability < 0.99 else 0.05
    assert student_t_quantile(probability, degrees) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"propensity": np.array([0.0, 1.0])}, r"propensity of request 0 is 0\.0, must be in \(0, 1\]"),
        ({"quality": np.array([0.5, 1.5])}, r"quality of request \d is 1\.5, must be in \[0, 1\]"),
        ({"action": np.array([0, 2])}, "action of request 1 is 2, must be in 0 to 1"),
        ({"cost_usd": np.array([0.1, np.inf])}, "cost_usd of request 1 is inf"),
        ({"forecast_quality": np.array([[0.1, np.nan], [0.1, 0.2]])}, "forecast_quality of request 0 is nan"),
        ({"cost_usd": np.ones(3)}, r"cost_usd has shape \(3,\), must be \(2,\)"),
        ({"action": np.array([], dtype=np.int64)}, "there is no request"),
    ],
)
def test_feedback_that_cannot_be_is_refused(fields: dict[str, FloatArray], message: str) -> None:
    log = feedback(np.array([0, 1]), np.ones(2), np.array([0.5, np.nan]), np.full((2, 2), 0.5))
    with pytest.raises(InputError, match=message):
        replace(log, **fields)  # type: ignore[arg-type]


def test_choices_of_another_shape_are_refused() -> None:
    log = feedback(np.array([0, 1]), np.ones(2), np.ones(2), np.full((2, 2), 0.5))
    for chosen in (np.array([0]), np.array([0, 2])):
        with pytest.raises(InputError, match="policy: choices have shape"):
            evaluate_policy(log, chosen)
