"""Compute the features that all learners share, and find the nearest questions of the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.features.block_scaling import block_weights, find_blocks, surface_columns

LENGTH_SCALE = 0.15  # standard deviation of the log length, against 1 for the whole vector
MAX_AXES, MIN_AXES = 96, 8  # principal axes; distances along a few axes predict better than distances along all of D
AXES_PER_SQRT_ROW = 1.5
MAX_DEVIATIONS = 4.0  # a log length is clipped to this many standard deviations
BLOCK_ROWS = 512  # rows of one block of distances
LANDMARKS = 1200  # questions of the history that stand for all of it
CLOSEST, NEAREST_LANDMARKS = 8, 64  # how many landmarks show how familiar a question is, and support its forecast


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Map a vector and its input tokens to features, and project these onto their principal axes.

    scale (D,), center (D + 1,), axes (D + 1, F). log_length: mean and standard deviation of log(1 + input tokens).
    surface: the feature columns that describe a text's surface, its length among them.
    """

    scale: Float32Array
    center: Float32Array
    axes: Float32Array
    log_length: FloatArray
    surface: IntArray

    @classmethod
    def fit(cls, vectors: Float32Array, input_tokens: FloatArray, axes: int | None = None) -> Projection:
        """Fit on vectors (N, D) and input tokens (N,), NaN where unknown.

        axes: how many principal axes to keep. By default 1.5 sqrt(N), between 8 and 96.
        """
        logs = np.log1p(input_tokens[~np.isnan(input_tokens)])
        mean, deviation = (float(logs.mean()), float(logs.std())) if len(logs) else (0.0, np.inf)
        log_length = np.array([mean, deviation if deviation > 1e-6 else 1.0])
        blocks = find_blocks(vectors)
        scale = block_weights(vectors, blocks).astype(np.float32)
        features = _scaled_features(vectors, scale, input_tokens, log_length)
        center = features.mean(axis=0)
        centred = (features - center).astype(np.float64)
        _, directions = np.linalg.eigh(centred.T @ centred)
        default = int(np.clip(round(AXES_PER_SQRT_ROW * len(features) ** 0.5), MIN_AXES, MAX_AXES))
        kept = min(default if axes is None else axes, directions.shape[1])
        surface = np.append(surface_columns(blocks), features.shape[1] - 1)
        return cls(scale, center, np.ascontiguousarray(directions[:, ::-1][:, :kept], np.float32), log_length, surface)

    def features(self, vectors: Float32Array, input_tokens: FloatArray) -> Float32Array:
        """Return all features (R, D + 1), centred. A missing length counts as the mean."""
        return _scaled_features(vectors, self.scale, input_tokens, self.log_length) - self.center

    def project(self, features: Float32Array) -> Float32Array:
        """Return the points (R, F): features (R, D + 1) along the principal axes."""
        return features @ self.axes


