"""Predict quality and length by Gaussian process regression.

The covariance of two questions is a Gaussian kernel of their distance, plus a smaller kernel of their surface features.
It is computed at the landmarks of the history (Nyström, Williams and Seeger 2001).

Two hyperparameters are integrated out: the signal-to-noise ratio and the bandwidth. Predictions at each grid point are
averaged, weighted by their evidence (Rasmussen and Williams 2006, ch. 5). Latent targets of one group share a prior.

If the text cannot predict a latent target, the evidence favours ratio zero and the model falls back to the mean. This
shrinkage counters the winner's curse, with a hundred questions as with ten thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.features.projection import QueryFeatures, ReferencePoints, row_blocks, squared_distances
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

EXPONENTS = (1.0, 2.0, 4.0)  # a kernel has fallen to exp(-exponent) at the median squared distance of two questions
SURFACE_VARIANCE = 0.3  # of the surface kernel, against 1 for the kernel of the distance
# Signal variance over noise variance. At 0 the prediction is the mean.
SIGNAL_TO_NOISE_GRID = np.concatenate([[0.0], np.exp(np.linspace(-2.0, 10.0, 37))])
PRIOR_FLOOR = 1e-4  # prior mass spread evenly over the grid, so that no point is excluded
MIN_WEIGHT = 0.02  # a bandwidth with less posterior weight than this for every latent target is dropped
_JITTER = 1e-6
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """Gaussian process regression. Makes one prediction, averaged over bandwidths and signal-to-noise ratios.

    exponents: one for each bandwidth. See `EXPONENTS`.
    """

    exponents: Sequence[float] = EXPONENTS
    name: str = "kernel"

    def fit(self, training: TrainingSet) -> tuple[FittedGaussianProcess, Float32Array]:
        """Fit the posterior mean. The held-out predictions leave one row out, in closed form for a linear smoother."""
        surface, chosen = training.features[:, training.surface], training.landmarks
        squared = squared_distances(training.points, training.points[chosen])
        surface_squared = squared_distances(surface, surface[chosen])
        rates = np.array(self.exponents) / _median_distance(squared)
        surface_rate = 1.0 / _median_distance(surface_squared)
        surface_kernel = np.float32(SURFACE_VARIANCE) * np.exp(np.float32(-surface_rate) * surface_squared)
        values = training.targets.values
        regressions = [
            _NystromRegression.fit(np.exp(np.float32(-rate) * squared) + surface_kernel, chosen, values)
            for rate in rates
        ]
        posterior = _posterior_over_grid(
            np.stack([each.evidence for each in regressions]), training.targets.latent_targets.group
        )
        kept = [at for at in range(len(regressions)) if posterior[at].sum(axis=0).max() >= MIN_WEIGHT]
        averaged = [regressions[at].average(posterior[at], values) for at in kept]
        weights = [weights for weights, _, _ in averaged]
        fitted = FittedGaussianProcess(
            rates=rates[kept],
            weights=np.stack(weights).astype(np.float32),
            surface=training.surface,
            surface_rate=float(surface_rate),
            surface_landmarks=ReferencePoints(np.ascontiguousarray(surface[chosen])),
            surface_weights=(SURFACE_VARIANCE * np.sum(weights, axis=0)).astype(np.float32),
            offset=np.sum([offset for _, offset, _ in averaged], axis=0).astype(np.float32),
        )
        held_out = np.sum([prediction for _, _, prediction in averaged], axis=0)
        return fitted, held_out.astype(np.float32)[:, None, :]


def _median_distance(squared: Float32Array) -> float:
    """Return the median squared distance of two different questions."""
    apart = squared[squared > 0]
    return max(float(np.median(apart)), _EPSILON) if len(apart) else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _NystromRegression:
    """Bayesian linear regression on the Nyström features of one kernel.

    whitening (P, P): maps covariances with the landmarks to features. features (N, P): centred, and their products are
    the covariance. mean (P,): what was subtracted. eigenvalues (P,), directions (P, P): of the Gram matrix of the
    features. scores (P, C): values along the directions. evidence (S, C): log marginal likelihood at each
    signal-to-noise ratio, less that at ratio zero.
    """

    whitening: FloatArray
    mean: FloatArray
    features: Float32Array
    eigenvalues: FloatArray
    directions: FloatArray
    scores: FloatArray
    evidence: FloatArray

    @classmethod
    def fit(cls, covariance: Float32Array, landmarks: IntArray, values: FloatArray) -> _NystromRegression:
        """Fit on the covariance (N, P) of all rows with the landmarks (P,), and values (N, C)."""
        between = covariance[landmarks].astype(np.float64)
        spectrum, axes = np.linalg.eigh(between + _JITTER * np.trace(between) / len(between) * np.eye(len(between)))
        whitening = axes / np.sqrt(np.maximum(spectrum, _EPSILON * spectrum.max()))
        features = covariance @ whitening.astype(np.float32)
        mean = features.mean(axis=0)
        features -= mean
        eigenvalues, directions = np.linalg.eigh((features.T @ features).astype(np.float64))
        eigenvalues = np.maximum(eigenvalues, _EPSILON * max(eigenvalues.max(), _EPSILON))
        scores = (directions.T @ (features.T @ values)) / np.sqrt(eigenvalues)[:, None]
        evidence = _log_evidence(eigenvalues / len(values), scores, values)
        return cls(whitening, mean.astype(np.float64), features, eigenvalues, directions, scores, evidence)

    def average(self, posterior: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Average over the signal-to-noise ratios, with the posterior weights (S, C) of this kernel.

        Returns the weights of the landmarks (P, C), the offset (C,), and the held-out predictions (N, C). All three
        carry the kernel's total weight. With H the leverage of a row, its held-out prediction is (fit - H y) / (1 - H).
        """
        ratio = SIGNAL_TO_NOISE_GRID[:, None] * self.eigenvalues / len(values)
        shrinkage = (ratio / (1 + ratio)).T @ posterior  # (P, C)
        unit_directions = self.directions / np.sqrt(self.eigenvalues)
        # (N, P), in single precision, which halves the memory of a long history
        components = self.features @ unit_directions.astype(np.float32)
        total = np.maximum(posterior.sum(axis=0), 1e-12)
        fit = components @ (shrinkage * self.scores).astype(np.float32) / total
        leverage = np.square(components, out=components) @ shrinkage.astype(np.float32) / total
        held_out = total * (fit - leverage * values) / np.maximum(1 - leverage, 1e-3)
        weights = unit_directions @ (shrinkage * self.scores)
        return self.whitening @ weights, self.mean @ weights, held_out


