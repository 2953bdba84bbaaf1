"""Predict quality and length by Gaussian process regression.

The covariance of two questions is a Gaussian kernel of their distance, plus a smaller one of how their texts look. It
uses at most 1,200 landmarks drawn from the history (Nyström, Williams and Seeger 2001). The signal-to-noise ratio and
the kernel width are not chosen. They are averaged, each weighted by its evidence (Rasmussen and Williams 2006, ch. 5).
Latent targets of one kind share a prior over both.

If the text cannot predict a latent target, the evidence favours ratio zero and the model falls back to the mean. This
shrinkage counters the winner's curse, with a hundred questions as with ten thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray, IntArray
from eccos_core.predictors.features.projection import QueryFeatures, row_blocks, squared_distances
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet

LANDMARKS = 1200
WIDTHS = (0.5, 1.0, 2.0)  # half the exponent at the typical squared distance of two questions
SURFACE_SHARE = 0.3  # of the kernel of how texts look, beside 1
# Variance of the signal over the variance of the noise.
SIGNAL_TO_NOISE_GRID = np.concatenate([[0.0], np.exp(np.linspace(-2.0, 10.0, 37))])
PRIOR_FLOOR = 1e-4  # least chance that a strength nobody of its kind has found still has
LEAST_SHARE = 0.02  # widths of less evidence than this for every latent target are left out
_JITTER = 1e-6
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """Gaussian process regression: one prediction, averaged over `widths` and strengths."""

    widths: Sequence[float] = WIDTHS
    landmarks: int = LANDMARKS
    name: str = "kernel"

    def fit(self, training: TrainingSet) -> tuple[FittedGaussianProcess, Float32Array]:
        """The posterior mean; held out by leaving each row out, which a linear smoother allows in closed form."""
        draw = np.random.default_rng(training.seed)
        chosen = np.sort(draw.choice(len(training), min(self.landmarks, len(training)), replace=False))
        surface = training.whole[:, training.surface]
        squared = squared_distances(training.points, training.points[chosen])
        squared_looks = squared_distances(surface, surface[chosen])
        rates = np.array([2 * width for width in self.widths]) / _typical(squared)
        surface_rate = 1.0 / _typical(squared_looks)
        looks = np.float32(SURFACE_SHARE) * np.exp(np.float32(-surface_rate) * squared_looks)
        values = training.targets.values
        found = [_Regression.of(np.exp(np.float32(-rate) * squared) + looks, chosen, values) for rate in rates]
        shares = _shares(np.stack([each.evidence for each in found]), training.targets.latent_targets.group)
        kept = [at for at in range(len(found)) if shares[at].sum(axis=0).max() >= LEAST_SHARE]
        learnt = [found[at].posterior(shares[at], values) for at in kept]
        weights = [weights for weights, _, _ in learnt]
        fitted = FittedGaussianProcess(
            landmarks=chosen,
            rates=rates[kept],
            weights=np.stack(weights).astype(np.float32),
            surface=training.surface,
            surface_rate=float(surface_rate),
            surface_landmarks=np.ascontiguousarray(surface[chosen]),
            surface_weights=(SURFACE_SHARE * np.sum(weights, axis=0)).astype(np.float32),
            offset=np.sum([offset for _, offset, _ in learnt], axis=0).astype(np.float32),
        )
        held_out = np.sum([prediction for _, _, prediction in learnt], axis=0)
        return fitted, held_out.astype(np.float32)[:, None, :]


def _typical(squared: Float32Array) -> float:
    """The median squared distance of two different questions."""
    apart = squared[squared > 0]
    return max(float(np.median(apart)), _LEAST) if len(apart) else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Regression:
    """One width. features (N, P), centred, whose products are the covariance; eigenvalues (P,) and directions (P, P) of
    their Gram matrix; scores (P, C) of the values along them; evidence (S, C): log marginal likelihood by strength,
    beyond that of strength zero."""

    whitening: FloatArray
    middle: FloatArray
    features: Float32Array
    eigenvalues: FloatArray
    directions: FloatArray
    scores: FloatArray
    evidence: FloatArray

    @classmethod
    def of(cls, covariance: Float32Array, landmarks: IntArray, values: FloatArray) -> _Regression:
        own = covariance[landmarks].astype(np.float64)
        spread, axes = np.linalg.eigh(own + _JITTER * np.trace(own) / len(own) * np.eye(len(own)))
        whitening = axes / np.sqrt(np.maximum(spread, _LEAST * spread.max()))
        features = covariance @ whitening.astype(np.float32)
        middle = features.mean(axis=0)
        features -= middle
        eigenvalues, directions = np.linalg.eigh((features.T @ features).astype(np.float64))
        eigenvalues = np.maximum(eigenvalues, _LEAST * max(eigenvalues.max(), _LEAST))
        scores = (directions.T @ (features.T @ values)) / np.sqrt(eigenvalues)[:, None]
        evidence = _evidence(eigenvalues / len(values), scores, values)
        return cls(whitening, middle.astype(np.float64), features, eigenvalues, directions, scores, evidence)

    def posterior(self, share: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(weights (P, C) of the landmarks, offset (C,), held-out predictions (N, C)), all times this width's share.

        share (S, C): how much each strength counts. A row's own part in its forecast, H, is taken out:
        (fit - H y) / (1 - H).
        """
        ratio = SIGNAL_TO_NOISE_GRID[:, None] * self.eigenvalues / len(values)
        shrunk = (ratio / (1 + ratio)).T @ share  # (P, C)
        turned = self.directions / np.sqrt(self.eigenvalues)
        along = self.features @ turned.astype(
            np.float32
        )  # (N, P): single precision halves the memory of a long history
        total = np.maximum(share.sum(axis=0), 1e-12)
        fit = along @ (shrunk * self.scores).astype(np.float32) / total
        own = np.square(along, out=along) @ shrunk.astype(np.float32) / total
        held_out = total * (fit - own * values) / np.maximum(1 - own, 1e-3)
        weights = turned @ (shrunk * self.scores)
        return self.whitening @ weights, self.middle @ weights, held_out


