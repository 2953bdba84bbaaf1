"""Baselines that average over similar past questions: RouterBench's kNN and AIOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, make_forecast

_BLOCK = 1024


def nearest_rows(vectors: Float32Array, base: Float32Array, k: int) -> IntArray:
    """Return the k rows (R, k) of `base` (N, D) most similar to each of `vectors` (R, D). All have unit length.

    If k is larger than N, all N rows are returned.
    """
    k = min(k, len(base))
    found = np.empty((len(vectors), k), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ base.T
        found[start : start + _BLOCK] = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return found


def average_neighbours(train_split: TrainSplit, rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return (mean quality (R, M), mean output tokens (R, M)) over the neighbours `rows` (R, k).

    Missing outcomes are left out. A model without an outcome among the neighbours gets its overall mean.
    """
    means = []
    for values, fallback in (
        (train_split.table.quality, train_split.mean_quality),
        (train_split.table.output_tokens, train_split.price_table.typical_output_tokens),
    ):
        known = ~np.isnan(values)
        total = np.where(known, values, 0.0)[rows].sum(axis=1)
        count = known[rows].sum(axis=1)
        means.append(np.where(count > 0, total / np.maximum(count, 1), fallback))
    return means[0], means[1]


@dataclass(frozen=True, slots=True)
class KnnBaseline:
    """Forecast the mean over k neighbours and trade quality against cost by lambda. k is tuned.

    Source: RouterBench's KNN router, Hu et al. 2024, arXiv 2403.12031, section 4.1.
    """

    name: str = "knn"
    neighbours: tuple[int, ...] = (40, 5, 10, 20, 80, 160, 320)
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[int]:
        """Return the numbers of neighbours."""
        return self.neighbours

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[int]) -> Sequence[AnswerFunction]:
        """Nothing is fitted."""
        return [_answer_by_mean(train_split, neighbours) for neighbours in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the number of neighbours."""
        return fit_tuned(self, train_split)


def _answer_by_mean(train_split: TrainSplit, neighbours: int) -> AnswerFunction:
    def answer(held_out: EvaluationSplit) -> Forecast:
        rows = nearest_rows(held_out.vectors, train_split.vectors, neighbours)
        quality, tokens = average_neighbours(train_split, rows)
        error = np.sqrt(np.maximum(quality * (1 - quality), 1e-4) / rows.shape[1])
        return make_forecast(train_split, quality, tokens, len(held_out), se=error)

    return answer


@dataclass(frozen=True, slots=True)
class AiosBaseline:
    """Choose the cheapest model whose mean over k neighbours reaches a threshold, else the one with the highest mean.

    Source: AIOS. It takes 16 neighbours and the threshold 0.7. Here k is tuned and the threshold is swept.
    """

    name: str = "aios"
    neighbours: tuple[int, ...] = (16, 40, 80, 160, 320)
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[int]:
        """Return the numbers of neighbours."""
        return self.neighbours

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[int]) -> Sequence[AnswerFunction]:
        """Nothing is fitted."""
        return [_answer_by_threshold(train_split, neighbours) for neighbours in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the number of neighbours."""
        return fit_tuned(self, train_split)


def _answer_by_threshold(train_split: TrainSplit, neighbours: int) -> AnswerFunction:
    def answer(held_out: EvaluationSplit) -> Choices:
        quality, tokens = average_neighbours(
            train_split, nearest_rows(held_out.vectors, train_split.vectors, neighbours)
        )
        cost = np.where(held_out.eligible, held_out.cost_usd(tokens), np.inf)
        quality = np.where(held_out.eligible, quality, -1.0)
        highest = np.lexsort((cost, -quality), axis=1)[:, 0]
        thresholds = [*np.linspace(0, 1, neighbours + 1) - 1e-9, 0.7, 2.0]
        return np.stack([_choose_cheapest_above(quality, cost, highest, t) for t in thresholds]).astype(np.int16)

    return answer


def _choose_cheapest_above(quality: FloatArray, cost: FloatArray, otherwise: IntArray, threshold: float) -> IntArray:
    good = quality >= threshold
    return np.where(good.any(axis=1), np.argmin(np.where(good, cost, np.inf), axis=1), otherwise)
