"""Calibrate probabilities by Platt scaling: of the answers forecast at 0.7, seven in ten are good.

One line on the log-odds scale serves the whole pool (Platt 1999). It is fitted on held-out forecasts, and shrunk
towards the identity while outcomes are few. A line for each model fits the noise in the differences between models.
It calibrates no better and routes worse (docs/design/predictor.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray

MARGIN = 0.01  # forecasts are clipped this far from 0 and 1
PRIOR_PRECISION = 10.0  # of the normal prior on slope and intercept, whose mean is the identity
MAX_ITERATIONS = 25


@dataclass(frozen=True, slots=True)
class ProbabilityCalibration:
    """calibrated log-odds = intercept + slope x log-odds."""

    slope: float
    intercept: float

    def apply(self, quality: FloatArray) -> FloatArray:
        """Return the probabilities of raw forecasts of any shape, which may lie outside [0, 1]."""
        log_odds = self.intercept + self.slope * _log_odds(quality)
        return np.asarray(1 / (1 + np.exp(-log_odds)))


def identity() -> ProbabilityCalibration:
    """Return the calibration that only clips forecasts away from 0 and 1."""
    return ProbabilityCalibration(1.0, 0.0)


def fit_calibration(forecast: FloatArray, quality: FloatArray) -> ProbabilityCalibration:
    """Fit on held-out raw forecasts (N, M) and observed quality (N, M), NaN where missing.

    Maximises the penalised likelihood by Newton's method. Quality may be a fraction.
    """
    known = ~np.isnan(quality)
    design = np.stack([_log_odds(forecast[known]), np.ones(int(known.sum()))], axis=1)
    observed, prior = quality[known], np.array([1.0, 0.0])
    line = prior.copy()
    for _ in range(MAX_ITERATIONS):
        expected = 1 / (1 + np.exp(-design @ line))
        gradient = design.T @ (observed - expected) - PRIOR_PRECISION * (line - prior)
        hessian = (design * (expected * (1 - expected))[:, None]).T @ design + PRIOR_PRECISION * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        line = line + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-6:
            break
    return ProbabilityCalibration(float(max(line[0], 0.0)), float(line[1]))


def _log_odds(quality: FloatArray) -> FloatArray:
    clipped = np.clip(quality, MARGIN, 1 - MARGIN)
    return np.asarray(np.log(clipped / (1 - clipped)))
