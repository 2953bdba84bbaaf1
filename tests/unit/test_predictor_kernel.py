"""Gaussian process regression on landmarks, beside the dense one that it must agree with."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import OutcomeTable
from eccos_core.predictors.features.projection import QueryFeatures, ReferencePoints, squared_distances
from eccos_core.predictors.fit import build_training_set
from eccos_core.predictors.learners.gaussian_process import SIGNAL_TO_NOISE_GRID, SURFACE_VARIANCE, GaussianProcess
from eccos_core.predictors.learners.training_set import TrainingSet
from eccos_core.predictors.targets.latent import fit_latent_targets

DRAW = np.random.default_rng
ROWS, MODELS = 60, 3


def history(rows: int, signal: float, seed: int = 0, landmarks: int = 1200) -> TrainingSet:
    """A history of questions whose text predicts quality as strongly as the signal says."""
    draw = DRAW(seed)
    vectors = draw.normal(size=(rows, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chance = 1 / (1 + np.exp(-8 * signal * vectors[:, :1] - np.linspace(-0.5, 0.5, MODELS)))
    quality = (draw.random((rows, MODELS)) < chance).astype(np.float64)
    missing = np.full((rows, MODELS), np.nan)
    names = tuple(f"q{i}" for i in range(rows))
    tokens = np.repeat(draw.uniform(10, 100, size=(rows, 1)), MODELS, axis=1)
    table = OutcomeTable(names, names, ("a", "b", "c"), quality, tokens, missing)
    return build_training_set(table, vectors, fit_latent_targets(table, {}), landmarks=landmarks)[1]


def query_of(training: TrainingSet) -> QueryFeatures:
    return QueryFeatures(training.features, training.points, ReferencePoints(training.points[training.landmarks]))


def dense(
    training: TrainingSet, exponent: float, ratios: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> tuple[object, object]:
    """The posterior mean (N,) and leave-one-out means (N,) of the first latent target, by dense linear algebra.

    Signal-to-noise ratios are averaged by their evidence. Every row is a landmark.
    """
    squared = squared_distances(training.points, training.points).astype(np.float64)
    surface = training.features[:, training.surface]
    surface_squared = squared_distances(surface, surface).astype(np.float64)
    unit, surface_unit = (np.median(each[each > 0]) for each in (squared, surface_squared))
    covariance = np.exp(-exponent * squared / unit) + SURFACE_VARIANCE * np.exp(-surface_squared / surface_unit)
    rows = len(training)
    centring = np.eye(rows) - 1 / rows
    covariance = centring @ covariance @ centring / rows
    values = training.targets.values[:, 0]
    logs, smoothers = [], []
    for ratio in ratios:
        scaled = np.eye(rows) + ratio * covariance
        noise = values @ np.linalg.solve(scaled, values)
        logs.append(-0.5 * rows * np.log(noise) - 0.5 * np.linalg.slogdet(scaled)[1])
        smoothers.append(ratio * covariance @ np.linalg.inv(scaled))
    share = np.exp(np.array(logs) - max(logs))
    # A latent target that is alone in its group is its own prior, so its evidence counts twice.
    share = share / share.sum()
    share = share * (share + 1e-4 / len(share))
    smoother = np.tensordot(share / share.sum(), np.stack(smoothers), axes=1)
    fit, leverage = smoother @ values, np.diag(smoother)
    return fit, (fit - leverage * values) / (1 - leverage)


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_it_matches_dense_regression_if_every_row_is_a_landmark(signal: float) -> None:
    training = history(ROWS, signal)
    fitted, held_out = GaussianProcess(exponents=(2.0,)).fit(training)
    mean, left_out = dense(training, 2.0, SIGNAL_TO_NOISE_GRID)
    np.testing.assert_allclose(fitted.predict(query_of(training))[:, 0, 0], mean, atol=2e-3)
    np.testing.assert_allclose(held_out[:, 0, 0], left_out, atol=2e-3)


def test_it_predicts_the_mean_if_the_text_has_no_signal() -> None:
    spreads = []
    for signal in (0.0, 1.0):
        training = history(400, signal)
        fitted, _ = GaussianProcess().fit(training)
        spreads.append(float(fitted.predict(query_of(training))[:, 0, 0].std()))
    assert spreads[0] < 0.15 * spreads[1]


def test_few_landmarks_predict_nearly_the_same_as_all_rows() -> None:
    sets = [history(500, 1.0, landmarks=count) for count in (500, 200)]
    every, some = (GaussianProcess().fit(training)[0].predict(query_of(training))[:, 0, 0] for training in sets)
    assert np.corrcoef(every, some)[0, 1] > 0.97


def test_it_predicts_the_same_after_storing() -> None:
    training = history(120, 1.0)
    fitted, _ = GaussianProcess().fit(training)
    again = type(fitted).from_arrays(fitted.to_arrays())
    np.testing.assert_array_equal(again.predict(query_of(training)), fitted.predict(query_of(training)))


def test_single_questions_get_the_same_prediction_as_a_batch() -> None:
    training = history(50, 1.0)
    fitted, _ = GaussianProcess().fit(training)
    landmarks = query_of(training).landmarks
    alone = [
        fitted.predict(QueryFeatures(training.features[i : i + 1], training.points[i : i + 1], landmarks))
        for i in range(5)
    ]
    np.testing.assert_allclose(np.concatenate(alone), fitted.predict(query_of(training))[:5], atol=1e-5)
