"""Avengers-Pro: the means of clusters of questions (arXiv 2508.12631)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.io.optional import needs_extra

ClusterSetting = tuple[int, int]  # (clusters, nearest clusters that are summed)


@dataclass(frozen=True, slots=True)
class AvengersProBaseline:
    """Route by cluster means, as Avengers-Pro does (arXiv 2508.12631).

    Questions fall into k-means clusters. Within each, accuracy and cost are scaled to [0, 1]. A model's score is
    alpha * accuracy + (1 - alpha) * (1 - cost), summed over the question's nearest clusters. Alpha is swept. The
    authors take 60 clusters and the 4 nearest ones. Both are tuned.
    """

    name: str = "avengers_pro"
    clusters: tuple[ClusterSetting, ...] = ((60, 4), (60, 1), (20, 2), (20, 4), (150, 4), (150, 10))
    alphas: int = 101
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[ClusterSetting]:
        """Return the numbers of clusters, in all and nearest."""
        return self.clusters

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[ClusterSetting]) -> Sequence[AnswerFunction]:
        """Fit k-means once per number of clusters."""
        fitted = {clusters: _fit_clusters(train_split, clusters) for clusters in dict.fromkeys(c for c, _ in settings)}
        return [self._answer(train_split, fitted[clusters], nearest) for clusters, nearest in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the numbers of clusters, and compute each cluster's means."""
        return fit_tuned(self, train_split)

    def _answer(self, train_split: TrainSplit, fitted: Any, nearest: int) -> AnswerFunction:
        known = train_split.known
        member = np.eye(len(fitted.cluster_centers_))[fitted.labels_]
        size = member.T @ known
        overall_cost = np.where(known, train_split.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        accuracy = _scale_rows(
            _cluster_means(member, np.where(known, train_split.table.quality, 0.0), size, train_split.mean_quality)
        )
        cost = _scale_rows(_cluster_means(member, np.where(known, train_split.cost_usd, 0.0), size, overall_cost))
        centres = fitted.cluster_centers_.astype(np.float32)

        def answer(held_out: EvaluationSplit) -> Choices:
            distance = (centres**2).sum(axis=1) - 2 * held_out.vectors @ centres.T
            near = np.argsort(distance, axis=1)[:, :nearest]
            near_accuracy, near_cost = accuracy[near].sum(axis=1), cost[near].sum(axis=1)
            chosen = [
                np.argmax(np.where(held_out.eligible, alpha * near_accuracy - (1 - alpha) * near_cost, -np.inf), axis=1)
                for alpha in np.linspace(0, 1, self.alphas)
            ]
            return np.stack(chosen).astype(np.int16)

        return answer


def _fit_clusters(train_split: TrainSplit, clusters: int) -> Any:
    with needs_extra("local", "an evaluation baseline"):
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

    count = min(clusters, len(train_split.table))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct questions than clusters is no error
        return KMeans(n_clusters=count, n_init=3, random_state=0).fit(train_split.vectors)


def _cluster_means(member: FloatArray, values: FloatArray, size: FloatArray, fallback: FloatArray) -> FloatArray:
    """Return the means (K, M) of values (N, M) over the clusters of member (N, K), `fallback` for an empty cell."""
    return np.where(size > 0, (member.T @ values) / np.maximum(size, 1), fallback)


def _scale_rows(values: FloatArray) -> FloatArray:
    """Scale every row of values (K, M) to [0, 1]. A row of equal values becomes 0."""
    low = values.min(axis=1, keepdims=True)
    spread = values.max(axis=1, keepdims=True) - low
    return np.where(spread > 0, (values - low) / np.where(spread > 0, spread, 1.0), 0.0)
