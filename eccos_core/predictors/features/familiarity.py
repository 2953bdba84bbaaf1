"""Measure how similar a question is to the history, in [0, 1].

A new question's distance to its neighbours is compared with the distances between questions of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.features.projection import Neighbors

NEIGHBORS = 8
FAMILIAR_QUANTILE = 0.95  # of the history's own distances: a question up to here is fully familiar
MIN_ROWS = 10  # a smaller history has no distribution of distances to compare with


@dataclass(frozen=True, slots=True, eq=False)
class FamiliarityModel:
    """Turn the distance to the 8 nearest neighbours (root mean square) into familiarity.

    radius: up to this distance a question is fully familiar. Infinite if the history is too small to tell.
    scale: over this distance beyond the radius, familiarity falls to 1 / e, as a Gaussian does.
    usual_error: squared reconstruction error of the projection on the history. What exceeds it adds to the distance.
    """

    radius: float
    scale: float
    usual_error: float

    def score(self, near: Neighbors, reconstruction_error: FloatArray) -> FloatArray:
        """Return the familiarity (R,) of R questions, from their neighbours and their squared errors (R,)."""
        if not np.isfinite(self.radius):
            return np.ones(len(near.rows))
        distance = _distance(near, np.maximum(reconstruction_error - self.usual_error, 0.0))
        return np.asarray(np.exp(-(np.maximum((distance - self.radius) / self.scale, 0.0) ** 2)))


def _distance(near: Neighbors, excess_error: FloatArray) -> FloatArray:
    squared = near.squared_distance[:, :NEIGHBORS].mean(axis=1, dtype=np.float64)
    return np.asarray(np.sqrt(squared + excess_error))


def fit_familiarity(others: Neighbors, reconstruction_error: FloatArray) -> FamiliarityModel:
    """Fit on the nearest other rows of each row of the history, and its squared reconstruction errors (N,)."""
    if len(others.rows) < MIN_ROWS:
        return FamiliarityModel(np.inf, 1.0, 0.0)
    usual_error = float(np.quantile(reconstruction_error, FAMILIAR_QUANTILE))
    own = _distance(others, np.maximum(reconstruction_error - usual_error, 0.0))
    radius = float(np.quantile(own, FAMILIAR_QUANTILE))
    scale = max(radius - float(np.median(own)), 0.1 * radius, 1e-6)
    return FamiliarityModel(radius, scale, usual_error)
