"""Is this question like anything in the history? Judged by how far questions of the history are from one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.predictors.features.projection import Neighbors

NEIGHBOURS = 8
USUAL_QUANTILE = 0.95  # of the history's own distances: up to here a question is like the history
LEAST_ROWS = 10  # a history of fewer rows has no distribution to compare with


@dataclass(frozen=True, slots=True, eq=False)
class FamiliarityModel:
    """usual: root mean squared distance to 8 neighbours up to which a question is familiar; fade: over which it fades.

    usual is infinite for a history too small to tell. `beyond` (mean squared): what the axes leave out of a question
    of the history; a new question that they describe worse is farther away by the difference.
    """

    usual: float
    fade: float
    beyond: float

    def of(self, near: Neighbors, left_out: FloatArray) -> FloatArray:
        """(R,) in [0, 1] for the neighbourhoods of R questions and the squared lengths (R,) that the axes leave out."""
        if not np.isfinite(self.usual):
            return np.ones(len(near.rows))
        distance = _distance(near, np.maximum(left_out - self.beyond, 0.0))
        return np.asarray(np.exp(-(np.maximum((distance - self.usual) / self.fade, 0.0) ** 2)))


def _distance(near: Neighbors, extra: FloatArray) -> FloatArray:
    squared = near.squared_distance[:, :NEIGHBOURS].mean(axis=1, dtype=np.float64)
    return np.asarray(np.sqrt(squared + extra))


def fit_familiarity(others: Neighbors, left_out: FloatArray) -> FamiliarityModel:
    """From each row's nearest other rows, and the squared lengths (N,) that the axes leave out."""
    if len(others.rows) < LEAST_ROWS:
        return FamiliarityModel(np.inf, 1.0, 0.0)
    beyond = float(np.quantile(left_out, USUAL_QUANTILE))
    own = _distance(others, np.maximum(left_out - beyond, 0.0))
    usual = float(np.quantile(own, USUAL_QUANTILE))
    fade = max(usual - float(np.median(own)), 0.1 * usual, 1e-6)
    return FamiliarityModel(usual, fade, beyond)
