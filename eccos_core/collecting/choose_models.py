"""Choose the model whose next answers are worth most for routing.

Each model's quality on each question has a posterior, from the Bayesian linear model of `learning`. A model's answers
are worth what they are expected to add to the net value of the model that you then choose: the knowledge gradient
(Frazier, Powell and Dayanik 2009). What they cost is counted against it. A model that even perfect knowledge would
hardly ever choose is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.learning.linear_posterior import LinearPosterior, Prior

FEATURES, PART = 16, 8  # axes of the shared part, and of the part of each model
MIDDLE = 0.5  # what the posterior's targets are measured from
DROP_BELOW = 0.001  # quality: a model that perfect knowledge would add less of is dropped
JUDGED_ON = 200  # questions on which models are compared
MAX_LEARNED = 4000  # questions with outcomes from before that the posterior learns from
PRICE_STEPS = 5  # prices of quality where the configuration names none


@dataclass(frozen=True, slots=True, eq=False)
class ModelValues:
    """What more answers of each model are worth, in units of quality.

    gain (M,): of the next answers. perfect (M,): of knowing the model perfectly, at the price that makes most of it.
    """

    gain: FloatArray
    perfect: FloatArray


class ModelComparison:
    """Compare models on questions with points (N, F), and learn from each new outcome once."""

    def __init__(self, models: int, points: FloatArray, prior: Prior | None = None, seed: int = 0) -> None:
        self._features = points[:, :FEATURES]
        self._posterior = LinearPosterior(models, self._features.shape[1], PART, prior or Prior())
        self._learned = np.zeros((len(points), models), dtype=np.bool_)
        draw = np.random.default_rng(seed)
        self._judged = np.sort(draw.permutation(len(points))[:JUDGED_ON])
        self._rows = draw.permutation(len(points))

    def learn(self, quality: FloatArray) -> None:
        """Learn what is new in quality (N, M), NaN where no score is known."""
        new = ~np.isnan(quality) & ~self._learned
        rows = self._rows[new[self._rows].any(axis=1)][:MAX_LEARNED]
        for row in rows:
            for model in np.flatnonzero(new[row]):
                target = float(quality[row, model]) - MIDDLE
                self._posterior.update(int(model), self._features[row], target)
        self._learned |= new

    def forecast(self) -> FloatArray:
        """Return the mean forecast quality (M,) over the questions."""
        means = [self._posterior.predict(self._features[row]) for row in self._judged]
        return np.asarray(np.mean(means, axis=0) + MIDDLE)

    def values(self, cost_usd: FloatArray, prices: Sequence[float], answers: int) -> ModelValues:
        """Value `answers` more outcomes of each model.

        cost_usd (M,): of a call. prices: USD per unit of quality, each as likely.
        """
        models = len(cost_usd)
        gain, perfect = np.zeros((len(prices), models)), np.zeros((len(prices), models))
        for row in self._judged:
            mean = self._posterior.predict(self._features[row])
            covariance = self._posterior.covariance_of_means(self._features[row])
            variance = np.maximum(np.diagonal(covariance), 0.0)
            change = variance * np.sqrt(answers / (answers * variance + self._posterior.prior.noise))
            for at, price in enumerate(prices):
                net = mean - cost_usd / price
                for model in range(models):
                    if models == 1:
                        continue
                    rivals = np.where(np.arange(models) == model, -np.inf, net)
                    rival = int(np.argmax(rivals))
                    behind = abs(net[model] - net[rival])
                    between = variance[model] + variance[rival] - 2 * covariance[model, rival]
                    gain[at, model] += _expected_gain(behind, float(change[model]))
                    perfect[at, model] += _expected_gain(behind, math.sqrt(max(between, 0.0)))
        return ModelValues(gain.mean(axis=0) / len(self._judged), perfect.max(axis=0) / len(self._judged))


def usual_prices(cost_usd: FloatArray) -> list[float]:
    """Return prices of quality to consider where none is given, in USD per unit of quality.

    They go from the cheapest call for one unit of quality to a hundred of the dearest calls. Free models alone have no
    price, and then cost does not matter.
    """
    paid = cost_usd[cost_usd > 0]
    if not len(paid):
        return [1.0]
    return [float(price) for price in np.geomspace(paid.min(), 100 * paid.max(), PRICE_STEPS)]


def _expected_gain(behind: float, spread: float) -> float:
    """Return E[max(0, X - behind)] for X normal with mean 0 and this standard deviation."""
    if spread <= 0:
        return 0.0
    z = behind / spread
    density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return max(spread * (density - z * 0.5 * math.erfc(z / math.sqrt(2))), 0.0)
