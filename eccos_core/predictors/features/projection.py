"""Where questions lie: the features that every base learner shares, and who is near whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.features.block_scaling import block_weights, find_blocks, surface_columns

LENGTH_SCALE = 0.15  # what one standard deviation of log input tokens adds to vectors that vary by one
MOST_AXES, LEAST_AXES = 96, 8  # principal axes kept; distances along few predict better than along all of D
AXES_PER_ROOT = 1.5  # axes kept for each unit of the square root of the history's rows
ROWS_AT_ONCE = 1024  # rows of one block of distances
NEAREST = 128  # neighbours looked up for each row


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The map from (vector, input tokens) to features.

    `whole` (R, D + 1): the vector, every part equally loud, and the scaled log length, centred. `points` (R, F): its
    first F principal axes. scale (D,), center (D + 1,), axes (D + 1, F), log_length = (mean, standard deviation).
    surface: the columns of `whole` that tell how a text looks, its length among them.
    """

    scale: Float32Array
    center: Float32Array
    axes: Float32Array
    log_length: FloatArray
    surface: IntArray

    @classmethod
    def fit(cls, vectors: Float32Array, input_tokens: FloatArray, axes: int | None = None) -> Projection:
        """The principal axes of vectors (N, D) and input_tokens (N,), NaN where unknown; 1.5 sqrt(N), 8 to 96."""
        logs = np.log1p(input_tokens[~np.isnan(input_tokens)])
        mean, deviation = (float(logs.mean()), float(logs.std())) if len(logs) else (0.0, 1.0)
        log_length = np.array([mean, deviation if deviation > 1e-6 else 1.0])
        parts = find_blocks(vectors)
        scale = block_weights(vectors, parts).astype(np.float32)
        raw = _raw(vectors, scale, input_tokens, log_length)
        center = raw.mean(axis=0)
        centred = (raw - center).astype(np.float64)
        _, directions = np.linalg.eigh(centred.T @ centred)
        usual = int(np.clip(round(AXES_PER_ROOT * len(raw) ** 0.5), LEAST_AXES, MOST_AXES))
        kept = min(usual if axes is None else axes, directions.shape[1])
        looks = np.append(surface_columns(parts), raw.shape[1] - 1)
        return cls(scale, center, np.ascontiguousarray(directions[:, ::-1][:, :kept], np.float32), log_length, looks)

    @property
    def dimensions(self) -> int:
        """D, the length of the encoder's vectors."""
        return len(self.center) - 1

    def whole(self, vectors: Float32Array, input_tokens: FloatArray) -> Float32Array:
        """(R, D + 1) all features, centred. A missing length is taken as typical."""
        return _raw(vectors, self.scale, input_tokens, self.log_length) - self.center

    def points(self, whole: Float32Array) -> Float32Array:
        """(R, F) the features along the principal axes."""
        return whole @ self.axes


def _raw(vectors: Float32Array, scale: Float32Array, input_tokens: FloatArray, log_length: FloatArray) -> Float32Array:
    """(R, D + 1) the scaled vectors with the scaled log length appended."""
    raw = np.empty((len(vectors), vectors.shape[1] + 1), dtype=np.float32)
    np.multiply(vectors, scale, out=raw[:, :-1])
    raw[:, -1] = np.nan_to_num(np.clip((np.log1p(input_tokens) - log_length[0]) / log_length[1], -4.0, 4.0))
    raw[:, -1] *= LENGTH_SCALE
    return raw


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The nearest questions of the history. rows (R, k), squared_distance (R, k), best first."""

    rows: IntArray
    squared_distance: Float32Array

    def first(self, k: int) -> Neighbors:
        """The k nearest of them."""
        return Neighbors(self.rows[:, :k], self.squared_distance[:, :k])


def squared_distances(points: Float32Array, centres: Float32Array) -> Float32Array:
    """(R, N) squared Euclidean distances of points (R, F) to centres (N, F)."""
    squared = points @ centres.T
    squared *= -2.0
    squared += np.einsum("rf,rf->r", points, points)[:, None]
    squared += np.einsum("nf,nf->n", centres, centres)[None, :]
    return np.asarray(np.maximum(squared, 0.0, out=squared), dtype=np.float32)


def nearest_neighbors(squared: Float32Array, k: int) -> Neighbors:
    """The k smallest of each row of squared distances (R, N), in order; all N when k is larger."""
    k = min(k, squared.shape[1])
    if k == 0:
        return Neighbors(np.empty((len(squared), 0), dtype=np.int64), np.empty((len(squared), 0), dtype=np.float32))
    rows = np.argpartition(squared, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(squared, rows, axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return Neighbors(np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1))


def nearest_other_rows(points: Float32Array, k: int, rows: IntArray | None = None) -> Neighbors:
    """The k nearest *other* rows of each row of points (N, F), or of these (K,): what leaving one out leaves."""
    chosen = np.arange(len(points)) if rows is None else rows
    parts = []
    for some in row_blocks(len(chosen)):
        squared = squared_distances(points[chosen[some]], points)
        squared[np.arange(len(squared)), chosen[some]] = np.inf
        parts.append(nearest_neighbors(squared, min(k, len(points) - 1)))
    return Neighbors(np.concatenate([p.rows for p in parts]), np.concatenate([p.squared_distance for p in parts]))


@dataclass(frozen=True, eq=False)
class QueryFeatures:
    """New questions as base learners see them: whole (R, D + 1), points (R, F), and distances, computed once for all.

    `history`: (N, F) points of the history, with their squared lengths (N,).
    """

    whole: Float32Array
    points: Float32Array
    history: Float32Array
    squared_lengths: Float32Array
    given: Neighbors | None = field(default=None)

    @cached_property
    def squared_distance(self) -> Float32Array:
        """(R, N) to every question of the history."""
        squared = self.points @ self.history.T
        squared *= -2.0
        squared += np.einsum("rf,rf->r", self.points, self.points)[:, None]
        squared += self.squared_lengths
        return np.asarray(np.maximum(squared, 0.0, out=squared), dtype=np.float32)

    @cached_property
    def neighbors(self) -> Neighbors:
        """The nearest questions, best first."""
        return self.given if self.given is not None else nearest_neighbors(self.squared_distance, NEAREST)


def row_blocks(rows: int, at_once: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Slices that cover `rows`, in order."""
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))


def projection_arrays(projection: Projection) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """What an artifact keeps of a space."""
    return {
        "scale": projection.scale,
        "center": projection.center,
        "axes": projection.axes,
        "log_length": projection.log_length,
        "surface": projection.surface,
    }


def projection_from_arrays(arrays: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]) -> Projection:
    """The space that `projection_arrays` described."""
    return Projection(
        np.asarray(arrays["scale"], dtype=np.float32),
        np.asarray(arrays["center"], dtype=np.float32),
        np.asarray(arrays["axes"], dtype=np.float32),
        np.asarray(arrays["log_length"], dtype=np.float64),
        np.asarray(arrays["surface"], dtype=np.int64),
    )
