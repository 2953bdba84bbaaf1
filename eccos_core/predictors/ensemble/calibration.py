"""Calibrated probabilities: of the answers forecast at 0.7, seven in ten are good.

One straight line on the log-odds scale for the whole pool (Platt 1999), fitted on held-out forecasts and drawn towards
"already calibrated" while outcomes are few. A line per model would follow the noise of each, and what routing lives on
is the difference between models: measured, it calibrates no better and routes worse (docs/design/predictor.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray

EDGE = 0.01  # forecasts are kept this far from 0 and 1
PRIOR_STRENGTH = 10.0  # of the pull towards the identity, in units of information
ROUNDS = 25


@dataclass(frozen=True, slots=True)
class ProbabilityCalibration:
    """calibrated log-odds = shift + slope x log-odds."""

    slope: float
    shift: float

    def apply(self, quality: FloatArray) -> FloatArray:
        """Probabilities of raw forecasts, of any shape, which may leave [0, 1]."""
        odds = self.shift + self.slope * _log_odds(quality)
        return np.asarray(1 / (1 + np.exp(-odds)))


def identity() -> ProbabilityCalibration:
    """Changes nothing, but keeps forecasts off 0 and 1."""
    return ProbabilityCalibration(1.0, 0.0)


def fit_calibration(forecast: FloatArray, quality: FloatArray) -> ProbabilityCalibration:
    """The line for held-out raw forecasts (N, M) of observed quality (N, M), NaN where missing.

    By Newton's method on the penalised likelihood; outcomes may be fractions.
    """
    known = ~np.isnan(quality)
    design = np.stack([_log_odds(forecast[known]), np.ones(int(known.sum()))], axis=1)
    wanted, prior = quality[known], np.array([1.0, 0.0])
    found = prior.copy()
    for _ in range(ROUNDS):
        expected = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (wanted - expected) - PRIOR_STRENGTH * (found - prior)
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + PRIOR_STRENGTH * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found = found + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-6:
            break
    return ProbabilityCalibration(float(max(found[0], 0.0)), float(found[1]))


def _log_odds(quality: FloatArray) -> FloatArray:
    kept = np.clip(quality, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))
