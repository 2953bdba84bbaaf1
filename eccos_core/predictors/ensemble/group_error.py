"""Measure the error that questions of one unseen group share, by leaving out one group of the history at a time.

Errors of single questions average out over a batch. When a task is new, its questions are harder or easier than the
history says, all alike, and that error stays. Distance alone does not show it: a new task may look like an old one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import BoolArray, Float32Array, FloatArray, IntArray
from eccos_core.predictors.ensemble.calibration import ProbabilityCalibration
from eccos_core.predictors.features.index import reconstruction_error
from eccos_core.predictors.features.nearness import NearnessModel
from eccos_core.predictors.features.projection import nearest_distances, squared_distances
from eccos_core.predictors.learners.kmeans import find_centres
from eccos_core.predictors.learners.ridge import fit_ridge
from eccos_core.predictors.learners.training_set import TrainingSet

MAX_GROUPS, MIN_GROUPS = 12, 3  # smaller groups are joined; with fewer groups the labels say too little
MIN_GROUP_ROWS = 20  # of a group with an error of its own
MIN_ROWS = 100  # a smaller history has no groups to leave out
MAX_SHARE = 0.5  # of all rows: without a larger group, the rest is no history to forecast from
PENALTIES = (3.0, 30.0, 300.0)  # of the ridge regression that forecasts a group from the others
USUAL_DEVIATION = 0.1  # of a new group's mean quality from its forecast, on the sets of benchmarks/groups.py
PRIOR_GROUPS = 2.0  # pseudo-groups with that deviation


@dataclass(frozen=True, slots=True, eq=False)
class GroupErrorModel:
    """The error that questions of a group share if the history lacks the group.

    deviation (M,): its standard deviation. unsupported: its variance over that of the prior's error, in [0, 1].
    midpoint, slope: of the log-odds that a question at some distance from the landmarks is of such a group, when half
    the questions are.
    """

    deviation: FloatArray
    unsupported: float
    midpoint: float
    slope: float

    @classmethod
    def usual(cls, models: int) -> GroupErrorModel:
        """Return the model of M models whose history has no groups to leave out. It is never sure of a question."""
        return cls(np.full(models, USUAL_DEVIATION), 0.0, 0.0, 0.0)

    def unseen(self, distance: FloatArray) -> FloatArray:
        """Return the probability (R,) that a question at this distance (R,) is of a group that the history lacks."""
        return np.asarray(1 / (1 + np.exp(-self.slope * (distance - self.midpoint))))

    def support(self, unseen: FloatArray) -> FloatArray:
        """Return the share (R,) of a forecast's difference to the prior that held on groups left out."""
        return 1 - self.unsupported * unseen

    def standard_error(self, unseen: FloatArray) -> FloatArray:
        """Return the standard error (R, M) that questions share, from `unseen` (R,)."""
        return np.asarray(np.sqrt(unseen)[:, None] * self.deviation)


def fit_group_errors(
    training: TrainingSet, factors: FloatArray, calibration: ProbabilityCalibration, nearness: NearnessModel
) -> GroupErrorModel:
    """Fit on the groups of the labels, or on clusters if the labels have fewer than three groups.

    factors (C,) and calibration: of the forecasts. A ridge regression on the other groups forecasts each group, from
    one Gram matrix. The probability of a new group compares a question's distance with the distances of the history's
    questions to the others, and to other groups (linear discriminant analysis).
    """
    latent_targets = training.targets.latent_targets
    if len(training) < MIN_ROWS:
        return GroupErrorModel.usual(latent_targets.models)
    group = _groups(training)
    values = training.targets.values.astype(np.float32)
    _, left_out = fit_ridge(training.features, values, group, PENALTIES, latent_targets.group)
    forecast = calibration.apply(latent_targets.quality(left_out * factors))
    prior = calibration.apply(np.broadcast_to(latent_targets.mean_quality, forecast.shape))
    measured = [own for own in _members(group) if MIN_GROUP_ROWS <= own.sum() <= MAX_SHARE * len(group)]
    if len(measured) < MIN_GROUPS:
        return GroupErrorModel.usual(latent_targets.models)
    squared = np.stack([_squared_error(forecast, training.quality, own) for own in measured])  # (G, M)
    prior_squared = np.stack([_squared_error(prior, training.quality, own) for own in measured])
    pseudo = PRIOR_GROUPS * USUAL_DEVIATION**2
    pooled = (squared.mean(axis=1).sum() + pseudo) / (len(measured) + PRIOR_GROUPS)
    variance = (squared.sum(axis=0) + PRIOR_GROUPS * pooled) / (len(measured) + PRIOR_GROUPS)
    unsupported = (squared.mean(axis=1).sum() + pseudo) / (prior_squared.mean(axis=1).sum() + pseudo)
    near = nearness.distance(training.nearest, reconstruction_error(training.features, training.points))
    far = [_distance_to_others(training, own, nearness) for own in measured]
    midpoint, slope = _fit_discriminant(near, far)
    return GroupErrorModel(np.sqrt(np.maximum(variance, 0.0)), float(np.clip(unsupported, 0, 1)), midpoint, slope)


