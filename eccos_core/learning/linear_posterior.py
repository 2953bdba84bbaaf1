"""A Bayesian linear model of many models' answers, updated one label at a time.

For a question with features z and a model m, the target is

    y = a . [1, z] + b_m + c_m . z[:P] + noise

a: shared by all models. b_m: the model's mean. c_m: a small part of the model's own. The weights have independent
normal priors. So a label of one model also says something about the others (hierarchical linear bandit; the update is
the recursive least squares of Plackett 1950).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray

NOISE = 0.2  # variance of a label around its mean: that of a right-or-wrong answer with probability .7


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior standard deviations, in units of quality. `question` and `part` are for a typical question (|z| = 1)."""

    intercept: float = 0.5
    question: float = 1.0
    model_mean: float = 0.2
    model_part: float = 0.15


class LinearPosterior:
    """The posterior of the weights for M models, F features, and P features of the parts.

    Weights are ordered [1, z] shared, then [1, z[:P]] of each model, D in all. covariance (D, D) is in units of
    `NOISE`. weights (D, T): one column for each of T targets, which share the covariance.
    """

    def __init__(self, models: int, features: int, part: int, targets: int, prior: Prior) -> None:
        self.models, self.shared, self.own = models, 1 + features, 1 + min(part, features)
        spread = np.concatenate(
            [
                [prior.intercept**2],
                np.full(features, prior.question**2 / max(features, 1)),
                np.tile(_own_spread(self.own, prior), models),
            ]
        )
        self.covariance: FloatArray = np.diag(spread) / NOISE
        self.weights: FloatArray = np.zeros((len(spread), targets))
        self._first_variance: FloatArray = spread / NOISE

    def predict(self, features: FloatArray) -> FloatArray:
        """Return the expected targets (M, T) for a question with these features (F,)."""
        shared, own = self._split(features)
        mine = self.weights[self.shared :].reshape(self.models, self.own, -1)
        return np.asarray(shared @ self.weights[: self.shared] + np.einsum("mpt,p->mt", mine, own))

    def covariance_of_means(self, features: FloatArray) -> FloatArray:
        """Return the covariance (M, M) of the models' expected targets, in squared units of the target."""
        shared, own = self._split(features)
        both = shared @ self.covariance[: self.shared]
        cross = both[self.shared :].reshape(self.models, self.own) @ own
        parts = self.covariance[self.shared :, self.shared :].reshape(-1, self.own) @ own
        parts = np.einsum("mpn,p->mn", parts.reshape(self.models, self.own, self.models), own)
        return np.asarray(NOISE * (both[: self.shared] @ shared + cross[:, None] + cross[None, :] + parts))

    def update(self, model: int, features: FloatArray, targets: FloatArray, *, forget: float = 1.0) -> None:
        """Take in the targets (T,) of one answer. A NaN changes no weight. `forget` is the weight of older labels."""
        shared, own = self._split(features)
        start = self.shared + model * self.own
        mine = slice(start, start + self.own)
        gain = self.covariance[:, : self.shared] @ shared + self.covariance[:, mine] @ own
        scale = 1.0 + shared @ gain[: self.shared] + own @ gain[mine]
        missed = targets - (shared @ self.weights[: self.shared] + own @ self.weights[mine])
        self.weights += np.multiply.outer(gain / scale, np.nan_to_num(missed))
        gain /= np.sqrt(scale)
        self.covariance -= np.multiply.outer(gain, gain)
        if forget < 1:  # no weight becomes less sure than at first
            most = np.sqrt(self._first_variance / np.maximum(np.diagonal(self.covariance), 1e-300))
            growth = np.minimum(forget**-0.5, most)
            self.covariance *= growth[:, None] * growth

    def shift(self, model: int, features: FloatArray, change: FloatArray) -> None:
        """Correct the targets of an earlier answer by `change` (T,). Exact where nothing is forgotten."""
        shared, own = self._split(features)
        start = self.shared + model * self.own
        gain = self.covariance[:, : self.shared] @ shared + self.covariance[:, start : start + self.own] @ own
        self.weights += np.multiply.outer(gain, np.nan_to_num(change))

    def _split(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        shared = np.empty(self.shared)
        shared[0], shared[1:] = 1.0, features
        return shared, shared[: self.own]


def _own_spread(own: int, prior: Prior) -> FloatArray:
    return np.concatenate([[prior.model_mean**2], np.full(own - 1, prior.model_part**2 / max(own - 1, 1))])
