"""Measure how well forecasts match recorded outcomes: Brier score, calibration error, reliability, output length.

Each number is computed per model over the observed cells and then averaged over the models. So one model with many
outcomes cannot hide another one. Cells without a recorded outcome are left out, so NaN never enters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, Forecast

CALIBRATION_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Mean forecast, mean outcome and number of cells in each of B equal-width bins, over all models. All (B,)."""

    forecast: FloatArray
    outcome: FloatArray
    count: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationReport:
    """How well the forecast quality is calibrated.

    brier: mean squared error. ece: expected calibration error. Both are averaged over the models.
    brier_per_model and ece_per_model: (M,), NaN for a model without outcomes.
    """

    brier: float
    ece: float
    brier_per_model: FloatArray
    ece_per_model: FloatArray
    reliability: Reliability


@dataclass(frozen=True, slots=True, eq=False)
class LengthError:
    """How far the forecast output tokens are off, averaged over the models with recorded output tokens.

    mean_absolute: tokens. median_relative: median of |forecast - recorded| / max(recorded, 1).
    bias: sum of forecasts over sum of recorded tokens, minus 1. A bias of 0.1 means 10 % too long.
    above_high: share of answers longer than `output_tokens_high`. That is the 0.9 quantile, so 0.1 is ideal.
    """

    mean_absolute: float
    median_relative: float
    bias: float
    above_high: float


def measure_calibration(
    forecast: FloatArray, outcome: FloatArray, observed: BoolArray, bins: int = CALIBRATION_BINS
) -> CalibrationReport:
    """Compare forecast quality (R, M) with recorded quality (R, M) in the observed (R, M) cells.

    The expected calibration error follows Guo et al. 2017, eq. 5. It uses `bins` equal-width bins over [0, 1]. Each bin
    adds |mean forecast - mean outcome|, weighted by its share of the cells.
    """
    models = observed.shape[1]
    brier = np.full(models, np.nan)
    errors = np.full(models, np.nan)
    for model in np.flatnonzero(observed.any(axis=0)):
        cells = observed[:, model]
        predicted, actual = forecast[cells, model], outcome[cells, model]
        brier[model] = np.mean((predicted - actual) ** 2)
        binned = bin_reliability(predicted, actual, bins)
        errors[model] = np.sum(binned.count * np.abs(binned.forecast - binned.outcome)) / len(predicted)
    return CalibrationReport(
        brier=float(np.nanmean(brier)),
        ece=float(np.nanmean(errors)),
        brier_per_model=brier,
        ece_per_model=errors,
        reliability=bin_reliability(forecast[observed], outcome[observed], bins),
    )


def bin_reliability(forecast: FloatArray, outcome: FloatArray, bins: int = CALIBRATION_BINS) -> Reliability:
    """Group forecasts (K,) and outcomes (K,) into equal-width bins. Empty bins are left out."""
    bin_of = np.clip((forecast * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins).astype(np.float64)
    filled = count > 0
    divisor = np.maximum(count, 1)
    mean_forecast = np.bincount(bin_of, weights=forecast, minlength=bins) / divisor
    mean_outcome = np.bincount(bin_of, weights=outcome, minlength=bins) / divisor
    return Reliability(mean_forecast[filled], mean_outcome[filled], count[filled])


def measure_length_error(forecast: Forecast, output_tokens: FloatArray) -> LengthError | None:
    """Compare a forecast (R, M) with recorded output tokens (R, M), NaN where unknown.

    Returns None when no output tokens are recorded.
    """
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
