"""Predict by ridge regression on all features. It is fast, and the best learner on a very small history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.predictors.features.projection import QueryFeatures
from eccos_core.predictors.learners.ridge import fit_ridge
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class RidgeRegression:
    """Ridge regression. Makes one prediction."""

    name: str = "linear"

    def fit(self, training: TrainingSet) -> tuple[FittedRidgeRegression, Float32Array]:
        """Fit on all features. The penalty of each group of latent targets is cross-validated."""
        values = training.targets.values.astype(np.float32)
        weights, held_out = fit_ridge(
            training.features, values, training.fold, PENALTIES, training.targets.latent_targets.group
        )
        return FittedRidgeRegression(weights), held_out[:, None, :]


@dataclass(frozen=True, slots=True, eq=False)
class FittedRidgeRegression:
    """A linear map from features to latent targets, weights (D + 1, C)."""

    weights: Float32Array

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the linear predictions (R, 1, C)."""
        return np.asarray((query.features @ self.weights)[:, None, :])

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {"weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FittedRidgeRegression:
        """Rebuild from `to_arrays`."""
        return cls(np.asarray(arrays["weights"], dtype=np.float32))
