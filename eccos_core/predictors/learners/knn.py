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
from eccos_core.predictors.features.projection import Neighbors, QueryFeatures, row_blocks
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

# (k, bandwidth). The unit of a bandwidth is the median squared distance of the 16th neighbour. None: the plain mean.
NEIGHBOURHOODS: tuple[tuple[int, float | None], ...] = ((16, 0.3), (64, 0.3), (64, 0.6), (128, 0.6), (128, 1.5))
TYPICAL_RANK = 16
SUPPORT = (64, 0.6)  # (k, bandwidth) of the neighbours that count as the support of a forecast


@dataclass(frozen=True, slots=True)
class NearestNeighbors:
    """Kernel-weighted nearest neighbours. Makes one prediction for each (k, bandwidth) of `neighbourhoods`."""

    neighbourhoods: Sequence[tuple[int, float | None]] = NEIGHBOURHOODS
    name: str = "retrieval"

    def fit(self, training: TrainingSet) -> tuple[FittedNearestNeighbors, Float32Array]:
        """Fit the unit of distance. The held-out predictions leave each row out of its own neighbourhood."""
        settings = scale_bandwidths(self.neighbourhoods, typical_distance(training.others))
        fitted = FittedNearestNeighbors(settings, training.targets.values.astype(np.float32))
        return fitted, fitted.predict_from(training.others)


@dataclass(frozen=True, slots=True, eq=False)
class FittedNearestNeighbors:
    """Nearest neighbours over a history.

    settings (L, 2): k, and the bandwidth as a squared distance, infinite for the plain mean.
    values (N, C): the latent targets of the history.
    """

    settings: FloatArray
    values: Float32Array

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the kernel-weighted means (R, L, C) of the neighbours' latent targets."""
        return self.predict_from(query.neighbors)

    def predict_from(self, near: Neighbors) -> Float32Array:
        """Return the same from neighbours that you found yourself."""
        result = np.zeros((len(near.rows), len(self.settings), self.values.shape[1]), dtype=np.float32)
        if near.rows.shape[1] == 0:
            return result
        for rows in row_blocks(len(near.rows)):
            squared = near.squared_distance[rows]
            weights = np.stack([kernel_weights(squared, int(k), bandwidth) for k, bandwidth in self.settings], axis=1)
            result[rows] = weights @ self.values[near.rows[rows]]
        return result

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {"settings": self.settings, "values": self.values}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FittedNearestNeighbors:
        """Rebuild from `to_arrays`."""
        return cls(np.asarray(arrays["settings"], dtype=np.float64), np.asarray(arrays["values"], dtype=np.float32))


def typical_distance(others: Neighbors) -> float:
    """Return the median squared distance of the 16th neighbour, which is the unit of bandwidths."""
    rank = min(TYPICAL_RANK, others.rows.shape[1])
    return max(float(np.median(others.squared_distance[:, rank - 1])), 1e-9) if rank else 1.0


def scale_bandwidths(neighbourhoods: Sequence[tuple[int, float | None]], unit: float) -> FloatArray:
    """Return k and the bandwidth as a squared distance, (L, 2). unit: see `typical_distance`."""
    return np.array([[k, np.inf if width is None else width * unit] for k, width in neighbourhoods])


def effective_neighbors(near: Neighbors, unit: float) -> FloatArray:
    """Return the effective number of neighbours (R,) behind each forecast (Kish's effective sample size).

    That is 1 / the sum of the squared kernel weights. unit: see `typical_distance`.
    """
    if near.rows.shape[1] == 0:
        return np.zeros(len(near.rows))
    k, bandwidth = SUPPORT
    weights = kernel_weights(near.squared_distance[:, :k], k, bandwidth * unit)
    return np.asarray(1.0 / np.einsum("rk,rk->r", weights, weights), dtype=np.float64)


def kernel_weights(squared_distance: Float32Array, k: int, bandwidth: float) -> Float32Array:
    """Return weights (R, K) of neighbours at sorted squared distances (R, K), which sum to one.

    The k nearest weigh exp(-squared distance / bandwidth), the others zero. Distances are counted from the nearest.
    """
    weights = np.exp((squared_distance[:, :1] - squared_distance) * np.float32(1.0 / bandwidth))
    weights[:, k:] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
