"""Settings of fine-tuning, the format of its folder, and the buckets of its length head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.predictors.targets.prior import TYPICAL_OUTPUT_TOKENS

Progress = Callable[[int, int, float], None]  # steps done, steps in all, loss of the last step
FORMAT, VERSION = "eccos-fine-tuned", 1


@dataclass(frozen=True, slots=True)
class FineTuning:
    """How the encoder is trained.

    `warmup`: share of all steps in which the learning rate rises. `validation_share`: questions that are not trained
    on. `patience`: epochs without a lower validation loss after which training stops. `device`: auto, cpu, cuda.
    """

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    max_tokens: int = 256
    rank: int = 16
    buckets: int = 12
    length_weight: float = 0.2
    validation_share: float = 0.1
    patience: int = 1
    device: str = "auto"
    seed: int = 0


def bucket_edges(output_tokens: FloatArray, buckets: int) -> FloatArray:
    """Return (K - 1,) log tokens that split the known counts into K buckets of about equal size, fewer on ties."""
    known = np.log1p(output_tokens[~np.isnan(output_tokens)])
    if not len(known):
        return np.empty(0)
    return np.unique(np.quantile(known, np.arange(1, buckets) / buckets))


def bucket_tokens(output_tokens: FloatArray, edges: FloatArray) -> Float32Array:
    """Return (M, K) mean tokens of each model in each bucket, or the pool's mean of the bucket where it has none."""
    known = ~np.isnan(output_tokens)
    if not known.any():
        return np.full((output_tokens.shape[1], 1), TYPICAL_OUTPUT_TOKENS, dtype=np.float32)
    bucket = np.searchsorted(edges, np.log1p(np.where(known, output_tokens, 0.0)))
    result = np.empty((output_tokens.shape[1], len(edges) + 1), dtype=np.float32)
    for k in range(len(edges) + 1):
        inside = known & (bucket == k)
        pooled = output_tokens[inside].mean() if inside.any() else float(np.expm1(edges[min(k, len(edges) - 1)]))
        for model in range(output_tokens.shape[1]):
            own = output_tokens[inside[:, model], model]
            result[model, k] = own.mean() if len(own) else pooled
    return result
