"""Forecasts are shrunk by how well they route: near-equal models, few outcomes, missing outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.evaluation.metrics import RecordedOutcomes, score_forecast
from eccos_core.predictors import fit_predictor
from eccos_core.predictors.ensemble.calibration import identity
from eccos_core.predictors.ensemble.decision_shrinkage import FACTORS, fit_decision_shrinkage
from eccos_core.predictors.targets.latent import fit_latent_targets

DRAW = np.random.default_rng
ROWS, MODELS = 400, 12


def table_of(quality: FloatArray) -> OutcomeTable:
    rows, models = quality.shape
    names = tuple(f"q{i}" for i in range(rows))
    tokens = np.full(quality.shape, np.nan)
    return OutcomeTable(
        names, names, tuple(f"m{j}" for j in range(models)), quality, np.full(quality.shape, 50.0), tokens
    )


def factors(strength: float, noise: float, rows: int = ROWS, known: float = 1.0, seed: int = 0) -> FloatArray:
    """The factors, where the text shows this much of what tells the models apart, and noise on top of it."""
    draw = DRAW(seed)
    signal = draw.normal(size=(rows, MODELS)) * 0.15
    quality = (draw.random((rows, MODELS)) < np.clip(0.6 + strength * signal, 0, 1)).astype(np.float64)
    quality[draw.random(quality.shape) > known] = np.nan
    targets = fit_latent_targets(table_of(quality), {}).latent_targets
    held_out = (strength * signal + noise * draw.normal(size=signal.shape)) @ targets.axes.T
    return fit_decision_shrinkage(targets, held_out, identity(), quality)


def test_a_forecast_that_routes_well_is_kept() -> None:
    assert factors(strength=1.0, noise=0.02)[1] >= 0.75


@pytest.mark.parametrize("rows", [30, 100, 1000])
def test_noise_does_not_tell_models_apart(rows: int) -> None:
    for seed in range(3):
        found = factors(strength=0.0, noise=0.15, rows=rows, seed=seed)
        np.testing.assert_array_equal(found[1:], min(FACTORS))


def test_the_difficulty_of_a_question_is_never_shrunk() -> None:
    assert factors(strength=0.0, noise=0.15)[0] == 1.0


def test_an_overconfident_forecast_is_shrunk_in_part() -> None:
    found = factors(strength=1.0, noise=0.2, rows=4000)
    assert 0.0 < found[1] < 1.0


def test_missing_outcomes_do_not_confirm_a_noisy_forecast() -> None:
    for seed in range(3):
        np.testing.assert_array_equal(factors(strength=0.0, noise=0.15, known=0.1, seed=seed)[1:], min(FACTORS))


def test_one_model_needs_no_shrinkage() -> None:
    targets = fit_latent_targets(table_of(DRAW(0).integers(2, size=(50, 1)).astype(float)), {}).latent_targets
    found = fit_decision_shrinkage(targets, np.zeros((50, 1)), identity(), np.ones((50, 1)))
    np.testing.assert_array_equal(found, [1.0])


def test_near_equal_models_are_routed_no_worse_than_by_the_prior() -> None:
    """57 models of nearly the same strength. The text shows how hard a question is, and little else."""
    draw = DRAW(3)
    rows, asked, models = 700, 3000, 57
    vectors = draw.normal(size=(rows + asked, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ability, taste = draw.normal(0.4, 0.1, models), draw.normal(0, 0.2, models)
    log_odds = ability + 2.0 * vectors[:, :1] + 2.0 * vectors[:, 1:2] * taste
    quality = (draw.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))).astype(np.float64)
    cost = np.tile(np.exp(draw.normal(0, 1.3, models) + 4 * (ability - 0.4)), (asked, 1))
    recorded = RecordedOutcomes(
        tuple(f"m{j}" for j in range(models)), quality[rows:], cost, np.ones(cost.shape, dtype=np.bool_)
    )
    area = {}
    for kind in ("prior", "kernel", "linear"):
        predictor = fit_predictor(kind, table_of(quality[:rows]), vectors[:rows])
        forecast = predictor.predict(vectors[rows:], np.full(asked, 50.0))
        area[kind] = score_forecast(forecast.quality, cost, recorded).area
    assert area["kernel"] > area["prior"] - 0.001
    assert area["linear"] > area["prior"] - 0.001
