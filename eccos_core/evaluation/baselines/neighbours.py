"""Baselines that use similar past questions: AIOS, RouterBench's kNN, PORT, Avengers-Pro."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray
from eccos_core.errors import InputError
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, make_forecast
from eccos_core.io.optional import needs_extra

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
    """Forecast the mean over k neighbours and trade quality against cost by lambda.

    Source: RouterBench's KNN router, Hu et al. 2024, arXiv 2403.12031, section 4.1.
    """

    name: str = "knn"
    neighbours: int = 40
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Nothing is fitted."""

        def answer(held_out: EvaluationSplit) -> Forecast:
            rows = nearest_rows(held_out.vectors, train_split.vectors, self.neighbours)
            quality, tokens = average_neighbours(train_split, rows)
            error = np.sqrt(np.maximum(quality * (1 - quality), 1e-4) / rows.shape[1])
            return make_forecast(train_split, quality, tokens, len(held_out), se=error)

        return answer


@dataclass(frozen=True, slots=True)
class AiosBaseline:
    """Choose the cheapest model whose mean over 16 neighbours reaches a threshold, else the one with the highest mean.

    Source: AIOS. Its threshold is 0.7. Here the threshold is swept.
    """

    name: str = "aios"
    neighbours: int = 16
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Nothing is fitted."""

        def answer(held_out: EvaluationSplit) -> Choices:
            quality, tokens = average_neighbours(
                train_split, nearest_rows(held_out.vectors, train_split.vectors, self.neighbours)
            )
            cost = np.where(held_out.eligible, held_out.cost_usd(tokens), np.inf)
            quality = np.where(held_out.eligible, quality, -1.0)
            highest = np.lexsort((cost, -quality), axis=1)[:, 0]
            thresholds = [*np.linspace(0, 1, self.neighbours + 1) - 1e-9, 0.7, 2.0]
            return np.stack([_choose_cheapest_above(quality, cost, highest, t) for t in thresholds]).astype(np.int16)

        return answer


def _choose_cheapest_above(quality: FloatArray, cost: FloatArray, otherwise: IntArray, threshold: float) -> IntArray:
    good = quality >= threshold
    return np.where(good.any(axis=1), np.argmin(np.where(good, cost, np.inf), axis=1), otherwise)


@dataclass(frozen=True, slots=True)
class PortBaseline:
    """Route by nearest neighbours and one fitted price per model, as PORT does (arXiv 2509.02718).

    A total budget is split over the models by their mean quality per USD. The prices are the dual solution of a linear
    programme over a few hundred questions (eq. 4, solved exactly here). Every question goes to the model with the
    highest quality - price * cost. The total budget is swept. The authors drop requests when a budget is spent. In a
    replay every question is answered, so budgets act through the prices only.
    """

    name: str = "port"
    neighbours: int = 5
    sample: int = 256
    budgets: int = 40
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit prices on a sample of the training rows. A row's own outcomes are left out of its neighbours."""
        random = np.random.default_rng(0)
        sampled = np.sort(
            random.choice(len(train_split.table), min(self.sample, len(train_split.table)), replace=False)
        )
        rows = nearest_rows(train_split.vectors[sampled], train_split.vectors, self.neighbours + 1)
        quality, tokens = _average_other_neighbours(train_split, rows, sampled)
        input_tokens = train_split.table.input_tokens[sampled]
        typical_input = np.nan_to_num(np.nanmean(input_tokens) if not np.isnan(input_tokens).all() else 0.0)
        cost = train_split.price_table.cost_usd(np.where(np.isnan(input_tokens), typical_input, input_tokens), tokens)
        prices = fit_prices(quality, cost, self.budgets)

        def answer(held_out: EvaluationSplit) -> Choices:
            hat_quality, hat_tokens = average_neighbours(
                train_split, nearest_rows(held_out.vectors, train_split.vectors, self.neighbours)
            )
            hat_cost = held_out.cost_usd(hat_tokens)
            chosen = [
                np.argmax(np.where(held_out.eligible, hat_quality - price * hat_cost, -np.inf), axis=1)
                for price in prices
            ]
            return np.stack(chosen).astype(np.int16)

        return answer


