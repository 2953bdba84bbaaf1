"""Gaussian process regression on landmarks, beside the dense one that it must agree with."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import OutcomeTable
from eccos_core.predictors.features.projection import QueryFeatures, squared_distances
from eccos_core.predictors.fit import build_training_set
from eccos_core.predictors.learners.gaussian_process import SIGNAL_TO_NOISE_GRID, SURFACE_SHARE, GaussianProcess
from eccos_core.predictors.learners.training_set import TrainingSet
from eccos_core.predictors.targets.latent import fit_latent_targets

DRAW = np.random.default_rng
ROWS, MODELS = 60, 3


def studied(rows: int, told: float, seed: int = 0) -> TrainingSet:
    """A history in which a question's place tells this share of what models make of it."""
    draw = DRAW(seed)
    vectors = draw.normal(size=(rows, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chance = 1 / (1 + np.exp(-8 * told * vectors[:, :1] - np.linspace(-0.5, 0.5, MODELS)))
    quality = (draw.random((rows, MODELS)) < chance).astype(np.float64)
    missing = np.full((rows, MODELS), np.nan)
    names = tuple(f"q{i}" for i in range(rows))
    tokens = np.repeat(draw.uniform(10, 100, size=(rows, 1)), MODELS, axis=1)
    table = OutcomeTable(names, names, ("a", "b", "c"), quality, tokens, missing)
    return build_training_set(table, vectors, fit_latent_targets(table, {}))[1]


def look_of(training: TrainingSet) -> QueryFeatures:
    return QueryFeatures(
        training.whole, training.points, training.points, np.einsum("nf,nf->n", training.points, training.points)
    )


def dense(
    training: TrainingSet, width: float, strengths: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> tuple[object, object]:
    """(posterior mean (N,), leave-one-out means (N,)) of the first signal, strengths averaged by evidence, as in a
    textbook: every row a landmark, every inverse taken."""
    squared = squared_distances(training.points, training.points).astype(np.float64)
    looks = training.whole[:, training.surface]
    squared_looks = squared_distances(looks, looks).astype(np.float64)
    typical, typical_looks = (np.median(each[each > 0]) for each in (squared, squared_looks))
    covariance = np.exp(-2 * width * squared / typical) + SURFACE_SHARE * np.exp(-squared_looks / typical_looks)
    rows = len(training)
    centring = np.eye(rows) - 1 / rows
    covariance = centring @ covariance @ centring / rows
    values = training.targets.values[:, 0]
    logs, smoothers = [], []
    for strength in strengths:
        stretched = np.eye(rows) + strength * covariance
        noise = values @ np.linalg.solve(stretched, values)
        logs.append(-0.5 * rows * np.log(noise) - 0.5 * np.linalg.slogdet(stretched)[1])
        smoothers.append(strength * covariance @ np.linalg.inv(stretched))
    share = np.exp(np.array(logs) - max(logs))
    # alone in its group, a signal is its own prior: evidence counts twice
    share = share / share.sum()
    share = share * (share + 1e-4 / len(share))
    smoother = np.tensordot(share / share.sum(), np.stack(smoothers), axes=1)
    fit, own = smoother @ values, np.diag(smoother)
    return fit, (fit - own * values) / (1 - own)


@pytest.mark.parametrize("told", [0.0, 1.0])
def test_on_all_rows_it_is_the_textbooks_regression(told: float) -> None:
    training = studied(ROWS, told)
    fitted, held_out = GaussianProcess(widths=(1.0,)).fit(training)
    mean, left_out = dense(training, 1.0, SIGNAL_TO_NOISE_GRID)
    np.testing.assert_allclose(fitted.predict(look_of(training))[:, 0, 0], mean, atol=2e-3)
    np.testing.assert_allclose(held_out[:, 0, 0], left_out, atol=2e-3)


def test_what_the_text_does_not_tell_stays_at_the_mean() -> None:
    spreads = []
    for told in (0.0, 1.0):
        training = studied(400, told)
        fitted, _ = GaussianProcess().fit(training)
        spreads.append(float(fitted.predict(look_of(training))[:, 0, 0].std()))
    assert spreads[0] < 0.15 * spreads[1]


def test_few_landmarks_say_nearly_what_all_rows_say() -> None:
    training = studied(500, 1.0)
    every, some = (
        GaussianProcess(landmarks=count).fit(training)[0].predict(look_of(training))[:, 0, 0] for count in (500, 200)
    )
    assert np.corrcoef(every, some)[0, 1] > 0.97


def test_what_is_kept_of_it_says_the_same() -> None:
    training = studied(120, 1.0)
    fitted, _ = GaussianProcess().fit(training)
    again = type(fitted).of(fitted.arrays())
    np.testing.assert_array_equal(again.predict(look_of(training)), fitted.predict(look_of(training)))


def test_one_question_at_a_time_is_what_many_at_once_are() -> None:
    training = studied(50, 1.0)
    fitted, _ = GaussianProcess().fit(training)
    squared = np.einsum("nf,nf->n", training.points, training.points)
    alone = [
        fitted.predict(QueryFeatures(training.whole[i : i + 1], training.points[i : i + 1], training.points, squared))
        for i in range(5)
    ]
    np.testing.assert_allclose(np.concatenate(alone), fitted.predict(look_of(training))[:5], atol=1e-5)
