"""Shrink forecasts towards the prior by how well they route, not only by their squared error.

A router picks the best of M forecasts, so it picks overrated models (the winner's curse). A forecast with the least
squared error can therefore route worse than the prior. This happens with many near-equal models, and with few outcomes.

Two factors in [0, 1] shrink the latent targets: one the question's difficulty, one what tells the models apart. They
are chosen by the net value of routing with held-out forecasts: the quality of the chosen model less its price. Prices
are not known when a predictor is fitted, and change later. So the value is a mean over many price vectors at which the
prior finds the models nearly equally worthwhile. There the forecast decides, at any price list.

The one-standard-error rule (Breiman et al. 1984) takes the strongest shrinkage whose value is within one standard error
of the best. So a forecast needs evidence to leave the prior.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration
from eccos_core.predictors.targets.latent import LatentTargets

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)
PRICE_VECTORS = 64
PRICE_SPREAD = (0.02, 0.2)  # standard deviation of the models' net value under the prior, in units of quality


def fit_decision_shrinkage(
    latent_targets: LatentTargets, held_out: FloatArray, calibration: ProbabilityCalibration, quality: FloatArray
) -> FloatArray:
    """Return the factor (C,) of each latent target. Those of the tokens are 1.

    held_out (N, C): held-out predictions. calibration: of the forecasts before shrinkage. quality (N, M): as observed,
    NaN where missing.
    """
    models = latent_targets.models
    if models == 1:
        return np.ones(latent_targets.count)
    candidates = np.array([(first, other) for first in FACTORS for other in FACTORS])
    candidates = candidates[np.lexsort((candidates[:, 0], candidates.sum(axis=1)))]  # the strongest shrinkage first

    prior = calibration.apply(latent_targets.mean_quality)
    prices = _draw_prices(prior)
    outcomes = _unbiased_outcomes(quality, latent_targets.mean_quality)
    values = np.empty((len(candidates), len(quality)))
    for at, (first, other) in enumerate(candidates):
        factor = _factor(latent_targets, first, other)
        forecast = calibration.apply(latent_targets.quality(held_out * factor))
        values[at] = _net_value(forecast, outcomes, prices)

    best = values[values.mean(axis=1).argmax()]
    shortfall = best - values
    allowed = shortfall.std(axis=1) / np.sqrt(len(quality))
    chosen = candidates[np.flatnonzero(shortfall.mean(axis=1) <= allowed)[0]]
    return _factor(latent_targets, *chosen)


def _factor(latent_targets: LatentTargets, first: float, other: float) -> FloatArray:
    """Return the factor (C,) of each latent target. The first one is a question's difficulty."""
    factor = np.ones(latent_targets.count)
    factor[: latent_targets.models] = other
    factor[0] = first
    return factor


def _draw_prices(prior: FloatArray) -> FloatArray:
    """Return price vectors (K, M) in units of quality, which leave each model a random net value under the prior."""
    generator = np.random.default_rng(0)
    spread = np.exp(generator.uniform(*np.log(PRICE_SPREAD), size=(PRICE_VECTORS, 1)))
    return np.asarray(prior - spread * generator.normal(size=(PRICE_VECTORS, len(prior))))


def _unbiased_outcomes(quality: FloatArray, mean: FloatArray) -> FloatArray:
    """Fill missing outcomes (N, M) with the model's mean (M,), and weigh the known ones up by their share.

    The mean over rows of any choice stays unbiased (Horvitz and Thompson 1952). Imputing missing outcomes from the
    forecasts would confirm the forecasts.
    """
    known = ~np.isnan(quality)
    share = np.maximum(known.mean(axis=0), 1 / len(quality))
    return np.asarray(mean + np.where(known, quality - mean, 0.0) / share)


def _net_value(forecast: FloatArray, outcomes: FloatArray, prices: FloatArray) -> FloatArray:
    """Return each question's mean net value (N,) over price vectors (K, M), routed by forecasts (N, M)."""
    rows: IntArray = np.arange(len(forecast))
    total = np.zeros(len(forecast))
    for price in prices:
        chosen = (forecast - price).argmax(axis=1)
        total += outcomes[rows, chosen] - price[chosen]
    return total / len(prices)
