"""Predict with an MLP on frozen embeddings, which has a quality head and a length head (ECCOS-T, section 4.2).

The quality head is low-rank: the logit is the product of a question's embedding and a model's. The length head predicts
the log of the output tokens. Labels of the history (`dataset`, `category`) are auxiliary tasks in training only.

One network is trained per fold, all in one batched computation. A row's held-out prediction comes from the network
that did not train on it. A new question gets the mean of all networks (bagging).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.predictors.features.projection import QueryFeatures
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet
from eccos_core.predictors.targets.latent import LatentTargets

MAX_DEVIATIONS = 5.0  # features are clipped to this many standard deviations
MAX_LOG_RATIO = 4.0  # of an answer's length to the model's mean
WEIGHTS = ("first", "bias", "quality", "models", "quality_bias", "length", "length_bias")


@dataclass(frozen=True, slots=True)
class MlpHeads:
    """An MLP with quality and length heads. Makes one prediction.

    hidden: units of the hidden layer. rank: dimensions of the model embeddings. epochs: maximum; the epoch with the
    least held-out loss is kept. batch: rows. patience: epochs without improvement before training stops.
    """

    hidden: int = 128
    rank: int = 12
    epochs: int = 20
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    input_dropout: float = 0.5
    dropout: float = 0.3
    patience: int = 4
    name: str = "trained"

    def fit(self, training: TrainingSet) -> tuple[FittedMlpHeads, Float32Array]:
        """Train one network per fold. A held-out prediction comes from the network of the row's own fold."""
        deviation = training.features.std(axis=0)
        scale = np.maximum(deviation, max(0.25 * float(np.median(deviation)), 1e-6)).astype(np.float32)
        from eccos_core.predictors.learners.mlp_training import train_mlp

        weights = train_mlp(self, training, _standardize(training.features, scale))
        models = training.quality.shape[1]
        fitted = FittedMlpHeads(training.targets.latent_targets, scale, np.ones(models, np.float32), **weights)
        if training.targets.latent_targets.counted:
            ratios = fitted.predict_each(training.features)[:, :, 2 * models :]
            fitted = replace(fitted, typical=1.0 + ratios.mean(axis=(0, 1)))
        predictions = fitted.predict_each(training.features)
        return fitted, np.ascontiguousarray(predictions[training.fold, np.arange(len(training))][:, None, :])


@dataclass(frozen=True, slots=True, eq=False)
class FittedMlpHeads:
    """K networks.

    scale (D + 1,): of the inputs. Hidden layer: first (K, D + 1, H), bias (K, H). Quality head: quality (K, H, r),
    models (K, r, M), quality_bias (K, M). Length head: length (K, H, M), length_bias (K, M), which predict the
    deviation from the mean log tokens. typical (M,): the mean of that deviation's exponential on the history.
    """

    latent_targets: LatentTargets
    scale: Float32Array
    typical: Float32Array
    first: Float32Array
    bias: Float32Array
    quality: Float32Array
    models: Float32Array
    quality_bias: Float32Array
    length: Float32Array
    length_bias: Float32Array

    def predict_each(self, features: Float32Array) -> Float32Array:
        """Return the predictions of every network, (K, R, C)."""
        before = np.matmul(_standardize(features, self.scale), self.first) + self.bias[:, None]
        hidden = before / (1 + np.exp(-np.maximum(before, -60.0)))
        logits = np.matmul(np.matmul(hidden, self.quality), self.models) + self.quality_bias[:, None]
        probability = 1 / (1 + np.exp(-np.maximum(logits, -60.0)))
        quality = np.matmul(probability - self.latent_targets.mean_quality.astype(np.float32), self._axes)
        if not self.latent_targets.counted:
            return np.asarray(quality, dtype=np.float32)
        logs = np.matmul(hidden, self.length) + self.length_bias[:, None]
        logs = np.clip(logs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        return np.concatenate([quality, logs, np.exp(logs) / self.typical - 1], axis=2, dtype=np.float32)

    @property
    def _axes(self) -> Float32Array:
        """The rotation (M, M) from quality to its latent targets."""
        return self.latent_targets.axes.T.astype(np.float32)

    def predict(self, query: QueryFeatures) -> Float32Array:
        """Return the mean of the networks, (R, 1, C)."""
        return np.asarray(self.predict_each(query.features).mean(axis=0)[:, None, :])

    def to_arrays(self) -> Arrays:
        """Return what an artifact stores."""
        return {name: getattr(self, name) for name in WEIGHTS} | {"scale": self.scale, "typical": self.typical}

    @classmethod
    def from_arrays(cls, arrays: Arrays, latent_targets: LatentTargets) -> FittedMlpHeads:
        """Rebuild from `to_arrays`, and the latent targets of the same predictor."""
        weights = {name: np.asarray(arrays[name], dtype=np.float32) for name in (*WEIGHTS, "scale", "typical")}
        return cls(latent_targets, **weights)


def _standardize(features: Float32Array, scale: Float32Array) -> Float32Array:
    """Divide the features (R, D + 1) by their scale, and clip them.

    A feature that was constant in training has a tiny scale, and could otherwise become huge later.
    """
    return np.asarray(np.clip(features / scale, -MAX_DEVIATIONS, MAX_DEVIATIONS), dtype=np.float32)
