"""How far forecasts can be trusted: Brier score, calibration error, reliability diagram, and output-length error.

Everything is computed per model over the cells that were observed, then averaged over models, so that no model hides
behind another. NaN never enters: cells without a recorded outcome are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, Forecast

BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Forecast against outcome in equal-width bins (B,), over all models: mean forecast, mean outcome, how many."""

    forecast: FloatArray
    outcome: FloatArray
    count: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationReport:
    """brier: mean squared error of the forecast quality. ece: expected calibration error. Both averaged over models;
    *_per_model (M,), NaN for a model that was not observed."""

    brier: float
    ece: float
    brier_per_model: FloatArray
    ece_per_model: FloatArray
    reliability: Reliability


@dataclass(frozen=True, slots=True, eq=False)
class LengthError:
    """Of the forecast output tokens, averaged over the models that have known ones.

    mean_absolute: tokens. median_relative: median of |forecast - known| / max(known, 1). bias: forecast sum over known
    sum, minus 1 (0.1: ten per cent too long). above_high: share of answers longer than `output_tokens_high`, which is
    the 0.9 quantile, so 0.1 is right.
    """

    mean_absolute: float
    median_relative: float
    bias: float
    above_high: float


def calibration(forecast: FloatArray, outcome: FloatArray, observed: BoolArray, bins: int = BINS) -> CalibrationReport:
    """Of forecast quality (R, M) against recorded quality (R, M) in [0, 1], where observed (R, M).

    Expected calibration error after Guo et al. 2017 (eq. 5): `bins` equal-width bins over [0, 1] (15 unless told), the
    absolute difference between mean forecast and mean outcome of each, weighted by its share of the cells.
    """
    models = observed.shape[1]
    brier = np.full(models, np.nan)
    errors = np.full(models, np.nan)
    for model in np.flatnonzero(observed.any(axis=0)):
        cells = observed[:, model]
        predicted, actual = forecast[cells, model], outcome[cells, model]
        brier[model] = np.mean((predicted - actual) ** 2)
        binned = reliability(predicted, actual, bins)
        errors[model] = np.sum(binned.count * np.abs(binned.forecast - binned.outcome)) / len(predicted)
    return CalibrationReport(
        brier=float(np.nanmean(brier)),
        ece=float(np.nanmean(errors)),
        brier_per_model=brier,
        ece_per_model=errors,
        reliability=reliability(forecast[observed], outcome[observed], bins),
    )


def reliability(forecast: FloatArray, outcome: FloatArray, bins: int = BINS) -> Reliability:
    """Forecasts (K,) and outcomes (K,) in equal-width bins; empty bins are left out."""
    bin_of = np.clip((forecast * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins).astype(np.float64)
    filled = count > 0
    divisor = np.maximum(count, 1)
    mean_forecast = np.bincount(bin_of, weights=forecast, minlength=bins) / divisor
    mean_outcome = np.bincount(bin_of, weights=outcome, minlength=bins) / divisor
    return Reliability(mean_forecast[filled], mean_outcome[filled], count[filled])


def length_error(forecast: Forecast, output_tokens: FloatArray) -> LengthError | None:
    """Of a forecast (R, M) against recorded output tokens (R, M, NaN where unknown); None when none are known."""
    known = ~np.isnan(output_tokens)
    per_model = []
    for model in np.flatnonzero(known.any(axis=0)):
        cells = known[:, model]
        predicted, actual = forecast.output_tokens[cells, model], output_tokens[cells, model]
        difference = np.abs(predicted - actual)
        relative = np.median(difference / np.maximum(actual, 1.0))
        bias = predicted.sum() / max(float(actual.sum()), 1.0) - 1.0
        above = np.mean(actual > forecast.output_tokens_high[cells, model])
        per_model.append((difference.mean(), relative, bias, above))
    if not per_model:
        return None
    mean = np.mean(per_model, axis=0)
    return LengthError(float(mean[0]), float(mean[1]), float(mean[2]), float(mean[3]))
