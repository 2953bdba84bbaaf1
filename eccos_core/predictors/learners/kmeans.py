"""Predict the mean outcome of the nearest cluster of questions (k-means, as Avengers-Pro does, arXiv 2508.12631)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, IntArray
from eccos_core.io.optional import needs_extra
from eccos_core.predictors.features.projection import QueryFeatures, ReferencePoints, squared_distances
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

COUNTS = (12, 48, 160)
MIN_ROWS_PER_CLUSTER = 12  # on average; a small history gets fewer clusters
PRIOR_ROWS = 8.0  # pseudo-rows that shrink a cluster's mean towards the overall mean
MAX_ITERATIONS = 25


@dataclass(frozen=True, slots=True)
class KMeans:
    """k-means with several numbers of clusters. Makes one prediction for each of `counts`."""

    counts: Sequence[int] = COUNTS
    name: str = "clusters"

    def fit(self, training: TrainingSet) -> tuple[FittedKMeans, Float32Array]:
        """Cluster all questions without their outcomes, then average the outcomes.

        The held-out predictions are means over the other folds.
        """
        values = training.targets.values.astype(np.float32)
        centres, means, held_out = [], [], []
        for count in self.counts:
            clusters = max(1, min(count, len(training) // MIN_ROWS_PER_CLUSTER))
            found = find_centres(training.points, clusters, training.seed)
            member = squared_distances(training.points, found).argmin(axis=1)
            predictions = np.empty_like(values)
            for k in range(training.folds):
                own = training.fold == k
                predictions[own] = _means(member[~own], values[~own], len(found))[member[own]]
            centres.append(ReferencePoints(found))
            means.append(_means(member, values, len(found)))
            held_out.append(predictions)
        return FittedKMeans(tuple(centres), tuple(means)), np.stack(held_out, axis=1)


def _means(member: IntArray, values: Float32Array, clusters: int) -> Float32Array:
    """Return the mean latent targets (K, C) of each cluster, shrunk towards zero."""
    sums = np.zeros((clusters, values.shape[1]), dtype=np.float32)
    np.add.at(sums, member, values)
    counts = np.bincount(member, minlength=clusters)
    return np.asarray(sums / (counts + PRIOR_ROWS)[:, None], dtype=np.float32)


def find_centres(points: Float32Array, clusters: int, seed: int) -> Float32Array:
    """Return the (K, F) centres that k-means finds from one k-means++ start. Equal points give fewer than K."""
    import warnings

    with needs_extra("local", "fitting clusters"):
        from sklearn.cluster import KMeans as SklearnKMeans
        from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        found = SklearnKMeans(clusters, n_init=1, max_iter=MAX_ITERATIONS, random_state=seed).fit(points)
    return np.asarray(found.cluster_centers_, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FittedKMeans:
    """Clusterings of a history. centres: K points each. means: one array (K, C) each."""

    centres: tuple[ReferencePoints, ...]
    means: tuple[Float32Array, ...]

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the mean of the nearest cluster, (R, L, C)."""
        predictions = [
            means[centres.squared_distances(query.points).argmin(axis=1)]
            for centres, means in zip(self.centres, self.means, strict=True)
        ]
        return np.stack(predictions, axis=1)

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        centres = {f"c{at}": centres.points for at, centres in enumerate(self.centres)}
        return centres | {f"m{at}": means for at, means in enumerate(self.means)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FittedKMeans:
        """Rebuild from `to_arrays`."""
        count = len(arrays) // 2
        return cls(
            tuple(ReferencePoints(np.asarray(arrays[f"c{at}"], dtype=np.float32)) for at in range(count)),
            tuple(np.asarray(arrays[f"m{at}"], dtype=np.float32) for at in range(count)),
        )
