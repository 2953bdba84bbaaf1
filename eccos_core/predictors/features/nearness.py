"""Measure how near a question is to the history, in [0, 1].

A new question's distance to the closest landmarks is compared with that of questions of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.predictors.features.projection import CLOSEST

NEAR_QUANTILE = 0.95  # of the history's own distances: a question up to here is fully near
MIN_ROWS = 10  # a smaller history has no distribution of distances to compare with


@dataclass(frozen=True, slots=True, eq=False)
class NearnessModel:
    """Turn the distance to the 8 closest landmarks (root mean square) into nearness.

    radius: up to this distance a question is fully near. Infinite if the history is too small to tell.
    scale: over this distance beyond the radius, nearness falls to 1 / e, as a Gaussian does.
    usual_error: squared reconstruction error of the projection on the history. What exceeds it adds to the distance.
    """

    radius: float
    scale: float
    usual_error: float

    def distance(self, nearest: Float32Array, reconstruction_error: FloatArray) -> FloatArray:
        """Return the distance (R,) of R questions.

        nearest (R, k): squared distances, the 8 smallest first. reconstruction_error (R,): squared.
        """
        return _distance(nearest, np.maximum(reconstruction_error - self.usual_error, 0.0))

    def score(self, distance: FloatArray) -> FloatArray:
        """Return the nearness (R,) of R questions at these distances (R,)."""
        if not np.isfinite(self.radius):
            return np.ones(len(distance))
        return np.asarray(np.exp(-(np.maximum((distance - self.radius) / self.scale, 0.0) ** 2)))


def _distance(nearest: Float32Array, excess_error: FloatArray) -> FloatArray:
    squared = nearest[:, :CLOSEST].mean(axis=1, dtype=np.float64)
    return np.asarray(np.sqrt(squared + excess_error))


def fit_nearness(nearest: Float32Array, reconstruction_error: FloatArray) -> NearnessModel:
    """Fit on the history, where nearest (N, k) leaves out each row itself. See `NearnessModel.score`."""
    if len(nearest) < MIN_ROWS:
        return NearnessModel(np.inf, 1.0, 0.0)
    usual_error = float(np.quantile(reconstruction_error, NEAR_QUANTILE))
    own = _distance(nearest, np.maximum(reconstruction_error - usual_error, 0.0))
    radius = float(np.quantile(own, NEAR_QUANTILE))
    scale = max(radius - float(np.median(own)), 0.1 * radius, 1e-6)
    return NearnessModel(radius, scale, usual_error)
