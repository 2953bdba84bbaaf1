"""Weigh the predictions of base learners into one, for each latent target.

Held-out predictions are regressed on the latent target with weights >= 0 (Breiman 1996, "Stacked regressions"). The
weights shrink towards one common weight. A short history can estimate that one, even if it cannot rank the learners.
If no learner can predict a target, the common weight is small. This shrinkage counters the winner's curse.

One of several learners may shrink its own prediction (`kernel`, a posterior mean). A second stack then starts from
that prediction, with a little of each other one, and learns how far to move. The result is the mean of both stacks.
The second stack is better with few outcomes, the first with many (docs/design/predictor.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import Float32Array, FloatArray
from eccos_core.io.optional import needs_extra

# Ridge penalties, in pseudo-rows of the latent target's variance.
COMMON_PENALTY = 20.0  # shrinks the common weight towards zero
PENALTY = 100.0  # shrinks each weight towards the common weight
ANCHORED_PENALTY = 300.0  # shrinks each weight of the second stack towards its start
OTHER_WEIGHT = 0.125  # start of each learner in the second stack, except the one that shrinks its own prediction
OTHERS_WEIGHT = 0.375  # the most that these may have together


@dataclass(frozen=True, slots=True, eq=False)
class StackingWeights:
    """The weight of each prediction: weights (L, C) >= 0, of prediction l for latent target c."""

    weights: Float32Array

    def combine(self, predictions: Float32Array) -> Float32Array:
        """Return the weighted sum (R, C) of predictions (R, L, C)."""
        return np.asarray(np.einsum("rlc,lc->rc", predictions, self.weights), dtype=np.float32)

    def scale(self, factors: FloatArray) -> StackingWeights:
        """Return weights whose weighted sums are `factors` (C,) times as large."""
        return StackingWeights((self.weights * factors).astype(np.float32))


def fit_stacking_weights(
    held_out: Sequence[Float32Array], values: FloatArray, self_shrinking: int | None = None
) -> StackingWeights:
    """Fit the weights of the held-out predictions (N, L_k, C) of each learner k, on values (N, C).

    self_shrinking: the learner that shrinks its own prediction. None if there is none.
    """
    free = _free_weights(np.concatenate(held_out, axis=1), values)
    if self_shrinking is None:
        return StackingWeights(free.astype(np.float32))
    sizes = [predictions.shape[1] for predictions in held_out]
    means = np.stack([predictions.mean(axis=1) for predictions in held_out], axis=1)
    anchored = _anchored_weights(means, values, self_shrinking) / np.array(sizes)[:, None]
    return StackingWeights((0.5 * free + 0.5 * np.repeat(anchored, sizes, axis=0)).astype(np.float32))


def _free_weights(predictions: Float32Array, values: FloatArray) -> FloatArray:
    """Return weights (L, C) of predictions (N, L, C), shrunk towards a fitted common weight."""
    rows, count, latent_targets = predictions.shape
    weights = np.zeros((count, latent_targets))
    if rows < 2:
        return weights
    for target in range(latent_targets):
        inputs, outputs = predictions[:, :, target].astype(np.float64), values[:, target]
        mean = inputs.mean(axis=1)
        common = float(mean @ outputs) / (float(mean @ mean) + COMMON_PENALTY * _variance(outputs))
        weights[:, target] = _fit_shrunk(inputs, outputs, np.full(count, max(0.0, common) / count), PENALTY)
    return weights


def _anchored_weights(predictions: Float32Array, values: FloatArray, self_shrinking: int) -> FloatArray:
    """Return weights (K, C) of one prediction for each learner (N, K, C), shrunk towards the self-shrinking one."""
    count = predictions.shape[1]
    others = count - 1
    start = np.full(count, min(OTHER_WEIGHT, OTHERS_WEIGHT / max(others, 1)))
    start[self_shrinking] = 1 - start[0] * others
    columns = [
        _fit_shrunk(predictions[:, :, target].astype(np.float64), values[:, target], start, ANCHORED_PENALTY)
        for target in range(values.shape[1])
    ]
    return np.stack(columns, axis=1)


def _fit_shrunk(inputs: FloatArray, outputs: FloatArray, start: FloatArray, penalty: float) -> FloatArray:
    """Return weights (L,) >= 0 of inputs (N, L) on outputs (N,), shrunk towards start (L,) by a ridge penalty."""
    with needs_extra("local", "fitting a predictor"):
        from scipy.optimize import nnls

    root = np.sqrt(penalty * _variance(outputs))
    weights, _ = nnls(np.concatenate([inputs, root * np.eye(len(start))]), np.concatenate([outputs, root * start]))
    return np.asarray(weights)


def _variance(values: FloatArray) -> float:
    return max(float(values.var()), 1e-12)
