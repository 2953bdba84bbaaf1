"""Baselines that fit a model to the embeddings: linear, MLP (RouterBench, LLMRouter), RouteLLM's factorization."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.evaluation.metrics import Choices, upper_hull
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, make_forecast
from eccos_core.io.optional import needs_extra


@dataclass(frozen=True, slots=True)
class LinearBaseline:
    """Forecast quality and output tokens by ridge regression on the embedding (RouterBench, LLMRouter)."""

    name: str = "linear"
    regularisation: float = 1.0
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit two ridge regressions in closed form."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.linear_model import Ridge

        return _fit_regressors(train_split, lambda: Ridge(alpha=self.regularisation))


@dataclass(frozen=True, slots=True)
class MlpBaseline:
    """Forecast by an MLP with one hidden layer of 100 units, with scikit-learn's defaults and early stopping.

    Source: RouterBench's MLP router, arXiv 2403.12031, section 4.1, and LLMRouter's mlprouter.
    """

    name: str = "mlp"
    hidden: int = 100
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Fit two MLPs with Adam and a fixed seed."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.neural_network import MLPRegressor

        stop_early = len(train_split.table) >= 50  # early stopping sets a tenth of the rows aside
        return _fit_regressors(
            train_split,
            lambda: MLPRegressor(hidden_layer_sizes=(self.hidden,), early_stopping=stop_early, random_state=0),
        )


def _fit_regressors(train_split: TrainSplit, make: Callable[[], Any]) -> AnswerFunction:
    """Fit one regressor for quality and one for output tokens on the embedding. Missing cells hold model means."""
    with needs_extra("local", "an evaluation baseline"):
        from sklearn.exceptions import ConvergenceWarning

    tokens = train_split.filled_output_tokens
    scale = np.maximum(tokens.mean(axis=0), 1.0)
    models = len(train_split.table.models)
    flat = slice(None) if models > 1 else (slice(None), 0)  # scikit-learn wants a single column as a vector
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at the iteration limit is part of the baseline
        by_quality = make().fit(train_split.vectors, train_split.filled_quality[flat])
        by_tokens = make().fit(train_split.vectors, (tokens / scale)[flat])

    def answer(held_out: EvaluationSplit) -> Forecast:
        shape = (len(held_out), models)  # scikit-learn flattens a single column
        quality = np.asarray(by_quality.predict(held_out.vectors), dtype=np.float64).reshape(shape)
        predicted = np.asarray(by_tokens.predict(held_out.vectors), dtype=np.float64).reshape(shape) * scale
        return make_forecast(train_split, quality, predicted, len(held_out))

    return answer


@dataclass(frozen=True, slots=True)
class RouteLlmBaseline:
    """Route by RouteLLM's matrix factorization (arXiv 2406.18665, section 4.2).

    A bilinear score of model and question is trained on pairs of models of which one did better. The router chooses
    between a strong and a weak model by a threshold on the strong one's probability of winning. The threshold is swept.
    The strong model is the best single model of the training rows. The weak one is the cheapest on their hull. RouteLLM
    trains on human preferences. Here every pair of recorded outcomes that differs counts as one.
    """

    name: str = "routellm_mf"
    reads: EncoderChoice = "text"
    settings: int = 201

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Train the scores of all models, then choose the strong and the weak one."""
        score = _fit_factorization(train_split.vectors, train_split.table.quality)
        strong = int(np.argmax(train_split.mean_quality))
        weak = _cheapest_on_hull(train_split)

        def answer(held_out: EvaluationSplit) -> Choices:
            scores = score(held_out.vectors)
            gain = scores[:, strong] - scores[:, weak]
            thresholds = [*np.quantile(gain, np.linspace(0, 1, self.settings)), np.inf]
            chosen = np.where(gain >= np.array(thresholds)[:, None], strong, weak)
            may_answer = held_out.eligible[np.arange(len(held_out)), chosen]
            best_eligible = np.argmax(np.where(held_out.eligible, scores, -np.inf), axis=1)
            return np.where(may_answer, chosen, best_eligible).astype(np.int16)

        return answer


def _cheapest_on_hull(train_split: TrainSplit) -> int:
    """Return the cheapest model on the hull of the single models, from the training rows."""
    known = train_split.known
    cost = np.where(known, train_split.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    first = upper_hull(cost, train_split.mean_quality)
    return int(np.flatnonzero((cost == first.cost_usd[0]) & (train_split.mean_quality == first.accuracy[0]))[0])


def _fit_factorization(vectors: Float32Array, quality: FloatArray) -> Callable[[Float32Array], FloatArray]:
    """Train scores (R, M) = w . (model embedding * projected question) with 128 dimensions and Adam.

    A tenth of the rows is held out for early stopping. The loss is that of Bradley and Terry over all pairs of models
    whose quality on a question differs, weighted by the difference.
    """
    with needs_extra("local", "an evaluation baseline"):
        import torch

    generator = torch.Generator().manual_seed(0)
    dimensions, width, models = 128, vectors.shape[1], quality.shape[1]
    known = torch.from_numpy(~np.isnan(quality))
    outcome = torch.from_numpy(np.nan_to_num(quality)).float()
    inputs = torch.from_numpy(np.ascontiguousarray(vectors))
    project = (torch.randn(width, dimensions, generator=generator) / width**0.5).requires_grad_()
    embedding = torch.randn(models, dimensions, generator=generator).requires_grad_()
    weight = (torch.randn(dimensions, generator=generator) / dimensions**0.5).requires_grad_()
    parameters = [project, embedding, weight]
    optimiser = torch.optim.Adam(parameters, lr=3e-3, weight_decay=1e-5)

    def scores(rows: torch.Tensor) -> torch.Tensor:
        units = torch.nn.functional.normalize(embedding, dim=1)
        projected: torch.Tensor = rows @ project * weight
        return projected @ units.T

    def loss(index: torch.Tensor) -> torch.Tensor:
        predicted = scores(inputs[index])
        seen = known[index]
        won = (outcome[index, :, None] - outcome[index, None, :]).clamp(min=0)
        won = won * (seen[:, :, None] & seen[:, None, :])
        gap = predicted[:, :, None] - predicted[:, None, :]
        return (won * torch.nn.functional.softplus(-gap)).sum() / won.sum().clamp(min=1)

    order = torch.randperm(len(inputs), generator=generator)
    held_out, rest = order[: len(order) // 10], order[len(order) // 10 :]
    best, best_loss, patience = [p.detach().clone() for p in parameters], float("inf"), 0
    for _ in range(100):
        shuffled = rest[torch.randperm(len(rest), generator=generator)]
        for batch in torch.split(shuffled, 128):
            optimiser.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]  # torch ships this one untyped
            optimiser.step()
        with torch.no_grad():
            now = float(loss(held_out if len(held_out) else rest))
        if now < best_loss - 1e-4:
            best, best_loss, patience = [p.detach().clone() for p in parameters], now, 0
        else:
            patience += 1
        if patience == 5:
            break
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)

    def score(rows: Float32Array) -> FloatArray:
        with torch.no_grad():
            return np.asarray(scores(torch.from_numpy(np.ascontiguousarray(rows))).numpy(), dtype=np.float64)

    return score
