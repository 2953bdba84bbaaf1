"""Compute the features of new questions, and the predictions of every fitted learner on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.predictors.features.nearness import NearnessModel
from eccos_core.predictors.features.projection import Projection, QueryFeatures, ReferencePoints
from eccos_core.predictors.learners.knn import effective_neighbors
from eccos_core.predictors.learners.training_set import FittedLearner


@dataclass(frozen=True, slots=True, eq=False)
class FittedIndex:
    """The landmarks of the history in feature space, and the learners that were fitted on the history.

    learners: pairs of name and fitted learner. typical_distance: squared distance to a near landmark, which is the
    unit of the bandwidths.
    """

    projection: Projection
    landmarks: ReferencePoints
    learners: tuple[tuple[str, FittedLearner], ...]
    nearness: NearnessModel
    typical_distance: float

    def query(self, vectors: Float32Array, input_tokens: FloatArray) -> QueryFeatures:
        """Compute the features of new questions from their vectors (R, D) and input tokens (R,)."""
        features = self.projection.features(vectors, input_tokens)
        return QueryFeatures(features, self.projection.project(features), self.landmarks)

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the predictions (R, L, C) of all learners, in their order."""
        return np.concatenate([learner.predict(query) for _, learner in self.learners], axis=1)

    def distance(self, query: QueryFeatures) -> FloatArray:
        """Return how far each question is from the history, (R,). See `NearnessModel`."""
        return self.nearness.distance(query.nearest, reconstruction_error(query.features, query.points))

    def support(self, query: QueryFeatures) -> FloatArray:
        """Return the effective number of neighbours (R,) behind each forecast."""
        return effective_neighbors(query.nearest, self.typical_distance)


def reconstruction_error(features: Float32Array, points: Float32Array) -> FloatArray:
    """Return the squared length (R,) that the projection loses: of features (R, D + 1), projected to points (R, F)."""
    squared_length = np.einsum("rd,rd->r", features, features)
    return np.asarray(squared_length - np.einsum("rf,rf->r", points, points), dtype=np.float64)
