"""How much to believe whom: opinions of base learners become one forecast, signal by signal.

Held-out opinions are regressed on the signal with weights >= 0 (Breiman 1996, "Stacked regressions"), drawn towards one
common weight for all, which a scarce history can support when it cannot tell learners apart. Where the common weight is
small - a signal that nobody can predict - it *is* the shrinkage that the winner's curse demands. What is left is drawn
towards the prior once more by how sure it is that the opinions help at all (James and Stein): with few outcomes a lucky
correlation is common, and the forecast stays at the models' means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray

COMMON_RIDGE = 20.0  # rows of doubt in the common weight, in units of the signal's variance
RIDGE = 100.0  # rows of doubt in any difference between learners, likewise
DOUBT = 1.5  # squared t-value below which the opinions on a signal are dropped


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """weights (L, C) >= 0: how much opinion l counts for signal c. Opinions that say nothing weigh nothing."""

    weights: Float32Array

    def combine(self, opinions: Float32Array) -> Float32Array:
        """(R, C) of opinions (R, L, C)."""
        return np.asarray(np.einsum("rlc,lc->rc", opinions, self.weights), dtype=np.float32)


def fit_stack(held_out: Float32Array, values: FloatArray) -> Stack:
    """Weights for held-out opinions (N, L, C) on values (N, C)."""
    from scipy.optimize import nnls

    rows, learners, signals = held_out.shape
    weights = np.zeros((learners, signals), dtype=np.float32)
    if rows < 2 or learners == 0:
        return Stack(weights)
    for signal in range(signals):
        wanted = values[:, signal]
        opinions = held_out[:, :, signal].astype(np.float64)
        variance = max(float(wanted.var()), 1e-12)
        together = opinions.mean(axis=1)
        common = max(0.0, float(together @ wanted) / (float(together @ together) + COMMON_RIDGE * variance)) / learners
        doubt = np.sqrt(RIDGE * variance)
        found, _ = nnls(
            np.concatenate([opinions, doubt * np.eye(learners)]),
            np.concatenate([wanted, np.full(learners, doubt * common)]),
        )
        weights[:, signal] = found * _belief(opinions @ found, wanted)
    return Stack(weights)


def _belief(forecast: FloatArray, wanted: FloatArray) -> float:
    """max(0, 1 - DOUBT / t^2), t the t-value of the forecast's covariance with what came."""
    gain = float(forecast @ wanted)
    if gain <= 0:
        return 0.0
    noise = float(((forecast * (wanted - forecast)) ** 2).sum())
    return max(0.0, 1.0 - DOUBT * noise / gain**2)
