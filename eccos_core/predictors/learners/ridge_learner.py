"""Linear regression on all features: cheap, steady, and the best of all on a very small history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.predictors.features.projection import QueryFeatures
from eccos_core.predictors.learners.ridge import ridge_held_out
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class RidgeRegression:
    """Ridge regression: one prediction."""

    name: str = "linear"

    def fit(self, training: TrainingSet) -> tuple[FittedRidgeRegression, Float32Array]:
        """Fits on all features; the ridge is chosen per latent target on held-out folds."""
        values = training.targets.values.astype(np.float32)
        weights, held_out = ridge_held_out(
            training.whole, values, training.fold, STRENGTHS, training.targets.latent_targets.group
        )
        return FittedRidgeRegression(weights), held_out[:, None, :]


@dataclass(frozen=True, slots=True, eq=False)
class FittedRidgeRegression:
    """weights (D + 1, C)."""

    weights: Float32Array

    def predict(self, features: QueryFeatures) -> Float32Array:
        """(R, 1, C)."""
        return np.asarray((features.whole @ self.weights)[:, None, :])

    def arrays(self) -> Arrays:
        """The weights."""
        return {"weights": self.weights}

    @classmethod
    def of(cls, arrays: Arrays) -> FittedRidgeRegression:
        """What `arrays` described."""
        return cls(np.asarray(arrays["weights"], dtype=np.float32))
