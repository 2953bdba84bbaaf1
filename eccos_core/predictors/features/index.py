"""What a fitted predictor sees of a question, and the base learners that make something of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.predictors.features.familiarity import FamiliarityModel
from eccos_core.predictors.features.projection import Neighbors, Projection, QueryFeatures
from eccos_core.predictors.learners.knn import support
from eccos_core.predictors.learners.training_set import FittedLearner


@dataclass(frozen=True, slots=True, eq=False)
class FittedIndex:
    """points (N, F): the history's questions in `projection`. learners: (name, what it learnt).

    typical: squared distance of near questions, the unit in which neighbours count as support.
    """

    projection: Projection
    points: Float32Array
    squared_lengths: Float32Array
    learners: tuple[tuple[str, FittedLearner], ...]
    familiarity: FamiliarityModel
    typical: float

    def features(self, vectors: Float32Array, input_tokens: FloatArray) -> QueryFeatures:
        """New questions, vectors (R, D), as the learners see them."""
        whole = self.projection.whole(vectors, input_tokens)
        return QueryFeatures(whole, self.projection.points(whole), self.points, self.squared_lengths)

    def predictions(self, features: QueryFeatures) -> Float32Array:
        """(R, L, C) of all learners."""
        return np.concatenate([learner.predict(features) for _, learner in self.learners], axis=1)

    def familiar(self, features: QueryFeatures) -> FloatArray:
        """(R,) how like the history each question is, in [0, 1]."""
        return self.familiarity.of(features.neighbors, reconstruction_error(features.whole, features.points))

    def support(self, near: Neighbors) -> FloatArray:
        """(R,) how many neighbours stand behind a forecast."""
        return support(near, self.typical)


def reconstruction_error(whole: Float32Array, points: Float32Array) -> FloatArray:
    """(R,) squared length that the axes leave out of whole features (R, D + 1) seen as points (R, F)."""
    all_of_it = np.einsum("rd,rd->r", whole, whole)
    return np.asarray(all_of_it - np.einsum("rf,rf->r", points, points), dtype=np.float64)
