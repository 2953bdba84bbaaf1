"""Groups of similar questions, and what the models make of each group (as Avengers-Pro, arXiv 2508.12631, does)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, IntArray
from eccos_core.io.optional import needs_extra
from eccos_core.predictors.features.projection import QueryFeatures, squared_distances
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

COUNTS = (12, 48)
ROWS_PER_CLUSTER = 12  # a history of fewer rows than this per cluster gets fewer clusters
OWN_WEIGHT = 8.0  # outcomes that the overall mean is worth in a cluster
ROUNDS = 25


@dataclass(frozen=True, slots=True)
class KMeans:
    """k-means at several numbers of clusters: one prediction for each of `counts`."""

    counts: Sequence[int] = COUNTS
    name: str = "clusters"

    def fit(self, training: TrainingSet) -> tuple[FittedKMeans, Float32Array]:
        """Groups all questions (no outcome is looked at), then averages; held out by averaging over other folds."""
        values = training.targets.values.astype(np.float32)
        centres, means, held_out = [], [], []
        for count in self.counts:
            found = _find_centres(training.points, max(1, min(count, len(training) // ROWS_PER_CLUSTER)), training.seed)
            member = squared_distances(training.points, found).argmin(axis=1)
            predictions = np.empty_like(values)
            for k in range(training.folds):
                own = training.fold == k
                predictions[own] = _means(member[~own], values[~own], len(found))[member[own]]
            centres.append(found)
            means.append(_means(member, values, len(found)))
            held_out.append(predictions)
        return FittedKMeans(tuple(centres), tuple(means)), np.stack(held_out, axis=1)


def _means(member: IntArray, values: Float32Array, clusters: int) -> Float32Array:
    """(K, C) mean latent targets of each cluster, drawn towards zero."""
    sums = np.zeros((clusters, values.shape[1]), dtype=np.float32)
    np.add.at(sums, member, values)
    counts = np.bincount(member, minlength=clusters)
    return np.asarray(sums / (counts + OWN_WEIGHT)[:, None], dtype=np.float32)


def _find_centres(points: Float32Array, clusters: int, seed: int) -> Float32Array:
    """Return the (K, F) centres that k-means finds from one k-means++ start. Equal points give fewer than K."""
    import warnings

    with needs_extra("local", "fitting clusters"):
        from sklearn.cluster import KMeans as SklearnKMeans
        from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        found = SklearnKMeans(clusters, n_init=1, max_iter=ROUNDS, random_state=seed).fit(points)
    return np.asarray(found.cluster_centers_, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FittedKMeans:
    """centres: L arrays (K, F); means: L arrays (K, C)."""

    centres: tuple[Float32Array, ...]
    means: tuple[Float32Array, ...]

    def predict(self, features: QueryFeatures) -> Float32Array:
        """(R, L, C) the mean of the nearest cluster."""
        predictions = [
            means[squared_distances(features.points, centres).argmin(axis=1)]
            for centres, means in zip(self.centres, self.means, strict=True)
        ]
        return np.stack(predictions, axis=1)

    def arrays(self) -> Arrays:
        """Centres and means."""
        pairs = zip(self.centres, self.means, strict=True)
        return {f"{what}{at}": a for at, pair in enumerate(pairs) for what, a in zip(("c", "m"), pair, strict=True)}

    @classmethod
    def of(cls, arrays: Arrays) -> FittedKMeans:
        """What `arrays` described."""
        count = len(arrays) // 2
        return cls(
            tuple(np.asarray(arrays[f"c{at}"], dtype=np.float32) for at in range(count)),
            tuple(np.asarray(arrays[f"m{at}"], dtype=np.float32) for at in range(count)),
        )
