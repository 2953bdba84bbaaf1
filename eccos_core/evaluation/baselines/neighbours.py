"""Baselines that look at similar past questions: AIOS, RouterBench's kNN, PORT, Avengers-Pro."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast, IntArray
from eccos_core.errors import InputError
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, forecast_of
from eccos_core.io.optional import needs_extra

_BLOCK = 1024


def nearest(vectors: Float32Array, base: Float32Array, k: int) -> IntArray:
    """(R, k) rows of `base` (N, D) most similar to each of `vectors` (R, D), unit length both; k is at most N."""
    k = min(k, len(base))
    found = np.empty((len(vectors), k), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ base.T
        found[start : start + _BLOCK] = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    return found


def neighbour_means(train_split: TrainSplit, rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """((R, M) mean quality, (R, M) mean output tokens) over the neighbours `rows` (R, k).

    Missing outcomes are left out; a model that no neighbour has tried gets its overall mean.
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
    """The plain mean over k neighbours, quality against cost traded by lambda (RouterBench's KNN router, Hu et al.
    2024, arXiv 2403.12031, section 4.1)."""

    name: str = "knn"
    neighbours: int = 40
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Nothing is fitted."""

        def answer(held_out: EvaluationSplit) -> Forecast:
            rows = nearest(held_out.vectors, train_split.vectors, self.neighbours)
            quality, tokens = neighbour_means(train_split, rows)
            error = np.sqrt(np.maximum(quality * (1 - quality), 1e-4) / rows.shape[1])
            return forecast_of(train_split, quality, tokens, len(held_out), se=error)

        return answer


@dataclass(frozen=True, slots=True)
class AiosBaseline:
    """AIOS' rule: the cheapest model whose mean over 16 neighbours is at least a threshold (0.7 there, swept here),
    else the one with the highest mean."""

    name: str = "aios"
    neighbours: int = 16
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Nothing is fitted."""

        def answer(held_out: EvaluationSplit) -> Choices:
            quality, tokens = neighbour_means(
                train_split, nearest(held_out.vectors, train_split.vectors, self.neighbours)
            )
            cost = np.where(held_out.eligible, held_out.cost_usd(tokens), np.inf)
            quality = np.where(held_out.eligible, quality, -1.0)
            highest = np.lexsort((cost, -quality), axis=1)[:, 0]
            thresholds = [*np.linspace(0, 1, self.neighbours + 1) - 1e-9, 0.7, 2.0]
            return np.stack([_cheapest_above(quality, cost, highest, t) for t in thresholds]).astype(np.int16)

        return answer


def _cheapest_above(quality: FloatArray, cost: FloatArray, otherwise: IntArray, threshold: float) -> IntArray:
    good = quality >= threshold
    return np.where(good.any(axis=1), np.argmin(np.where(good, cost, np.inf), axis=1), otherwise)


@dataclass(frozen=True, slots=True)
class PortBaseline:
    """PORT (arXiv 2509.02718): nearest neighbours with one learned price per model.

    A total budget is split over the models by their mean quality per USD; the prices are the dual solution of the
    linear programme over a few hundred questions (their eq. 4, solved exactly here), and every question goes to
    argmax quality - price * cost. The total budget is swept. The authors drop requests once a budget is spent; in a
    replay every question is answered, so budgets act through the prices alone.
    """

    name: str = "port"
    neighbours: int = 5
    sample: int = 256
    budgets: int = 40
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Learn prices on a sample of the training rows, each seen through its own neighbours without itself."""
        random = np.random.default_rng(0)
        asked = np.sort(random.choice(len(train_split.table), min(self.sample, len(train_split.table)), replace=False))
        rows = nearest(train_split.vectors[asked], train_split.vectors, self.neighbours + 1)
        quality, tokens = _means_without_itself(train_split, rows, asked)
        input_tokens = train_split.table.input_tokens[asked]
        typical_input = np.nan_to_num(np.nanmean(input_tokens) if not np.isnan(input_tokens).all() else 0.0)
        cost = train_split.price_table.cost_usd(np.where(np.isnan(input_tokens), typical_input, input_tokens), tokens)
        prices = learned_prices(quality, cost, self.budgets)

        def answer(held_out: EvaluationSplit) -> Choices:
            hat_quality, hat_tokens = neighbour_means(
                train_split, nearest(held_out.vectors, train_split.vectors, self.neighbours)
            )
            hat_cost = held_out.cost_usd(hat_tokens)
            chosen = [
                np.argmax(np.where(held_out.eligible, hat_quality - price * hat_cost, -np.inf), axis=1)
                for price in prices
            ]
            return np.stack(chosen).astype(np.int16)

        return answer


def _means_without_itself(train_split: TrainSplit, rows: IntArray, asked: IntArray) -> tuple[FloatArray, FloatArray]:
    """Neighbour means where a question that is its own neighbour is replaced by the neighbour listed first."""
    own = rows == asked[:, None]
    others = np.where(own[:, 0], rows[:, -1], rows[:, 0])
    return neighbour_means(train_split, np.where(own, others[:, None], rows))


def learned_prices(quality: FloatArray, cost_usd: FloatArray, budgets: int) -> FloatArray:
    """(budgets, M) prices gamma >= 0: minimise gamma . B + sum_j max(0, max_i(quality - gamma_i cost)): a linear
    programme; the 0 stands for a question that no budget covers.

    quality, cost_usd (J, M). B is the budget for these J questions, from the cheapest model's cost to twice the
    dearest model's, split by mean quality per mean USD.
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
            raise InputError(f"PORT's linear programme has no solution ({solution.message})")
        prices.append(solution.x[:models] / scale)
    return np.array(prices)


@dataclass(frozen=True, slots=True)
class AvengersProBaseline:
    """Cluster means as in Avengers-Pro (arXiv 2508.12631): 60 k-means clusters; within each, accuracy and cost are
    scaled to [0, 1]; a question's score is alpha * accuracy + (1 - alpha) * (1 - cost), summed over its 4 nearest
    clusters; alpha is swept."""

    name: str = "avengers_pro"
    clusters: int = 60
    nearest_clusters: int = 4
    settings: int = 101
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """k-means, and each cluster's means."""
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
        accuracy, cost = _scaled(accuracy), _scaled(cost)
        centres = fitted.cluster_centers_.astype(np.float32)

        def answer(held_out: EvaluationSplit) -> Choices:
            distance = (centres**2).sum(axis=1) - 2 * held_out.vectors @ centres.T
            near = np.argsort(distance, axis=1)[:, : self.nearest_clusters]
            good, dear = accuracy[near].sum(axis=1), cost[near].sum(axis=1)
            chosen = [
                np.argmax(np.where(held_out.eligible, alpha * good - (1 - alpha) * dear, -np.inf), axis=1)
                for alpha in np.linspace(0, 1, self.settings)
            ]
            return np.stack(chosen).astype(np.int16)

        return answer


def _cluster_means(member: FloatArray, values: FloatArray, size: FloatArray, fallback: FloatArray) -> FloatArray:
    """(K, M) means of values (N, M) over the clusters of member (N, K); `fallback` where a cluster has none."""
    return np.where(size > 0, (member.T @ values) / np.maximum(size, 1), fallback)


def _scaled(values: FloatArray) -> FloatArray:
    """(K, M), every row moved to [0, 1]; a row of equal values becomes 0."""
    low = values.min(axis=1, keepdims=True)
    spread = values.max(axis=1, keepdims=True) - low
    return np.where(spread > 0, (values - low) / np.where(spread > 0, spread, 1.0), 0.0)
