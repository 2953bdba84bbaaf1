"""Predict quality by a two-parameter item-response model (Lord and Novick 1968), whose difficulty is read off the text.

log-odds that model j answers question i well = ability_j - slope_j x difficulty(i)

The difficulty is one linear function of the question's points. All outcomes of all models estimate it together, so a
short history is enough. What it cannot say is which model is better at what.

A model that is assumed to be like another has its slope shrunk towards that of the other. Its ability starts at its
mean, which is shrunk in the same way (`targets/prior.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray
from eccos_core.predictors.features.projection import QueryFeatures
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet
from eccos_core.predictors.targets.latent import LatentTargets

PENALTIES = (3.0, 30.0, 300.0)  # ridge penalties of the direction, in units of the points' total variance
PRIOR_ROWS = 20.0  # pseudo-outcomes that shrink a slope towards its prior, and an ability towards the model's mean
COIN_VARIANCE = 0.25  # of one pseudo-outcome
ITERATIONS = 4  # of Newton's method, over difficulty, then abilities and slopes
MAX_LOG_ODDS = 15.0
MIN_VARIANCE = 1e-6  # of the points, where all questions are alike
MARGIN = 0.01  # a model's mean is clipped this far from 0 and 1


@dataclass(frozen=True, slots=True)
class ItemResponse:
    """An item-response model of rank 1. Makes one prediction, of quality alone."""

    penalties: Sequence[float] = PENALTIES
    name: str = "item_response"

    def fit(self, training: TrainingSet) -> tuple[FittedItemResponse, Float32Array]:
        """Fit on all outcomes that are known. The penalty with the greatest held-out likelihood is kept."""
        targets = training.targets.latent_targets
        points = training.points.astype(np.float64)
        known = ~np.isnan(training.quality)
        observed = np.where(known, training.quality, 0.0)
        start, similar = _log_odds(targets.mean_quality), training.similar

        best_loss, best_penalty, held_out = np.inf, self.penalties[0], np.zeros(training.quality.shape)
        for penalty in self.penalties:
            log_odds = np.empty(training.quality.shape)
            for k in range(training.folds):
                own = training.fold == k
                model = _fit_model(points[~own], observed[~own], known[~own], start, penalty, similar)
                log_odds[own] = _predict_log_odds(points[own], *model)
            loss = float((known * (np.logaddexp(0.0, log_odds) - observed * log_odds)).sum())
            if loss < best_loss:
                best_loss, best_penalty, held_out = loss, penalty, log_odds
        fitted = FittedItemResponse(targets, *_fit_model(points, observed, known, start, best_penalty, similar))
        return fitted, _latent_values(targets, held_out)[:, None, :]


def _fit_model(
    points: FloatArray,
    observed: FloatArray,
    known: BoolArray,
    start: FloatArray,
    penalty: float,
    similar: Mapping[int, int],
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the direction (F,) of easiness, and each model's ability (M,) and slope (M,), by penalised likelihood.

    start (M,): the log-odds of each model's mean. similar: a model's column to that of the model that it is like.
    """
    direction = np.zeros(points.shape[1])
    ability, slope = start.copy(), np.ones_like(start)
    ridge = penalty * max(float(points.var(axis=0).sum()), MIN_VARIANCE) * np.eye(points.shape[1])
    for _ in range(ITERATIONS):
        expected = _sigmoid(_predict_log_odds(points, direction, ability, slope))
        information = known * expected * (1 - expected)
        gradient = points.T @ ((known * (observed - expected)) @ slope) - ridge @ direction
        hessian = (points * (information @ slope**2)[:, None]).T @ points + ridge
        direction = direction + np.linalg.solve(hessian, gradient)

        easiness = (points @ direction)[:, None]
        expected = _sigmoid(ability + slope * easiness)
        error, information = known * (observed - expected), known * expected * (1 - expected)
        prior = PRIOR_ROWS * COIN_VARIANCE
        first = error.sum(axis=0) - prior * (ability - start)
        second = (error * easiness).sum(axis=0) - prior * (slope - _expected_slope(slope, similar))
        of_ability = information.sum(axis=0) + prior  # the Hessian of each model, 2 x 2
        mixed = (information * easiness).sum(axis=0)
        of_slope = (information * easiness**2).sum(axis=0) + prior
        determinant = of_ability * of_slope - mixed**2
        ability = ability + (of_slope * first - mixed * second) / determinant
        slope = slope + (of_ability * second - mixed * first) / determinant
    return direction, ability, slope


def _expected_slope(slope: FloatArray, similar: Mapping[int, int]) -> FloatArray:
    """Return what each slope (M,) is shrunk towards: 1, or the slope of the model that it is like."""
    expected = np.ones_like(slope)
    for column, other in similar.items():
        expected[column] = slope[other]
    return expected


def _predict_log_odds(points: FloatArray, direction: FloatArray, ability: FloatArray, slope: FloatArray) -> FloatArray:
    return np.clip(ability + np.outer(points @ direction, slope), -MAX_LOG_ODDS, MAX_LOG_ODDS)


def _sigmoid(log_odds: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def _log_odds(quality: FloatArray) -> FloatArray:
    clipped = np.clip(quality, MARGIN, 1 - MARGIN)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _latent_values(targets: LatentTargets, log_odds: FloatArray) -> Float32Array:
    """Return the latent targets (R, C) of a quality's log-odds (R, M). Those of the tokens are 0, the mean."""
    values = np.zeros((len(log_odds), targets.count), dtype=np.float32)
    values[:, : targets.models] = (_sigmoid(log_odds) - targets.mean_quality) @ targets.axes.T
    return values


@dataclass(frozen=True, slots=True, eq=False)
class FittedItemResponse:
    """direction (F,) of easiness among the points, and each model's ability (M,) and slope (M,)."""

    latent_targets: LatentTargets
    direction: FloatArray
    ability: FloatArray
    slope: FloatArray

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the predictions (R, 1, C)."""
        log_odds = _predict_log_odds(query.points.astype(np.float64), self.direction, self.ability, self.slope)
        return _latent_values(self.latent_targets, log_odds)[:, None, :]

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {"direction": self.direction, "ability": self.ability, "slope": self.slope}

    @classmethod
    def from_arrays(cls, arrays: Arrays, latent_targets: LatentTargets) -> FittedItemResponse:
        """Rebuild from `to_arrays`, and the latent targets of the same predictor."""
        return cls(
            latent_targets, *(np.asarray(arrays[name], dtype=np.float64) for name in ("direction", "ability", "slope"))
        )
