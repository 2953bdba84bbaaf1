"""Bandits from the literature as online policies, and fixed choices.

Each sees the warm rows first. The linear ones read 64 principal axes of the vectors and a constant 1. The axes are
those of all questions of the stream, which favours these baselines: no live system has seen the questions to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, IntArray
from eccos_core.evaluation.online.stream import OnlinePolicy, OnlineStream
from eccos_core.io.optional import needs_extra

AXES = 64
PARETO_AXES = 25  # ParetoBandit's own number
_Learner = TypeVar("_Learner", bound=OnlinePolicy)


@dataclass(frozen=True, slots=True)
class BestFixed:
    """Always the model with the best mean reward: of the warm rows, or of all rows in hindsight without any."""

    def __call__(self, stream: OnlineStream, warm: IntArray, seed: int) -> _Fixed:
        """Look at the rewards."""
        return _Fixed(stream.mean_reward(warm if len(warm) else np.arange(len(stream.table))))


class _Fixed:
    def __init__(self, value: FloatArray) -> None:
        self._value = value

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Choose the best allowed model."""
        return int(np.argmax(np.where(allowed, self._value, -np.inf)))

    def learn(self, row: int, model: int) -> None:
        """Learn nothing."""


@dataclass(frozen=True, slots=True)
class PickLLM:
    """PickLLM (2412.12170): a running mean of the reward per model, and a random model in 5 % of the requests."""

    epsilon: float = 0.05

    def __call__(self, stream: OnlineStream, warm: IntArray, seed: int) -> _Means:
        """Start with the warm rows."""
        return _taught(_Means(stream, self.epsilon, seed), stream, warm)


class _Means:
    def __init__(self, stream: OnlineStream, epsilon: float, seed: int) -> None:
        self._reward, self._epsilon = stream.reward, epsilon
        self._random = np.random.default_rng(seed)
        self._sums = np.zeros((stream.reward.shape[1], 2))

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Choose an untried model, else the best mean, else any."""
        if self._random.random() < self._epsilon:
            return int(self._random.choice(np.flatnonzero(allowed)))
        tried = self._sums[:, 1] > 0
        mean = np.where(tried, self._sums[:, 0] / np.maximum(self._sums[:, 1], 1), np.inf)
        return int(np.argmax(np.where(allowed, mean, -np.inf)))

    def learn(self, row: int, model: int) -> None:
        """Count one reward."""
        self._sums[model] += self._reward[row, model], 1.0


@dataclass(frozen=True, slots=True)
class LinearBandit:
    """One ridge regression per model. `alpha`: the upper-confidence bonus. `epsilon`: the share of random choices.

    MetaLLM (2407.10834) is disjoint LinUCB on the reward. MixLLM (2502.18482) predicts quality and the length of the
    answer apart: here cost over list price. It weighs them afterwards. Its latency penalty is 0 here: no latency is
    recorded.
    """

    alpha: float = 0.25
    epsilon: float = 0.0
    separate_cost: bool = False

    def __call__(self, stream: OnlineStream, warm: IntArray, seed: int) -> _Linear:
        """Start with the warm rows."""
        return _taught(_Linear(self, stream, seed), stream, warm)


class _Linear:
    def __init__(self, settings: LinearBandit, stream: OnlineStream, seed: int) -> None:
        self._settings, self._random = settings, np.random.default_rng(seed)
        self._inputs = principal_axes(stream, AXES)
        models, size = stream.reward.shape[1], self._inputs.shape[1]
        if settings.separate_cost:
            self._targets = np.stack([stream.quality, stream.cost_usd / stream.list_price_usd], axis=2)
            scale = -stream.list_price_usd / stream.usd_per_quality
            self._scale = np.stack([np.ones_like(scale), scale], axis=2)
        else:
            self._targets = stream.reward[:, :, None]
            self._scale = np.ones_like(self._targets)
        self._covariance = np.tile(np.eye(size), (models, 1, 1))
        self._weights = np.zeros((models, size, self._targets.shape[2]))

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Choose the model with the highest upper confidence bound."""
        if self._random.random() < self._settings.epsilon:
            return int(self._random.choice(np.flatnonzero(allowed)))
        inputs = self._inputs[row]
        expected = np.einsum("mdt,d,mt->m", self._weights, inputs, self._scale[row])
        bonus = np.sqrt(np.maximum((self._covariance @ inputs) @ inputs, 0.0))
        return int(np.argmax(np.where(allowed, expected + self._settings.alpha * bonus, -np.inf)))

    def learn(self, row: int, model: int) -> None:
        """Update the regression of one model."""
        inputs, covariance = self._inputs[row], self._covariance[model]
        gain = covariance @ inputs
        gain_scale = 1.0 + inputs @ gain
        missed = self._targets[row, model] - inputs @ self._weights[model]
        self._weights[model] += np.multiply.outer(gain / gain_scale, missed)
        covariance -= np.multiply.outer(gain, gain / gain_scale)


@dataclass(frozen=True, slots=True)
class ParetoBandit:
    """The policy of the package `paretobandit` (2604.00136), which the extra `benchmark` brings, with its defaults.

    It learns the reward itself, which holds the cost, from 25 whitened axes.
    """

    def __call__(self, stream: OnlineStream, warm: IntArray, seed: int) -> _Pareto:
        """Start with the warm rows."""
        return _taught(_Pareto(stream, seed), stream, warm)


class _Pareto:
    def __init__(self, stream: OnlineStream, seed: int) -> None:
        with needs_extra("benchmark", "the policy paretobandit"):
            from pareto_bandit.policy import DisjointLinUCBPolicy

        self._reward, self._models = stream.reward, list(stream.table.models)
        self._inputs = principal_axes(stream, PARETO_AXES, whiten=True)
        self._policy = DisjointLinUCBPolicy(self._models, dim=self._inputs.shape[1], seed=seed)

    def choose(self, row: int, allowed: BoolArray) -> int:
        """Ask the package."""
        names = [self._models[column] for column in np.flatnonzero(allowed)]
        return self._models.index(self._policy.select_arm(self._inputs[row], names)[0])

    def learn(self, row: int, model: int) -> None:
        """Tell the package."""
        self._policy.update(self._models[model], self._inputs[row], float(self._reward[row, model]))


def principal_axes(stream: OnlineStream, axes: int, *, whiten: bool = False) -> FloatArray:
    """Return the questions (N, axes + 1) along their principal axes, with a constant 1 at the end.

    The typical length is 1, or with `whiten` each axis has the variance 1.
    """
    centred = stream.vectors.astype(np.float64) - stream.vectors.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    points = centred @ directions[:, ::-1][:, :axes]
    points /= np.maximum(points.std(axis=0), 1e-9) if whiten else np.sqrt(np.mean(np.sum(centred**2, axis=1)))
    return np.column_stack([points, np.ones(len(points))])


def _taught(policy: _Learner, stream: OnlineStream, warm: IntArray) -> _Learner:
    for row in warm:
        for model in np.flatnonzero(stream.known[row]):
            policy.learn(int(row), int(model))
    return policy
