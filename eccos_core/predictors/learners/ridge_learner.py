"""Linear regression on all features: cheap, steady, and the best of all on a very small history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.predictors.features.projection import Look
from eccos_core.predictors.learners.ridge import ridge_held_out
from eccos_core.predictors.learners.training_set import Arrays, Study

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Linear:
    """Ridge regression: one opinion."""

    name: str = "linear"

    def learn(self, study: Study) -> tuple[FittedLinear, Float32Array]:
        """Fits on all features; the ridge is chosen per signal on held-out folds."""
        values = study.targets.values.astype(np.float32)
        weights, held_out = ridge_held_out(study.whole, values, study.fold, STRENGTHS, study.targets.signals.group)
        return FittedLinear(weights), held_out[:, None, :]


@dataclass(frozen=True, slots=True, eq=False)
class FittedLinear:
    """weights (D + 1, C)."""

    weights: Float32Array

    def predict(self, look: Look) -> Float32Array:
        """(R, 1, C)."""
        return np.asarray((look.whole @ self.weights)[:, None, :])

    def arrays(self) -> Arrays:
        """The weights."""
        return {"weights": self.weights}

    @classmethod
    def of(cls, arrays: Arrays) -> FittedLinear:
        """What `arrays` described."""
        return cls(np.asarray(arrays["weights"], dtype=np.float32))
