"""ECCOS-T (a): a small network on frozen embeddings, with a quality head and a length head (ECCOS, section 4.2).

Quality is the product of a question's position and a low-rank embedding of each model; log length is regressed beside
it. Labels that the history happens to carry (`dataset`, `category`) are a third task while learning, and are never read
afterwards. One network per fold, all trained at once as one batched computation: a row's held-out prediction comes from
the network that never saw it, and new questions get the mean of all (bagging).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eccos_core.domain import Float32Array
from eccos_core.predictors.features.projection import QueryFeatures
from eccos_core.predictors.learners.training_set import Arrays, TrainingSet
from eccos_core.predictors.targets.latent import LatentTargets

MOST_DEVIATIONS = 5.0
MOST_LOG_RATIO = 4.0  # of an answer's length to the typical one
WEIGHTS = ("first", "bias", "quality", "models", "quality_bias", "length", "length_bias")


@dataclass(frozen=True, slots=True)
class MlpHeads:
    """The network and how it is trained. One prediction.

    `hidden`: width; `rank`: of the model embeddings; `epochs`: most passes, the best by held-out loss is kept.
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
        """Trains one network per fold; held out by each row's own fold."""
        deviation = training.whole.std(axis=0)
        scale = np.maximum(deviation, max(0.25 * float(np.median(deviation)), 1e-6)).astype(np.float32)
        from eccos_core.predictors.learners.mlp_training import train_mlp

        weights = train_mlp(self, training, _scaled(training.whole, scale))
        models = training.quality.shape[1]
        fitted = FittedMlpHeads(training.targets.latent_targets, scale, np.ones(models, np.float32), **weights)
        if training.targets.latent_targets.counted:
            fitted = replace(fitted, typical=1.0 + fitted.each(training.whole)[:, :, 2 * models :].mean(axis=(0, 1)))
        latent_targets = fitted.each(training.whole)
        return fitted, np.ascontiguousarray(latent_targets[training.fold, np.arange(len(training))][:, None, :])


@dataclass(frozen=True, slots=True, eq=False)
class FittedMlpHeads:
    """K networks. scale (D + 1,); first (K, D + 1, H), bias (K, H); quality (K, H, r) @ models (K, r, M) + ...

    quality_bias (K, M); length (K, H, M), length_bias (K, M): residual log tokens, whose exponential is `typical` (M,)
    on average.
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

    def each(self, whole: Float32Array) -> Float32Array:
        """(K, R, C) what every network says."""
        before = np.matmul(_scaled(whole, self.scale), self.first) + self.bias[:, None]
        hidden = before / (1 + np.exp(-np.maximum(before, -60.0)))
        logits = np.matmul(np.matmul(hidden, self.quality), self.models) + self.quality_bias[:, None]
        chances = 1 / (1 + np.exp(-np.maximum(logits, -60.0)))
        quality = np.matmul(chances - self.latent_targets.mean_quality.astype(np.float32), self._axes)
        if not self.latent_targets.counted:
            return np.asarray(quality, dtype=np.float32)
        logs = np.matmul(hidden, self.length) + self.length_bias[:, None]
        logs = np.clip(logs, -MOST_LOG_RATIO, MOST_LOG_RATIO)
        return np.concatenate([quality, logs, np.exp(logs) / self.typical - 1], axis=2, dtype=np.float32)

    @property
    def _axes(self) -> Float32Array:
        """(M, M) from quality to its latent targets."""
        return self.latent_targets.axes.T.astype(np.float32)

    def predict(self, features: QueryFeatures) -> Float32Array:
        """(R, 1, C) the mean of the networks."""
        return np.asarray(self.each(features.whole).mean(axis=0)[:, None, :])

    def arrays(self) -> Arrays:
        """The weights of all networks."""
        return {name: getattr(self, name) for name in WEIGHTS} | {"scale": self.scale, "typical": self.typical}

    @classmethod
    def of(cls, arrays: Arrays, latent_targets: LatentTargets) -> FittedMlpHeads:
        """What `arrays` described."""
        read = {name: np.asarray(arrays[name], dtype=np.float32) for name in (*WEIGHTS, "scale", "typical")}
        return cls(latent_targets, **read)


def _scaled(whole: Float32Array, scale: Float32Array) -> Float32Array:
    """Features in their own deviations; one that never varied while learning cannot run away later."""
    return np.asarray(np.clip(whole / scale, -MOST_DEVIATIONS, MOST_DEVIATIONS), dtype=np.float32)
