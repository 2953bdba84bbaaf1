"""Predict from the outcomes of the most similar questions (ECCOS-R, arXiv 2502.20576, section 4.1).

The paper takes the plain mean over k neighbours. Here a kernel weighs the neighbours. Several neighbourhoods, each
with its k and bandwidth, give one prediction each. Leave-one-out predictions decide their weights for each latent
target. If no neighbourhood can predict a target, the forecast stays at the model's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.predictors.features.projection import (
    CLOSEST,
    Neighbors,
    QueryFeatures,
    ReferencePoints,
    nearest_neighbors,
    nearest_other_rows,
    row_blocks,
)
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

# (k, bandwidth). The unit of a bandwidth is the median squared distance of the 16th neighbour. None: the plain mean.
NEIGHBOURHOODS: tuple[tuple[int, float | None], ...] = ((16, 0.3), (64, 0.3), (64, 0.6), (128, 0.6), (128, 1.5))
TYPICAL_RANK = 16
SUPPORT_BANDWIDTH = 0.6  # of the landmarks that support a forecast
NEAREST = 128  # the largest k


@dataclass(frozen=True, slots=True)
class NearestNeighbors:
    """Kernel-weighted nearest neighbours. Makes one prediction for each (k, bandwidth) of `neighbourhoods`."""

    neighbourhoods: Sequence[tuple[int, float | None]] = NEIGHBOURHOODS
    name: str = "retrieval"

    def fit(self, training: TrainingSet) -> tuple[FittedNearestNeighbors, Float32Array]:
        """Fit the unit of distance. The held-out predictions leave each row out of its own neighbourhood."""
        others = nearest_other_rows(training.points, max(k for k, _ in self.neighbourhoods))
        settings = scale_bandwidths(self.neighbourhoods, typical_distance(others.squared_distance))
        values = training.targets.values.astype(np.float32)
        fitted = FittedNearestNeighbors(settings, values, ReferencePoints(training.points))
        return fitted, kernel_means(others, settings, values)


@dataclass(frozen=True, slots=True, eq=False)
class FittedNearestNeighbors:
    """Nearest neighbours over a history.

    settings (L, 2): k, and the bandwidth as a squared distance, infinite for the plain mean.
    values (N, C): the latent targets of the history. history: its points.
    """

    settings: FloatArray
    values: Float32Array
    history: ReferencePoints

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the kernel-weighted means (R, L, C) of the neighbours' latent targets."""
        most = int(self.settings[:, 0].max())
        parts = [
            nearest_neighbors(self.history.squared_distances(query.points[rows]), most)
            for rows in row_blocks(len(query.points))
        ]
        return np.concatenate([kernel_means(near, self.settings, self.values) for near in parts])

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {"settings": self.settings, "values": self.values, "points": self.history.points}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FittedNearestNeighbors:
        """Rebuild from `to_arrays`."""
        return cls(
            np.asarray(arrays["settings"], dtype=np.float64),
            np.asarray(arrays["values"], dtype=np.float32),
            ReferencePoints(np.asarray(arrays["points"], dtype=np.float32)),
        )


def kernel_means(near: Neighbors, settings: FloatArray, values: Float32Array) -> Float32Array:
    """Return the kernel-weighted means (R, L, C) of the neighbours' values (N, C). settings (L, 2): see above."""
    result = np.zeros((len(near.rows), len(settings), values.shape[1]), dtype=np.float32)
    if near.rows.shape[1] == 0:
        return result
    for rows in row_blocks(len(near.rows)):
        squared = near.squared_distance[rows]
        weights = np.stack([kernel_weights(squared, int(k), bandwidth) for k, bandwidth in settings], axis=1)
        result[rows] = weights @ values[near.rows[rows]]
    return result


def typical_distance(nearest: Float32Array) -> float:
    """Return the median of the 16th smallest in each row of squared distances (N, k): the unit of bandwidths."""
    rank = min(TYPICAL_RANK, nearest.shape[1])
    return max(float(np.median(np.partition(nearest, rank - 1, axis=1)[:, rank - 1])), 1e-9) if rank else 1.0


def scale_bandwidths(neighbourhoods: Sequence[tuple[int, float | None]], unit: float) -> FloatArray:
    """Return k and the bandwidth as a squared distance, (L, 2). unit: see `typical_distance`."""
    return np.array([[k, np.inf if width is None else width * unit] for k, width in neighbourhoods])


def effective_neighbors(nearest: Float32Array, unit: float) -> FloatArray:
    """Return the effective number of neighbours (R,) behind each forecast (Kish's effective sample size).

    That is (sum of the kernel weights)^2 / sum of their squares. nearest (R, k): squared distances, the smallest among
    the first 8. unit: see `typical_distance`.
    """
    if nearest.shape[1] == 0:
        return np.zeros(len(nearest))
    closest = nearest[:, :CLOSEST].min(axis=1, keepdims=True)
    weights = np.exp((closest - nearest) * np.float32(1 / (SUPPORT_BANDWIDTH * unit)))
    return np.asarray(weights.sum(axis=1) ** 2 / np.einsum("rk,rk->r", weights, weights), dtype=np.float64)


def kernel_weights(squared_distance: Float32Array, k: int, bandwidth: float) -> Float32Array:
    """Return weights (R, K) of neighbours at sorted squared distances (R, K), which sum to one.

    The k nearest weigh exp(-squared distance / bandwidth), the others zero. Distances are counted from the nearest.
    """
    weights = np.exp((squared_distance[:, :1] - squared_distance) * np.float32(1.0 / bandwidth))
    weights[:, k:] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
