"""RouteLLM's matrix factorization between a strong and a weak model (arXiv 2406.18665)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.evaluation.baselines.gradient_descent import minimise
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.metrics import Choices, upper_hull
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.io.optional import needs_extra

PairSetting = tuple[float, int, int]  # (weight decay, weak model, strong model)
DIMENSIONS = 128


@dataclass(frozen=True, slots=True)
class RouteLlmBaseline:
    """Route by RouteLLM's matrix factorization (arXiv 2406.18665, section 4.2).

    A bilinear score of model and question is trained on pairs of models of which one did better. The router chooses
    between a strong and a weak model by a threshold on the strong one's probability of winning. The threshold is swept.
    The pair is tuned: any two corners of the hull of the single models. So is the weight decay. RouteLLM trains on
    human preferences. Here every pair of recorded outcomes that differs counts as one.
    """

    name: str = "routellm_mf"
    weight_decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    reads: EncoderChoice = "text"
    thresholds: int = 201

    def settings(self, train_split: TrainSplit) -> Sequence[PairSetting]:
        """Return pairs of models with weight decays, the widest pair first."""
        corners = hull_models(train_split)
        pairs = list(combinations(corners, 2)) or [(corners[0], corners[0])]
        pairs.sort(key=lambda pair: corners.index(pair[0]) - corners.index(pair[1]))
        return [(decay, weak, strong) for decay in self.weight_decays for weak, strong in pairs]

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[PairSetting]) -> Sequence[AnswerFunction]:
        """Train the scores of all models once per weight decay."""
        scores = {
            decay: _fit_factorization(train_split.vectors, train_split.table.quality, decay)
            for decay in dict.fromkeys(decay for decay, _, _ in settings)
        }
        return [self._answer(scores[decay], weak, strong) for decay, weak, strong in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the pair, and train the scores."""
        return fit_tuned(self, train_split)

    def _answer(self, score: Callable[[Float32Array], FloatArray], weak: int, strong: int) -> AnswerFunction:
        def answer(held_out: EvaluationSplit) -> Choices:
            scores = score(held_out.vectors)
            gain = scores[:, strong] - scores[:, weak]
            thresholds = [*np.quantile(gain, np.linspace(0, 1, self.thresholds)), np.inf]
            chosen = np.where(gain >= np.array(thresholds)[:, None], strong, weak)
            may_answer = held_out.eligible[np.arange(len(held_out)), chosen]
            best_eligible = np.argmax(np.where(held_out.eligible, scores, -np.inf), axis=1)
            return np.where(may_answer, chosen, best_eligible).astype(np.int16)

        return answer


def hull_models(train_split: TrainSplit) -> list[int]:
    """Return the models at the corners of the hull of the single models, the cheapest first. From training rows."""
    known = train_split.known
    answered = np.flatnonzero(known.any(axis=0))
    quality = train_split.mean_quality[answered]
    cost = np.array([train_split.cost_usd[known[:, model], model].mean() for model in answered])
    hull = upper_hull(cost, quality)
    return [
        int(answered[np.flatnonzero((cost == usd) & (quality == gain))[0]])
        for usd, gain in zip(hull.cost_usd, hull.accuracy, strict=True)
    ]


def _fit_factorization(
    vectors: Float32Array, quality: FloatArray, weight_decay: float
) -> Callable[[Float32Array], FloatArray]:
    """Train scores (R, M) = w . (model embedding * projected question).

    The loss is that of Bradley and Terry over all pairs of models whose quality on a question differs, weighted by the
    difference.
    """
    with needs_extra("local", "an evaluation baseline"):
        import torch

    generator = torch.Generator().manual_seed(0)
    width, models = vectors.shape[1], quality.shape[1]
    known = torch.from_numpy(~np.isnan(quality))
    outcome = torch.from_numpy(np.nan_to_num(quality)).float()
    inputs = torch.from_numpy(np.ascontiguousarray(vectors))
    project = (torch.randn(width, DIMENSIONS, generator=generator) / width**0.5).requires_grad_()
    embedding = torch.randn(models, DIMENSIONS, generator=generator).requires_grad_()
    weight = (torch.randn(DIMENSIONS, generator=generator) / DIMENSIONS**0.5).requires_grad_()

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

    minimise([project, embedding, weight], loss, len(inputs), generator, weight_decay)

    def score(rows: Float32Array) -> FloatArray:
        with torch.no_grad():
            return np.asarray(scores(torch.from_numpy(np.ascontiguousarray(rows))).numpy(), dtype=np.float64)

    return score