def _evidence(eigenvalues: FloatArray, scores: FloatArray, values: FloatArray) -> FloatArray:
    """(S, C) log marginal likelihood of values (N, C) by strength, the noise integrated out, beyond strength zero."""
    rows, squares = len(values), scores**2
    beyond = np.maximum((values**2).sum(axis=0) - squares.sum(axis=0), 0.0)
    stretch = 1 + SIGNAL_TO_NOISE_GRID[:, None] * eigenvalues  # (S, P)
    noise = np.maximum((1 / stretch) @ squares + beyond, 1e-12)
    likelihood = -0.5 * rows * np.log(noise) - 0.5 * np.log(stretch).sum(axis=1)[:, None]
    return np.asarray(likelihood - likelihood[0])


def _shares(evidence: FloatArray, group: IntArray) -> FloatArray:
    """(W, S, C) how much each width and strength counts for each latent target, summing to one.

    Latent targets of one group (C,) share a prior: the mean of their separate posteriors (empirical Bayes).
    """
    normalised = _normalised(evidence)
    prior = np.empty_like(evidence)
    for each in np.unique(group):
        found = normalised[:, :, group == each].mean(axis=2)
        prior[:, :, group == each] = np.log(found + PRIOR_FLOOR / found.size)[:, :, None]
    return _normalised(evidence + prior)


def _normalised(logs: FloatArray) -> FloatArray:
    """exp, summing to one over the first two axes."""
    raised = np.exp(logs - logs.max(axis=(0, 1)))
    return np.asarray(raised / raised.sum(axis=(0, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class FittedGaussianProcess:
    """landmarks (P,): rows of the history; rates (L,), weights (L, P, C); offset (C,).

    surface: columns of the whole features that tell how a text looks; surface_landmarks (P, K), surface_weights (P, C).
    """

    landmarks: IntArray
    rates: FloatArray
    weights: Float32Array
    surface: IntArray
    surface_rate: float
    surface_landmarks: Float32Array
    surface_weights: Float32Array
    offset: Float32Array

    def predict(self, features: QueryFeatures) -> Float32Array:
        """(R, 1, C) the posterior mean."""
        result = np.empty((len(features.points), 1, len(self.offset)), dtype=np.float32)
        for rows in row_blocks(len(features.points)):
            squared = features.squared_distance[rows].take(self.landmarks, axis=1)
            looks = squared_distances(features.whole[rows][:, self.surface], self.surface_landmarks)
            looks *= np.float32(-self.surface_rate)
            total = np.exp(looks, out=looks) @ self.surface_weights - self.offset
            for rate, weights in zip(self.rates, self.weights, strict=True):
                total += np.exp(np.float32(-rate) * squared) @ weights
            result[rows, 0] = total
        return result

    def arrays(self) -> Arrays:
        """Landmarks and weights."""
        return {
            "landmarks": self.landmarks,
            "rates": self.rates,
            "weights": self.weights,
            "surface": self.surface,
            "surface_rate": np.array([self.surface_rate]),
            "surface_landmarks": self.surface_landmarks,
            "surface_weights": self.surface_weights,
            "offset": self.offset,
        }

    @classmethod
    def of(cls, arrays: Arrays) -> FittedGaussianProcess:
        """What `arrays` described."""
        return cls(
            np.asarray(arrays["landmarks"], dtype=np.int64),
            np.asarray(arrays["rates"], dtype=np.float64),
            np.asarray(arrays["weights"], dtype=np.float32),
            np.asarray(arrays["surface"], dtype=np.int64),
            float(arrays["surface_rate"][0]),
            np.asarray(arrays["surface_landmarks"], dtype=np.float32),
            np.asarray(arrays["surface_weights"], dtype=np.float32),
            np.asarray(arrays["offset"], dtype=np.float32),
        )
