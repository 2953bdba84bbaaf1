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

PRIOR_WEIGHT = 2.0  # the first guess of a prior variance counts as so many weights
NOISE_WEIGHT = 20.0  # the first guess of the noise counts as so many labels
BLOCK = 128  # rows of the covariance that are changed at once: they stay in the processor's cache
ROUNDS = 10  # of expectation maximisation in one fit of the prior


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior standard deviations, in units of quality. `question` and `part` are for a typical question (|z| = 1).

    noise: variance of a label around its mean. 0.2 is that of a right-or-wrong answer with probability .7.
    """

    intercept: float = 0.5
    question: float = 1.0
    model_mean: float = 0.2
    model_part: float = 0.15
    noise: float = 0.2


class LinearPosterior:
    """The posterior of the weights for M models, F features, and P features of the parts.

    Weights (D,) are ordered [1, z] shared, then [1, z[:P]] of each model. covariance (D, D) is in units of the noise.
    `prior` is the first guess, until `fit_prior` replaces it.
    """

    def __init__(self, models: int, features: int, part: int, prior: Prior) -> None:
        self.models, self.shared, self.own = models, 1 + features, 1 + min(part, features)
        self.prior, self._first_guess = prior, prior
        size = self.shared + models * self.own
        self.weights: FloatArray = np.zeros(size)
        self._gram, self._moment = np.zeros((size, size)), np.zeros(size)  # sums of x x' and x y over the labels
        self._square = self._count = 0.0  # sums of y y and 1
        self._first_variance = self._prior_variance()
        self.covariance: FloatArray = np.diag(self._first_variance)

    def predict(self, features: FloatArray) -> FloatArray:
        """Return the expected targets (M,) for a question with these features (F,)."""
        shared, own = self._split(features)
        mine = self.weights[self.shared :].reshape(self.models, self.own)
        return np.asarray(shared @ self.weights[: self.shared] + mine @ own)

    def covariance_of_means(self, features: FloatArray) -> FloatArray:
        """Return the covariance (M, M) of the models' expected targets, in squared units of the target."""
        shared, own = self._split(features)
        rows = self.covariance[self.shared :].reshape(self.models, self.own, -1)
        mine = np.matmul(own, rows)  # (M, D): of the models' own parts with all weights
        parts = mine[:, self.shared :].reshape(self.models, self.models, self.own) @ own
        cross = mine[:, : self.shared] @ shared
        common = shared @ (self.covariance[: self.shared, : self.shared] @ shared)
        return np.asarray(self.prior.noise * (common + cross[:, None] + cross[None, :] + parts))

    def update(self, model: int, features: FloatArray, target: float, *, forget: float = 1.0) -> None:
        """Take in the target of one answer. `forget` is the weight of older labels."""
        shared, own = self._split(features)
        mine = self._mine(model)
        gain = shared @ self.covariance[: self.shared] + own @ self.covariance[mine]
        scale = 1.0 + shared @ gain[: self.shared] + own @ gain[mine]
        missed = target - (shared @ self.weights[: self.shared] + own @ self.weights[mine])
        self.weights += gain * (missed / scale)
        scaled = gain / scale
        for start in range(0, len(gain), BLOCK):
            self.covariance[start : start + BLOCK] -= np.multiply.outer(gain[start : start + BLOCK], scaled)
        if forget < 1:  # no weight becomes less sure than at first
            most = np.sqrt(self._first_variance / np.maximum(np.diagonal(self.covariance), 1e-300))
            growth = np.minimum(forget**-0.5, most)
            self.covariance *= growth[:, None] * growth
            for kept in (self._gram, self._moment):
                kept *= forget
            self._square, self._count = forget * self._square, forget * self._count
        self._count_label(mine, shared, own, target)

    def shift(self, model: int, features: FloatArray, before: float, after: float) -> None:
        """Correct the target of an earlier answer. Exact where nothing is forgotten."""
        shared, own = self._split(features)
        mine, change = self._mine(model), after - before
        self.weights += change * (self.covariance[:, : self.shared] @ shared + self.covariance[:, mine] @ own)
        self._moment[: self.shared] += change * shared
        self._moment[mine] += change * own
        self._square += after**2 - before**2

    def fit_prior(self) -> None:
        """Fit the prior variances and the noise to all labels so far, and the posterior to them.

        Expectation maximisation of the marginal likelihood (empirical Bayes; Bishop 2006, section 9.3.4). The first
        guess keeps a small weight. The intercept's variance stays.
        """
        groups, units = self._groups(), self._units()
        prior, first = self.prior, self._first_guess
        guesses = (first.question, first.model_mean, first.model_part)
        for _ in range(ROUNDS):
            self._solve(prior)
            second = (self.weights**2 + prior.noise * np.diagonal(self.covariance)) / units
            spread = [_spread(second[groups == group], guess) for group, guess in enumerate(guesses, 1)]
            left = self._square - 2 * self.weights @ self._moment + self.weights @ self._gram @ self.weights
            left += prior.noise * np.sum(self._gram * self.covariance)
            noise = (max(float(left), 0.0) + NOISE_WEIGHT * first.noise) / (self._count + NOISE_WEIGHT)
            question, model_mean, model_part = spread
            prior = Prior(first.intercept, question, model_mean, model_part, noise)
        self._solve(prior)

    def _solve(self, prior: Prior) -> None:
        """Compute the posterior anew from the sums over all labels."""
        self.prior = prior
        self._first_variance = self._prior_variance()
        precision = self._gram.copy()
        precision[np.diag_indices_from(precision)] += 1.0 / self._first_variance
        self.covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        self.weights = self.covariance @ self._moment

    def _count_label(self, mine: slice, shared: FloatArray, own: FloatArray, target: float) -> None:
        cross = np.multiply.outer(shared, own)
        self._gram[: self.shared, : self.shared] += np.multiply.outer(shared, shared)
        self._gram[: self.shared, mine] += cross
        self._gram[mine, : self.shared] += cross.T
        self._gram[mine, mine] += np.multiply.outer(own, own)
        self._moment[: self.shared] += target * shared
        self._moment[mine] += target * own
        self._square += target**2
        self._count += 1.0

    def _mine(self, model: int) -> slice:
        start = self.shared + model * self.own
        return slice(start, start + self.own)

    def _split(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        shared = np.empty(self.shared)
        shared[0], shared[1:] = 1.0, features
        return shared, shared[: self.own]

    def _groups(self) -> FloatArray:
        """Return which prior each weight (D,) has: 0 the intercept's, 1 question, 2 model mean, 3 model part."""
        mine = np.concatenate([[2], np.full(self.own - 1, 3)])
        return np.concatenate([[0], np.full(self.shared - 1, 1), np.tile(mine, self.models)])

    def _units(self) -> FloatArray:
        """Return each weight's (D,) share of the variance of its prior."""
        mine = np.concatenate([[1.0], np.full(self.own - 1, 1.0 / max(self.own - 1, 1))])
        question = np.full(self.shared - 1, 1.0 / max(self.shared - 1, 1))
        return np.concatenate([[1.0], question, np.tile(mine, self.models)])

    def _prior_variance(self) -> FloatArray:
        """Return the prior variance of each weight (D,), in units of the noise."""
        prior = self.prior
        spread = np.array([prior.intercept, prior.question, prior.model_mean, prior.model_part])
        return np.asarray(spread[self._groups()] ** 2 * self._units() / prior.noise)


def _spread(second_moments: FloatArray, guess: float) -> float:
    """Return the standard deviation of weights with these second moments, and with the first guess."""
    total = second_moments.sum() + PRIOR_WEIGHT * guess**2
    return float(np.sqrt(total / (len(second_moments) + PRIOR_WEIGHT)))
