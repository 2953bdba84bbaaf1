"""Calibrated probabilities: of the answers forecast at 0.7, seven in ten are good.

One straight line per model on the log-odds scale (Platt 1999), fitted on held-out forecasts and drawn towards "already
calibrated" while outcomes are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray

EDGE = 0.01  # forecasts are kept this far from 0 and 1
PRIOR_STRENGTH = 10.0  # of the pull towards the identity, in units of information
ROUNDS = 25


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """slope (M,), shift (M,): calibrated log-odds = shift + slope x log-odds."""

    slope: FloatArray
    shift: FloatArray

    def apply(self, quality: FloatArray) -> FloatArray:
        """(R, M) probabilities of raw forecasts (R, M), which may leave [0, 1]."""
        odds = self.shift + self.slope * _log_odds(quality)
        return np.asarray(1 / (1 + np.exp(-odds)))


def identity(models: int) -> Calibration:
    """Changes nothing but keeps forecasts off 0 and 1."""
    return Calibration(np.ones(models), np.zeros(models))


def fit_calibration(forecast: FloatArray, quality: FloatArray) -> Calibration:
    """The lines for held-out raw forecasts (N, M) of observed quality (N, M), NaN where missing."""
    slope, shift = np.ones(quality.shape[1]), np.zeros(quality.shape[1])
    for model in range(quality.shape[1]):
        known = ~np.isnan(quality[:, model])
        if known.sum() >= 2:
            slope[model], shift[model] = _line(_log_odds(forecast[known, model]), quality[known, model])
    return Calibration(slope, shift)


def _log_odds(quality: FloatArray) -> FloatArray:
    kept = np.clip(quality, EDGE, 1 - EDGE)
    return np.asarray(np.log(kept / (1 - kept)))


def _line(odds: FloatArray, wanted: FloatArray) -> tuple[float, float]:
    """(slope, shift) by Newton's method on the penalised likelihood; outcomes may be fractions."""
    design = np.stack([odds, np.ones_like(odds)], axis=1)
    found, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(ROUNDS):
        expected = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (wanted - expected) - PRIOR_STRENGTH * (found - prior)
        curvature = (design * (expected * (1 - expected))[:, None]).T @ design + PRIOR_STRENGTH * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found = found + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-6:
            break
    return float(max(found[0], 0.0)), float(found[1])