def _log_evidence(eigenvalues: FloatArray, scores: FloatArray, values: FloatArray) -> FloatArray:
    """Return the log marginal likelihood (S, C) of values (N, C) by signal-to-noise ratio, less that at ratio zero.

    The noise variance is integrated out. eigenvalues (P,): of the features' covariance. scores (P, C).
    """
    rows, squares = len(values), scores**2
    residual = np.maximum((values**2).sum(axis=0) - squares.sum(axis=0), 0.0)
    variance = 1 + SIGNAL_TO_NOISE_GRID[:, None] * eigenvalues  # (S, P), over the noise variance
    noise = np.maximum((1 / variance) @ squares + residual, 1e-12)
    likelihood = -0.5 * rows * np.log(noise) - 0.5 * np.log(variance).sum(axis=1)[:, None]
    return np.asarray(likelihood - likelihood[0])


def _posterior_over_grid(evidence: FloatArray, group: IntArray) -> FloatArray:
    """Return the posterior (W, S, C) of each latent target over bandwidths and signal-to-noise ratios.

    Latent targets of one group (C,) share a prior: the mean of their separate posteriors (empirical Bayes).
    """
    normalised = _softmax(evidence)
    prior = np.empty_like(evidence)
    for each in np.unique(group):
        mean = normalised[:, :, group == each].mean(axis=2)
        prior[:, :, group == each] = np.log(mean + PRIOR_FLOOR / mean.size)[:, :, None]
    return _softmax(evidence + prior)


def _softmax(logs: FloatArray) -> FloatArray:
    """Return the softmax of logs (W, S, C) over the first two axes."""
    raised = np.exp(logs - logs.max(axis=(0, 1)))
    return np.asarray(raised / raised.sum(axis=(0, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class FittedGaussianProcess:
    """A sum of Gaussian kernels at the P landmarks.

    rates (W,): of each kernel exp(-rate x squared distance). weights (W, P, C).
    offset (C,) is subtracted. surface: the feature columns of the surface kernel, with its surface_rate,
    surface_landmarks (P, K) and surface_weights (P, C).
    """

    rates: FloatArray
    weights: Float32Array
    surface: IntArray
    surface_rate: float
    surface_landmarks: ReferencePoints
    surface_weights: Float32Array
    offset: Float32Array

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the posterior mean (R, 1, C)."""
        result = np.empty((len(query.points), 1, len(self.offset)), dtype=np.float32)
        for rows in row_blocks(len(query.points)):
            squared = query.squared_distance[rows]
            surface = self.surface_landmarks.squared_distances(query.features[rows][:, self.surface])
            surface *= np.float32(-self.surface_rate)
            total = np.exp(surface, out=surface) @ self.surface_weights - self.offset
            for rate, weights in zip(self.rates, self.weights, strict=True):
                total += np.exp(np.float32(-rate) * squared) @ weights
            result[rows, 0] = total
        return result

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {
            "rates": self.rates,
            "weights": self.weights,
            "surface": self.surface,
            "surface_rate": np.array([self.surface_rate]),
            "surface_landmarks": self.surface_landmarks.points,
            "surface_weights": self.surface_weights,
            "offset": self.offset,
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> FittedGaussianProcess:
        """Rebuild from `to_arrays`."""
        return cls(
            np.asarray(arrays["rates"], dtype=np.float64),
            np.asarray(arrays["weights"], dtype=np.float32),
            np.asarray(arrays["surface"], dtype=np.int64),
            float(arrays["surface_rate"][0]),
            ReferencePoints(np.asarray(arrays["surface_landmarks"], dtype=np.float32)),
            np.asarray(arrays["surface_weights"], dtype=np.float32),
            np.asarray(arrays["offset"], dtype=np.float32),
        )
