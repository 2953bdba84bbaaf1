"""Predict by kernel regression (Nadaraya 1964, Watson 1964) on a history that is binned at its landmarks.

Each row counts at its nearest landmark. A forecast is a mean over the history with weights that fall with the distance
to these landmarks. It sees finer detail than the Gaussian process, and takes no longer with a longer history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.predictors.features.projection import QueryFeatures, row_blocks, squared_distances
from eccos_core.predictors.learners.knn import typical_distance
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

BANDWIDTH = 0.4  # in units of the median squared distance of the 16th landmark


@dataclass(frozen=True, slots=True)
class KernelRegression:
    """Kernel regression. Makes one prediction."""

    bandwidth: float = BANDWIDTH
    name: str = "kernel_regression"

    def fit(self, training: TrainingSet) -> tuple[FittedKernelRegression, Float32Array]:
        """Count each row at its nearest landmark. The held-out predictions come from the other folds."""
        squared = squared_distances(training.points, training.points[training.landmarks])
        rate = 1 / (self.bandwidth * typical_distance(training.nearest))
        nearest = squared.argmin(axis=1)
        values = np.column_stack([training.targets.values, np.ones(len(training))]).astype(np.float32)

        sums = np.zeros((training.folds, len(training.landmarks), values.shape[1]), dtype=np.float32)
        np.add.at(sums, (training.fold, nearest), values)
        total = sums.sum(axis=0)
        held_out = np.empty((len(training), 1, values.shape[1] - 1), dtype=np.float32)
        for k in range(training.folds):
            own = training.fold == k
            held_out[own] = _kernel_means(squared[own], rate, total - sums[k])[:, None]
        return FittedKernelRegression(rate, total), held_out


@dataclass(frozen=True, slots=True, eq=False)
class FittedKernelRegression:
    """The history at its landmarks, weighed by exp(-rate x squared distance).

    sums (P, C + 1): the summed latent targets of the rows at each landmark, and in the last column their number.
    """

    rate: float
    sums: Float32Array

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the kernel-weighted means (R, 1, C)."""
        return _kernel_means(query.squared_distance, self.rate, self.sums)[:, None]

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {"rate": np.array([self.rate]), "sums": self.sums}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FittedKernelRegression:
        """Rebuild from `to_arrays`."""
        return cls(float(arrays["rate"][0]), np.asarray(arrays["sums"], dtype=np.float32))


def _kernel_means(squared: Float32Array, rate: float, sums: Float32Array) -> Float32Array:
    """Return the means (R, C) at squared distances (R, P). Distances count from the nearest landmark with rows."""
    used = np.flatnonzero(sums[:, -1] > 0)
    if len(used) < len(sums):
        squared, sums = squared[:, used], sums[used]
    result = np.empty((len(squared), sums.shape[1] - 1), dtype=np.float32)
    for rows in row_blocks(len(squared)):
        weights = squared[rows] - squared[rows].min(axis=1, keepdims=True)
        weights *= np.float32(-rate)
        weighted = np.exp(weights, out=weights) @ sums
        np.divide(weighted[:, :-1], weighted[:, -1:], out=result[rows])
    return result
