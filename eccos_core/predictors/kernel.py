"""Kernel ridge regression: smooth answers to how quality and length depend on the question.

Gaussian kernels at several widths, each on at most 1,000 landmarks drawn from the history (Nyström; Williams and Seeger
2001). Seen as a Gaussian process it is the posterior mean, with noise and signal strength chosen per signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.ridge import ridge_held_out
from eccos_core.predictors.space import Look, blocks, squared_distances
from eccos_core.predictors.study import Arrays, Study

LANDMARKS = 1000
WIDTHS = (1.0, 2.5, 6.0)  # exponent at the typical squared distance of two questions
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_JITTER = 1e-4


@dataclass(frozen=True, slots=True)
class KernelRidge:
    """Kernel ridge regression: one opinion for each of `widths`."""

    widths: Sequence[float] = WIDTHS
    landmarks: int = LANDMARKS
    name: str = "kernel"

    def learn(self, study: Study) -> tuple[FittedKernelRidge, Float32Array]:
        """Fits every width; the ridge is chosen per width and signal on held-out folds."""
        draw = np.random.default_rng(study.seed)
        chosen = np.sort(draw.choice(len(study), min(self.landmarks, len(study)), replace=False))
        centres = study.points[chosen]
        squared = squared_distances(study.points, centres)
        typical = max(float(np.median(squared[squared > 0])) if (squared > 0).any() else 1.0, 1e-9)
        values = study.targets.values.astype(np.float32)
        rates = np.array([width / typical for width in self.widths])
        weights, offsets, held_out = [], [], []
        for rate in rates:
            own = np.exp(-rate * squared[chosen].astype(np.float64)) + _JITTER * np.eye(len(chosen))
            whitening = np.linalg.inv(np.linalg.cholesky(own)).T.astype(np.float32)
            features = np.exp(np.float32(-rate) * squared) @ whitening
            middle = features.mean(axis=0)
            features -= middle
            learnt, opinions = ridge_held_out(features, values, study.fold, STRENGTHS, study.targets.signals.group)
            weights.append(whitening @ learnt)
            offsets.append(middle @ learnt)
            held_out.append(opinions)
        fitted = FittedKernelRidge(chosen, rates, np.stack(weights), np.stack(offsets))
        return fitted, np.stack(held_out, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class FittedKernelRidge:
    """landmarks (P,): rows of the history; rates (L,); weights (L, P, C); offsets (L, C)."""

    landmarks: IntArray
    rates: FloatArray
    weights: Float32Array
    offsets: Float32Array

    def predict(self, look: Look) -> Float32Array:
        """(R, L, C) the regression at each width."""
        result = np.empty((len(look.points), *self.offsets.shape), dtype=np.float32)
        for rows in blocks(len(look.points)):
            squared = look.squared_distance[rows].take(self.landmarks, axis=1)
            for at, rate in enumerate(self.rates):
                result[rows, at] = np.exp(np.float32(-rate) * squared) @ self.weights[at] - self.offsets[at]
        return result

    def arrays(self) -> Arrays:
        """Landmarks and weights."""
        return {"landmarks": self.landmarks, "rates": self.rates, "weights": self.weights, "offsets": self.offsets}

    @classmethod
    def of(cls, arrays: Arrays) -> FittedKernelRidge:
        """What `arrays` described."""
        return cls(
            np.asarray(arrays["landmarks"], dtype=np.int64),
            np.asarray(arrays["rates"], dtype=np.float64),
            np.asarray(arrays["weights"], dtype=np.float32),
            np.asarray(arrays["offsets"], dtype=np.float32),
        )
