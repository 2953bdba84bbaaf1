"""Measure how similar a question is to the history, in [0, 1].

A new question's distance to the closest landmarks is compared with that of questions of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.predictors.features.projection import CLOSEST

FAMILIAR_QUANTILE = 0.95  # of the history's own distances: a question up to here is fully familiar
MIN_ROWS = 10  # a smaller history has no distribution of distances to compare with


@dataclass(frozen=True, slots=True, eq=False)
class FamiliarityModel:
    """Turn the distance to the 8 closest landmarks (root mean square) into familiarity.

    radius: up to this distance a question is fully familiar. Infinite if the history is too small to tell.
    scale: over this distance beyond the radius, familiarity falls to 1 / e, as a Gaussian does.
    usual_error: squared reconstruction error of the projection on the history. What exceeds it adds to the distance.
    """

    radius: float
    scale: float
    usual_error: float

    def score(self, nearest: Float32Array, reconstruction_error: FloatArray) -> FloatArray:
        """Return the familiarity (R,) of R questions.

        nearest (R, k): squared distances, the 8 smallest first. reconstruction_error (R,): squared.
        """
        if not np.isfinite(self.radius):
            return np.ones(len(nearest))
        distance = _distance(nearest, np.maximum(reconstruction_error - self.usual_error, 0.0))
        return np.asarray(np.exp(-(np.maximum((distance - self.radius) / self.scale, 0.0) ** 2)))


def _distance(nearest: Float32Array, excess_error: FloatArray) -> FloatArray:
    squared = nearest[:, :CLOSEST].mean(axis=1, dtype=np.float64)
    return np.asarray(np.sqrt(squared + excess_error))


def fit_familiarity(nearest: Float32Array, reconstruction_error: FloatArray) -> FamiliarityModel:
    """Fit on the history, where nearest (N, k) leaves out each row itself. See `FamiliarityModel.score`."""
    if len(nearest) < MIN_ROWS:
        return FamiliarityModel(np.inf, 1.0, 0.0)
    usual_error = float(np.quantile(reconstruction_error, FAMILIAR_QUANTILE))
    own = _distance(nearest, np.maximum(reconstruction_error - usual_error, 0.0))
    radius = float(np.quantile(own, FAMILIAR_QUANTILE))
    scale = max(radius - float(np.median(own)), 0.1 * radius, 1e-6)
    return FamiliarityModel(radius, scale, usual_error)