def _groups(training: TrainingSet) -> IntArray:
    """Return the group (N,) of each row, at most 13: of the label with the most groups, or else of k-means."""
    counts = {name: np.bincount(group[group >= 0]) for name, group in training.labels.items()}
    usable = {name: int((count >= MIN_GROUP_ROWS).sum()) for name, count in counts.items()}
    best = max(usable, key=lambda name: usable[name], default=None)
    if best is None or usable[best] < MIN_GROUPS:
        centres = find_centres(training.points, min(MAX_GROUPS, len(training) // MIN_GROUP_ROWS), training.seed)
        group = squared_distances(training.points, centres).argmin(axis=1)
    else:
        group = training.labels[best]
    return _join_small(group)


def _join_small(group: IntArray) -> IntArray:
    """Keep the 12 largest groups (N,) with 20 rows or more. All other rows are one more group."""
    count = np.bincount(group[group >= 0])
    largest = np.argsort(-count, kind="stable")[:MAX_GROUPS]
    number = np.full(len(count) + 1, MAX_GROUPS, dtype=np.int64)  # the last is for rows without a label, -1
    kept = largest[count[largest] >= MIN_GROUP_ROWS]
    number[kept] = np.arange(len(kept))
    return np.unique(number[group], return_inverse=True)[1]


def _members(group: IntArray) -> list[BoolArray]:
    return [np.asarray(group == each) for each in range(int(group.max()) + 1)]


def _squared_error(forecast: FloatArray, quality: FloatArray, own: BoolArray) -> FloatArray:
    """Return the squared error (M,) of a group's mean forecast, less what chance adds. It may be negative.

    The model means were fitted with the group. Without it, they would be farther from it by 1 / (1 - its share).
    """
    known = own[:, None] & ~np.isnan(quality)
    count = np.maximum(known.sum(axis=0), 1)
    errors = np.where(known, forecast - quality, 0.0)
    mean = errors.sum(axis=0) / count
    chance = (np.where(known, (errors - mean) ** 2, 0.0).sum(axis=0) / count) / count
    return np.asarray((mean**2 - chance) / (1 - own.mean()) ** 2)


def _distance_to_others(training: TrainingSet, own: BoolArray, nearness: NearnessModel) -> FloatArray:
    """Return the distance of a group's questions to the landmarks of other groups."""
    others = training.points[training.landmarks[~own[training.landmarks]]]
    nearest: Float32Array = nearest_distances(squared_distances(training.points[own], others))
    return nearness.distance(nearest, reconstruction_error(training.features[own], training.points[own]))


def _fit_discriminant(near: FloatArray, far: list[FloatArray]) -> tuple[float, float]:
    """Return midpoint and slope of the log-odds of two normal distributions with one variance. Groups count alike."""
    mean_near = float(near.mean())
    mean_far = float(np.mean([each.mean() for each in far]))
    variance_far = float(np.mean([((each - mean_far) ** 2).mean() for each in far]))
    variance = max(0.5 * (float(near.var()) + variance_far), 1e-12)
    return 0.5 * (mean_near + mean_far), max(mean_far - mean_near, 0.0) / variance
