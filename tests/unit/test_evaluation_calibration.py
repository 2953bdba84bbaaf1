"""Brier score, calibration error and length error against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import Forecast
from eccos_core.evaluation.calibration import bin_reliability, measure_calibration, measure_length_error


def test_brier_and_calibration_error_are_averaged_over_models() -> None:
    forecast = np.array([[0.8, 0.5], [0.8, 0.5], [0.8, 0.5], [0.8, 0.5]])
    outcome = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = measure_calibration(forecast, outcome, np.ones_like(outcome, dtype=np.bool_))
    # model 0: 0.8 against 0.75; model 1: 0.5 against 0.5
    assert found.ece_per_model == pytest.approx([0.05, 0.0])
    assert found.brier_per_model == pytest.approx([(3 * 0.04 + 0.64) / 4, 0.25])
    assert found.ece == pytest.approx(0.025)
    assert found.brier == pytest.approx(np.mean([0.19, 0.25]))


def test_over_and_under_confidence_do_not_cancel_between_bins() -> None:
    forecast, outcome = np.array([[0.1], [0.9]]), np.array([[1.0], [0.0]])
    assert measure_calibration(forecast, outcome, np.ones_like(outcome, dtype=np.bool_)).ece == pytest.approx(0.9)


def test_a_fully_sure_forecast_falls_into_the_last_bin() -> None:
    binned = bin_reliability(np.array([1.0, 0.0, 0.97]), np.array([1.0, 0.0, 0.0]), bins=15)
    assert binned.count.tolist() == [1, 2]
    assert binned.outcome.tolist() == [0.0, 0.5]


def test_missing_outcomes_count_for_nothing() -> None:
    forecast = np.array([[0.5, 0.3], [0.5, 0.3]])
    outcome = np.array([[1.0, np.nan], [0.0, np.nan]])
    found = measure_calibration(forecast, outcome, ~np.isnan(outcome))
    assert found.ece == 0
    assert found.brier == 0.25
    assert np.isnan(found.ece_per_model[1])
    assert found.reliability.count.tolist() == [2]


def forecast_of_tokens(tokens: list[list[float]], high: float) -> Forecast:
    values = np.array(tokens)
    return Forecast(
        models=tuple("ab"[: values.shape[1]]),
        quality=np.full_like(values, 0.5),
        quality_se=np.zeros_like(values),
        output_tokens=values,
        output_tokens_high=np.full_like(values, high),
        familiarity=np.ones(len(values)),
    )


def test_length_error_in_tokens_in_relation_and_in_sum() -> None:
    known = np.array([[100.0, np.nan], [200.0, np.nan]])
    found = measure_length_error(forecast_of_tokens([[150, 1], [180, 1]], high=190), known)
    assert found is not None
    assert found.mean_absolute == pytest.approx(35)
    assert found.median_relative == pytest.approx(0.3)  # 0.5 and 0.1
    assert found.bias == pytest.approx(0.1)  # 330 against 300
    assert found.above_high == pytest.approx(0.5)


def test_without_known_lengths_there_is_no_length_error() -> None:
    assert measure_length_error(forecast_of_tokens([[1, 1]], high=2), np.full((1, 2), np.nan)) is None