def _average_other_neighbours(
    train_split: TrainSplit, rows: IntArray, sampled: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Average over neighbours. A question that is its own neighbour is replaced by another of its neighbours."""
    own = rows == sampled[:, None]
    others = np.where(own[:, 0], rows[:, -1], rows[:, 0])
    return average_neighbours(train_split, np.where(own, others[:, None], rows))


def fit_prices(quality: FloatArray, cost_usd: FloatArray, budgets: int) -> FloatArray:
    """Fit prices gamma >= 0 (budgets, M) for a range of budgets, from quality and cost_usd (J, M).

    Each row solves a linear programme: minimise gamma . B + sum_j max(0, max_i(quality_ji - gamma_i cost_ji)). The 0
    stands for a question that no budget covers. B is the budget for the J questions, split by mean quality per mean
    USD. It runs from the cheapest model's cost to at least twice the most expensive model's.
    """
    with needs_extra("local", "an evaluation baseline"):
        from scipy.optimize import linprog
        from scipy.sparse import csr_array, eye_array, hstack, vstack

    questions, models = quality.shape
    scale = max(float(cost_usd.mean(axis=0).max()), 1e-12)
    cost = np.maximum(cost_usd / scale, 1e-9)
    worth = (quality.mean(axis=0) + 1e-6) / cost.mean(axis=0)
    share = worth / worth.sum()
    totals = np.geomspace(cost.mean(axis=0).min(), 2.0 * max(1.0, float(share.min() ** -1)), budgets) * questions
    each = eye_array(questions, format="csr")
    # for every question j and model i: -cost_ji * gamma_i - beta_j <= -quality_ji
    columns = [
        csr_array((cost[:, i], (np.arange(questions), np.full(questions, i))), (questions, models))
        for i in range(models)
    ]
    matrix = -vstack([hstack([column, each]) for column in columns], format="csr")
    bound = -quality.T.reshape(-1)
    prices = []
    for total in totals:
        objective = np.concatenate([share * total, np.ones(questions)])
        solution = linprog(objective, A_ub=matrix, b_ub=bound, bounds=(0, None), method="highs")
        if solution.x is None:
            raise InputError(f"PORT's linear programme has no solution: {solution.message}")
        prices.append(solution.x[:models] / scale)
    return np.array(prices)


@dataclass(frozen=True, slots=True)
class AvengersProBaseline:
    """Route by cluster means, as Avengers-Pro does (arXiv 2508.12631).

    There are 60 k-means clusters. Within each, accuracy and cost are scaled to [0, 1]. A model's score is
    alpha * accuracy + (1 - alpha) * (1 - cost), summed over the question's 4 nearest clusters. Alpha is swept.
    """

    name: str = "avengers_pro"
    clusters: int = 60
    nearest_clusters: int = 4
    settings: int = 101
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit k-means and compute each cluster's means."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.cluster import KMeans
            from sklearn.exceptions import ConvergenceWarning

        count = min(self.clusters, len(train_split.table))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct questions than clusters is no error
            fitted = KMeans(n_clusters=count, n_init=3, random_state=0).fit(train_split.vectors)
        member = np.eye(count)[fitted.labels_]
        known = train_split.known
        size = member.T @ known
        overall_cost = np.where(known, train_split.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        accuracy = _cluster_means(
            member, np.where(known, train_split.table.quality, 0.0), size, train_split.mean_quality
        )
        cost = _cluster_means(member, np.where(known, train_split.cost_usd, 0.0), size, overall_cost)
        accuracy, cost = _scale_rows(accuracy), _scale_rows(cost)
        centres = fitted.cluster_centers_.astype(np.float32)

        def answer(held_out: EvaluationSplit) -> Choices:
            distance = (centres**2).sum(axis=1) - 2 * held_out.vectors @ centres.T
            near = np.argsort(distance, axis=1)[:, : self.nearest_clusters]
            near_accuracy, near_cost = accuracy[near].sum(axis=1), cost[near].sum(axis=1)
            chosen = [
                np.argmax(np.where(held_out.eligible, alpha * near_accuracy - (1 - alpha) * near_cost, -np.inf), axis=1)
                for alpha in np.linspace(0, 1, self.settings)
            ]
            return np.stack(chosen).astype(np.int16)

        return answer


def _cluster_means(member: FloatArray, values: FloatArray, size: FloatArray, fallback: FloatArray) -> FloatArray:
    """Return the means (K, M) of values (N, M) over the clusters of member (N, K), `fallback` for an empty cell."""
    return np.where(size > 0, (member.T @ values) / np.maximum(size, 1), fallback)


def _scale_rows(values: FloatArray) -> FloatArray:
    """Scale every row of values (K, M) to [0, 1]. A row of equal values becomes 0."""
    low = values.min(axis=1, keepdims=True)
    spread = values.max(axis=1, keepdims=True) - low
    return np.where(spread > 0, (values - low) / np.where(spread > 0, spread, 1.0), 0.0)
