"""Floors are raised by the optimism of held-out forecasts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.domain import Budget, QualityFloor
from eccos_core.errors import InfeasibleError
from eccos_core.routing.floor_map import NO_CORRECTION, FloorMap, fit_floor_map

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def noisy_forecasts(questions: int, noise: float, seed: int = 0) -> Arrays:
    """(truth, forecast, cost, outcome), each (N, 3). The forecasts are too bold by the noise."""
    draw = np.random.default_rng(seed)
    truth = np.clip(draw.normal([0.5, 0.6, 0.7], 0.1, (questions, 3)), 0, 1)
    forecast = np.clip(truth + draw.normal(0, noise, truth.shape), 0, 1)
    cost = np.tile([1e-4, 1e-3, 1e-2], (questions, 1))
    return truth, forecast, cost, (draw.random(truth.shape) < truth).astype(float)


def realise(floor: float, arrays: Arrays) -> float:
    """The true mean quality of the cheapest choice whose mean forecast is the floor."""
    truth, forecast, cost, _ = arrays
    rows = np.arange(len(truth))
    for price in np.logspace(-5, 3, 400):
        chosen = np.argmin(cost - price * forecast, axis=1)
        if forecast[rows, chosen].mean() >= floor:
            return float(truth[rows, chosen].mean())
    raise AssertionError(f"no price reaches {floor}")


def test_a_floor_that_bold_forecasts_miss_is_kept_on_new_questions() -> None:
    _, forecast, cost, outcome = noisy_forecasts(8000, 0.15)
    fitted = fit_floor_map(forecast, cost, outcome)
    new = noisy_forecasts(8000, 0.15, seed=1)
    assert realise(0.65, new) < 0.635
    assert realise(fitted.to_forecast(0.65), new) == pytest.approx(0.65, abs=0.01)


def test_honest_forecasts_change_a_floor_by_little_more_than_the_margin() -> None:
    _, forecast, cost, outcome = noisy_forecasts(8000, 0.0)
    fitted = fit_floor_map(forecast, cost, outcome)
    assert 0.65 <= fitted.to_forecast(0.65) < 0.66


def test_few_outcomes_give_no_bold_correction() -> None:
    _, forecast, cost, outcome = noisy_forecasts(100, 0.0)
    fitted = fit_floor_map(forecast, cost, outcome)
    assert 0.65 <= fitted.to_forecast(0.65) < 0.67


def test_missing_outcomes_are_left_out() -> None:
    _, forecast, cost, outcome = noisy_forecasts(8000, 0.15)
    outcome[np.random.default_rng(2).random(outcome.shape) < 0.5] = np.nan
    assert fit_floor_map(forecast, cost, outcome).to_forecast(0.65) > 0.66
    assert fit_floor_map(forecast, cost, np.full_like(outcome, np.nan)) is NO_CORRECTION


@given(st.integers(0, 50), st.floats(0, 0.3), st.integers(1, 60))
def test_the_map_increases_never_lowers_a_floor_and_inverts(seed: int, noise: float, questions: int) -> None:
    _, forecast, cost, outcome = noisy_forecasts(questions, noise, seed)
    fitted = fit_floor_map(forecast, cost, outcome)
    floors = np.linspace(0, 1, 41)
    asked = np.array([fitted.to_forecast(floor) for floor in floors])
    assert (asked >= floors - 1e-12).all()
    assert (np.diff(asked) >= 0).all()
    for forecast_mean in np.linspace(0.3, 0.9, 13):
        assert fitted.to_forecast(fitted.to_floor(forecast_mean)) <= forecast_mean + 1e-9


def test_only_floors_are_mapped() -> None:
    higher = FloorMap(np.array([0.5, 0.7]), np.array([0.52, 0.74]))
    assert higher.apply(QualityFloor(0.6, "best_effort")) == QualityFloor(0.63, "best_effort")
    assert higher.apply(Budget(1.0)) == Budget(1.0)
    assert higher.to_forecast(0.99) == 1.0


def test_a_floor_out_of_reach_is_told_in_the_numbers_that_you_asked_for() -> None:
    higher = FloorMap(np.array([0.5, 0.7]), np.array([0.52, 0.74]))
    error = higher.explain(InfeasibleError("quality floor", 0.79, 0.74, "no"), QualityFloor(0.75))
    assert (error.wanted, error.attainable) == (0.75, pytest.approx(0.70))
    assert "quality floor 0.75 is out of reach" in str(error)
    assert "0.7000, at a mean forecast of 0.7400" in str(error)
    other = InfeasibleError("capacity", 3.0, 2.0, "no slots")
    assert higher.explain(other, QualityFloor(0.75)) is other
