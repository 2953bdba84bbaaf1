"""Baselines that fit a model to the embeddings: linear, MLP (RouterBench, LLMRouter), RouteLLM's factorisation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, Forecast
from eccos_core.evaluation.metrics import Choices, upper_hull
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit, forecast_of
from eccos_core.io.optional import needs_extra


@dataclass(frozen=True, slots=True)
class LinearBaseline:
    """Ridge regression of quality and of output tokens on the embedding, traded by lambda (RouterBench, LLMRouter)."""

    name: str = "linear"
    regularisation: float = 1.0
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Two closed-form fits."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.linear_model import Ridge

        return _regressed(train_split, lambda: Ridge(alpha=self.regularisation))


@dataclass(frozen=True, slots=True)
class MlpBaseline:
    """One hidden layer of 100 units, scikit-learn's defaults with early stopping, traded by lambda (RouterBench's MLP
    router, arXiv 2403.12031, section 4.1; LLMRouter's mlprouter)."""

    name: str = "mlp"
    hidden: int = 100
    reads: EncoderChoice = "text"

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Two fits by Adam, seeded."""
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.neural_network import MLPRegressor

        enough = len(train_split.table) >= 50  # early stopping puts a tenth of the rows aside
        return _regressed(
            train_split, lambda: MLPRegressor(hidden_layer_sizes=(self.hidden,), early_stopping=enough, random_state=0)
        )


def _regressed(train_split: TrainSplit, make: Callable[[], Any]) -> AnswerFunction:
    """Quality and output tokens, each by a regressor of its own on the embedding; missing cells are model means."""
    with needs_extra("local", "an evaluation baseline"):
        from sklearn.exceptions import ConvergenceWarning

    tokens = train_split.filled_output_tokens
    scale = np.maximum(tokens.mean(axis=0), 1.0)
    models = len(train_split.table.models)
    flat = slice(None) if models > 1 else (slice(None), 0)  # scikit-learn wants a single column as a vector
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped at the iteration limit: still the baseline
        by_quality = make().fit(train_split.vectors, train_split.filled_quality[flat])
        by_tokens = make().fit(train_split.vectors, (tokens / scale)[flat])

    def answer(held_out: EvaluationSplit) -> Forecast:
        shape = (len(held_out), models)  # scikit-learn flattens a single column
        quality = np.asarray(by_quality.predict(held_out.vectors), dtype=np.float64).reshape(shape)
        predicted = np.asarray(by_tokens.predict(held_out.vectors), dtype=np.float64).reshape(shape) * scale
        return forecast_of(train_split, quality, predicted, len(held_out))

    return answer


@dataclass(frozen=True, slots=True)
class RouteLlmBaseline:
    """RouteLLM's matrix factorisation (arXiv 2406.18665, section 4.2): a bilinear score of model and question, learned
    from pairs of models of which one was right; a strong and a weak model, and a threshold on the strong one's
    probability of winning, swept.

    Strong is the best single model of the training rows; weak the cheapest one on their hull. RouteLLM learns from
    human preferences, here every pair of recorded outcomes that differs is a battle.
    """

    name: str = "routellm_mf"
    reads: EncoderChoice = "text"
    settings: int = 201

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Learn the scores of all models, then keep the two."""
        score = _factorised(train_split.vectors, train_split.table.quality)
        strong = int(np.argmax(train_split.mean_quality))
        weak = _cheapest_worth_having(train_split)

        def answer(held_out: EvaluationSplit) -> Choices:
            scores = score(held_out.vectors)
            gain = scores[:, strong] - scores[:, weak]
            thresholds = [*np.quantile(gain, np.linspace(0, 1, self.settings)), np.inf]
            chosen = np.where(gain >= np.array(thresholds)[:, None], strong, weak)
            possible = held_out.eligible[np.arange(len(held_out)), chosen]
            best_there_is = np.argmax(np.where(held_out.eligible, scores, -np.inf), axis=1)
            return np.where(possible, chosen, best_there_is).astype(np.int16)

        return answer


def _cheapest_worth_having(train_split: TrainSplit) -> int:
    """The first model on the hull of the single models, on the training rows."""
    known = train_split.known
    cost = np.where(known, train_split.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    first = upper_hull(cost, train_split.mean_quality)
    return int(np.flatnonzero((cost == first.cost_usd[0]) & (train_split.mean_quality == first.accuracy[0]))[0])


def _factorised(vectors: Float32Array, quality: FloatArray) -> Callable[[Float32Array], FloatArray]:
    """Scores (R, M) = w . (model embedding * projected question): 128 dimensions, Adam, a tenth kept for stopping.

    The loss is that of Bradley and Terry over all pairs of models that did not do equally well on a question, weighted
    by the difference.
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
