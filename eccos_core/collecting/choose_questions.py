"""Choose questions that stand for all: the middles of clusters (representative sampling by k-means).

A forecast is a mean over questions of one kind. Questions from all kinds, each the most typical of its own, estimate
these means with less variance than questions drawn at random (stratified sampling, Cochran 1977, ch. 5).
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray
from eccos_core.predictors.learners.kmeans import find_centres

AXES = 16  # principal axes of the vectors
WEIGHT_OF_OUTCOMES = 0.3  # of known outcomes beside the text, as lengths
MIN_KNOWN = 0.9  # a model's outcomes tell questions apart if it has them on this share


def question_points(vectors: Float32Array, known: FloatArray) -> FloatArray:
    """Return the points (N, F) of the questions: principal axes of vectors (N, D), and outcomes known before.

    known (N, K): outcomes of other models in [0, 1], NaN where missing. A typical question has length 1 without them.
    """
    text = _scaled(_principal_axes(np.asarray(vectors, dtype=np.float64)))
    have = ~np.isnan(known)
    usable = known[:, have.mean(axis=0) >= MIN_KNOWN] if len(known) else known
    if not usable.shape[1]:
        return text
    means = np.nanmean(usable, axis=0)
    outcomes = _scaled(np.where(np.isnan(usable), means, usable) - means)
    return np.concatenate([text, WEIGHT_OF_OUTCOMES * outcomes], axis=1)


def choose_questions(
    points: FloatArray, asked: BoolArray, free: BoolArray, answers: IntArray, count: int, seed: int = 0
) -> list[int]:
    """Choose at most `count` rows for one model, the ones that stand for most questions first.

    points (N, F): see `question_points`. asked (N,): where the model has an outcome already. free (N,): where it can be
    asked. answers (N,): how many other models have an outcome. The questions are clustered into as many clusters as
    will then be asked. In the largest clusters without an outcome, one of the most typical questions is chosen. Among
    these, one that other models answered comes first: the same question compares models without its difficulty.
    """
    count = min(count, int(free.sum()))
    if count <= 0:
        return []
    clusters = min(int(asked.sum()) + count, len(points))
    member, distance = _clusters(points, clusters, seed)
    sizes = np.bincount(member, minlength=clusters)
    covered = np.bincount(member, weights=asked, minlength=clusters)
    chosen: list[int] = []
    left = free.copy()
    while len(chosen) < count:  # the cluster with most questions for each outcome comes next
        open_clusters = np.bincount(member, weights=left, minlength=clusters) > 0
        need = np.where(open_clusters, sizes / (covered + 0.5), -1.0)
        cluster = int(np.argmax(need))
        rows = np.flatnonzero(left & (member == cluster))
        typical = rows[np.argsort(distance[rows], kind="stable")[: max(1, len(rows) // 3)]]
        row = int(typical[np.argmax(answers[typical])])
        chosen.append(row)
        left[row] = False
        covered[cluster] += 1
    return chosen


def _clusters(points: FloatArray, clusters: int, seed: int) -> tuple[IntArray, FloatArray]:
    """Return the cluster (N,) of each point, and its squared distance (N,) to the centre."""
    if clusters >= len(points):
        return np.arange(len(points)), np.zeros(len(points))
    centres = find_centres(points.astype(np.float32), clusters, seed).astype(np.float64)
    squared = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * points @ centres.T
    member = squared.argmin(axis=1)
    return member, np.maximum(squared[np.arange(len(points)), member], 0.0)


def _principal_axes(vectors: FloatArray) -> FloatArray:
    centred = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ directions[:, ::-1][:, :AXES])


def _scaled(values: FloatArray) -> FloatArray:
    return np.asarray(values / max(float(np.sqrt((values**2).sum(axis=1).mean())), 1e-9))
