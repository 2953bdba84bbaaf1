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

# (k, bandwidth): bandwidth in units of the typical squared distance of the 16th neighbour; None: the plain mean
NEIGHBOURHOODS: tuple[tuple[int, float | None], ...] = ((16, 0.3), (64, 0.3), (64, 0.6), (128, 0.6), (128, 1.5))
TYPICAL_RANK = 16
SUPPORT_NEIGHBOURS = 64
SUPPORT_WIDTH = 0.6  # bandwidth, in typical squared distances, of the neighbours that stand behind a forecast


@dataclass(frozen=True, slots=True)
class NearestNeighbors:
    """Kernel-weighted neighbours: one prediction for each (k, bandwidth) of `neighbourhoods`."""

    neighbourhoods: Sequence[tuple[int, float | None]] = NEIGHBOURHOODS
    name: str = "retrieval"

    def fit(self, training: TrainingSet) -> tuple[FittedNearestNeighbors, Float32Array]:
        """Nothing is fitted but the unit of distance; held out by leaving each row out of its own neighbourhood."""
        settings, _ = scaled_neighbourhoods(training.others, self.neighbourhoods)
        fitted = FittedNearestNeighbors(settings, training.targets.values.astype(np.float32))
        return fitted, fitted.predictions(training.others)


@dataclass(frozen=True, slots=True, eq=False)
class FittedNearestNeighbors:
    """Nearest neighbours over a history.

    settings (L, 2): k and the squared-distance bandwidth, infinite for the plain mean. values (N, C): the latent
    targets of the history.
    """

    settings: FloatArray
    values: Float32Array

    def predict(self, features: QueryFeatures) -> Float32Array:
        """(R, L, C) kernel-weighted means of the neighbours' latent targets."""
        return self.predictions(features.neighbors)

    def predictions(self, near: Neighbors) -> Float32Array:
        """(R, L, C) for neighbourhoods that are given."""
        result = np.zeros((len(near.rows), len(self.settings), self.values.shape[1]), dtype=np.float32)
        if near.rows.shape[1] == 0:
            return result
        for rows in row_blocks(len(near.rows)):
            found = near.squared_distance[rows]
            weights = np.stack([kernel_weights(found, int(k), width) for k, width in self.settings], axis=1)
            result[rows] = weights @ self.values[near.rows[rows]]
        return result

    def arrays(self) -> Arrays:
        """Settings and the history's latent targets."""
        return {"settings": self.settings, "values": self.values}

    @classmethod
    def of(cls, arrays: Arrays) -> FittedNearestNeighbors:
        """What `arrays` described."""
        return cls(np.asarray(arrays["settings"], dtype=np.float64), np.asarray(arrays["values"], dtype=np.float32))


def typical_distance(others: Neighbors) -> float:
    """The median squared distance of the 16th neighbour: the unit of bandwidths."""
    rank = min(TYPICAL_RANK, others.rows.shape[1])
    return max(float(np.median(others.squared_distance[:, rank - 1])), 1e-9) if rank else 1.0


def scaled_neighbourhoods(
    others: Neighbors, neighbourhoods: Sequence[tuple[int, float | None]]
) -> tuple[FloatArray, float]:
    """((L, 2) k and squared-distance bandwidth, the unit of distance) on a history."""
    typical = typical_distance(others)
    return np.array([[k, np.inf if width is None else width * typical] for k, width in neighbourhoods]), typical


def support(near: Neighbors, typical: float) -> FloatArray:
    """(R,) how many neighbours stand behind a forecast: 1 / sum of squared kernel weights."""
    if near.rows.shape[1] == 0:
        return np.zeros(len(near.rows))
    weights = kernel_weights(near.squared_distance[:, :SUPPORT_NEIGHBOURS], SUPPORT_NEIGHBOURS, SUPPORT_WIDTH * typical)
    return np.asarray(1.0 / np.einsum("rk,rk->r", weights, weights), dtype=np.float64)


def kernel_weights(squared_distance: Float32Array, k: int, width: float) -> Float32Array:
    """(R, K) weights that sum to one: exp(-squared distance beyond the nearest / width) for the k nearest, else 0."""
    weights = np.exp((squared_distance[:, :1] - squared_distance) * np.float32(1.0 / width))
    weights[:, k:] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
