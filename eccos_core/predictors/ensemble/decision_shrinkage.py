"""Shrink forecasts towards the prior by how well they route, not only by their squared error.

A router picks the best of M forecasts, so it picks overrated models (the winner's curse). A forecast with the least
squared error can therefore route worse than the prior. This happens with many near-equal models, and with few outcomes.

A factor in [0, 1] shrinks all latent targets that tell the models apart. It leaves the difficulty of a question as it
is, because floors need it. The factor is chosen by the net value of routing with held-out forecasts: the quality of the
chosen model less its price. Prices are not known when a predictor is fitted, and change later. So the value is a mean
over many price vectors at which the prior finds the models nearly equally worthwhile. There the forecast decides.

The one-standard-error rule (Breiman et al. 1984) takes the strongest shrinkage whose value is within one standard error
of the best. So a forecast needs evidence to tell models apart.
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration
from eccos_core.predictors.targets.latent import LatentTargets

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)  # the strongest shrinkage first
PRICE_VECTORS = 64
PRICE_SPREAD = (0.03, 0.3)  # standard deviation of the models' net value under the prior, in units of quality


def fit_decision_shrinkage(
    latent_targets: LatentTargets, held_out: FloatArray, calibration: ProbabilityCalibration, quality: FloatArray
) -> FloatArray:
    """Return the factor (C,) of each latent target. Those of difficulty and of the tokens are 1.

    held_out (N, C): held-out predictions. calibration: of the forecasts before shrinkage. quality (N, M): as observed,
    NaN where missing.
    """
    prior = calibration.apply(latent_targets.mean_quality)
    prices = _draw_prices(prior)
    outcomes = _unbiased_outcomes(quality, latent_targets.mean_quality)
    factors = [_factors(latent_targets, factor) for factor in FACTORS]
    values = np.stack(
        [_net_value(calibration.apply(latent_targets.quality(held_out * each)), outcomes, prices) for each in factors]
    )
    shortfall = values[values.mean(axis=1).argmax()] - values
    standard_error = shortfall.std(axis=1) / np.sqrt(len(quality))
    return factors[int(np.flatnonzero(shortfall.mean(axis=1) <= standard_error)[0])]


def _factors(latent_targets: LatentTargets, factor: float) -> FloatArray:
    """Return the factor (C,) of each latent target. The first one is a question's difficulty."""
    factors = np.ones(latent_targets.count)
    factors[1 : latent_targets.models] = factor
    return factors


def _draw_prices(prior: FloatArray) -> FloatArray:
    """Return price vectors (K, M) in units of quality, which leave each model a random net value under the prior."""
    generator = np.random.default_rng(0)
    narrow, wide = np.log(PRICE_SPREAD)
    spread = np.exp(generator.uniform(narrow, wide, size=(PRICE_VECTORS, 1)))
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
