"""The item-response learner and kernel regression on landmarks: known truth, gaps, storing, few rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eccos_core.domain import FloatArray, OutcomeTable
from eccos_core.predictors.features.projection import QueryFeatures, ReferencePoints
from eccos_core.predictors.fit import build_training_set
from eccos_core.predictors.learners.item_response import FittedItemResponse, ItemResponse
from eccos_core.predictors.learners.kernel_regression import FittedKernelRegression, KernelRegression
from eccos_core.predictors.learners.training_set import TrainingSet
from eccos_core.predictors.targets.latent import fit_latent_targets

DRAW = np.random.default_rng
ABILITY, SLOPE = np.array([-1.0, 0.0, 1.5]), np.array([0.5, 1.0, 1.5])


def history(rows: int, seed: int = 0, known: float = 1.0, landmarks: int = 1200) -> tuple[TrainingSet, FloatArray]:
    """Questions whose text shows their difficulty, and the chance (N, 3) of a good answer."""
    draw = DRAW(seed)
    vectors = draw.normal(size=(rows, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chance = 1 / (1 + np.exp(-ABILITY - 4 * SLOPE * vectors[:, :1]))
    quality = (draw.random(chance.shape) < chance).astype(np.float64)
    quality[draw.random(chance.shape) > known] = np.nan
    names = tuple(f"q{i}" for i in range(rows))
    gaps = np.full(chance.shape, np.nan)
    table = OutcomeTable(names, names, ("a", "b", "c"), quality, np.full(chance.shape, 50.0), gaps)
    return build_training_set(table, vectors, fit_latent_targets(table, {}), landmarks=landmarks)[1], chance


def query_of(training: TrainingSet) -> QueryFeatures:
    return QueryFeatures(training.features, training.points, ReferencePoints(training.points[training.landmarks]))


@pytest.mark.parametrize("known", [1.0, 0.4])
def test_it_finds_abilities_slopes_and_difficulty(known: float) -> None:
    training, chance = history(4000, known=known)
    fitted, held_out = ItemResponse().fit(training)
    np.testing.assert_allclose(fitted.ability - fitted.ability[1], ABILITY, atol=0.25)
    np.testing.assert_allclose(fitted.slope / fitted.slope[1], SLOPE, atol=0.25)
    targets = training.targets.latent_targets
    for values in (held_out, fitted.predict(query_of(training))):
        assert np.abs(targets.quality(values[:, 0].astype(np.float64)) - chance).mean() < 0.04


def test_a_short_history_is_enough() -> None:
    training, chance = history(100)
    _, held_out = ItemResponse().fit(training)
    targets = training.targets.latent_targets
    error = np.square(targets.quality(held_out[:, 0].astype(np.float64)) - chance).mean()
    assert error < 0.5 * np.square(targets.mean_quality - chance).mean()


def test_a_held_out_prediction_does_not_see_its_own_fold() -> None:
    training, _ = history(200)
    own = training.fold == 0
    flipped = replace(training, quality=np.where(own[:, None], 1 - training.quality, training.quality))
    learner = ItemResponse(penalties=(30.0,))
    np.testing.assert_array_equal(learner.fit(training)[1][own], learner.fit(flipped)[1][own])
    values = np.where(own[:, None], -training.targets.values, training.targets.values)
    flipped = replace(training, targets=replace(training.targets, values=values))
    np.testing.assert_array_equal(KernelRegression().fit(training)[1][own], KernelRegression().fit(flipped)[1][own])


def test_equal_questions_give_the_models_means() -> None:
    training, _ = history(50)
    training = replace(training, points=np.zeros_like(training.points), nearest=np.zeros_like(training.nearest))
    _, held_out = ItemResponse().fit(training)
    assert np.abs(held_out).max() < 0.1
    assert np.isfinite(KernelRegression().fit(training)[1]).all()


def test_kernel_regression_is_the_weighted_mean_of_the_history_at_its_landmarks() -> None:
    training, _ = history(300, landmarks=40)
    fitted, _ = KernelRegression().fit(training)
    landmarks = training.points[training.landmarks].astype(np.float64)
    squared = ((training.points[:, None] - landmarks) ** 2).sum(axis=2)
    nearest = squared.argmin(axis=1)
    weights = np.exp(-fitted.rate * squared)[:, nearest]
    expected = weights @ training.targets.values / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.predict(query_of(training))[:, 0], expected, atol=1e-3)


def test_both_predict_the_same_after_storing() -> None:
    training, _ = history(120)
    query = query_of(training)
    response, _ = ItemResponse().fit(training)
    again = FittedItemResponse.from_arrays(response.to_arrays(), training.targets.latent_targets)
    np.testing.assert_array_equal(again.predict(query), response.predict(query))
    kernel, _ = KernelRegression().fit(training)
    np.testing.assert_array_equal(
        FittedKernelRegression.from_arrays(kernel.to_arrays()).predict(query), kernel.predict(query)
    )
