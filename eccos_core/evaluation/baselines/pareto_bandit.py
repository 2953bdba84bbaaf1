"""ParetoBandit: the linear bandit of the package `paretobandit`, which the extra `benchmark` brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.evaluation.baselines.tuning import fit_tuned
from eccos_core.evaluation.metrics import Choices
from eccos_core.evaluation.protocol import AnswerFunction, EncoderChoice, EvaluationSplit, TrainSplit
from eccos_core.io.optional import needs_extra


@dataclass(frozen=True, slots=True)
class ParetoBanditBaseline:
    """Route by the greedy rule of ParetoBandit after it has learned from every recorded outcome.

    Its LinUCB policy sees whitened principal components of the embedding. The rule is the highest expected reward -
    penalty * cost, with cost on a logarithmic scale from the cheapest model to the dearest one. The penalty is swept
    and the number of components tuned. Online, the bandit sees only the outcome of the model that it chose.
    """

    name: str = "pareto_bandit"
    components: tuple[int, ...] = (25, 8, 100)
    penalties: int = 201
    reads: EncoderChoice = "text"

    def settings(self, train_split: TrainSplit) -> Sequence[int]:
        """Return the numbers of components."""
        return self.components

    def fit_settings(self, train_split: TrainSplit, settings: Sequence[int]) -> Sequence[AnswerFunction]:
        """Update the policy with every recorded outcome, once per setting."""
        return [self._fit(train_split, components) for components in settings]

    def fit(self, train_split: TrainSplit) -> AnswerFunction:
        """Choose the number of components."""
        return fit_tuned(self, train_split)

    def _fit(self, train_split: TrainSplit, components: int) -> AnswerFunction:
        with needs_extra("benchmark", "the baseline pareto_bandit"):
            from pareto_bandit.costs import log_normalize_cost
            from pareto_bandit.policy import DisjointLinUCBPolicy
        with needs_extra("local", "an evaluation baseline"):
            from sklearn.decomposition import PCA

        count = min(components, *train_split.vectors.shape)
        projection = PCA(count, whiten=True, random_state=0).fit(train_split.vectors)
        inputs = _project(projection, train_split.vectors)
        models = train_split.table.models
        policy = DisjointLinUCBPolicy(list(models), dim=inputs.shape[1], seed=0)
        for row, column in np.argwhere(train_split.known):
            policy.update(models[column], inputs[row], float(train_split.table.quality[row, column]))
        theta = np.column_stack([policy.theta[model] for model in models])
        known = train_split.known
        spent = np.where(known, train_split.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        floor, ceiling = max(spent.min(), 1e-12), max(spent.max(), 1e-12)
        cost = np.array([log_normalize_cost(each, floor=floor, ceiling=ceiling) for each in spent])

        def answer(held_out: EvaluationSplit) -> Choices:
            reward = _project(projection, held_out.vectors) @ theta
            penalties = np.concatenate([[0.0], np.geomspace(1e-3, 10.0, self.penalties - 1)])
            return np.stack(
                [
                    np.argmax(np.where(held_out.eligible, reward - penalty * cost, -np.inf), axis=1)
                    for penalty in penalties
                ]
            ).astype(np.int16)

        return answer


def _project(projection: Any, vectors: Float32Array) -> FloatArray:
    """Return whitened components and a constant 1."""
    return np.column_stack([projection.transform(vectors).astype(np.float64), np.ones(len(vectors))])