def _scaled_features(
    vectors: Float32Array, scale: Float32Array, input_tokens: FloatArray, log_length: FloatArray
) -> Float32Array:
    """Return the scaled vectors with the scaled log length as last column, (R, D + 1)."""
    features = np.empty((len(vectors), vectors.shape[1] + 1), dtype=np.float32)
    np.multiply(vectors, scale, out=features[:, :-1])
    deviations = (np.log1p(input_tokens) - log_length[0]) / log_length[1]
    features[:, -1] = np.nan_to_num(np.clip(deviations, -MAX_DEVIATIONS, MAX_DEVIATIONS))
    features[:, -1] *= LENGTH_SCALE
    return features


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The nearest questions of the history, nearest first: rows (R, k) and squared_distance (R, k)."""

    rows: IntArray
    squared_distance: Float32Array


class ReferencePoints:
    """Points (N, F) to which many distances are computed."""

    def __init__(self, points: Float32Array) -> None:
        self.points = points
        self._squared_norms = np.einsum("nf,nf->n", points, points)

    def squared_distances(self, points: Float32Array) -> Float32Array:
        """Return the squared Euclidean distances (R, N) of points (R, F) to the reference points."""
        squared = points @ self.points.T
        squared *= -2.0
        squared += np.einsum("rf,rf->r", points, points)[:, None]
        squared += self._squared_norms
        return np.asarray(np.maximum(squared, 0.0, out=squared), dtype=np.float32)


def squared_distances(points: Float32Array, others: Float32Array) -> Float32Array:
    """Return the squared Euclidean distances (R, N) of points (R, F) to others (N, F)."""
    return ReferencePoints(others).squared_distances(points)


def nearest_neighbors(squared: Float32Array, k: int) -> Neighbors:
    """Return the k smallest of each row of squared distances (R, N), sorted. All N of them if k is larger."""
    k = min(k, squared.shape[1])
    if k == 0:
        return Neighbors(np.empty((len(squared), 0), dtype=np.int64), np.empty((len(squared), 0), dtype=np.float32))
    rows = np.argpartition(squared, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(squared, rows, axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return Neighbors(np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1))


def nearest_other_rows(points: Float32Array, k: int, rows: IntArray | None = None) -> Neighbors:
    """Return the k nearest other rows of each row of points (N, F), for leave-one-out predictions.

    rows (K,): only of these rows.
    """
    chosen = np.arange(len(points)) if rows is None else rows
    reference = ReferencePoints(points)
    parts = []
    for some in row_blocks(len(chosen)):
        squared = reference.squared_distances(points[chosen[some]])
        squared[np.arange(len(squared)), chosen[some]] = np.inf
        parts.append(nearest_neighbors(squared, min(k, len(points) - 1)))
    return Neighbors(np.concatenate([p.rows for p in parts]), np.concatenate([p.squared_distance for p in parts]))


def nearest_distances(squared: Float32Array) -> Float32Array:
    """Return the 64 smallest of each row of squared distances (R, N), the 8 smallest first, or all N."""
    k = min(NEAREST_LANDMARKS, squared.shape[1])
    if k == 0:
        return squared
    nearest = np.partition(squared, k - 1, axis=1)[:, :k]  # twice is faster than both at once
    return np.partition(nearest, min(CLOSEST, k) - 1, axis=1)


def nearest_other_landmarks(points: Float32Array, landmarks: IntArray) -> Float32Array:
    """Return `nearest_distances` of each row of points (N, F) to the landmarks (P,) other than itself."""
    reference = ReferencePoints(points[landmarks])
    parts = []
    for some in row_blocks(len(points)):
        squared = reference.squared_distances(points[some])
        inside = (some.start <= landmarks) & (landmarks < some.stop)
        squared[landmarks[inside] - some.start, np.flatnonzero(inside)] = np.inf
        parts.append(nearest_distances(squared)[:, : len(landmarks) - 1])
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class QueryFeatures:
    """The features of R new questions. Distances are computed once for all learners.

    features (R, D + 1) and points (R, F): see `Projection`. landmarks: P points of the history.
    """

    features: Float32Array
    points: Float32Array
    landmarks: ReferencePoints

    @cached_property
    def squared_distance(self) -> Float32Array:
        """Squared distances (R, P) to every landmark."""
        return self.landmarks.squared_distances(self.points)

    @cached_property
    def nearest(self) -> Float32Array:
        """See `nearest_distances`."""
        return nearest_distances(self.squared_distance)


def row_blocks(rows: int, block: int = BLOCK_ROWS) -> Iterator[slice]:
    """Yield slices of at most `block` rows that cover `rows`, in order."""
    for start in range(0, rows, block):
        yield slice(start, min(start + block, rows))


def projection_arrays(projection: Projection) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Return what an artifact stores of a projection."""
    return {
        "scale": projection.scale,
        "center": projection.center,
        "axes": projection.axes,
        "log_length": projection.log_length,
        "surface": projection.surface,
    }


def projection_from_arrays(arrays: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> Projection:
    """Rebuild the projection that `projection_arrays` described."""
    return Projection(
        np.asarray(arrays["scale"], dtype=np.float32),
        np.asarray(arrays["center"], dtype=np.float32),
        np.asarray(arrays["axes"], dtype=np.float32),
        np.asarray(arrays["log_length"], dtype=np.float64),
        np.asarray(arrays["surface"], dtype=np.int64),
    )
